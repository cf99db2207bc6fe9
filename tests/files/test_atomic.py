from __future__ import annotations

import errno
import gzip
import json
import os
import threading
from pathlib import Path

import pytest

from cissod_bench.errors import EnvironmentFault
from cissod_bench.files import whole_files
from cissod_bench.files.whole_files import (
    files_appearing,
    folder_appearing,
    json_bytes,
    locked,
    replacing,
    write_bytes,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_its_folder_appear_whole(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c.bin"
    write_bytes(path, b"old")
    with replacing(path) as stream:
        stream.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["c.bin"]


def write_half(path: Path) -> None:
    with replacing(path) as stream:
        stream.write(b"half")
        raise InterruptedByTest


def write_half_a_folder(path: Path) -> None:
    with locked(path), folder_appearing(path) as hidden:
        (hidden / "b").touch()
        raise InterruptedByTest


class InterruptedByTest(Exception):
    pass


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(InterruptedByTest):
        write_half(path)
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["a.txt"]


def test_json_is_readable_and_the_same_each_time(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "é"}
    for name in ("one.json.gz", "two.json.gz"):
        write_json(tmp_path / name, value)
    assert (tmp_path / "one.json.gz").read_bytes() == (tmp_path / "two.json.gz").read_bytes()
    assert json.loads(gzip.decompress((tmp_path / "one.json.gz").read_bytes())) == value
    write_json(tmp_path / "plain.json", value)
    assert (tmp_path / "plain.json").read_bytes() == json_bytes(value)
    assert json_bytes(value).endswith(b"}\n")


def test_numbers_that_json_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"ap": float("nan")})
    assert names(tmp_path) == []


def test_new_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    write_bytes(tmp_path / "ours", b"")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_full_disk_is_told_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFault, match="No space left") as fault:
        write_bytes(tmp_path / "a", b"x")
    assert "free some space" in (fault.value.remedy or "")
    assert names(tmp_path) == []


def test_trouble_with_another_file_is_not_called_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a") as stream:
        stream.write(Path("/no/such/file").read_bytes())


def test_a_folder_appears_whole_in_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "split"
    for content in ("old", "new"):
        with locked(path), folder_appearing(path) as hidden:
            (hidden / content).write_text(content, encoding="utf-8")
            assert not (path / content).exists()
        assert names(path) == [content]
    assert names(tmp_path) == [".split.lock", "split"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "split"
    with locked(path), folder_appearing(path) as hidden:
        (hidden / "a").touch()
    with pytest.raises(InterruptedByTest):
        write_half_a_folder(path)
    assert names(path) == ["a"]
    assert names(tmp_path) == [".split.lock", "split"]


def test_files_appear_together_among_those_that_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    for content in ("old", "new"):
        with files_appearing(folder) as hidden:
            write_bytes(hidden / "a", content.encode())
            write_bytes(hidden / "below" / content, b"")
            assert not (folder / "below" / content).exists()
    assert (folder / "a").read_bytes() == b"new"
    assert (names(folder), names(folder / "below")) == (["a", "below"], ["new", "old"])


def add_half_of_the_files(folder: Path) -> None:
    with files_appearing(folder) as hidden:
        write_bytes(hidden / "below" / "a", b"")
        raise InterruptedByTest


@pytest.mark.parametrize("there", [".", "new", "new/out"])
def test_a_failure_leaves_neither_files_nor_folders(tmp_path: Path, there: str) -> None:
    folder = tmp_path / "new" / "out"
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InterruptedByTest):
        add_half_of_the_files(folder)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(EnvironmentFault, match="out") as fault, files_appearing(tmp_path / "out"):
        pass
    assert "name another place" in (fault.value.remedy or "")
    (tmp_path / "other" / "a").mkdir(parents=True)
    with pytest.raises(EnvironmentFault, match="other/a"), files_appearing(tmp_path / "other") as hidden:
        write_bytes(hidden / "a", b"")
    assert names(tmp_path / "other") == ["a"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for left in (".seed1.new-99-ab.tmp", ".seed1.old-99-ab.tmp", ".seed10.new-99-ab.tmp", "seed1.tmp"):
        (tmp_path / left).mkdir()
    with locked(tmp_path / "seed1"):
        assert names(tmp_path) == [".seed1.lock", ".seed10.new-99-ab.tmp", "seed1.tmp"]


def test_a_reader_of_stdout_that_goes_away_is_no_fault_of_the_file(tmp_path: Path) -> None:
    gone = BrokenPipeError(errno.EPIPE, "Broken pipe")
    with pytest.raises(BrokenPipeError), replacing(tmp_path / "a.json"):
        raise gone
    with pytest.raises(BrokenPipeError), locked(tmp_path / "split"), folder_appearing(tmp_path / "split"):
        raise gone
    assert [path.name for path in tmp_path.iterdir()] == [".split.lock"], "and nothing half-written stays"


def test_who_waits_for_another_writer_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(whole_files, "PATIENCE", 0.05)
    folder, held, done = tmp_path / "seed0", threading.Event(), threading.Event()

    def hold() -> None:
        with locked(folder):
            held.set()
            done.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(10)
    threading.Timer(0.3, done.set).start()
    with locked(folder):
        assert done.is_set()
    other.join()
    assert capsys.readouterr().err == f"Waiting for another process that writes {folder}\n"


@pytest.mark.parametrize("place", ["file", "file/inner"])
def test_a_file_in_the_way_of_a_folder_is_no_matter_of_space(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault) as fault:
        write_bytes(tmp_path / place / "a.bin", b"new")
    assert str(fault.value.remedy).startswith("name another place")
