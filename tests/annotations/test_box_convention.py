"""Boxes in another convention are told from their numbers, and sound boxes never are: real, drawn, detected ones."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from commands import Called

from cissod_bench.annotations.box_convention import BoxNumbers
from cissod_bench.annotations.reading import read_annotations
from cissod_bench.errors import DataFault
from cissod_bench.scoring.evaluate import score

FORMS = ("xywh", "xyxy", "cxcywh")
Boxes = tuple[np.ndarray, np.ndarray, np.ndarray]


def written_as(boxes: np.ndarray, form: str, sizes: np.ndarray | None = None) -> np.ndarray:
    """Return boxes x, y, width, height in another form; relative to the image if its sizes are given."""
    boxes = boxes.copy()
    if form == "xyxy":
        boxes[:, 2:] += boxes[:, :2]
    if form == "cxcywh":
        boxes[:, :2] += boxes[:, 2:] / 2
    return boxes if sizes is None else boxes / np.concatenate([sizes, sizes], axis=1)


def placed(seed: int, number: int, *, least: float, most: float, size: tuple[int, int] = (640, 480)) -> Boxes:
    """Return boxes of sides between two shares of the image's, anywhere inside it, four an image."""
    dice = np.random.default_rng(seed)
    sizes = np.tile(np.array(size, np.float64), (number, 1))
    sides = sizes * dice.uniform(least, most, (number, 2))
    boxes = np.concatenate([dice.uniform(0, 1, (number, 2)) * (sizes - sides), sides], axis=1)
    return boxes, sizes, np.arange(number) // 4


def read(path: Path) -> Boxes:
    data = json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    boxes = [one for one in data["annotations"] if not one.get("iscrowd")]
    return (
        np.array([one["bbox"] for one in boxes], np.float64),
        np.array([sizes[one["image_id"]] for one in boxes], np.float64),
        np.array([one["image_id"] for one in boxes]),
    )


def read_voc(folder: Path) -> Boxes:
    boxes, sizes, images = [], [], []
    for number, path in enumerate(sorted(folder.iterdir())):
        root = ElementTree.parse(path).getroot()
        size = [float(root.findtext(f"size/{side}", "0")) for side in ("width", "height")]
        for box in root.iter("bndbox"):
            x1, y1, x2, y2 = (float(box.findtext(key, "0")) for key in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append([x1, y1, x2 - x1, y2 - y1])
            sizes.append(size)
            images.append(number)
    return np.array(boxes), np.array(sizes), np.array(images)


@pytest.fixture(scope="module")
def real(test_data: Path) -> dict[str, Boxes]:
    """Return the boxes of real data sets."""
    files = {
        "coco val": "coco/annotations/instances_val2017.json.gz",
        "coco mini": "coco_mini/instances_train.json",
        "cocoapi": "evaluator/cocoapi/instances_val2014_100.json",
        "lvis": "lvis/lvis_val_100.json",
    }
    return {name: read(test_data / file) for name, file in files.items()} | {
        "voc": read_voc(test_data / "VOCdevkit/VOC2012/Annotations")
    }


def numbers(boxes: np.ndarray, sizes: np.ndarray) -> BoxNumbers:
    counted = BoxNumbers()
    counted.add(boxes, sizes)
    return counted


def subsets(data: Boxes, number: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.random.Generator]]:
    """Yield the boxes of some images, 1 to 60, drawn again and again."""
    boxes, sizes, images = data
    dice, every = np.random.default_rng(0), np.unique(data[2])
    for _ in range(number):
        chosen = np.isin(images, dice.choice(every, min(int(dice.integers(1, 61)), len(every)), replace=False))
        yield boxes[chosen], sizes[chosen], dice


@pytest.mark.parametrize("name", ["coco val", "coco mini", "cocoapi", "lvis", "voc"])
def test_real_boxes_are_never_taken_for_others_however_few_or_careless(real: dict[str, Boxes], name: str) -> None:
    assert numbers(*real[name][:2]).fault("x") is None
    told = 0
    for boxes, sizes, dice in subsets(real[name], 200):
        assert numbers(boxes, sizes).fault("x") is None
        careless = boxes + dice.normal(0, 8, boxes.shape) * (dice.random((len(boxes), 1)) < 0.3)
        careless[:, 2:] = np.maximum(careless[:, 2:], 1)
        assert numbers(careless, sizes).fault("x") is None
        whole = np.concatenate([np.floor(boxes[:, :2]) - 1, np.ceil(boxes[:, 2:]) + 3], axis=1)
        assert numbers(whole, sizes).fault("x") is None
        told += numbers(written_as(boxes, "cxcywh"), sizes).centres()
    assert told > 180, "centre boxes are told in nearly all of them, too"


