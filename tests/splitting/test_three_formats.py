"""The same draw from the same data in the formats of MS-COCO, YOLO and PASCAL VOC."""

from __future__ import annotations

from pathlib import Path

import msgspec
from label_formats import photos, write_coco, write_images, write_voc, write_yolo
from split_folders import FILES, content, data_bytes

from cissod_bench.annotations.label_content import Labelled
from cissod_bench.annotations.label_files import read_labels
from cissod_bench.annotations.reading import read_annotations
from cissod_bench.splitting.data_files import write_data_files
from cissod_bench.splitting.options import DrawOptions
from cissod_bench.splitting.scenarios import draw_by_minority
from cissod_bench.splitting.task import Task

TASK = Task(
    title="Harbour",
    source="tests",
    inputs={"train": "train.json"},
    images={"train": "images"},
    groups=("maj", "min"),
    draw=draw_by_minority,
    iterations=1,
    minority=("puffin",),
    cover="useful",
)


def drawn(folder: Path, labelled: Labelled) -> Path:
    """Write the labels as an annotation file, draw a split of it and write that."""
    folder.mkdir()
    (folder / "train.json").write_bytes(msgspec.json.encode(labelled.content))
    options = DrawOptions(split_seed=3, labelled_percent=20.0, min_instances=4)
    with read_annotations(folder / "train.json") as data:
        write_data_files(folder, draw_by_minority(TASK, {"train": data}, options))
    return folder


def test_the_same_data_in_three_formats_gives_the_same_split(tmp_path: Path) -> None:
    shown = photos(60)
    write_images(tmp_path / "photos", shown)
    coco = drawn(tmp_path / "1", read_labels(write_coco(tmp_path / "labels.json", shown), tmp_path / "photos"))
    yolo = drawn(tmp_path / "2", read_labels(write_yolo(tmp_path / "yolo", shown)))
    voc = drawn(tmp_path / "3", read_labels(write_voc(tmp_path / "voc", shown)))
    assert data_bytes(yolo) == data_bytes(voc)
    # A COCO file's records keep the order of their keys, and boxes their whole numbers: equal content, other bytes.
    assert [content(coco / name) for name in FILES] == [content(yolo / name) for name in FILES]
    assert len(content(yolo / "labelled.json")["images"]) > 10
