"""``splits list``, ``show``, ``verify``, ``diff`` and ``plot``: what is there, whether it is a split, what differs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from split_folders import FILES, content, folder, made_manifest
from wrong_splits import rewrite

from cissod_bench.catalogue import load_task
from cissod_bench.split_folders.ensure import draw_options
from cissod_bench.split_folders.listing import other_options

Call = Callable[..., Any]


@pytest.fixture
def splits(call: Call, tmp_path: Path) -> Call:
    """Return a function that calls a command of ``splits`` on the work folder."""

    def run(command: str, *options: object) -> Any:
        return call("splits", command, *options, "--work-dir", tmp_path / "work")

    return run


def flat(text: str) -> str:
    """Text without tables' frames and line breaks."""
    return " ".join(re.sub("[│┃━┏┓┗┛┡┩╇┳┻├┤─└┘┴┬┼]", " ", text).split())


# list


def test_the_list_names_task_seed_images_hash_and_other_options(splits: Call, split: Call, tmp_path: Path) -> None:
    split("--split-seed", 10, "--split-seed", 2)
    split("--split-seed", 3, "--labelled-percent", 40, "--dm-minority", "ignore")
    done = splits("list", "--json")
    assert done.code == 0
    rows = json.loads(done.out)
    assert [one["split_seed"] for one in rows] == [2, 3, 10]
    manifest = content(folder(tmp_path, 3) / "manifest.json")
    assert rows[1] == {
        "dir": str(folder(tmp_path, 3)),
        "task": "tiny",
        "split_seed": 3,
        "labelled": manifest["counts"]["labelled"],
        "unlabelled": manifest["counts"]["unlabelled"],
        "split_sha256": manifest["split_sha256"],
        "options": {"labelled_percent": 40.0, "min_instances": 3, "dm_minority": "ignore"},
        "imported": False,
        "fault": "",
    }
    text = splits("list").out
    assert manifest["split_sha256"][:12] in text
    assert "dm_minority ignore" in flat(text)


def test_options_of_a_task_in_the_catalogue_are_compared_with_its_own() -> None:
    toy = load_task("toy")
    own = {**vars(draw_options(toy)), "task": "toy", "minority": sorted(toy.minority)}
    assert other_options(made_manifest(**own)) == {}
    drawn = {**own, "cover": "uniform", "minority": ["circle", "star"]}
    assert other_options(made_manifest(**drawn)) == {"cover": "uniform", "minority": ["circle", "star"]}
    del own["unlabelled_percent"]  # as in older manifests
    assert other_options(made_manifest(**own)) == {}
    lvis = {**vars(draw_options(load_task("lvis"), labelled_percent=5)), "task": "lvis", "minority": []}
    assert other_options(made_manifest(**lvis)) == {"labelled_percent": 5}


def test_broken_folders_are_listed_with_their_fault(splits: Call, split: Call, tmp_path: Path) -> None:
    split("--split-seed", 0, "--split-seed", 1)
    (folder(tmp_path, 1) / "manifest.json").write_text("{", encoding="utf-8")
    (tmp_path / "work/splits/other/notes").mkdir(parents=True)
    (folder(tmp_path).parent / ".seed7.new-1.tmp").mkdir()
    (tmp_path / "work/splits/a file").write_text("", encoding="utf-8")
    done = splits("list")
    assert done.code == 0
    assert "seed1/manifest.json cannot be read" in done.out
    assert f"{tmp_path / 'work/splits/other/notes'} holds no split" in done.out
    faults = [one["fault"] for one in json.loads(splits("list", "--json").out)]
    assert [bool(fault) for fault in faults] == [True, False, True]


def test_an_empty_work_folder_has_no_splits(splits: Call, tmp_path: Path) -> None:
    done = splits("list")
    assert (done.code, json.loads(splits("list", "--json").out)) == (0, [])
    assert "There is no split below" in done.out
    assert splits("verify").code == 3
    assert splits("plot").code == 3
    assert not (tmp_path / "work").exists()


# show


def test_a_split_is_shown_with_counts_groups_classes_and_hashes(splits: Call, split: Call, tmp_path: Path) -> None:
    split()
    manifest = content(folder(tmp_path) / "manifest.json")
    shown = splits("show", "tiny")
    assert shown.code == 0
    for told in (
        manifest["split_sha256"],
        manifest["inputs"]["train"]["sha256"],
        *manifest["files"].values(),
        f"{manifest['counts']['labelled']} images, {manifest['boxes']['labelled']} boxes (D_m",
        "cover useful, labelled_percent 20.0, min_instances 3, dm_minority drop",
        "odd boxes        none",
    ):
        assert told in shown.out
    for name, one in manifest["per_class"].items():
        group = "min" if name in manifest["groups"]["min"] else "maj"
        keys = ("images", "boxes", "dropped_boxes", "unlabelled_images", "unlabelled_boxes", "original_boxes")
        assert f"{name} {group} {' '.join(str(one[key]) for key in keys)}" in flat(shown.out)
    assert json.loads(splits("show", folder(tmp_path), "--json").out) == {"dir": str(folder(tmp_path)), **manifest}