@pytest.mark.parametrize("name", ["coco val", "coco mini", "cocoapi", "lvis", "voc"])
@pytest.mark.parametrize("form", FORMS)
def test_real_boxes_relative_to_their_image_are_told_with_their_form(
    real: dict[str, Boxes], name: str, form: str
) -> None:
    boxes, sizes, _ = real[name]
    assert numbers(written_as(boxes, form, sizes), sizes).relative() == (form,)
    for some, their, _ in subsets(real[name], 40):
        found = numbers(written_as(some, form, their), their).relative()
        assert form in found or len(some) < 3


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("number", [1, 3, 10, 40, 1000])
@pytest.mark.parametrize(("least", "most"), [(0.001, 0.004), (0.01, 0.05), (0.05, 0.3), (0.2, 0.9), (0.97, 1.0)])
def test_drawn_boxes_of_any_size_pass_also_where_they_leave_the_image(
    seed: int, number: int, least: float, most: float
) -> None:
    boxes, sizes, _ = placed(seed, number, least=least, most=most)
    dice = np.random.default_rng(seed)
    for moved in (boxes, boxes + dice.normal(0, 2, boxes.shape), np.round(boxes)):
        assert numbers(moved, sizes).fault("x") is None
    truncated = boxes.copy()
    truncated[:, :2] += dice.uniform(-0.3, 0.3, (number, 2)) * boxes[:, 2:]  # objects continue outside
    assert numbers(truncated, sizes).fault("x") is None


@pytest.mark.parametrize("scale", [1.7, 2.0, 4.0])
def test_boxes_of_larger_images_are_refused_for_what_they_are(scale: float) -> None:
    boxes, sizes, _ = placed(0, 100, least=0.05, most=0.3)
    with pytest.raises(DataFault, match="centre outside their image, and no other reading fits"):
        raise numbers(boxes * scale, sizes).fault("x") or AssertionError("they passed")


def test_boxes_with_x_and_y_exchanged_are_refused_with_the_reading_that_fits() -> None:
    boxes, sizes, _ = placed(0, 100, least=0.05, most=0.3)
    with pytest.raises(DataFault, match=r"read as \[y, x, height, width\] 0 do"):
        raise numbers(boxes[:, [1, 0, 3, 2]], sizes).fault("x") or AssertionError("they passed")


@pytest.mark.parametrize("name", ["coco val", "coco mini", "cocoapi", "lvis", "voc"])
def test_real_boxes_of_larger_images_are_refused(real: dict[str, Boxes], name: str) -> None:
    boxes, sizes, _ = real[name]
    assert "centre outside" in str(numbers(boxes * 2, sizes).fault("x"))
    assert "[y, x, height, width]" in str(numbers(boxes[:, [1, 0, 3, 2]], sizes).fault("x"))


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (640, 480)])
def test_boxes_of_a_pixel_and_less_pass(size: tuple[int, int]) -> None:
    everywhere = placed(0, 50, least=0.5 / size[0], most=1 / size[0], size=size)
    assert numbers(*everywhere[:2]).fault("x") is None
    first_pixel = np.tile([0.0, 0.0, 1.0, 1.0], (20, 1))
    assert numbers(first_pixel, np.tile(np.array(size, np.float64), (20, 1))).fault("x") is None


