"""What make-splits finds in its place: a split that is there, changed or drawn otherwise; a kill; another process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from split_folders import FILES, content, data_bytes, folder

from cissod_bench.catalogue.task_files import find_task
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.split_folders.ensure import draw_options, ensure_split
from cissod_bench.splitting.manifest import read_manifest, verify

ROOT = Path(__file__).resolve().parents[2]
Call = Callable[..., Any]


def test_a_split_that_is_there_is_verified_and_kept(split: Call, tmp_path: Path) -> None:
    split()
    before = (folder(tmp_path) / "labelled.json").stat().st_mtime_ns
    again = split()
    assert again.code == 0
    assert "already there, hashes verified" in again.out
    assert (folder(tmp_path) / "labelled.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--labelled-percent", "40"), "labelled_percent 20.0; asked for is 40.0"),
        (("--cover", "uniform"), "cover 'useful'; asked for is 'uniform'"),
        (("--min-instances", "2"), "min_instances 3; asked for is 2"),
        (("--dm-minority", "ignore"), "dm_minority 'drop'; asked for is 'ignore'"),
    ],
)
def test_other_options_for_the_same_seed_need_force(split: Call, tmp_path: Path, options: Any, named: str) -> None:
    split()
    before = data_bytes(folder(tmp_path))
    refused = split(*options)
    assert refused.code == 2
    assert named in refused.err
    assert "--force" in refused.err
    assert data_bytes(folder(tmp_path)) == before
    assert split(*options, "--force").code == 0
    verify(folder(tmp_path))


def test_another_input_is_noticed(split: Call, tmp_path: Path, tiny_coco: Path) -> None:
    split()
    path = tiny_coco / "tiny/annotations/train.json"
    path.write_bytes(path.read_bytes() + b"\n")
    refused = split()
    assert refused.code == 3
    assert "was drawn from another" in refused.err
    assert str(path) in refused.err


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_of_a_split_is_noticed(split: Call, tmp_path: Path, name: str) -> None:
    split()
    path = folder(tmp_path) / name
    path.write_bytes(path.read_bytes().replace(b"}", b" }", 1))
    with pytest.raises(DataFault, match=f"{name} has been changed"):
        verify(folder(tmp_path))
    assert split().code == 3
    path.unlink()
    assert "cannot be read" in split().err


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read"), ("{}", "lacks the key 'schema'"), ("[]", "cannot be read"), (None, "holds no split")],
)
def test_a_broken_manifest_is_named(split: Call, tmp_path: Path, text: str | None, message: str) -> None:
    split()
    path = folder(tmp_path) / "manifest.json"
    if text is None:
        path.unlink()
    else:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DataFault, match=message):
        read_manifest(folder(tmp_path))


def test_a_manifest_of_a_newer_schema_is_refused(split: Call, tmp_path: Path) -> None:
    split()
    path = folder(tmp_path) / "manifest.json"
    path.write_text(json.dumps({**content(path), "schema": 2}), encoding="utf-8")
    with pytest.raises(DataFault, match="has schema 2"):
        read_manifest(folder(tmp_path))


KILL = """
import os, signal, sys
from cissod_bench.files import whole_files as atomic
from cissod_bench import cli
from cissod_bench.splitting import data_files as split_files
point, count = sys.argv.pop(1), 0
def at(function, limit):
    def wrapped(*arguments, **named):
        global count
        count += 1
        if count == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return wrapped
if point.startswith("replace"):
    os.replace = at(os.replace, int(point[-1]))
else:
    os.fsync = at(os.fsync, int(point[-1]))
cli.entry()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
@pytest.mark.parametrize("point", ["fsync1", "fsync2", "fsync3", "replace1", "replace2"])
@pytest.mark.parametrize("force", [False, True], ids=["fresh", "force"])
def test_kill_9_leaves_the_old_split_or_none(
    split: Call, tmp_path: Path, tiny_coco: Path, point: str, force: bool
) -> None:
    split(work="whole")
    whole = data_bytes(folder(tmp_path, work="whole"))
    arguments = ["make-splits", "--task", str(tiny_coco / "tiny.toml"), "--data-root", str(tiny_coco)]
    arguments += ["--work-dir", str(tmp_path / "work")]
    if force:
        split()
        arguments += ["--force"]
    done = subprocess.run([sys.executable, "-c", KILL, point, *arguments], cwd=ROOT, check=False, capture_output=True)
    expected_kill = not (point == "replace2" and not force)
    assert (done.returncode == -signal.SIGKILL) == expected_kill, done.stderr
    if folder(tmp_path).exists():
        assert data_bytes(folder(tmp_path)) == whole
        verify(folder(tmp_path))
    assert split().code == 0
    assert data_bytes(folder(tmp_path)) == whole
    assert sorted(path.name for path in folder(tmp_path).parent.iterdir()) == [".seed0.lock", "seed0"]