def test_an_older_manifest_is_shown_without_what_it_does_not_say(splits: Call, split: Call, tmp_path: Path) -> None:
    split()

    def older(files: dict[str, Any], manifest: dict[str, Any]) -> None:
        for key in ("left_out", "naming", "views", "unlabelled_percent"):
            del manifest[key]
        del manifest["offsets"], manifest["rewritten"]["swapped"]
        for one in manifest["per_class"].values():
            del one["unlabelled_images"], one["unlabelled_boxes"], one["original_boxes"]

    rewrite(folder(tmp_path), older)
    assert "unknown" in splits("show", "tiny").out
    assert splits("verify").code == 0
    assert splits("list").code == 0


@pytest.mark.parametrize(
    ("place", "code", "message"),
    [
        ("tinny", 2, "There is no split or task 'tinny'. Did you mean 'tiny'"),
        ("coco-split1", 3, "no split of coco-split1 with split seed 0"),
        ("coco_split1", 3, "no split of coco-split1 with split seed 0"),
        ("a/b", 2, "There is no split folder a/b"),
        (".", 3, "holds no split: manifest.json is missing"),
    ],
)
def test_a_split_that_is_not_there_is_answered_with_what_is(
    splits: Call, split: Call, tmp_path: Path, place: str, code: int, message: str
) -> None:
    split()
    done = splits("show", place)
    assert (done.code, message in done.err) == (code, True), done.err


def test_a_seed_that_is_not_there_is_answered_with_those_that_are(splits: Call, split: Call, tiny_coco: Path) -> None:
    split("--split-seed", 4, "--split-seed", 11)
    done = splits("show", tiny_coco / "tiny.toml", "--split-seed", 3)
    assert done.code == 3
    assert "there are seeds 4, 11" in done.err
    assert "--split-seed 3" in done.err


@pytest.mark.parametrize(
    ("key", "value"),
    [("left_out", [3]), ("views", {"official": 1}), ("rewritten", []), ("ids_sha256", 1), ("offsets", {"coco": 1}),
     ("naming", "other"), ("imported", "yes"), ("imported_files", [1])],
)  # fmt: skip
def test_an_optional_key_of_the_wrong_type_is_named(
    splits: Call, split: Call, tmp_path: Path, key: str, value: Any
) -> None:
    split()
    rewrite(folder(tmp_path), lambda files, manifest: manifest.update({key: value}))
    for command in ("show", "verify"):
        done = splits(command, "tiny")
        assert done.code == 3
        assert "manifest.json: " in done.err
        assert f"$.{key}" in done.err
    assert f"$.{key}" in splits("list").out


# diff


def test_equal_splits_end_with_0_and_two_seeds_with_1(splits: Call, split: Call, tmp_path: Path) -> None:
    split("--split-seed", 0, "--split-seed", 1)
    copy = tmp_path / "copy"
    shutil.copytree(folder(tmp_path), copy)
    same = splits("diff", folder(tmp_path), copy)
    assert same.code == 0
    assert "Equal:" in same.out
    done = splits("diff", "tiny", "--split-seed", 0, "--split-seed", 1, "--json")
    assert done.code == 1
    told = json.loads(done.out)
    assert (told["equal"], told["facts"], told["inputs"], told["groups"]) == (False, {"split_seed": [0, 1]}, {}, {})
    files = [{name: content(folder(tmp_path, seed) / name) for name in FILES} for seed in (0, 1)]
    for part in ("D_m", "D_s"):
        a, b = ({one["id"] for one in of["labelled.json"]["images"] if one["part"] == part} for of in files)
        ids = told["images"][f"labelled.json, {part}"]
        assert (ids["both"], ids["only_a"], ids["only_b"]) == (len(a & b), len(a - b), len(b - a))
        assert (ids["first_a"], ids["first_b"]) == (sorted(a - b)[:5], sorted(b - a)[:5])
    a, b = ({one["id"] for one in of["hidden.json"]["annotations"]} for of in files)
    ids = told["boxes"]["hidden.json"]
    assert (ids["only_a"], ids["first_a"]) == (len(a - b), sorted(a - b)[:5])
    text = splits("diff", "tiny", "--split-seed", 0, "--split-seed", 1).out
    assert f"boxes of hidden.json, the first: A alone {', '.join(map(str, sorted(a - b)[:5]))}" in text


