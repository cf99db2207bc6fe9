"""What the summary of a draw says of every class, and draws that leave a part empty."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from split_folders import content, folder, made_manifest

from cissod_bench.annotations.reading import read_annotations
from cissod_bench.catalogue import load_task
from cissod_bench.errors import UsageFault
from cissod_bench.split_folders.counts import NAMED, count_lines, loss_lines, percent_lines, short_line
from cissod_bench.splitting.drawing import images_of_percent, share_of_images, thinned
from cissod_bench.splitting.manifest import Manifest, read_manifest
from cissod_bench.splitting.options import DrawOptions
from cissod_bench.splitting.scenarios import draw_by_frequency

Call = Callable[..., Any]
FILES = ("labelled.json", "unlabelled.json", "hidden.json")


def counts_of(file: Path) -> Counter[str]:
    """Boxes of each class in an annotation file, crowd and ignore regions left out."""
    read = content(file)
    names = {one["id"]: one["name"] for one in read["categories"]}
    return Counter(names[box["category_id"]] for box in read["annotations"] if not box.get("iscrowd"))


@pytest.mark.parametrize("rule", ["drop", "ignore"])
@pytest.mark.parametrize("percent", [20, 60, 80])
def test_every_box_of_every_class_is_kept_dropped_ignored_or_hidden(
    split: Call, tmp_path: Path, tiny_coco: Path, rule: str, percent: int
) -> None:
    assert split("--labelled-percent", percent, "--dm-minority", rule).code == 0
    whole = counts_of(tiny_coco / "tiny/annotations/train.json")
    kept, _, hidden = (counts_of(folder(tmp_path) / name) for name in FILES)
    lost, none = ("dropped_boxes", "ignored_boxes") if rule == "drop" else ("ignored_boxes", "dropped_boxes")
    for name, one in read_manifest(folder(tmp_path)).document["per_class"].items():
        assert (one["original_boxes"], one["boxes"], one["unlabelled_boxes"]) == (whole[name], kept[name], hidden[name])
        assert (one[lost], one[none]) == (whole[name] - kept[name] - hidden[name], 0)


def test_classes_that_lose_boxes_are_named_and_groups_say_where_their_boxes_are(split: Call, tmp_path: Path) -> None:
    text = split("--labelled-percent", 60).out
    per_class = read_manifest(folder(tmp_path)).document["per_class"]
    losing = {name: one for name, one in per_class.items() if one["dropped_boxes"]}
    assert set(losing) == {"heart", "arrow"}
    for name, one in losing.items():
        assert f"{name} {one['dropped_boxes']} of {one['original_boxes']}" in text
    assert "to keep all labels: cissod-bench splits import" in text
    of_group = [sum(one[key] for one in losing.values()) for key in ("original_boxes", "boxes", "dropped_boxes")]
    assert re.search(rf"min, 2 classes +{of_group[0]} +{of_group[1]} +{of_group[2]} ", text)
    assert "\n    heart" not in text


def test_every_class_has_a_line_with_v_and_columns_in_show(split: Call, call: Call, tmp_path: Path) -> None:
    text = split("--labelled-percent", 60, "-v").out
    for name, one in read_manifest(folder(tmp_path)).document["per_class"].items():
        numbers = (one[key] for key in ("original_boxes", "boxes", "dropped_boxes", "unlabelled_boxes"))
        assert re.search(rf"^    {name} +{' +'.join(map(str, numbers))}$", text, re.M)
    shown = call("splits", "show", "tiny", "--work-dir", tmp_path / "work").out
    assert "dropped" in shown
    assert "2 classes with boxes dropped from D_m: " in shown


def made(groups: dict[str, list[str]], boxes: dict[str, int], **more: dict[str, int]) -> Manifest:
    per_class = {
        name: {"images": 1, "boxes": count, **{key: of[name] for key, of in more.items()}}
        for name, count in boxes.items()
    }
    return made_manifest(groups=groups, per_class=per_class, classes=list(boxes), min_instances=10)


def test_the_majority_below_the_minimum_is_named_beside_the_minority() -> None:
    manifest = made({"maj": ["car", "dog"], "min": ["boat"]}, {"car": 0, "dog": 7, "boat": 10})
    assert short_line(manifest) == "classes below 10 boxes in D_l: maj 2 of 2 (car 0, dog 7), min none"
    manifest = made({"maj": ["car"], "min": ["boat", "bus"]}, {"car": 10, "boat": 9, "bus": 12})
    assert short_line(manifest) == "classes below 10 boxes in D_l: maj none, min 1 of 2 (boat 9)"
    manifest = made({"f": ["car"], "c": [], "r": ["boat"]}, {"car": 10, "boat": 9})
    assert short_line(manifest) == "classes below 10 boxes in D_l: f none, c none, r 1 of 1 (boat 9)"


def test_a_drawn_majority_below_the_minimum_stands_in_summary_manifest_and_show(
    split: Call, call: Call, tmp_path: Path, tiny_coco: Path
) -> None:
    path = tiny_coco / "tiny/annotations/train.json"
    data = content(path)
    number = next(one["id"] for one in data["categories"] if one["name"] == "circle")
    data["annotations"] = [box for box in data["annotations"] if box["category_id"] != number]
    path.write_text(json.dumps(data), encoding="utf-8")
    text = split().out
    assert "classes below 3 boxes in D_l: maj 1 of 3 (circle 0), min none" in text
    manifest = read_manifest(folder(tmp_path)).document
    assert manifest["below_minimum"] == []  # of the classes that the draw covers
    assert {name: one["below_minimum"] for name, one in manifest["per_group"].items()} == {"maj": ["circle"], "min": []}
    shown = call("splits", "show", "tiny", "--work-dir", tmp_path / "work").out
    assert "maj 1 of 3 (circle 0), min none" in " ".join(shown.split())
    assert call("splits", "verify", "tiny", "--work-dir", tmp_path / "work").code == 0


def test_a_wrong_list_of_short_classes_is_found(split: Call, call: Call, tmp_path: Path) -> None:
    split()
    path = folder(tmp_path) / "manifest.json"
    manifest = content(path)
    manifest["per_group"]["maj"]["below_minimum"] = ["circle"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    done = call("splits", "verify", "tiny", "--work-dir", tmp_path / "work")
    assert done.code == 3
    assert "per_group.maj.below_minimum is [] by the files; the manifest says ['circle']" in done.err


def test_lists_of_classes_are_bounded_and_count_the_rest() -> None:
    names = [f"c{row}" for row in range(40)]
    boxes = dict.fromkeys(names, 4)
    manifest = made(
        {"min": names}, boxes, dropped_boxes=dict.fromkeys(names, 6), original_boxes=dict.fromkeys(names, 10)
    )
    lines = [short_line(manifest), next(loss_lines(manifest))]
    assert all(f" and {40 - NAMED} more" in line for line in lines)
    assert len(count_lines(manifest)) == 2
    assert len(count_lines(manifest, every_class=True)) == 42


def test_manifests_of_before_say_what_they_know() -> None:
    manifest = made({"maj": ["car"], "min": ["boat"]}, {"car": 12, "boat": 10})
    assert list(loss_lines(manifest)) == []
    assert [line.split() for line in count_lines(manifest)][1:] == [
        ["maj,", "1", "class", "12"], ["min,", "1", "class", "10"],
    ]  # fmt: skip


def test_control_characters_of_class_names_are_written_out() -> None:
    name = "bo\x1b[31mat\r"
    manifest = made({"min": [name]}, {name: 4}, dropped_boxes={name: 6}, original_boxes={name: 10})
    told = "\n".join([short_line(manifest), *loss_lines(manifest), *count_lines(manifest, every_class=True)])
    assert not re.search("[\x1b\r]", told)
    assert "bo\\x1b[31mat\\r" in told


@pytest.mark.parametrize(
    ("percent", "of", "remedy"), [(0.25, 24, "25 "), (0.5, 99, "50 "), (1, 24, "4.167 "), (0.01, 24, "4.167 ")]
)
def test_a_percentage_that_gives_no_image_is_refused_with_one_that_does(percent: float, of: int, remedy: str) -> None:
    with pytest.raises(
        UsageFault, match=rf"{percent:g} % of {of} images is no image, so that D_m would be empty"
    ) as it:
        share_of_images(np.arange(of), percent=percent, of=of)
    assert f"cissod-bench make-splits --labelled-percent {remedy}" in str(it.value.remedy)
    given = float(re.search(r"percent (\S+)", str(it.value.remedy))[1])  # type: ignore[index]
    assert len(share_of_images(np.arange(of), percent=given, of=of)) >= 1


@pytest.mark.parametrize(("left", "of"), [(43, 45), (95_556, 100_000), (1, 3), (2, 3), (999_999, 1_000_000)])
def test_the_greatest_percentage_that_is_told_is_one_that_works(left: int, of: int) -> None:
    with pytest.raises(UsageFault, match="are left beside D_s") as fault:
        share_of_images(np.arange(left), percent=100, of=of)
    given = float(re.search(r"--labelled-percent (\S+)", str(fault.value.remedy))[1])  # type: ignore[index]
    assert 0 < len(share_of_images(np.arange(left), percent=given, of=of)) <= left


def test_d_u_is_never_empty_in_silence(split: Call, tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="D_u would be empty") as fault:
        thinned(np.arange(40), np.arange(60), DrawOptions(unlabelled_percent=0.25))
    assert "cissod-bench make-splits --unlabelled-percent 25 " in str(fault.value.remedy)
    assert "task file" not in str(fault.value.remedy)  # which has no such key
    with pytest.raises(UsageFault, match="D_l takes all 60 images, so that D_u would be empty"):
        thinned(np.arange(0), np.arange(60), DrawOptions())
    done = split("--unlabelled-percent", 0.25)
    assert done.code == 2
    assert not folder(tmp_path).exists()


def test_no_image_of_the_majority_is_refused() -> None:
    with pytest.raises(UsageFault, match="No image shows a majority box") as fault:
        share_of_images(np.arange(0), percent=10, of=0)
    assert "minority" in str(fault.value.remedy)


@pytest.mark.parametrize("percent", [0.25, 100.0])
def test_the_second_scenario_refuses_an_empty_part(tiny_coco: Path, percent: float) -> None:
    task, options = load_task("toy-longtail"), DrawOptions(labelled_percent=percent, min_instances=1)
    empty = pytest.raises(UsageFault, match="D_l would be empty" if percent < 1 else "D_u would be empty")
    with read_annotations(tiny_coco / "tiny/annotations/train.json") as data, empty:
        draw_by_frequency(task, {"train": data}, options)


@pytest.mark.parametrize("percent", [0.25, 10])
def test_a_percentage_below_one_is_told_how_it_was_read(percent: float) -> None:
    manifest = made_manifest(labelled_percent=percent, unlabelled_percent=100.0)
    wanted = ["labelled_percent is 0.25 % of the images; a share of 0.25 is labelled_percent 25"]
    assert percent_lines(manifest) == (wanted if percent < 1 else [])


def test_images_of_a_percentage_are_rounded_exactly() -> None:
    assert images_of_percent(10, 98_459, option="labelled_percent", part="D_m") == 9846
    assert images_of_percent(60, 1, option="labelled_percent", part="D_m") == 1


def test_who_wants_all_labels_gets_there_by_the_remedy(
    split: Call, call: Call, tmp_path: Path, tiny_coco: Path
) -> None:
    done = split("--labelled-percent", 100)
    assert done.code == 2
    assert "cissod-bench splits import --task TASK --labelled FILE --unlabelled FILE" in done.err
    path = tiny_coco / "tiny/annotations/train.json"
    data = content(path)
    known, more = (
        data["images"],
        [{**one, "id": one["id"] + 9000, "file_name": f"u{one['id']}.png"} for one in data["images"]],
    )
    lists = {
        "labelled": (known, data["annotations"]),
        "unlabelled": (more, []),
        "train": ([*known, *more], data["annotations"]),
    }
    for name, (images, boxes) in lists.items():
        file = path if name == "train" else tmp_path / f"{name}.json"
        file.write_text(json.dumps({**data, "images": images, "annotations": boxes}), encoding="utf-8")
    task = ("--task", tiny_coco / "tiny.toml", "--data-root", tiny_coco, "--work-dir", tmp_path / "work")
    files = ("--labelled", tmp_path / "labelled.json", "--unlabelled", tmp_path / "unlabelled.json")
    done = call("splits", "import", *task, *files)
    assert done.code == 0, done.err
    assert counts_of(folder(tmp_path) / "labelled.json") == counts_of(path)