def test_two_processes_draw_one_split(split: Call, tmp_path: Path, tiny_coco: Path) -> None:
    arguments = [sys.executable, "-m", "cissod_bench", "make-splits", "--task", str(tiny_coco / "tiny.toml"), "--json"]
    arguments += ["--data-root", str(tiny_coco), "--work-dir", str(tmp_path / "work")]
    both = [subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, env=os.environ) for _ in range(2)]
    outputs = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0] == outputs[1]
    verify(folder(tmp_path))


def test_a_place_that_cannot_be_written_is_an_environment_fault(split: Call, tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file, not a folder", encoding="utf-8")
    done = split()
    assert done.code == 4
    assert "Cannot write" in done.err


def test_a_split_of_other_options_is_kept_and_told_where_nobody_asks_for_options(split: Call, tmp_path: Path) -> None:
    split("--labelled-percent", "40", "--dm-minority", "ignore")
    before = data_bytes(folder(tmp_path))
    plain = split()
    assert plain.code == 0
    assert "drawn with labelled_percent 40.0, dm_minority ignore; --force" in plain.out
    assert split("--labelled-percent", "40").code == 0
    assert split("--dm-minority", "drop").code == 2
    assert data_bytes(folder(tmp_path)) == before
    assert split("--force").code == 0
    assert data_bytes(folder(tmp_path)) != before


def test_a_run_takes_a_split_of_any_options_but_not_of_other_inputs(
    split: Call, tmp_path: Path, tiny_coco: Path
) -> None:
    split("--labelled-percent", "40", "--cover", "uniform")
    task = find_task(str(tiny_coco / "tiny.toml"))
    arguments = (task, tiny_coco, tmp_path / "work", draw_options(task))
    with pytest.raises(UsageFault, match="holds a split with cover 'uniform'"):
        ensure_split(*arguments)
    drawn = ensure_split(*arguments, any_options=True)
    assert (drawn.fresh, drawn.manifest.labelled_percent) == (False, 40.0)
    path = tiny_coco / "tiny/annotations/val.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DataFault, match="was drawn from another"):
        ensure_split(*arguments, any_options=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": []}, r"Expected `object`, got `array` - at `\$.groups`"),
        ({"groups": {"maj": "circle"}}, r"Expected `array`, got `str` - at `\$.groups"),
        ({"groups": {"maj": ["circle", 3]}}, r"Expected `str`, got `int` - at `\$.groups"),
        ({"groups": {"maj": ["circle", "square", "triangle"], "min": ["heart"]}}, "groups must hold .*'arrow'"),
        ({"groups": {"maj": ["circle"], "min": ["square", "triangle", "heart", "arrow"]}}, "groups.min must hold"),
        ({"files": None}, r"Expected `object`, got `null` - at `\$.files`"),
        ({"files": {}}, "files must name labelled.json"),
        ({"inputs": {}}, "inputs must hold under 'val'"),
        ({"inputs": {"val": {"path": "a"}}}, r"missing required field `sha256` - at `\$.inputs"),
        ({"val": 3}, r"Expected `object`, got `int` - at `\$.val`"),
        ({"classes": ["circle"] * 5}, "classes names a class twice"),
        ({"counts": {"labelled": "8", "unlabelled": 1}}, r"Expected `int`, got `str` - at `\$.counts"),
        ({"counts": {"labelled": 8}}, "counts lacks the key 'unlabelled'"),
        ({"boxes": {"labelled": 8}}, r"missing required field `ignored` - at `\$.boxes`"),
        ({"max_dets": "100"}, r"Expected `int`, got `str` - at `\$.max_dets`"),
        ({"per_class": {}}, "per_class must hold every one of classes"),
        ({"split_sha256": "ab" * 32}, "split_sha256 must be the hash over files"),
        ({"schema": "1"}, r"Expected `int`, got `str` - at `\$.schema`"),
        ({"task": "other"}, "holds a split with task 'other'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else json.dumps(value)[:40],
)
def test_an_edited_manifest_is_a_fault_that_names_the_key(
    split: Call, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    split()
    path = folder(tmp_path) / "manifest.json"
    path.write_text(json.dumps({**content(path), **change}), encoding="utf-8")
    refused = split()
    assert refused.code == (2 if "task" in change else 3)
    assert re.search(message, refused.err)
    assert str(folder(tmp_path)) in refused.err


@pytest.mark.parametrize("text", [b'{"a":' + b"[" * 100_000, b'{"schema": "\xff"}'], ids=["deep", "no UTF-8"])
def test_a_manifest_that_cannot_be_decoded_is_named(split: Call, tmp_path: Path, text: bytes) -> None:
    split()
    (folder(tmp_path) / "manifest.json").write_bytes(text)
    with pytest.raises(DataFault, match=r"manifest\.json cannot be read"):
        read_manifest(folder(tmp_path))
