"""A user's own data set as a task: the keys of its TOML file, its name, and the example in ``examples/``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cissod_bench.catalogue.task_files import find_task
from cissod_bench.cli.make_splits import read_names
from cissod_bench.errors import UsageFault
from cissod_bench.split_folders.ensure import draw_options, task_data_root
from cissod_bench.splitting.manifest import read_manifest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "coco_mini.toml"
HEAD = 'title = "Mine"\nminority = ["heart", "arrow"]\n'
PARTS = """
[train]
annotations = "a/train.json"
images = "a/images"
[val]
annotations = "a/val.json"
images = "."
"""


def written(folder: Path, text: str, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_every_key_reaches_the_task(tmp_path: Path) -> None:
    keys = """
source = "here"
labelled_percent = 5
min_instances = 4
cover = "uniform"
dm_minority = "ignore"
iterations = 77
repeat_threshold = 0.01
crs_gamma = 0.05
"""
    task = find_task(written(tmp_path, HEAD + keys + PARTS, "my_task-2.toml"))
    assert (task.name, task.title, task.source) == ("my_task-2", "Mine", "here")
    assert task.inputs == {"train": "a/train.json", "val": "a/val.json"}
    assert task.images == {"train": "a/images", "val": "."}
    assert task.groups == ("maj", "min")
    assert task.minority == ("heart", "arrow")
    assert (task.iterations, task.repeat_threshold, task.crs_gamma) == (77, 0.01, 0.05)
    options = draw_options(task, split_seed=3)
    assert (options.labelled_percent, options.min_instances) == (5, 4)
    assert (options.cover, options.dm_minority, options.split_seed) == ("uniform", "ignore", 3)
    assert draw_options(task, cover="useful", min_instances=None).cover == "useful"
    assert task_data_root(task, tmp_path, tmp_path / "work") == tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "minorty = []" + PARTS, r"no key 'minorty'. Did you mean 'minority'"),
        (HEAD + "cover = 'usefull'" + PARTS, r"cover: Invalid enum value 'usefull'"),
        (HEAD + "labelled_percent = 0" + PARTS, r"labelled_percent: Expected `float` > 0"),
        (HEAD + "labelled_percent = '10'" + PARTS, r"labelled_percent: Expected `float`, got `str`"),
        (HEAD + "min_instances = 1.5" + PARTS, r"min_instances: Expected `int`, got `float`"),
        (HEAD + "iterations = 0" + PARTS, r"iterations: Expected `int` >= 1"),
        (HEAD + PARTS + "extra = 1", r"no key 'val.extra'.*Known: val.annotations, val.images"),
        (HEAD + PARTS + "image = 1", r"no key 'val.image'. Did you mean 'val.images'"),
        (HEAD, r"missing required field `train`"),
        (HEAD + "train = 3\nval = 4", r"train: Expected `object`, got `int`"),
        (PARTS, r"missing required field `title`"),
        ('title = "x"\nminority = []' + PARTS, r"minority names no class"),
        ('title = "x"\nminority = "heart"' + PARTS, r"minority: Expected `array`, got `str`"),
        ('title = "x"\nminority = ["a", 3]' + PARTS, r"minority\[1\]: Expected `str`, got `int`"),
        (HEAD + PARTS.replace("a/val.json", "/etc/passwd"), r"val.annotations .*must be relative.*'/etc/passwd'"),
        (HEAD + PARTS.replace("a/images", "../images"), r"train.images .*must be relative"),
        (HEAD + PARTS.replace('"a/images"', '""'), r"train.images .*printable"),
        ("title = ", r"is no TOML: "),
        ("\ud800", r"is no TOML|is not UTF-8"),
    ],
)
def test_a_wrong_task_file_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageFault, match=message) as fault:
        find_task(str(path))
    assert str(path) in fault.value.message


def test_a_task_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    """A byte order mark, and lines that end in two characters."""
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (HEAD + PARTS).replace("\n", "\r\n").encode())
    task = find_task(str(path))
    assert (task.title, task.minority, task.inputs["val"]) == ("Mine", ("heart", "arrow"), "a/val.json")


def test_a_minority_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xef\xbb\xbfheart\r\narrow\r\n")
    assert read_names(path) == ("heart", "arrow")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("a/train.json", r"a\train.json", "train.annotations holds a control character: 'a\\train.json'"),
        ("a/images", r"\nice", "train.images holds a control character: '\\nice"),
        ("a/val.json", r"a\\x\fval.json", "val.annotations holds a control character"),
        ("a/val.json", r"data\coco\val.json", "is no TOML"),
        ("a/val.json", r"C:\Users\me\val.json", "is no TOML"),
    ],
)
def test_a_backslash_in_double_quotes_is_explained(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(UsageFault) as fault:
        find_task(written(tmp_path, HEAD + PARTS.replace(old, new)))
    assert told in fault.value.message
    assert fault.value.remedy is not None
    assert "write paths with '/', or in single quotes" in fault.value.remedy


def test_a_path_with_backslashes_in_single_quotes_is_read_as_windows_means_it(tmp_path: Path) -> None:
    task = find_task(written(tmp_path, HEAD + PARTS.replace('"a/train.json"', r"'a\train.json'")))
    assert task.inputs["train"] == "a/train.json"


@pytest.mark.parametrize(
    ("text", "strayed", "table"),
    [
        ('title = "x"' + PARTS + 'minority = ["heart"]', "'minority'", "val.minority"),
        (HEAD + PARTS + "labelled_percent = 5\nmin_instances = 3", "'labelled_percent', 'min_instances'", "val.l"),
        (HEAD + PARTS.replace("[val]", "cover = 'uniform'\n[val]"), "'cover'", "train.cover"),
    ],
)
def test_a_key_below_the_header_of_a_table_is_told_where_it_belongs(
    tmp_path: Path, text: str, strayed: str, table: str
) -> None:
    with pytest.raises(UsageFault, match="belongs to the whole file, above the first line in brackets") as fault:
        find_task(written(tmp_path, text))
    assert f"{strayed} stands below" in fault.value.message
    assert table in fault.value.message
    assert fault.value.remedy == f"move {strayed} to the top of the file, above [train] and [val]"


@pytest.mark.parametrize(
    "name", [".toml", "..toml", ".hidden.toml", "a b.toml", "-x.toml", "ü.toml", "x" * 65 + ".toml"]
)
def test_names_unfit_for_a_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageFault, match="becomes a folder"):
        find_task(written(tmp_path, HEAD + PARTS, name))


@pytest.mark.parametrize("name", ["toy.toml", "coco-split1.toml", "coco_split1.toml"])
def test_a_built_in_name_cannot_be_taken(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageFault, match="name of a built-in task"):
        find_task(written(tmp_path, HEAD + PARTS, name))


def test_a_missing_task_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match=r"none\.toml cannot be read"):
        find_task(str(tmp_path / "none.toml"))


def test_a_task_file_that_is_missing_is_answered_with_the_one_that_is_there(tmp_path: Path) -> None:
    written(tmp_path, HEAD + PARTS)
    with pytest.raises(UsageFault, match=r"min\.toml cannot be read: .*Did you mean 'mine\.toml'\?"):
        find_task(str(tmp_path / "min.toml"))
    (tmp_path / "data.yaml").write_text("names: [a]")
    for place in (tmp_path, tmp_path / "data.yaml"):
        with pytest.raises(UsageFault, match=r"is no task file: the name of one ends in \.toml or \.py"):
            find_task(str(place))


def test_all_misspelt_keys_and_tables_are_told_at_once(tmp_path: Path) -> None:
    text = 'title = "x"\nminorty = ["a"]\n[labeled]\nannotations = "a"\n[unlabeled]\nimages = "b"\n[val]\nimage = "c"'
    with pytest.raises(UsageFault) as fault:
        find_task(written(tmp_path, text))
    for told in ("'minorty'. Did you mean 'minority'", "'labeled'. Did you mean 'labelled'", "'val.images'?"):
        assert told in fault.value.message
    assert "Known: title, labelled, unlabelled, val" in fault.value.message


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ('[labelled]\nimages = "a"\n[val]\nannotations = "b"',
         'add title = "..." at the top; add [unlabelled]; add annotations = "..." below [labelled]; docs/own-data.md'),
        ('title = "x"\n[val]\nannotations = "b"', "add [train], or [labelled] and [unlabelled]; "),
        ('minority = "heart"\n' + PARTS, 'write minority = ["heart"]'),
        ("title = My own data\n" + PARTS, "write texts and paths in quotes"),
    ],
)  # fmt: skip
def test_the_remedy_of_a_task_file_says_what_to_write(tmp_path: Path, text: str, remedy: str) -> None:
    with pytest.raises(UsageFault) as fault:
        find_task(written(tmp_path, text))
    assert remedy in str(fault.value.remedy)


def test_tasks_shows_a_task_file(call: Callable[..., Any], tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + PARTS)
    shown = json.loads(call("tasks", path, "--json").out)
    assert (shown["name"], shown["minority"]) == ("mine", ["heart", "arrow"])
    assert "a/train.json" in call("tasks", path).out


def test_tasks_lists_name_title_and_source(call: Callable[..., Any]) -> None:
    rows = {row["name"]: row for row in json.loads(call("tasks", "--json").out)}
    assert set(rows) >= {"toy", "coco-split1", "coco-split2"}
    assert rows["coco-split1"] == {
        "name": "coco-split1", "title": "MS-COCO split 1", "source": "Sec. 4.1, scenario 1",
    }  # fmt: skip
    text = call("tasks").out
    assert all(name in text for name in rows)


def test_the_example_draws_a_split_of_coco_mini(call: Callable[..., Any], test_data: Path, tmp_path: Path) -> None:
    done = call("make-splits", "--task", EXAMPLE, "--data-root", test_data, "--work-dir", tmp_path)
    assert done.code == 0, done.err
    manifest = read_manifest(tmp_path / "splits/coco_mini/seed0").document
    assert manifest["counts"]["D_m"] == 60  # 10 % of the 602 images that hold a majority box
    assert manifest["below_minimum"] == []
    assert len(manifest["groups"]["min"]) == 12
    assert sum(manifest["counts"][part] for part in ("labelled", "unlabelled")) == 606
    assert manifest["images"] == {"train": "coco_mini/images", "val": "coco_mini/images"}


@pytest.mark.parametrize("key", ["exif", "cover", "dm_minority"])
def test_a_word_that_a_key_does_not_know_is_answered_with_those_it_knows(key: str, tmp_path: Path) -> None:
    words = {"exif": "'apply', 'ignore', 'auto'", "cover": "'uniform', 'useful'", "dm_minority": "'drop', 'ignore'"}
    text = EXAMPLE.read_text(encoding="utf-8")
    kept = "\n".join(line for line in text.splitlines() if not line.startswith(f"{key} "))
    path = tmp_path / "mine.toml"
    path.write_text(f'{key} = "yes"\n{kept}\n', encoding="utf-8")
    with pytest.raises(UsageFault, match=f"{key}: .*; it must be one of {words[key]}"):
        find_task(str(path))


def test_own_data_takes_photo_where_no_preset_is_named(tiny_coco: Path) -> None:
    assert find_task(str(tiny_coco / "tiny.toml")).usual_preset == "photo"
    assert find_task("coco-split1").usual_preset == "full"
    assert find_task("toy").usual_preset == "mini"
