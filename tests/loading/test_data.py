"""Images and boxes of a run as columns: folders by an image's root, addition, and memory that workers share."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cissod_bench.annotations.reading import read_annotations
from cissod_bench.contract.presets import SMOKE
from cissod_bench.errors import DataFault
from cissod_bench.loading.loaders import ViewsDataset, scoring_batches
from cissod_bench.loading.sources import Source, source_of

LOADER_MEMORY = Path(__file__).resolve().parents[2] / "benchmarks" / "loader_memory.py"
IMAGES: list[dict[str, Any]] = [
    {"id": 3, "file_name": "a.jpg", "width": 9, "height": 5},
    {"id": 1, "file_name": "sub/b.jpg", "width": 4, "height": 6, "root": "coco"},
    {"id": 2, "file_name": "sub/c.jpg", "width": 7, "height": 7},
]
BOXES: list[dict[str, Any]] = [
    {"id": 1, "image_id": 2, "category_id": 5, "bbox": [1, 2, 3, 4]},
    {"id": 2, "image_id": 3, "category_id": 8, "bbox": [0, 0, 9, 5], "iscrowd": 1},
    {"id": 3, "image_id": 2, "category_id": 8, "bbox": [0.5, 0, 2.25, 1]},
]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Return the image folders of a task with three roles."""
    made = {role: tmp_path / "images" / role for role in ("train", "val", "coco")}
    for folder in made.values():
        (folder / "sub").mkdir(parents=True)
    return made


def source(tmp_path: Path, folders: dict[str, Path], *, images: Any = IMAGES, role: str = "train") -> Source:
    file = tmp_path / "file.json"
    categories = [{"id": 8, "name": "egg"}, {"id": 5, "name": "ball"}]
    file.write_text(json.dumps({"images": images, "annotations": BOXES, "categories": categories}))
    with read_annotations(file) as annotations:
        return source_of(annotations, folders, role)


def test_an_image_lies_in_the_folder_of_its_root_or_of_the_files_role(tmp_path: Path, folders: dict[str, Path]) -> None:
    files = [source(tmp_path, folders).file(row) for row in range(3)]
    assert files == [folders["train"] / "a.jpg", folders["coco"] / "sub/b.jpg", folders["train"] / "sub/c.jpg"]
    assert source(tmp_path, folders, role="val").file(0) == folders["val"] / "a.jpg"


def test_boxes_are_corners_in_the_images_order_with_channels_by_id(tmp_path: Path, folders: dict[str, Path]) -> None:
    one = source(tmp_path, folders)
    assert one.image_ids.tolist() == [3, 1, 2]
    assert one.sizes.tolist() == [[9, 5], [4, 6], [7, 7]]
    assert [one.boxes[one.box_rows(row)].tolist() for row in range(3)] == [
        [[0, 0, 9, 5]],
        [],
        [[1, 2, 4, 6], [0.5, 0, 2.75, 1]],
    ]
    assert one.labels.tolist() == [1, 0, 1]
    assert one.ignored.tolist() == [True, False, False]
    assert one.classes_of_images() == ((), (), (0, 1))


def test_a_root_without_a_folder_is_named_with_its_record(tmp_path: Path, folders: dict[str, Path]) -> None:
    images = [*IMAGES[:2], {**IMAGES[2], "root": "lvis"}]
    with pytest.raises(DataFault, match=r"file\.json: images\[2\]\.root must be .* \(train, val, coco\)\. Got 'lvis'"):
        source(tmp_path, folders, images=images)


def test_a_missing_folder_below_the_image_folder_is_named_before_any_image_is_read(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    (folders["coco"] / "sub").rmdir()
    images = [*IMAGES, {**IMAGES[1], "id": 9}]
    with pytest.raises(DataFault, match=r"coco/sub is missing; .*file\.json has 2 images in it"):
        source(tmp_path, folders, images=images)


def test_sources_of_one_run_can_be_added_and_keep_every_images_folder(tmp_path: Path, folders: dict[str, Path]) -> None:
    one, other = source(tmp_path, folders), source(tmp_path, folders, images=IMAGES[::-1])
    both = one + other
    assert [both.file(row) for row in range(6)] == [s.file(row) for s in (one, other) for row in range(3)]
    rows = [both.boxes[both.box_rows(row)].tolist() for row in range(6)]
    assert rows == [s.boxes[s.box_rows(row)].tolist() for s in (one, other) for row in range(3)]
    with pytest.raises(ValueError, match="share their image folders"):
        _ = one + replace(other, folders=other.folders[:1])


def test_a_source_without_boxes_shows_none(tmp_path: Path, folders: dict[str, Path]) -> None:
    """B10: hidden labels can be reached through nothing that a method gets."""
    bare = source(tmp_path, folders).without_boxes()
    assert bare.boxes.shape == (0, 4)
    assert bare.boxes_of_classes(2) == (0, 0)
    assert bare.classes_of_images() == ((), (), ())
    assert [bare.box_rows(row) for row in range(3)] == [slice(0, 0)] * 3
    assert bare.file(1) == folders["coco"] / "sub/b.jpg"


def test_images_are_scored_in_pieces_that_are_made_when_they_are_asked_for(
    tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = ViewsDataset([source(tmp_path, folders)], [("test",)], SMOKE)
    monkeypatch.setattr(ViewsDataset, "__getitem__", lambda self, draw: {"test": draw.index})
    assert list(scoring_batches(dataset, [2, 0, 1], 2, 0)) == [{"test": [2, 0]}, {"test": [1]}]
    every = range(10**9)  # a list of so many draws would not fit
    assert next(scoring_batches(dataset, every, 2, 0)) == {"test": [0, 1]}


WATCH = """
import gc, importlib.util, json, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("loader_memory", sys.argv[1])
own = sys.modules["loader_memory"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(own)
own.write_images(Path(sys.argv[2]))
source = own.draw_source(Path(sys.argv[2]), 20_000, 254_000, 1203)
source = own.as_lists(source) if sys.argv[3] == "lists" else source
measured = {}
for number, memory in own.watch(source, (4, 0), warm_up=40, batches=500, every=250):
    measured[number] = memory.unique
    gc.collect()
print(json.dumps(measured))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux to measure shared memory")
@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(("kind", "least", "most"), [("columns", -10, 12), ("lists", 15, 1000)])
def test_workers_share_columns_and_would_copy_lists(tmp_path: Path, kind: str, least: float, most: float) -> None:
    """Over 500 batches of 4 images, the garbage collector running in their midst; the benchmark does it over 10,000.

    In a process of its own: this one's heap, which the workers share, is as large as the tests before it made it.
    """
    words = [sys.executable, "-c", WATCH, str(LOADER_MEMORY), str(tmp_path), kind]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    measured = {int(number): value for number, value in json.loads(done.stdout.splitlines()[-1]).items()}
    assert list(measured) == [0, 250, 500]
    growth = measured[500] - measured[0]
    assert least <= growth <= most, f"{growth:.1f} MiB of their own for the workers"
