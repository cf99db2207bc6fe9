"""An image file belongs to one record of one part: make-splits, run, splits import and verify, data check say so."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from split_folders import content, folder
from wrong_splits import rewrite

from cissod_bench.annotations.same_files import Listed, keyed, normal_paths, shared_files

Call = Callable[..., Any]
WAYS = {
    "the same": "train/000003.png",
    "case": "Train/000003.PNG",
    "dot": "./train/./000003.png",
    "slashes": "train///000003.png",
    "backslash": "train\\000003.png",
    "all": ".//TRAIN\\\\.\\000003.png",
}


def edited(path: Path, change: Callable[[Any], object]) -> None:
    data = content(path)
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def all_below_one_folder(root: Path) -> None:
    """Name the images of both files from the folder above; they stay sound."""
    toml = root / "tiny.toml"
    text = toml.read_text(encoding="utf-8")
    toml.write_text(text.replace("images/train", "images").replace("images/val", "images"), encoding="utf-8")
    for role in ("train", "val"):
        edited(
            root / f"tiny/annotations/{role}.json",
            lambda data, role=role: [one.update(file_name=f"{role}/{one['file_name']}") for one in data["images"]],
        )


def named(role: str, row: int, name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        edited(root / f"tiny/annotations/{role}.json", lambda data: data["images"][row].__setitem__("file_name", name))

    return change


@pytest.fixture
def places(tiny_coco: Path, tmp_path: Path) -> tuple[object, ...]:
    return ("--data-root", tiny_coco, "--work-dir", tmp_path / "work")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("role", ["val", "train"])
def test_a_file_in_two_records_is_refused_however_its_path_is_written(
    call: Call, split: Call, tiny_coco: Path, tmp_path: Path, places: tuple[object, ...], role: str, way: str
) -> None:
    all_below_one_folder(tiny_coco)
    assert split("--dry-run").code == 0
    named(role, 5, WAYS[way])(tiny_coco)
    for done in (
        split(),
        split("--dry-run"),
        call("run", "-q", "--method", "soft-teacher", "--task", tiny_coco / "tiny.toml", "--preset", "smoke", *places),
    ):
        assert done.code == 3, done.out
        assert "the first is tiny/images/train/000003.png" in done.err
        of, total = ("share 1 image file", 10) if role == "val" else ("1 image file stands in more than one record", 40)
        assert of in done.err
        assert f"1 of {total} images of {tiny_coco / f'tiny/annotations/{role}.json'}" in done.err
        assert "images[2] (id" in done.err
        assert "images[5] (id" in done.err
        assert "  -> " in done.err
        assert f"cissod-bench data check --task {tiny_coco / 'tiny.toml'}" in done.err
    assert not folder(tmp_path).exists()
    checked = call("data", "check", "--task", tiny_coco / "tiny.toml", *places, "--json")
    assert checked.code == 3
    (fault,) = json.loads(checked.out)[0]["faults"]
    assert "the first is tiny/images/train/000003.png" in fault
    assert "  -> " in fault


def test_names_that_differ_in_more_are_other_files(split: Call, tiny_coco: Path) -> None:
    all_below_one_folder(tiny_coco)
    for row, name in enumerate(("val/train/000003.png", "val/000003 .png", "val/000003.jpg", "val/ı.png", "val/I.png")):
        named("val", row, name)(tiny_coco)
    assert split().code == 0


def test_a_message_names_three_pairs_and_how_many_there_are(split: Call, tiny_coco: Path) -> None:
    text = (tiny_coco / "tiny.toml").read_text(encoding="utf-8").replace("images/val", "images/./train")
    (tiny_coco / "tiny.toml").write_text(text, encoding="utf-8")
    named("train", 9, "./000001.png")(tiny_coco)  # in no part twice alone: in train twice and in val
    done = split()
    assert done.code == 3
    assert "1 image file stands in more than one record" in done.err
    assert "share 9 image files" in done.err
    assert "9 of 10 images of" in done.err
    assert done.err.count(" are tiny/images/") == 4
    assert "and so on" in done.err


def test_a_folder_that_is_a_link_is_the_folder_it_leads_to(
    call: Call, split: Call, tiny_coco: Path, places: tuple[object, ...]
) -> None:
    assert split().code == 0
    (tiny_coco / "tiny/images/val").rename(tiny_coco / "tiny/images/kept")
    (tiny_coco / "tiny/images/val").symlink_to("train", target_is_directory=True)
    words = ("--method", "soft-teacher", "--task", tiny_coco / "tiny.toml", "--preset", "smoke", *places)
    for done in (call("run", *words), split("--force"), call("splits", "verify", *places)):
        assert done.code == 3, done.out
        assert "image files, the first is" in done.err
        assert "an image that is scored must not be trained on" in done.err


def labelled_twice(files: dict[str, Any], manifest: Any) -> None:
    images = files["labelled.json"]["images"]
    images[1]["file_name"] = images[0]["file_name"].upper()


def in_both(files: dict[str, Any], manifest: Any) -> None:
    name = files["labelled.json"]["images"][0]["file_name"]
    for part in ("unlabelled.json", "hidden.json"):
        files[part]["images"][3]["file_name"] = f".//{name}"


def unlabelled_twice(files: dict[str, Any], manifest: Any) -> None:
    for part in ("unlabelled.json", "hidden.json"):
        files[part]["images"][3]["file_name"] = files[part]["images"][2]["file_name"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (labelled_twice, "labelled.json: 1 image file stands in more than one record"),
        (in_both, "unlabelled.json share 1 image file"),
        (unlabelled_twice, "unlabelled.json: 1 image file stands in more than one record"),
    ],
)
def test_a_split_made_before_anybody_looked_is_refused_by_verify_run_and_import(
    call: Call,
    split: Call,
    tiny_coco: Path,
    tmp_path: Path,
    places: tuple[object, ...],
    change: Callable[[dict[str, Any], Any], None],
    message: str,
) -> None:
    assert split().code == 0
    rewrite(folder(tmp_path), change)
    verified = call("splits", "verify", *places)
    assert verified.code == 3
    assert message in verified.err
    words = ("--method", "soft-teacher", "--task", tiny_coco / "tiny.toml", "--preset", "smoke", *places)
    ran = call("run", *words)
    assert ran.code == 3
    assert message in ran.err
    assert not list((tmp_path / "work/runs").rglob("log.jsonl"))
    files = [(f"--{part}", folder(tmp_path) / f"{part}.json") for part in ("labelled", "unlabelled")]
    task = ("--task", tiny_coco / "tiny.toml", "--split-seed", 4)
    taken = call("splits", "import", *task, *files[0], *files[1], *places)
    assert taken.code == 3
    assert message in taken.err
    assert not folder(tmp_path, 4).exists()


def test_verify_says_where_it_could_not_look_at_the_scored_images(
    call: Call, split: Call, tiny_coco: Path, tmp_path: Path, places: tuple[object, ...]
) -> None:
    assert split().code == 0
    assert "not compared" not in call("splits", "verify", *places).out
    done = call("splits", "verify", "--work-dir", tmp_path / "work", "--data-root", tmp_path / "nowhere")
    assert done.code == 0
    assert "the validation file it was made for is not below --data-root: not compared" in done.out
    (found,) = json.loads(call("splits", "verify", *places, "--json").out)
    assert found["val"] == str(tiny_coco / "tiny/annotations/val.json")


def test_accents_are_one_letter_in_both_of_unicodes_ways() -> None:
    name = "Ünïcode/Å.jpg"
    written = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    assert written[0] != written[1]
    assert len(set(normal_paths(f"/data/{one}" for one in written))) == 1


def test_equal_keys_of_other_paths_are_no_shared_file(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.jpg" for number in range(40)]
    one = keyed(
        Listed(
            path=Path("a.json"),
            ids=np.arange(40),
            places=np.zeros(40, np.int8),
            folders=[Path("images")],
            names=lambda rows: [names[row] for row in rows.tolist()],
        )
    )
    assert shared_files([one]) == []
    one.keys[:] = 7
    assert shared_files([one]) == []
    names[30] = "29.JPG"
    (found,) = shared_files([one])
    assert found.rows.tolist() == [[29, 30]]


def test_keys_do_not_depend_on_where_blocks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from cissod_bench.annotations import same_files

    names = [f"Some/./{number // 2}.jpg" for number in range(9)]
    lists = Listed(
        path=Path("a.json"),
        ids=np.arange(9),
        places=np.zeros(9, np.int8),
        folders=[Path("images")],
        names=lambda rows: [names[row] for row in rows.tolist()],
    )
    whole = keyed(lists).keys
    monkeypatch.setattr(same_files, "_BLOCK", 2)
    assert np.array_equal(keyed(lists).keys, whole)
    assert [one.rows.tolist() for one in shared_files([keyed(lists)])] == [[[0, 1], [2, 3], [4, 5], [6, 7]]]
