from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cissod_bench.annotations.reading import read_annotations
from cissod_bench.catalogue import load_task
from cissod_bench.errors import BenchError, DataFault, UsageFault
from cissod_bench.files.hashing import splitmix64
from cissod_bench.splitting.drawing import cover_classes, minority_rows, share_of_images, visiting_order
from cissod_bench.splitting.options import DrawOptions, check_options
from cissod_bench.splitting.scenarios import draw_by_minority
from cissod_bench.splitting.split import Share, Split
from cissod_bench.splitting.task import Task


def test_splitmix_gives_the_numbers_of_the_reference_generator() -> None:
    # The first outputs of the generator seeded with 1234567: its state grows by the golden-ratio constant each time.
    states = 1234567 + np.arange(5, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert splitmix64(states).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


IDS = np.array([7, 3, 2**40, 0, 19, 5, 11, 581929], np.int64)


def test_the_order_depends_on_ids_not_on_their_place() -> None:
    visited = IDS[visiting_order(IDS, 0, "D_s")]
    shuffled = IDS[[3, 1, 0, 7, 6, 5, 4, 2]]
    assert shuffled[visiting_order(shuffled, 0, "D_s")].tolist() == visited.tolist()
    without_one = IDS[1:]
    assert without_one[visiting_order(without_one, 0, "D_s")].tolist() == [one for one in visited if one != 7]


def test_the_order_of_these_ids_never_changes() -> None:
    assert IDS[visiting_order(IDS, 0, "D_s")].tolist() == GOLDEN_ORDER


GOLDEN_ORDER = [11, 0, 1099511627776, 3, 581929, 19, 5, 7]


def test_other_seeds_and_other_draws_give_other_orders() -> None:
    ids = np.arange(50)
    orders = {tuple(visiting_order(ids, seed, draw)) for seed in range(20) for draw in ("D_s", "D_m")}
    assert len(orders) == 40


def test_every_image_is_as_likely_to_come_first() -> None:
    ids = np.arange(1, 11)
    first = Counter(int(visiting_order(ids, seed, "D_m")[0]) for seed in range(5000))
    expected = 5000 / 10
    chi_squared = sum((first[row] - expected) ** 2 / expected for row in range(10))
    assert chi_squared < 27.9  # 99.9 % of fair draws lie below, 9 degrees of freedom


def cover_by_the_letter(
    order: list[int], boxes: list[tuple[int, int]], classes: list[int], least: int, cover: str
) -> list[int]:
    """The rule of the specification, one image after the other."""
    held = Counter[int]()
    chosen = []
    for image in order:
        of_minority = [kind for where, kind in boxes if where == image and kind in classes]
        if all(held[kind] >= least for kind in classes):
            break
        if not of_minority or (cover == "useful" and all(held[kind] >= least for kind in of_minority)):
            continue
        chosen.append(image)
        held.update(of_minority)
    return chosen


BOXES = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 4)), max_size=80)


@settings(max_examples=300, deadline=None)
@given(
    boxes=BOXES,
    order=st.permutations(range(15)),
    classes=st.sets(st.integers(0, 4), min_size=1),
    least=st.integers(1, 4),
    cover=st.sampled_from(["uniform", "useful"]),
)
def test_cover_takes_the_images_the_rule_names(
    boxes: list[tuple[int, int]], order: list[int], classes: set[int], least: int, cover: Any
) -> None:
    table = np.array(boxes, np.int64).reshape(-1, 2)
    arguments = (np.array(order), table[:, 0].astype(np.int32), table[:, 1].astype(np.int16))
    counts = Counter(kind for _, kind in boxes)
    if any(counts[kind] < least for kind in classes):
        with pytest.raises(DataFault, match="wanted"):
            cover_classes(*arguments, classes=sorted(classes), least=least, cover=cover)
        return
    chosen = cover_classes(*arguments, classes=sorted(classes), least=least, cover=cover).tolist()
    assert chosen == cover_by_the_letter(order, boxes, sorted(classes), least, cover)


@pytest.mark.parametrize(
    ("percent", "of", "wanted"), [(10, 98_459, 9846), (10, 100_941, 10_094), (5, 30, 2), (100, 40, 40), (2, 40, 1)]
)
def test_share_is_rounded_exactly(percent: float, of: int, wanted: int) -> None:
    order = np.arange(of)[::-1]
    assert share_of_images(order, percent=percent, of=of).tolist() == order[:wanted].tolist()