def test_options_groups_inputs_and_counts_that_differ_are_told(
    splits: Call, split: Call, tmp_path: Path, tiny_coco: Path
) -> None:
    split()
    names = tmp_path / "names.txt"
    names.write_text("square\narrow\n", encoding="utf-8")
    path = tiny_coco / "tiny/annotations/val.json"
    path.write_bytes(path.read_bytes() + b"\n")
    split("--minority", names, "--labelled-percent", 40, "--split-seed", 5)
    told = json.loads(splits("diff", "tiny", "--split-seed", 0, "--split-seed", 5, "--json").out)
    assert told["facts"]["labelled_percent"] == [20.0, 40.0]
    assert told["facts"]["minority"] == [["arrow", "heart"], ["arrow", "square"]]
    assert told["groups"] == {"maj": [["square"], ["heart"]], "min": [["heart"], ["square"]]}
    assert list(told["inputs"]) == ["val"]
    assert told["counts"]["counts.D_m"][0] < told["counts"]["counts.D_m"][1]


def test_records_and_bytes_that_differ_under_equal_ids_are_told(splits: Call, split: Call, tmp_path: Path) -> None:
    split("--split-seed", 0)
    other = tmp_path / "other"
    shutil.copytree(folder(tmp_path), other)

    def move_box(files: dict[str, Any], manifest: dict[str, Any]) -> None:
        files["labelled.json"]["annotations"][3]["bbox"][0] += 1

    rewrite(other, lambda files, manifest: None)
    before = tmp_path / "before"
    shutil.copytree(other, before)
    rewrite(other, move_box)
    told = json.loads(splits("diff", before, other, "--json").out)
    moved = content(other / "labelled.json")["annotations"][3]["id"]
    assert (told["images"], list(told["boxes"])) == ({}, ["labelled.json"])
    changed = told["boxes"]["labelled.json"]
    assert (changed["changed"], changed["first_changed"], changed["only_a"]) == (1, [moved], 0)
    spaces = json.loads(splits("diff", folder(tmp_path), before, "--json").out)  # the same records in other bytes
    assert (spaces["equal"], spaces["images"], spaces["boxes"]) == (False, {}, {})
    assert list(spaces["files"]) == list(FILES)


@pytest.mark.parametrize("arguments", [("tiny",), ("a", "b", "c"), ("tiny", "--split-seed", 1)], ids=str)
def test_a_comparison_of_other_than_two_splits_is_a_usage_fault(splits: Call, arguments: tuple[object, ...]) -> None:
    done = splits("diff", *arguments)
    assert done.code == 2
    assert "Two splits are compared" in done.err


# plot


def test_splits_are_handed_to_the_plot_side_by_side(
    splits: Call, split: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split("--split-seed", 0, "--split-seed", 1)
    (tmp_path / "work/splits/broken/seed0").mkdir(parents=True)
    calls: list[Any] = []

    def plot(manifests: Any, out: Path, formats: Any) -> list[Path]:
        calls.append(([(manifest.task, manifest.split_seed) for manifest in manifests], out, formats))
        return [out / f"f.{one}" for one in formats]

    monkeypatch.setattr("cissod_bench.figures.distributions.plot_distributions", plot)
    done = splits("plot")
    assert done.code == 0
    assert "broken/seed0 is left out" in done.err
    out = tmp_path / "work/reports"
    assert f"Written: {out / 'f.png'}, {out / 'f.svg'}" in done.out
    named = splits("plot", "tiny", "--split-seed", 1, "--out", tmp_path / "o", "--format", "svg, csv", "--json")
    assert json.loads(named.out) == [str(tmp_path / "o/f.svg"), str(tmp_path / "o/f.csv")]
    assert calls == [([("tiny", 0)], out, ("png", "svg")), ([("tiny", 1)], tmp_path / "o", ("svg", "csv"))]
    assert splits("plot", "tiny", "--split-seed", 9).code == 3


@pytest.mark.slow
def test_the_plot_of_a_split_is_written(splits: Call, split: Call, tmp_path: Path) -> None:
    split()
    done = splits("plot", folder(tmp_path), "--out", tmp_path / "out", "--json")
    assert done.code == 0
    files = [Path(name) for name in json.loads(done.out)]
    assert {path.suffix for path in files} == {".png", ".svg"}
    assert all(path.stat().st_size > 1000 for path in files)
