"""The same draw from the same data in the formats of MS-COCO, YOLO and PASCAL VOC."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from commands import Called
from label_formats import photos, write_coco, write_images, write_voc, write_yolo
from split_folders import FILES, content, data_bytes

from cissod_bench.annotations.label_content import Labelled
from cissod_bench.annotations.label_files import read_labels
from cissod_bench.annotations.reading import read_annotations
from cissod_bench.catalogue.task_files import find_task
from cissod_bench.errors import DataFault
from cissod_bench.looking.at_hand import Places, photos_of, split_at_hand
from cissod_bench.split_folders.ensure import SplitOnDisk, draw_options, ensure_split
from cissod_bench.splitting.data_files import write_data_files
from cissod_bench.splitting.options import DrawOptions
from cissod_bench.splitting.scenarios import draw_by_minority
from cissod_bench.splitting.task import Task

Call = Callable[..., Called]

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


HEAD = 'title = "Harbour"\nminority = ["puffin"]\nlabelled_percent = 20\nmin_instances = 4\n'
PARTS = {
    "coco": 'annotations = "coco/{}.json"\nimages = "photos"',
    "yolo": 'annotations = "yolo_{}/data.yaml"',
    "voc": 'annotations = "voc_{}"',
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data root with 60 images to draw from and 12 to score, in three formats."""
    shown = photos(72)
    write_images(tmp_path / "data" / "photos", shown)
    for part, some in (("train", shown[:60]), ("val", shown[60:])):
        write_coco(tmp_path / "data" / "coco" / f"{part}.json", some)
        write_yolo(tmp_path / "data" / f"yolo_{part}", some, part=part)
        write_voc(tmp_path / "data" / f"voc_{part}", some)
    return tmp_path / "data"


def drawn_from(data: Path, train: str, val: str, *, kind: str = "") -> SplitOnDisk:
    """Return the split of a task file that names parts in these formats, drawn into a work folder of its own."""
    text = f"{HEAD}[train]\n{PARTS[train].format('train')}\n[val]\n{PARTS[val].format('val')}\n"
    path = data.parent / "harbour.toml"
    path.write_text(text, encoding="utf-8")
    task = find_task(str(path))
    return ensure_split(task, data, data.parent / f"work-{kind or train}-{val}", draw_options(task, split_seed=3))


def test_a_task_file_draws_the_same_from_each_of_the_formats(data: Path) -> None:
    coco, yolo, voc, mixed = (
        drawn_from(data, *kinds) for kinds in (("coco", "coco"), ("yolo", "yolo"), ("voc", "voc"), ("yolo", "coco"))
    )
    assert data_bytes(yolo.folder) == data_bytes(voc.folder) == data_bytes(mixed.folder)
    assert [content(coco.folder / name) for name in FILES] == [content(yolo.folder / name) for name in FILES]
    for split in (coco, yolo, voc):
        assert split.manifest.counts["labelled"] > 10
        assert split.manifest.boxes.hidden > 50
        assert split.manifest.groups == {"maj": ["boat", "seal"], "min": ["puffin"]}
        assert split.manifest.left_out == coco.manifest.left_out


def test_what_is_written_of_other_formats_is_found_by_the_commands_that_read_a_split(data: Path, call: Call) -> None:
    split = drawn_from(data, "yolo", "voc")
    work = split.folder.parents[2]
    places = ("--data-root", data, "--work-dir", work)
    verified = call("splits", "verify", split.folder, *places)
    assert (verified.code, "not compared" in verified.out) == (0, False)
    hand = split_at_hand(split.folder, Places(data, work))
    assert hand.root == work / "data" / "harbour"
    for path, role in ((hand.file("labelled.json"), "train"), (hand.file("hidden.json"), "train"), (hand.val, "val")):
        assert path is not None
        assert photos_of(hand, path, role).read(0).shape == (160, 200, 3)


def test_labels_that_are_not_there_are_looked_for_below_the_data_root(data: Path) -> None:
    (data / "voc_train").rename(data / "moved")
    with pytest.raises(DataFault, match="voc_train does not exist") as fault:
        drawn_from(data, "voc", "voc")
    assert f"--data-root (now {data})" in str(fault.value.remedy)


def test_labels_that_changed_since_the_draw_are_noticed(data: Path) -> None:
    drawn_from(data, "yolo", "coco")
    (data / "yolo_train/labels/train/photo000.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    with pytest.raises(DataFault, match="drawn from another"):
        drawn_from(data, "yolo", "coco")


def test_a_scored_class_of_another_spelling_is_named_with_what_a_drawn_task_may_do(data: Path) -> None:
    yaml = data / "yolo_val" / "data.yaml"
    yaml.write_text(yaml.read_text(encoding="utf-8").replace("seal", "sael"), encoding="utf-8")
    with pytest.raises(DataFault, match="Are 'seal' and 'sael' one class") as fault:
        drawn_from(data, "yolo", "yolo")
    assert fault.value.remedy == "give a class the same name in both"
