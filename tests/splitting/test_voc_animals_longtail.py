"""voc-animals-longtail: which classes, how the tail is made longer, and the groups by images in D_l."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from split_folders import content

from cissod_bench.annotations.voc import VocImage, VocObject, read_voc
from cissod_bench.catalogue import load_task
from cissod_bench.split_folders.ensure import draw_options, ensure_split
from cissod_bench.splitting.voc_files import VOC2012
from splits.voc_animals import ANIMALS, MAJORITY, MINORITY, is_scored
from splits.voc_animals_longtail import CLASSES, draw_of, tail_shares, thinned

CANDIDATES = ("chair", "pottedplant", "car", "sofa", "bottle")
PART_SHA256 = "38c3cc9ca521bd6db6943a181bdeb26f4fd02296c19416108dc0391693e78e9e"
REAL_SHA256 = "86db57c6cd4acb87f4692094078f8ecd262f56833dda700ebf81e45802a0f897"


def image(number: int, *names: str, difficult: tuple[str, ...] = ()) -> VocImage:
    objects = [*((name, False) for name in names), *((name, True) for name in difficult)]
    box = (0.0, 0.0, 5.0, 5.0)
    return VocImage(f"2008_{number:06d}.jpg", number, 40, 30, tuple(VocObject(name, box, odd) for name, odd in objects))


def test_shares_leave_each_class_its_place_in_a_geometric_tail() -> None:
    images = [image(n, "dog") for n in range(100)] + [image(n, "cat", "cat", "sofa") for n in range(100, 180)]
    images += [image(n, "car", difficult=("cow",)) for n in range(180, 200)]
    assert tail_shares(images) == pytest.approx({"dog": 1.0, "cat": 10 / 80, "car": 1 / 20})


def test_a_class_that_is_rarer_than_its_place_keeps_all() -> None:
    images = [image(n, "dog") for n in range(1000)] + [image(n, "cat") for n in range(50)] + [image(1, "car")]
    assert tail_shares(images) == pytest.approx({"dog": 1.0, "cat": 1.0, "car": 1.0})


def test_a_photograph_stays_by_its_rarest_class_and_its_name_alone() -> None:
    images = [image(n, "dog") for n in range(400)] + [image(n, "cat", "dog") for n in range(400, 700)]
    images += [image(n, "car", "dog") for n in range(700, 800)]
    parts = thinned(images)
    assert all(is_scored(one.file_name) for one in parts["val"])
    pool = [one for one in images if not is_scored(one.file_name)]
    shares = tail_shares(pool)
    rarest = {one.file_name: min(shares[name] for name in one.shown) for one in pool}
    assert parts["train"] == [one for one in pool if draw_of(one.file_name) < rarest[one.file_name]]
    held = Counter(name for one in parts["train"] for name in one.shown)
    assert held["car"] < 10 < held["cat"] < 100 < held["dog"]
    assert thinned(images[::-1])["train"] == parts["train"][::-1]


def test_draws_are_spread_over_the_unit_interval() -> None:
    draws = [draw_of(f"2008_{number:06d}.jpg") for number in range(1000)]
    assert 0 <= min(draws) < 0.01 < 0.99 < max(draws) < 1
    assert sum(draws) / 1000 == pytest.approx(0.5, abs=0.03)


@pytest.fixture(scope="module")
def real(test_data: Path) -> Path:
    """Return the data root with VOC2012's animals."""
    if not (test_data / VOC2012).is_dir():
        pytest.skip(f"CISSOD_TEST_DATA has no {VOC2012}")
    return test_data


def test_the_classes_beside_the_six_are_those_with_20_scored_boxes(real: Path) -> None:
    images = read_voc(real / VOC2012, showing=ANIMALS.showing).images
    scored = [one for one in images if is_scored(one.file_name)]
    boxes = Counter(found.name for one in scored for found in one.objects if not found.difficult)
    assert tuple(name for name in CANDIDATES if boxes[name] >= 20) == CLASSES[6:]
    assert CLASSES[:6] == (*MAJORITY, *MINORITY)
    held = Counter(name for one in thinned(images)["train"] for name in one.shown if name in CLASSES)
    assert held == {
        **{"dog": 890, "cat": 562, "person": 257, "horse": 163, "sheep": 92},
        **{"cow": 59, "chair": 34, "pottedplant": 27, "car": 11},
    }


def test_the_split_of_the_real_photographs_with_seed_0_is_this_one(real: Path, tmp_path: Path) -> None:
    task = load_task("voc-animals-longtail")
    part = ensure_split(task, real, tmp_path / "part", draw_options(task)).manifest
    assert (part.counts["labelled"], part.counts["unlabelled"]) == (175, 550)  # what preset photo sees nine times
    assert part.split_sha256 == PART_SHA256
    manifest = ensure_split(task, real, tmp_path, draw_options(task, unlabelled_percent=100.0)).manifest
    assert (manifest.counts["labelled"], manifest.counts["unlabelled"]) == (175, 1572)
    assert (manifest.groups, manifest.ids_sha256["D_l"]) == (part.groups, part.ids_sha256["D_l"])
    assert manifest.groups == {
        "f": ["cat", "dog"],
        "c": ["horse", "person"],
        "r": ["car", "chair", "cow", "pottedplant", "sheep"],
    }
    assert all(counts.images >= 1 for counts in manifest.per_class.values())
    assert manifest.split_sha256 == REAL_SHA256
    scored: dict[str, Any] = content(tmp_path / "data/voc-animals-longtail/annotations/val.json")
    assert len(scored["images"]) == 878
