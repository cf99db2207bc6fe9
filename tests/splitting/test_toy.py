from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cissod_bench.catalogue import load_task
from cissod_bench.splitting import toy_images as shapes
from cissod_bench.splitting.toy_images import OUTLINES, SIZES, Dice, draw_image, overlap, place, write_shapes
from splits.toy import COUNTS, WEIGHTS

COUNT = 40


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "toy"
    write_shapes(folder, {"train": COUNT, "val": 5}, WEIGHTS, seed=0, most=5)
    return folder


def content(folder: Path, role: str = "train") -> Any:
    return json.loads((folder / f"annotations/{role}.json").read_bytes())


def every_hash(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_toy_task_is_as_large_as_promised() -> None:
    task = load_task("toy")
    assert COUNTS == {"train": 2000, "val": 300}
    assert len(WEIGHTS) - len(task.minority) >= 6
    assert len(task.minority) >= 4
    assert set(task.minority) < set(WEIGHTS) == set(OUTLINES)
    assert max(WEIGHTS.values()) / min(WEIGHTS.values()) <= 1.5  # the imbalance is the split's, not the source's


def test_the_same_numbers_give_the_same_files(drawn: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "again", {"train": COUNT, "val": 5}, WEIGHTS, seed=0, most=5)
    assert every_hash(tmp_path / "again") == every_hash(drawn)


def test_another_seed_and_another_role_give_other_images(drawn: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "other", {"train": 5}, WEIGHTS, seed=1, most=5)
    images = {hashlib.sha256(path.read_bytes()).hexdigest() for path in drawn.glob("images/*/*.png")}
    images |= {hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("other/images/*/*.png")}
    assert len(images) == COUNT + 5 + 5


def test_annotations_of_this_version_never_change(drawn: Path) -> None:
    boxes = [[box["image_id"], box["category_id"], *box["bbox"]] for box in content(drawn)["annotations"]]
    assert hashlib.sha256(json.dumps(boxes).encode()).hexdigest() == GOLDEN[shapes.VERSION]


GOLDEN = {3: "21cd221dd7dcabb42f799ded4f536205c712641ee7f687db70988000b3588288"}


def test_what_is_complete_is_not_drawn_again(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "draw_image", None)
    write_shapes(drawn, {"train": COUNT, "val": 5}, WEIGHTS, seed=0, most=5)


def test_what_is_incomplete_or_of_another_version_is_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "toy"
    (folder / "images").mkdir(parents=True)
    (folder / "images/left.txt").write_text("of a killed writer", encoding="utf-8")
    write_shapes(folder, {"train": 3}, WEIGHTS, seed=0, most=5)
    assert len(list(folder.rglob("*.png"))) == 3
    assert not (folder / "images/left.txt").exists()
    (folder / "images/train/000001.png").write_bytes(b"")
    monkeypatch.setattr(shapes, "VERSION", -1)
    write_shapes(folder, {"train": 3}, WEIGHTS, seed=0, most=5)
    assert (folder / "images/train/000001.png").stat().st_size > 0


def test_a_failure_while_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "draw_image", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_shapes(tmp_path / "toy", {"train": 3}, WEIGHTS, seed=0, most=5)
    assert [path.name for path in tmp_path.iterdir()] == [".toy.lock"]


def test_two_writers_draw_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    draw = shapes.draw_image
    monkeypatch.setattr(shapes, "draw_image", lambda key, *rest: (calls.append(key), draw(key, *rest))[1])
    arguments = (tmp_path / "toy", {"train": 10}, WEIGHTS)
    writers = [threading.Thread(target=write_shapes, args=arguments, kwargs={"seed": 0, "most": 5}) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(calls) == 10


def test_images_are_of_the_sizes_stated_and_all_orientations(drawn: Path) -> None:
    sizes = Counter()
    for image in content(drawn)["images"]:
        pixels = cv2.imread(str(drawn / "images/train" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
        sizes[image["width"], image["height"]] += 1
    assert set(sizes) <= set(SIZES)
    assert {(width > height) - (width < height) for width, height in sizes} == {-1, 0, 1}
    assert all(96 <= side <= 128 for size in SIZES for side in size)


def test_boxes_lie_in_their_image_and_every_image_has_some(drawn: Path) -> None:
    found = content(drawn)
    images = {image["id"]: image for image in found["images"]}
    count = Counter(box["image_id"] for box in found["annotations"])
    assert set(count) == set(images)
    assert 1 <= min(count.values()) <= max(count.values()) <= 5
    for box in found["annotations"]:
        x, y, width, height = box["bbox"]
        image = images[box["image_id"]]
        assert x >= 0
        assert y >= 0
        assert x + width <= image["width"] + 0.01
        assert y + height <= image["height"] + 0.01
        assert min(width, height) > 5


@pytest.mark.parametrize("shape", OUTLINES)
def test_a_box_fits_the_pixels_of_its_shape(shape: str) -> None:
    for number in range(20):
        dice = Dice(f"{shape}{number}")
        placed = place(shape, dice, 128, 96)
        canvas = np.full((96, 128, 3), 128, np.float32)
        shapes.paint(canvas, placed, dice)
        rows, columns = np.nonzero(np.abs(canvas - 128).max(axis=2) > 20)
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.subtract(seen, placed.box)).max() <= 2


def test_shapes_differ_from_each_other_at_every_size() -> None:
    masks = {}
    for shape, outlines in OUTLINES.items():
        mask = np.zeros((32, 32), np.uint8)
        cv2.fillPoly(
            mask, [np.round((points + 1) * 15.5 * 16).astype(np.int32) for points in outlines], 255, cv2.LINE_AA, 4
        )
        masks[shape] = mask / 255
    for one in OUTLINES:
        for other in OUTLINES:
            if one < other:
                common = np.minimum(masks[one], masks[other]).sum() / np.maximum(masks[one], masks[other]).sum()
                assert common < 0.82, (one, other)


def test_overlap_is_the_share_of_the_smaller_box() -> None:
    one = shapes.Placed("square", (), (0, 0, 10, 10))
    assert overlap(one, shapes.Placed("square", (), (5, 0, 25, 20))) == pytest.approx(0.5)
    assert overlap(one, shapes.Placed("square", (), (10, 0, 20, 10))) == 0


def test_some_shapes_overlap_and_some_are_cut_by_the_edge() -> None:
    overlapping = cut = 0
    for number in range(60):
        pixels, shown = draw_image(f"o{number}", WEIGHTS, 5)
        height, width = pixels.shape[:2]
        overlapping += any(overlap(one, two) > 0.05 for one in shown for two in shown if one is not two)
        cut += any(one.box[0] == 0 or one.box[1] == 0 or one.box[2] == width or one.box[3] == height for one in shown)
    assert overlapping > 5
    assert cut > 5


def test_colour_says_nothing_about_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    centres: dict[str, list[Any]] = {shape: [] for shape in WEIGHTS}
    for number in range(150):
        pixels, shown = draw_image(f"c{number}", WEIGHTS, 3)
        for one in shown:
            x1, y1, x2, y2 = (int(edge) for edge in one.box)
            centres[one.shape].append(pixels[y1:y2, x1:x2].mean(axis=(0, 1)))
    means = np.array([np.mean(rows, axis=0) for rows in centres.values()])
    spread = np.concatenate(list(centres.values())).std(axis=0)
    assert (np.abs(means - means.mean(axis=0)) < spread).all()


def test_dice_are_uniform_and_depend_on_their_key() -> None:
    numbers = Dice("a").many(20_000)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01
    assert abs(numbers.var() - 1 / 12) < 0.002
    assert Dice("a").number() == Dice("a").number() != Dice("b").number()
    picks = Counter(Dice(str(key)).pick([1, 0, 3]) for key in range(2000))
    assert picks[1] == 0
    assert 0.2 < picks[0] / 2000 < 0.3
