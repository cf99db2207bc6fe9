"""What every draw must keep, for any small data set and seed: the three data files against the paper's rules.

The rules are stated anew here, over plain lists of records. Each draw is made twice: once from the records as they are,
once from the same records shuffled, laid out otherwise, packed or not, and read and written in pieces of another size.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drawn_splits import PERCENTS, SEEDS, WAYS, Content, Drawn, Way, draw, made
from hypothesis import given, settings
from hypothesis import strategies as st
from split_folders import FILES

from cissod_bench.catalogue import load_task
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.splitting.options import DrawOptions

CLASSES = ("ant", "bee", "cat", "dog", "eel")
MINORITY_TASK = replace(load_task("coco-split1"), minority=("bee", "dog"))
LVIS_TASK = replace(load_task("lvis"), frequency_bounds=(1, 3))
MINORITY = {2, 4}  # category ids of "bee" and "dog"


@st.composite
def data_sets(draw: st.DrawFn) -> Content:
    """Small data sets of five classes: some boxes crowd, some images empty, ids and sizes of any kind."""
    ids = draw(st.lists(st.integers(-(2**40), 2**40), min_size=4, max_size=25, unique=True))
    box = st.tuples(st.sampled_from(ids), st.integers(1, 5), st.sampled_from([0, 0, 1]))
    boxes = draw(st.lists(box, max_size=60))
    for kind, count in enumerate(draw(st.lists(st.sampled_from([3, 3, 3, 2]), min_size=5, max_size=5)), 1):
        boxes += [(image, kind, 0) for image in draw(st.lists(st.sampled_from(ids), min_size=count, max_size=count))]
    numbers = draw(st.permutations(range(-5, len(boxes) - 5)))
    frequencies = draw(st.lists(st.sampled_from("fcr"), min_size=5, max_size=5))
    url = "http://images.cocodataset.org/train2017"
    return {
        "images": [
            {"id": one, "width": 50, "height": 40, "file_name": f"{one}.png", "coco_url": f"{url}/{one}.png"}
            for one in ids
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": kind, "bbox": [1, 2, 3, 4], "iscrowd": crowd}
            for number, (image, kind, crowd) in zip(numbers, boxes, strict=True)
        ],
        "categories": [
            {"id": number, "name": name, "frequency": frequency}
            for number, (name, frequency) in enumerate(zip(CLASSES, frequencies, strict=True), 1)
        ],
    }  # fmt: skip


def check_parts(data: Content, drawn: Drawn) -> tuple[set[int], set[int]]:
    """Check what holds for every draw; return the ids of D_l and of D_u."""
    labelled, unlabelled, hidden = (drawn.files[name] for name in FILES)
    in_d_l, in_d_u = ([image["id"] for image in file["images"]] for file in (labelled, unlabelled))
    assert in_d_l == sorted(set(in_d_l))
    assert in_d_u == sorted(set(in_d_u))
    assert not set(in_d_l) & set(in_d_u)
    left = sum(len(rows) for share in drawn.split.shares for rows in share.left_out.values())
    assert len(in_d_l) + len(in_d_u) + left == len(data["images"])
    assert unlabelled["annotations"] == []  # nothing of D_u is shown
    assert {box["image_id"] for box in labelled["annotations"]} <= set(in_d_l)
    assert hidden["images"] == unlabelled["images"]
    records = {image["id"]: image for image in data["images"]}
    assert unlabelled["images"] == [records[one] for one in in_d_u]
    boxes = sorted((box for box in data["annotations"] if box["image_id"] in set(in_d_u)), key=lambda box: box["id"])
    assert hidden["annotations"] == boxes  # exactly the boxes of D_u, unchanged
    for file in (labelled, unlabelled, hidden):
        assert file["categories"] == sorted(data["categories"], key=lambda one: one["id"])
    return set(in_d_l), set(in_d_u)


def instances(data: Content) -> Counter[int]:
    """Count the boxes of each class that are no crowd region."""
    return Counter(box["category_id"] for box in data["annotations"] if not box["iscrowd"])


def check_shortage(data: Content, kinds: set[int], least: int, message: str) -> None:
    """Check that an error names every class with too few boxes and no other."""
    held = instances(data)
    short = {one["name"]: held[one["id"]] for one in data["categories"] if one["id"] in kinds}
    wanted = {name: count for name, count in short.items() if count < least}
    assert wanted, message
    assert {name: int(count) for name, count in re.findall(r"'(\w+)' \((\d+)\)", message)} == wanted


@settings(max_examples=120, deadline=None)
@given(
    data=data_sets(),
    seed=SEEDS,
    cover=st.sampled_from(["uniform", "useful"]),
    dm_minority=st.sampled_from(["drop", "ignore"]),
    percents=st.tuples(PERCENTS, PERCENTS),
    least=st.integers(1, 3),
    way=WAYS,
)
def test_a_draw_by_minority_keeps_every_promise(
    tmp_path_factory: pytest.TempPathFactory,
    data: Content,
    seed: int,
    cover: Any,
    dm_minority: Any,
    percents: tuple[float, float],
    least: int,
    way: Way,
) -> None:
    folder = tmp_path_factory.mktemp("draw")
    options = DrawOptions(
        split_seed=seed,
        cover=cover,
        labelled_percent=percents[0],
        unlabelled_percent=percents[1],
        min_instances=least,
        dm_minority=dm_minority,
    )
    inputs = {"train": data}
    held = instances(data)
    if any(held[kind] < least for kind in MINORITY):
        with pytest.raises(DataFault) as fault:
            draw(folder / "a", MINORITY_TASK, inputs, options, way)
        check_shortage(data, MINORITY, least, str(fault.value))
        assert not any((folder / "a" / name).exists() for name in FILES)
        return
    try:
        drawn = draw(folder / "a", MINORITY_TASK, inputs, options, Way())
    except UsageFault:  # the share of D_m is more than D_s has left, or a part would be empty
        with pytest.raises(UsageFault, match=r"are left beside D_s|D_[mu] would be empty"):
            draw(folder / "b", MINORITY_TASK, inputs, options, way)
        return
    assert all(check_parts(data, drawn))

    labelled = drawn.files["labelled.json"]
    part = {image["id"]: image["part"] for image in labelled["images"]}
    shown = {box["id"]: box for box in labelled["annotations"]}
    with_majority = {
        box["image_id"] for box in data["annotations"] if not box["iscrowd"] and box["category_id"] not in MINORITY
    }
    d_s, d_m = ({image for image, name in part.items() if name == wanted} for wanted in ("D_s", "D_m"))
    assert len(d_m) == round(options.labelled_percent / 100 * len(with_majority))
    assert d_m
    assert d_m <= with_majority
    of_d_s = Counter(box["category_id"] for box in shown.values() if box["image_id"] in d_s and not box["iscrowd"])
    assert all(of_d_s[kind] >= least for kind in MINORITY)
    for box in data["annotations"]:
        of_minority = box["category_id"] in MINORITY
        if box["image_id"] in d_m and of_minority:
            assert shown.pop(box["id"], None) == (None if dm_minority == "drop" else {**box, "iscrowd": 1})
        elif box["image_id"] in part:
            assert shown.pop(box["id"]) == box
    assert not shown

    assert draw(folder / "b", MINORITY_TASK, inputs, options, way).bytes == drawn.bytes


@settings(max_examples=120, deadline=None)
@given(data=data_sets(), seed=SEEDS, percents=st.tuples(PERCENTS, PERCENTS), least=st.integers(1, 3), way=WAYS)
def test_a_draw_by_frequency_keeps_every_promise(
    tmp_path_factory: pytest.TempPathFactory,
    data: Content,
    seed: int,
    percents: tuple[float, float],
    least: int,
    way: Way,
) -> None:
    folder = tmp_path_factory.mktemp("draw")
    options = DrawOptions(
        split_seed=seed, labelled_percent=percents[0], unlabelled_percent=percents[1], min_instances=least
    )
    inputs, held = {"train": data}, instances(data)
    everyone = set(range(1, len(CLASSES) + 1))
    if any(held[kind] < least for kind in everyone):
        with pytest.raises(DataFault) as fault:
            draw(folder / "a", LVIS_TASK, inputs, options, way)
        check_shortage(data, everyone, least, str(fault.value))
        return
    try:
        drawn = draw(folder / "a", LVIS_TASK, inputs, options, Way())
    except UsageFault:
        with pytest.raises(UsageFault, match=r"D_[lu] would be empty"):
            draw(folder / "b", LVIS_TASK, inputs, options, way)
        return
    in_d_l, in_d_u = check_parts(data, drawn)
    assert in_d_l
    assert in_d_u

    labelled = drawn.files["labelled.json"]
    boxes = sorted((box for box in data["annotations"] if box["image_id"] in in_d_l), key=lambda box: box["id"])
    assert labelled["annotations"] == boxes
    counted = [box for box in boxes if not box["iscrowd"]]
    of_d_l = Counter(box["category_id"] for box in counted)
    assert all(of_d_l[kind] >= least for kind in everyone)
    with_box = {box["image_id"] for box in data["annotations"] if not box["iscrowd"]}
    assert in_d_l <= with_box
    assert len(in_d_l) >= round(options.labelled_percent / 100 * len(with_box))

    images = Counter(kind for _, kind in {(box["image_id"], box["category_id"]) for box in counted})
    expected = {
        name: "r" if images[kind] <= 1 else "c" if images[kind] <= 3 else "f" for kind, name in enumerate(CLASSES, 1)
    }
    assert {name: group for group, names in drawn.split.groups.items() for name in names} == expected
    official = drawn.split.views["official"]
    assert {name: group for group, names in official.items() for name in names} == {
        one["name"]: one["frequency"] for one in data["categories"]
    }

    assert draw(folder / "b", LVIS_TASK, inputs, options, way).bytes == drawn.bytes


def test_other_seeds_draw_other_images(tmp_path: Path) -> None:
    """By chance two seeds agree on one of these draws once in millions of pairs."""
    dice = random.Random(0)
    names = [f"{row}.jpg" for row in range(200)]
    data = made(names, [1, 2, 3, 4, 5], [(dice.randrange(200), dice.randint(1, 5)) for _ in range(900)], dice)
    for number, name in enumerate(CLASSES):
        data["categories"][number] |= {"name": name}
    for image in data["images"]:
        image["coco_url"] = f"http://x/train2017/{image['id']}.jpg"
    for task in (MINORITY_TASK, LVIS_TASK):
        seen = set()
        for seed in range(20):
            options = DrawOptions(split_seed=seed, cover=task.cover, min_instances=2)
            drawn = draw(tmp_path / f"{task.name}{seed}", task, {"train": data}, options, Way())
            again = draw(tmp_path / f"{task.name}{seed}again", task, {"train": data}, options, Way())
            assert again.bytes == drawn.bytes
            seen.add(tuple(image["id"] for image in drawn.files["labelled.json"]["images"]))
        assert len(seen) == 20