def test_share_of_more_than_is_left_is_refused() -> None:
    with pytest.raises(UsageFault, match=r"100 % of 50 images is 50, but only 40 are left") as fault:
        share_of_images(np.arange(40), percent=100, of=50)
    assert "--labelled-percent 80" in (fault.value.remedy or "")


CLASSES = ("ant", "bee", "cat", "dog")


@st.composite
def data_sets(draw: st.DrawFn) -> dict[str, Any]:
    """Small data sets of four classes, some boxes crowd, some images empty, ids in any order."""
    ids = draw(st.lists(st.integers(0, 10**6), min_size=8, max_size=25, unique=True))
    boxes = draw(st.lists(st.tuples(st.sampled_from(ids), st.integers(1, 4), st.booleans()), min_size=12, max_size=60))
    numbers = draw(st.permutations(range(100, 100 + len(boxes))))
    rows = zip(numbers, boxes, strict=True)
    return {
        "images": [{"id": one, "width": 50, "height": 40, "file_name": f"{one}.png"} for one in ids],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": kind,
                "bbox": [1, 2, 3, 4],
                "iscrowd": int(crowd and kind > 2),
            }
            for number, (image, kind, crowd) in rows
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
    }


def drawn(path: Path, content: dict[str, Any], options: DrawOptions) -> tuple[Split, dict[str, Any]]:
    path.write_text(json.dumps(content), encoding="utf-8")
    task = replace(load_task("toy"), name="small", minority=("bee", "dog"))
    with read_annotations(path) as data:
        split = draw_by_minority(task, {"train": data}, options)
        ids, boxes = data.image_ids, data.box_ids
        facts = {name: sorted(ids[rows].tolist()) for name, rows in split.shares[0].labelled.items()}
        facts["D_u"] = sorted(ids[split.shares[0].unlabelled].tolist())
        facts["shown"] = sorted(boxes[split.shares[0].shown].tolist())
        facts["ignored"] = sorted(boxes[split.shares[0].ignored].tolist())
    return split, facts


OPTIONS = st.builds(
    DrawOptions,
    split_seed=st.integers(0, 99),
    cover=st.sampled_from(["uniform", "useful"]),
    labelled_percent=st.sampled_from([20.0, 25.0, 60.0]),
    min_instances=st.integers(1, 2),
    dm_minority=st.sampled_from(["drop", "ignore"]),
)


@settings(max_examples=100, deadline=None)
@given(content=data_sets(), options=OPTIONS, shuffled=st.randoms(use_true_random=False))
def test_a_draw_keeps_every_promise(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], options: DrawOptions, shuffled: Any
) -> None:
    path = tmp_path_factory.mktemp("draw") / "a.json"
    try:
        _, facts = drawn(path, content, options)
    except BenchError:
        assume(False)
    minority = {2, 4}
    boxes = {box["id"]: box for box in content["annotations"]}
    counted = {number: box for number, box in boxes.items() if not box["iscrowd"]}
    holds_majority = {box["image_id"] for box in counted.values() if box["category_id"] not in minority}

    everyone = facts["D_s"] + facts["D_m"] + facts["D_u"]
    assert sorted(everyone) == sorted(image["id"] for image in content["images"])  # disjoint and complete
    assert len(facts["D_m"]) == round(options.labelled_percent / 100 * len(holds_majority))
    assert set(facts["D_m"]) <= holds_majority

    in_d_s = Counter(box["category_id"] for box in counted.values() if box["image_id"] in facts["D_s"])
    assert all(in_d_s[kind] >= options.min_instances for kind in minority)

    for number, box in boxes.items():
        of_minority = box["category_id"] in minority
        if box["image_id"] in facts["D_s"]:
            assert number in facts["shown"]
            assert number not in facts["ignored"]
        elif box["image_id"] in facts["D_u"]:
            assert number not in facts["shown"]
        else:
            assert (number in facts["shown"]) == (not of_minority or options.dm_minority == "ignore")
            assert (number in facts["ignored"]) == (of_minority and options.dm_minority == "ignore")

    for key in ("images", "annotations", "categories"):
        shuffled.shuffle(content[key])
    _, again = drawn(path, content, options)
    assert again == facts


