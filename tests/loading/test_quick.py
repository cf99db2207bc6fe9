"""Views by quick transforms are mmdet's: the same draws, pixels within one grey level, the same boxes and metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from pillow_colours import recoloured_by_pillow

from cissod_bench.contract.settings import FULL
from cissod_bench.files.images import read_image
from cissod_bench.loading import transforms
from cissod_bench.loading.loaders import ViewsDataset, seeded
from cissod_bench.loading.pipelines import build_transforms
from cissod_bench.loading.sampler import Draw
from cissod_bench.loading.samples import warp_boxes
from cissod_bench.loading.shifts import shifted
from cissod_bench.loading.sources import Source
from cissod_bench.loading.views import COLOUR, GEOMETRY, View, pipeline

SMALL = replace(FULL, long_side=133, short_side=(40, 120))
KINDS = {kind: replace(SMALL, strong_views=cast(Any, kind)) for kind in ("soft-teacher", "mmdet", "light")}


def sample(height: int = 60, width: int = 100, boxes: int = 9) -> dict[str, Any]:
    from mmdet.structures.bbox import HorizontalBoxes

    numbers = np.random.default_rng(0)
    image = cv2.resize(numbers.integers(0, 256, (height // 5, width // 5, 3), np.uint8), (width, height))
    image.setflags(write=False)
    corners = numbers.random((boxes, 4), np.float32) * np.array([width, height, width / 3, height / 3], np.float32)
    corners[:, 2:] += corners[:, :2]
    corners[:1, 2:] = corners[:1, :2]  # one has no area
    return {
        "img": image, "img_id": 1, "img_index": 0, "img_path": "1", "img_shape": (height, width),
        "ori_shape": (height, width), "gt_bboxes": HorizontalBoxes(corners),
        "gt_bboxes_labels": np.arange(boxes), "gt_ignore_flags": numbers.random(boxes) < 0.3,
    }  # fmt: skip


def both(steps: Any, given: Any, keys: Any = range(60)) -> Iterator[tuple[Any, Any]]:
    """Yield what quick and mmdet's transforms make of ``given()`` for every key; both leave the same random state."""
    quick, slow = build_transforms(steps), build_transforms(steps, quick=False)
    for key in keys:
        with seeded(key):
            ours = quick(given())
            drawn = np.random.random()
        with seeded(key):
            own = given()
            own["img"] = own["img"].copy()
            theirs = slow(own)
            assert np.random.random() == drawn, key
        yield ours, theirs