def file_of(path: Path, form: str, *, relative: bool = False, number: int = 60) -> Path:
    boxes, sizes, images = placed(1, number, least=0.1, most=0.4)
    boxes = written_as(boxes, form, sizes if relative else None)
    content = {
        "images": [
            {"id": one, "width": 640, "height": 480, "file_name": f"{one}.jpg"} for one in np.unique(images).tolist()
        ],
        "annotations": [
            {"id": row, "image_id": int(image), "category_id": 1 + row % 2, "bbox": box, "iscrowd": 0}
            for row, (image, box) in enumerate(zip(images, boxes.tolist(), strict=True), 1)
        ],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


WORDS = {"xywh": r"\[x, y, width, height\]\.", "xyxy": r"corners \[x1, y1, x2, y2\]", "cxcywh": r"centres \[centre x"}


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_an_annotation_file_in_another_convention_is_refused_with_the_reading_that_fits(
    tmp_path: Path, form: str, relative: bool
) -> None:
    path = file_of(tmp_path / "a.json", form, relative=relative)
    if form == "xywh" and not relative:
        with read_annotations(path) as data:
            assert len(data.boxes) == 60
        return
    for reader in (read_annotations, lambda file: score(file, [], groups={})):
        with pytest.raises(DataFault, match=WORDS[form]) as fault:
            reader(path)
        assert "annotations[*].bbox must be [x, y, width, height] in pixels" in fault.value.message
        assert ("multiply" in str(fault.value.remedy)) == relative


def detections(file: Path, form: str, *, relative: bool = False, seed: int = 0, spread: float = 3.0) -> list[Any]:
    """Return detections near every box of a file, some of which leave their image a little, and chance ones."""
    data = json.loads(file.read_bytes())
    dice = np.random.default_rng(seed)
    boxes = np.array([one["bbox"] for one in data["annotations"]], np.float64)
    sizes = np.tile([640.0, 480.0], (len(boxes), 1))
    chance = placed(seed + 100, len(boxes), least=0.05, most=0.5)[0]
    boxes = np.concatenate([boxes + dice.normal(0, spread, boxes.shape), chance])
    sizes = np.concatenate([sizes, sizes])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
    boxes = written_as(boxes, form, sizes if relative else None)
    owners = data["annotations"] * 2
    return [
        {"image_id": one["image_id"], "category_id": one["category_id"], "bbox": box, "score": float(dice.random())}
        for one, box in zip(owners, boxes.tolist(), strict=True)
    ]


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_predictions_in_another_convention_are_refused_with_the_reading_that_fits(
    tmp_path: Path, form: str, relative: bool, sized: bool
) -> None:
    path = file_of(tmp_path / "a.json", "xywh")
    found = detections(path, form, relative=relative)
    if not sized:  # files to score against need not state sizes
        content = json.loads(path.read_bytes())
        content["images"] = [{"id": image["id"]} for image in content["images"]]
        path.write_text(json.dumps(content), encoding="utf-8")
    if form == "xywh" and not relative:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert score(path, found, groups={}).all > 30
        return
    with pytest.raises(DataFault, match=WORDS[form] if sized or not relative else "relative to the image"):
        score(path, found, groups={})
    assert score(path, found, groups={}, check_boxes=False).all < 5


def test_a_few_hits_under_another_reading_are_a_warning(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.json", "xywh", number=5)
    with pytest.warns(UserWarning, match="centres"):
        score(path, detections(path, "cxcywh"), groups={})


@pytest.mark.parametrize("seed", range(20))
def test_detectors_that_hit_little_or_nothing_are_scored(tmp_path: Path, seed: int) -> None:
    path = file_of(tmp_path / "a.json", "xywh", number=200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(path, detections(path, "xywh", seed=seed, spread=60), groups={})
        score(path, detections(path, "xywh", seed=seed)[200:], groups={})
        score(path, [], groups={})


def test_the_evaluators_fixture_passes_and_its_other_conventions_do_not(test_data: Path) -> None:
    folder = test_data / "evaluator/cocoapi"
    truth = folder / "instances_val2014_100.json"
    found = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_bytes())
    assert score(truth, found, groups={}).all == pytest.approx(50.4580699, abs=1e-4)
    boxes = np.array([one["bbox"] for one in found], np.float64)
    images = {one["id"]: (one["width"], one["height"]) for one in json.loads(truth.read_bytes())["images"]}
    sizes = np.array([images[one["image_id"]] for one in found], np.float64)
    for form in FORMS:
        for scale in (None, sizes):
            if form == "xywh" and scale is None:
                continue
            other = [
                {**one, "bbox": box} for one, box in zip(found, written_as(boxes, form, scale).tolist(), strict=True)
            ]
            with pytest.raises(DataFault, match=WORDS[form]):
                score(truth, other, groups={})


def test_commands_refuse_centre_boxes_and_foreign_predictions(
    call: Callable[..., Called], split: Callable[..., Called], tiny_coco: Path, tmp_path: Path
) -> None:
    assert split().code == 0
    file = tiny_coco / "tiny/annotations/val.json"
    content = json.loads(file.read_bytes())
    found = [
        {"image_id": one["image_id"], "category_id": one["category_id"], "score": 0.9,
         "bbox": written_as(np.array([one["bbox"]], np.float64), "cxcywh")[0].tolist()}
        for one in content["annotations"]
    ]  # fmt: skip
    (tmp_path / "found.json").write_text(json.dumps(found), encoding="utf-8")
    words = ("--split", tmp_path / "work/splits/tiny/seed0", "--data-root", tiny_coco, "--predictions")
    done = call("evaluate", *words, tmp_path / "found.json")
    assert (done.code, "centres [centre x" in " ".join(done.err.split())) == (3, True)
    train = tiny_coco / "tiny/annotations/train.json"
    content = json.loads(train.read_bytes())
    for one in content["annotations"]:
        one["bbox"] = written_as(np.array([one["bbox"]], np.float64), "cxcywh")[0].tolist()
    train.write_text(json.dumps(content), encoding="utf-8")
    done = split("--force")
    assert (done.code, "centres [centre x" in " ".join(done.err.split())) == (3, True)