def test_a_class_with_too_few_boxes_is_named_with_all_others(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "width": 50, "height": 40, "file_name": "1.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "iscrowd": 0}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
    }
    with pytest.raises(DataFault, match=r"needs 2 boxes.*'bee' \(1\), 'dog' \(0\)"):
        drawn(tmp_path / "a.json", content, DrawOptions(min_instances=2))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("bee", "bea"), "Did you mean 'bee'"),
        (("bee", "bee"), "named twice"),
        (CLASSES, "at least one majority class"),
        ((), "No minority class"),
    ],
)
def test_impossible_minorities_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageFault, match=message):
        minority_rows(names, CLASSES)


@pytest.mark.parametrize(
    ("field", "value", "option"),
    [
        ("split_seed", -1, "--split-seed"),
        ("labelled_percent", 0.0, "--labelled-percent"),
        ("labelled_percent", 100.5, "--labelled-percent"),
        ("labelled_percent", float("nan"), "--labelled-percent"),
        ("min_instances", 0, "--min-instances"),
        ("cover", "all", "--cover"),
        ("dm_minority", "keep", "--dm-minority"),
    ],
)
def test_options_out_of_range_are_refused_by_name(field: str, value: Any, option: str) -> None:
    with pytest.raises(UsageFault, match=f"{option} must"):
        check_options(DrawOptions(**{field: value}))


@pytest.fixture
def sound(tmp_path: Path) -> Split:
    """A split of four images with a box each: 1 in D_s, 2 in D_m, 3 and 4 in D_u."""
    content = {
        "images": [{"id": one, "width": 50, "height": 40, "file_name": f"{one}.png"} for one in (1, 2, 3, 4)],
        "annotations": [
            {"id": 10 + one, "image_id": one, "category_id": kind, "bbox": [1, 2, 3, 4]}
            for one, kind in ((1, 2), (2, 1), (3, 2), (4, 1))
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    data = read_annotations(path)
    data.close()
    share = Share(
        annotations=data,
        labelled={"D_m": np.array([1]), "D_s": np.array([0])},
        unlabelled=np.array([2, 3]),
        shown=np.array([True, True, False, False]),
        ignored=np.zeros(4, np.bool_),
    )
    return Split(options=DrawOptions(), shares=(share,), groups={"maj": ("ant", "cat"), "min": ("bee", "dog")})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unlabelled": np.array([1, 2, 3])}, r"Image 2 is in D_m and D_u"),
        ({"unlabelled": np.array([3])}, r"Image 3 is in none of D_m, D_s, D_u"),
        ({"labelled": {"D_m": np.array([0, 1]), "D_s": np.array([0])}}, r"Image 1 is in D_m and D_s"),
        ({"shown": np.array([True, True, True, False])}, r"Box 13 on image 3 outside D_l is shown"),
    ],
)
def test_a_split_that_leaks_cannot_be_made(sound: Split, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataFault, match=message):
        replace(sound, shares=(replace(sound.shares[0], **changes),))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"maj": ("ant",), "min": ("bee", "dog")}, "'cat' is in 0 class groups"),
        ({"maj": ("ant", "cat", "bee"), "min": ("bee", "dog")}, "'bee' is in 2 class groups"),
        ({"maj": ("ant", "cat", "eel"), "min": ("bee", "dog")}, "name 'eel', which is no class"),
    ],
)
def test_groups_that_are_no_partition_are_refused(sound: Split, groups: dict[str, Any], message: str) -> None:
    with pytest.raises(DataFault, match=message):
        replace(sound, groups=groups)


def test_the_tasks_own_minority_and_cover_are_the_defaults(tmp_path: Path) -> None:
    content = {
        "images": [{"id": one, "width": 50, "height": 40, "file_name": f"{one}.png"} for one in range(1, 9)],
        "annotations": [
            {"id": 10 * one + kind, "image_id": one, "category_id": kind, "bbox": [1, 2, 3, 4]}
            for one in range(1, 9)
            for kind in (1, 2, 3, 4)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
    }
    split, _ = drawn(tmp_path / "a.json", content, DrawOptions(min_instances=2, labelled_percent=50))
    task: Task = load_task("toy")
    assert split.options.cover == task.cover
    assert split.groups == {"maj": ("ant", "cat"), "min": ("bee", "dog")}
