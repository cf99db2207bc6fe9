"""What the draw from two data sets must keep, MS-COCO -> Objects365: see ``test_split_properties``."""

from __future__ import annotations

import importlib
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from drawn_splits import PERCENTS, SEEDS, WAYS, Content, Drawn, Way, draw, made
from hypothesis import given, settings
from hypothesis import strategies as st
from split_folders import FILES

from cissod_bench.catalogue import load_task
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.splitting.data_files import LABELLED
from cissod_bench.splitting.options import DrawOptions

O365_TASK = load_task("coco-o365")
O365 = importlib.import_module("cissod_bench.catalogue.splits.coco_o365")
RARE = set(range(1, 366)) - set(O365.CLASSES.values())
SPORTS_BALL = 37  # the one MS-COCO class that Objects365 lacks


def two_sets(seed: int, least: int, short: set[int]) -> tuple[Content, Content]:
    """Return a small Objects365 and a small MS-COCO; the former has one box too few of the classes in ``short``."""
    dice = random.Random(seed)
    names = [*O365.MISSING, *O365.SWAPPED, *(f"patch{row}/{row}.jpg" for row in range(dice.randint(2, 60)))]
    there = range(len(O365.MISSING), len(names))
    places = [(dice.choice(there), kind) for kind in RARE for _ in range(least - (kind in short))]
    places += [(dice.choice(there), dice.choice(list(O365.CLASSES.values()))) for _ in range(dice.randint(0, 99))]
    places += [(row, dice.randint(1, 365)) for row in range(len(O365.MISSING))]  # count for nothing
    names += [f"patch99/{row}.jpg" for row in range(10)]  # without a box, so that D_u is not empty
    names = [dice.choice(["images/v1/", "images/v2/"]) + name for name in names]
    objects = made(names, list(range(1, 366)), places, dice)
    kinds = [*O365.CLASSES, SPORTS_BALL]
    names = [f"{row:012d}.jpg" for row in range(dice.randint(1, 30))]
    places = [(dice.randrange(len(names)), dice.choice([SPORTS_BALL, *kinds])) for _ in range(dice.randint(0, 40))]
    return objects, made(names, kinds, places, dice)


def as_expected(image: dict[str, Any]) -> dict[str, Any]:
    """Return an image record of Objects365 as a split holds it."""
    if name_of(image) in O365.SWAPPED:
        return {**image, "width": image["height"], "height": image["width"]}
    return image


def name_of(image: dict[str, Any]) -> str:
    return re.sub("^images/v[12]/", "", image["file_name"])


def check_objects(objects: Content, drawn: Drawn, options: DrawOptions) -> None:
    """D_s and D_u share out Objects365's images, less those that the release lacks; D_u shows no box."""
    labelled, unlabelled, hidden = (drawn.files[name] for name in FILES)
    in_d_s = {image["id"]: image for image in labelled["images"] if "root" not in image}
    in_d_u = [image["id"] for image in unlabelled["images"]]
    records = {image["id"]: as_expected(image) for image in objects["images"]}
    there = {number for number, image in records.items() if name_of(image) not in O365.MISSING}
    assert len(there) == len(records) - len(O365.MISSING)
    assert in_d_s == {one: {"part": "D_s", **records[one]} for one in in_d_s}
    assert set(in_d_u) <= there - in_d_s.keys()
    assert len(in_d_u) == round(options.unlabelled_percent / 100 * len(there - in_d_s.keys()))
    assert unlabelled["images"] == hidden["images"] == [records[one] for one in sorted(in_d_u)]
    assert unlabelled["annotations"] == []
    boxes = sorted(objects["annotations"], key=lambda box: box["id"])
    assert hidden["annotations"] == [box for box in boxes if box["image_id"] in set(in_d_u)]
    shown = [box for box in labelled["annotations"] if box["image_id"] in in_d_s]
    assert shown == [box for box in boxes if box["image_id"] in in_d_s]
    held = Counter(box["category_id"] for box in shown)
    assert all(held[kind] >= options.min_instances for kind in RARE)