def assert_equal(ours: Any, theirs: Any) -> None:
    for name in ("gt_instances", "ignored_instances"):
        quick, slow = getattr(ours, name), getattr(theirs, name)
        assert quick.bboxes.tensor.tolist() == slow.bboxes.tensor.tolist()
        assert quick.labels.tolist() == slow.labels.tolist()
        assert quick.labels.dtype == slow.labels.dtype
    assert set(ours.metainfo_keys()) == set(theirs.metainfo_keys())
    for key in theirs.metainfo_keys():
        assert np.array_equal(getattr(ours, key), getattr(theirs, key)), key
        assert type(getattr(ours, key)) is type(getattr(theirs, key)), key


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view", ["sup", "weak", "strong", "test"])
def test_a_view_is_mmdets_for_every_key(view: View, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soft Teacher's colours are Pillow's in the slow views."""
    steps = pipeline(view, KINDS[kind])
    quick, slow = build_transforms(steps), build_transforms(steps, quick=False)
    for key in range(40):
        with seeded(key):
            ours = quick(sample(boxes=key % 10))
            drawn = np.random.random()
        with seeded(key), monkeypatch.context() as patched:
            patched.setattr(transforms, "recoloured", recoloured_by_pillow)
            own = sample(boxes=key % 10)
            theirs = slow(own | {"img": own["img"].copy()})
            assert np.random.random() == drawn
        assert ours["inputs"].dtype == theirs["inputs"].dtype
        assert ours["inputs"].is_contiguous()
        off = (ours["inputs"].int() - theirs["inputs"].int()).abs()
        # A geometric step behind the colours blends pixels of which each may be off by one.
        assert off.max() <= (2 if kind == "soft-teacher" and view == "strong" else 1)
        assert_equal(ours["data_samples"], theirs["data_samples"])


@pytest.mark.parametrize("name", COLOUR + GEOMETRY)
def test_a_drawn_operation_is_mmdets_for_every_key(name: str) -> None:
    steps = [{"type": "RandAugment", "aug_space": [[{"type": name}]], "aug_num": 1}]
    for ours, theirs in both(steps, sample):
        assert np.abs(ours["img"].astype(int) - theirs["img"].astype(int)).max() <= 1
        assert ours["gt_bboxes"].tensor.tolist() == theirs["gt_bboxes"].tensor.tolist()
        if name in GEOMETRY:
            assert np.array_equal(ours["homography_matrix"], theirs["homography_matrix"])


def test_two_operations_of_one_draw_are_mmdets() -> None:
    steps = [{"type": "RandAugment", "aug_space": [[{"type": name}] for name in COLOUR], "aug_num": 2}]
    for ours, theirs in both(steps, sample):
        assert np.abs(ours["img"].astype(int) - theirs["img"].astype(int)).max() <= 3  # contrast doubles what is off


@pytest.mark.parametrize("amount", [0.0, 0.4, -0.4, 3.0, -7.03, 9.97, 0.015625, -0.01, 99.0, 120.5, -240.0])
@pytest.mark.parametrize("across", [True, False])
def test_a_shift_is_opencvs_warp_within_one_grey_level(across: bool, amount: float) -> None:
    image = sample()["img"]
    matrix = np.eye(3, dtype=np.float32)
    matrix[0 if across else 1, 2] = amount
    expected = cv2.warpAffine(image, matrix[:2], (100, 60), borderValue=(125,) * 3)
    found = shifted(image, matrix[0, 2], matrix[1, 2], 125)
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_boxes_are_warped_as_mmdet_warps_them_to_the_bit() -> None:
    matrices = np.random.default_rng(1).normal(0, 1, (50, 3, 3)).astype(np.float32)
    matrices[:, 2] = (0, 0, 1)
    for matrix in matrices:
        ours, theirs = sample(), sample()["gt_bboxes"]
        warp_boxes(ours, matrix)
        theirs.project_(matrix)
        theirs.clip_((60, 100))
        assert ours["gt_bboxes"].tensor.tolist() == theirs.tensor.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_decoded_once_for_all_its_views_and_none_writes_to_it(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), sample()["img"])
    reads = []

    def read_once(self: Source, index: int) -> npt.NDArray[np.uint8]:
        reads.append(self.file(index))
        image = read_image(reads[-1])
        image.setflags(write=False)  # writing raises from here on
        return image

    monkeypatch.setattr(Source, "image", read_once)
    one = drawn_source(tmp_path)
    dataset = ViewsDataset([one], [("sup", "weak", "strong", "test")], KINDS[kind])
    given: list[Any] = []
    for view, steps in list(dataset._pipelines.items()):
        dataset._pipelines[view] = lambda one, steps=steps: (given.append(one["img"]), steps(one))[1]
    for key in range(30):
        item = dataset[Draw(0, 0, key)]
        assert len({id(image) for image in given}) == 1  # no view has a copy
        given.clear()
        assert set(item) == {"sup", "weak", "strong", "test"}
        assert item["strong"]["inputs"].numpy().flags.writeable
    assert len(reads) == 30
    assert one.boxes.tolist() == [[10, 20, 50, 40]]


def drawn_source(folder: Path) -> Source:
    """One image, a.png, with one box."""
    one = np.ones(1, np.int64)
    return Source(
        names=b"a.png", name_ends=5 * one, folders=(folder,), image_folder=np.zeros(1, np.int8), image_ids=one,
        sizes=np.array([[100, 60]], np.int32), box_ends=one, boxes=np.array([[10, 20, 50, 40]], np.float32),
        labels=0 * one, ignored=np.zeros(1, bool),
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view", ["sup", "weak", "strong", "test"])
@pytest.mark.parametrize("shape", [(1, 900), (900, 1), (1, 1)])
def test_every_view_takes_the_picture_of_a_line(view: View, kind: str, shape: tuple[int, int]) -> None:
    steps = build_transforms(pipeline(view, KINDS[kind]))
    given = sample(boxes=2) | {"img": np.zeros((*shape, 3), np.uint8), "img_shape": shape, "ori_shape": shape}
    for key in range(10):
        with seeded(key):
            height, width = steps(dict(given))["inputs"].shape[1:]
        assert 1 <= min(height, width) <= max(height, width) <= max(KINDS[kind].long_side, KINDS[kind].test_short_side)