def check_coco(coco: Content, drawn: Drawn, options: DrawOptions) -> None:
    """D_m is MS-COCO's images that hold a common class, under Objects365's classes and under ids of their own."""
    labelled = drawn.files[LABELLED]
    images_by, boxes_by = drawn.split.offsets()[1]
    in_d_m = {image["id"]: image for image in labelled["images"] if image.get("root") == "coco"}
    records = {image["id"] + images_by: image for image in coco["images"]}
    common = {box["image_id"] + images_by for box in coco["annotations"] if box["category_id"] != SPORTS_BALL}
    assert in_d_m.keys() <= common
    assert len(in_d_m) == round(options.labelled_percent / 100 * len(common))
    assert in_d_m == {one: {**records[one], "id": one, "part": "D_m", "root": "coco"} for one in in_d_m}
    assert [box for box in labelled["annotations"] if box["image_id"] in in_d_m] == [
        {
            **box,
            "id": box["id"] + boxes_by,
            "image_id": box["image_id"] + images_by,
            "category_id": O365.CLASSES[box["category_id"]],
        }
        for box in sorted(coco["annotations"], key=lambda box: box["id"])
        if box["category_id"] != SPORTS_BALL and box["image_id"] + images_by in in_d_m
    ]


@settings(max_examples=60, deadline=None)
@given(
    made_from=st.integers(0, 2**32),
    seed=SEEDS,
    percents=st.tuples(PERCENTS, PERCENTS),
    least=st.integers(1, 2),
    short=st.sets(st.sampled_from(sorted(RARE)), max_size=2),
    way=WAYS,
)
def test_a_draw_from_two_data_sets_keeps_every_promise(
    tmp_path_factory: pytest.TempPathFactory,
    made_from: int,
    seed: int,
    percents: tuple[float, float],
    least: int,
    short: set[int],
    way: Way,
) -> None:
    folder = tmp_path_factory.mktemp("draw")
    objects, coco = two_sets(made_from, least, short)
    inputs = {"train": objects, "coco": coco}
    options = DrawOptions(
        split_seed=seed, labelled_percent=percents[0], unlabelled_percent=percents[1], min_instances=least
    )
    if short:
        with pytest.raises(DataFault) as fault:
            draw(folder / "a", O365_TASK, inputs, options, way)
        named = set(re.findall(r"'class (\d+)' \((\d+)\)", str(fault.value)))
        assert named == {(str(kind), str(least - 1)) for kind in short}
        return
    common = {box["image_id"] for box in coco["annotations"] if box["category_id"] != SPORTS_BALL}
    if not round(options.labelled_percent / 100 * len(common)):
        with pytest.raises(UsageFault, match="D_m would be empty"):
            draw(folder / "a", O365_TASK, inputs, options, way)
        return
    drawn = draw(folder / "a", O365_TASK, inputs, options, Way())
    check_objects(objects, drawn, options)
    check_coco(coco, drawn, options)
    labelled = drawn.files[LABELLED]
    for key in ("images", "annotations"):
        numbers = [one["id"] for one in labelled[key]]
        assert numbers == sorted(set(numbers))  # no id stands twice
    in_d_l = {image["id"] for image in labelled["images"]}
    assert all(box["image_id"] in in_d_l for box in labelled["annotations"])
    assert [one["id"] for one in labelled["categories"]] == list(range(1, 366))

    assert draw(folder / "b", O365_TASK, inputs, options, way).bytes == drawn.bytes


def test_boxes_on_images_that_are_not_in_the_release_count_for_nothing(tmp_path: Path) -> None:
    objects, coco = two_sets(1, 2, {364, 7})
    absent = next(image["id"] for image in objects["images"] if name_of(image) == O365.MISSING[0])
    for kind in (364, 7):
        box = {**objects["annotations"][0], "id": 9000 + kind, "image_id": absent, "category_id": kind}
        objects["annotations"].append(box)
    with pytest.raises(DataFault, match=r"'class 7' \(1\), 'class 364' \(1\)"):
        draw(tmp_path / "a", O365_TASK, {"train": objects, "coco": coco}, DrawOptions(min_instances=2), Way())


@pytest.mark.parametrize("key", ["images", "annotations"])
def test_ids_without_room_above_them_are_refused(tmp_path: Path, key: str) -> None:
    objects, coco = two_sets(1, 1, set())
    objects[key].append({**objects[key][0], "id": 2**62})
    with pytest.raises(DataFault, match=r"input_coco\.json: its ids are to be lifted above those of .*input_train"):
        draw(tmp_path / "a", O365_TASK, {"train": objects, "coco": coco}, DrawOptions(min_instances=1), Way())
