"""Finished runs travel in an archive, and whoever unpacks it cannot mistake them for what they are not."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Called
from finished_runs import DETECTED, Place, place_in

from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files.whole_files import write_json
from cissod_bench.keeping.packing import pack
from cissod_bench.keeping.unpacking import Unpacked, unpack
from cissod_bench.records.run_folder import CHECKPOINT, PREDICTIONS, PSEUDO_BOXES, PSEUDO_LABELS, find_runs, read_record

Call = Callable[..., Called]
Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return place_in(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Place:
    """Another machine: the same data, no split and no run."""
    return place_in(tmp_path / "there", split=False)


@pytest.fixture
def packed(place: Place, tmp_path: Path) -> Path:
    place.run()
    return pack(find_runs(place.work), tmp_path / "run.tar.gz", place.work).file


def unpacked(file: Path, there: Place) -> list[Unpacked]:
    return unpack(file, there.work, there.data)


def rewritten(file: Path, change: Callable[[Members], Members]) -> Path:
    """The archive with other members."""
    with tarfile.open(file) as archive:
        members = [(one, archive.extractfile(one).read()) for one in archive.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(file, "w:gz") as archive:
        for entry, content in change(members):
            archive.addfile(entry, io.BytesIO(content))
    return file


def with_list(file: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The archive with another list."""

    def changed(members: Members) -> Members:
        listed = json.loads(members[0][1])
        change(listed)
        content = json.dumps(listed).encode()
        members[0][0].size = len(content)
        return [(members[0][0], content), *members[1:]]

    return rewritten(file, changed)


def nothing_in(place: Place) -> bool:
    return not (place.work / "runs").exists()


def test_the_same_run_gives_the_same_bytes_whenever_and_wherever_it_is_packed(
    place: Place, packed: Path, there: Place, tmp_path: Path
) -> None:
    os.utime(place.run() / PREDICTIONS, (1, 1))
    again = pack(find_runs(place.work), tmp_path / "again.tar.gz", place.work)
    unpacked(packed, there)
    back = pack(find_runs(there.work), tmp_path / "back.tar.gz", there.work)
    assert packed.read_bytes() == again.file.read_bytes() == back.file.read_bytes()
    assert again.warnings == back.warnings == ()


def test_an_archive_holds_what_a_report_shows_of_pseudo_labels(place: Place, there: Place, tmp_path: Path) -> None:
    folder = place.run()
    for name in (PSEUDO_LABELS, PSEUDO_BOXES):
        (folder / name).write_text('{"generation": 1}\n', encoding="utf-8")
    (one,) = unpacked(pack(find_runs(place.work), tmp_path / "run.tar.gz", place.work).file, there)
    for name in (PSEUDO_LABELS, PSEUDO_BOXES):
        assert (one.run.folder / name).read_text(encoding="utf-8") == '{"generation": 1}\n'


def test_an_archive_holds_all_but_checkpoints_and_names_nobody(place: Place, packed: Path) -> None:
    with tarfile.open(packed) as archive:
        members = archive.getmembers()
        listed = json.load(archive.extractfile("pack.json"))  # type: ignore[arg-type]
    run = "mine/split0/ours/mini-default/seed0"
    names = ["run.json", "split/manifest.json", "log.jsonl", "predictions.json.gz", "predictions_student.json.gz"]
    assert [one.name for one in members] == ["pack.json", *(f"{run}/{name}" for name in names)]
    assert {(one.mtime, one.uid, one.uname) for one in members} == {(0, 0, "")}
    assert (listed["format"], listed["runs"][0]["place"]) == ("cissod-bench runs", run)
    assert listed["runs"][0]["split_sha256"] == place.split_manifest()["split_sha256"]


def test_a_run_arrives_where_its_record_says_and_is_scored_again(packed: Path, there: Place) -> None:
    (one,) = unpacked(packed, there)
    assert one.run.folder == there.work / "runs/mine/split0/ours/mini-default/seed0"
    assert one.rescored.models == ("teacher", "student")
    assert (one.rescored.why_not, one.there) == ("", False)
    assert read_record(one.run.folder) == one.run.record
    assert not (one.run.folder / CHECKPOINT).exists()
    assert unpacked(packed, there)[0].there


def test_the_commands_pack_a_tree_of_runs_and_unpack_it(
    place: Place, there: Place, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, fields in ((0, {}), (1, {}), (2, {"status": "interrupted"})):
        place.run(seed, **fields)
    answer = call("runs", "pack", place.work / "runs", "--work-dir", place.work)
    assert answer.code == 0, answer.err
    assert "seed2 is not finished (interrupted) and stays out" in answer.err
    assert "Written: runs.tar.gz, 2 runs" in answer.out
    answer = call("runs", "unpack", "runs.tar.gz", "--json", *there.options)
    assert [(Path(one["dir"]).name, one["scored_again"]) for one in json.loads(answer.out)] == [
        ("seed0", ["teacher", "student"]), ("seed1", ["teacher", "student"]),
    ]  # fmt: skip
    alone = place.run(0)
    assert "mine-split0-ours-mini-default-seed0.tar.gz" in call("runs", "pack", alone, "--work-dir", place.work).out
    assert call("runs", "pack", alone, "--work-dir", place.work).code == 2  # the file is there


def test_a_run_that_is_not_finished_or_not_there_is_not_packed(place: Place, call: Call, tmp_path: Path) -> None:
    folder = place.run(status="failed")
    with pytest.raises(UsageFault, match="not finished"):
        pack(find_runs(folder), tmp_path / "a", place.work)
    assert call("runs", "pack", folder, "--out", tmp_path / "a").code == 2
    assert call("runs", "pack", tmp_path / "gone").code == 3
    assert not (tmp_path / "a").exists()


def test_a_run_without_predictions_is_packed_with_a_warning_and_not_scored(
    place: Place, there: Place, tmp_path: Path
) -> None:
    (place.run() / PREDICTIONS).unlink()
    made = pack(find_runs(place.work), tmp_path / "a.tar.gz", place.work)
    assert made.warnings == ("mine/split0/ours/mini-default/seed0: no predictions of the teacher",)
    (one,) = unpacked(made.file, there)
    assert one.rescored.models == ("student",)
    assert one.rescored.why_not == "the predictions of the teacher are missing"


def test_without_the_validation_file_it_is_told_that_nothing_was_scored(packed: Path, there: Place, call: Call) -> None:
    (there.data / "val.json").write_text("{}")  # another file of that name
    answer = call("runs", "unpack", packed, *there.options)
    assert answer.code == 0
    assert "all hashes right" in answer.out
    assert "was not scored again as a whole: the validation file val.json of its split is not below" in answer.err


def test_predictions_of_another_run_are_refused_by_their_scores(place: Place, there: Place, tmp_path: Path) -> None:
    write_json(place.run() / PREDICTIONS, DETECTED[:1])
    file = pack(find_runs(place.work), tmp_path / "a.tar.gz", place.work).file
    with pytest.raises(DataFault, match=r"the teacher give AP 50\.0+ for 'all' .* run\.json says 80\.0+") as refused:
        unpacked(file, there)
    assert "runs pack" in str(refused.value.remedy)
    assert nothing_in(there)


def test_a_manifest_of_another_draw_does_not_travel(place: Place, there: Place, tmp_path: Path) -> None:
    write_json(place.work / "splits" / "mine" / "seed0" / "manifest.json", place.split_manifest("cd"))
    place.run()
    made = pack(find_runs(place.work), tmp_path / "a.tar.gz", place.work)
    assert made.warnings == ("mine/split0/ours/mini-default/seed0: no manifest of its split",)
    assert unpacked(made.file, there)[0].rescored.why_not == "the manifest of its split is not at hand"


def test_another_run_in_its_place_stays(place: Place, packed: Path, there: Place) -> None:
    other = there.run(versions={"torch": "0"})
    with pytest.raises(UsageFault, match="another run, which stays"):
        unpacked(packed, there)
    assert read_record(other).versions == {"torch": "0"}
    assert [path.name for path in (there.work / "runs").iterdir()] == ["mine"]


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(content)
    for key, value in fields.items():
        setattr(made, key, value)
    return made, content


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda all_: [all_[0], entry("../../x", b"x"), *all_[2:]], r"it holds '\.\./\.\./x' where its list names"),
        (lambda all_: [*all_, entry("/etc/x", b"x")], "it holds '/etc/x', which its list does not name"),
        (lambda all_: [all_[0], entry(all_[1][0].name, type=tarfile.SYMTYPE, linkname="/"), *all_[2:]], "it holds"),
        (lambda all_: all_[:-1], "it ends before .*predictions_student"),
        (lambda all_: all_[1:], "does not begin with pack.json"),
        (lambda all_: [*all_[:3], (all_[3][0], b"[" + all_[3][1][1:]), *all_[4:]], "its sha256 is"),
        (lambda all_: [*all_[:2], entry(all_[2][0].name, all_[2][1][:-1]), *all_[3:]], "bytes, listed are"),
    ],
    ids=["a way out", "one more", "a link", "one fewer", "no list", "another byte", "another size"],
)
def test_an_archive_that_is_not_as_its_list_says_is_refused(
    change: Callable[[Members], Members], rule: str, packed: Path, there: Place, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataFault, match=rule):
        unpacked(rewritten(packed, change), there)
    assert nothing_in(there)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda listed: listed["runs"][0].update(place="../../x"), r"the place of a run must be relative"),
        (lambda listed: listed["runs"][0].update(place="toy/x"), "where its list names toy/x"),
        (lambda listed: listed["runs"][0]["files"].update({"../x": {"bytes": 0, "sha256": "0" * 64}}), "no run has"),
        (lambda listed: listed["runs"][0].update(split_sha256="0" * 64), "contradicts itself"),
        (lambda listed: listed["runs"][0]["files"].pop("run.json"), "has no run.json"),
        (lambda listed: listed.update(runs=[]), "it holds no run"),
        (lambda listed: listed.update(format="zip of holidays"), "no archive of runs but of 'zip of holidays'"),
        (lambda listed: listed.update(schema=2), "this version reads up to 1"),
        (lambda listed: listed["runs"][0]["files"]["run.json"].update(bytes=-1), "breaks the format"),
    ],
)
def test_a_list_that_breaks_a_rule_is_refused(
    change: Callable[[dict[str, Any]], None], rule: str, packed: Path, there: Place
) -> None:
    with pytest.raises(DataFault, match=rule):
        unpacked(with_list(packed, change), there)
    assert nothing_in(there)


def test_a_run_is_not_put_where_another_name_would_have_it(place: Place, there: Place, packed: Path) -> None:
    def moved(members: Members) -> Members:
        for one, _ in members[1:]:
            one.name = one.name.replace("seed0", "seed1")
        return members

    rewritten(packed, moved)
    with pytest.raises(DataFault, match=r"by its record the run in .*seed1 is .*seed0"):
        unpacked(with_list(packed, lambda all_: all_["runs"][0].update(place=_other(all_))), there)


def _other(listed: dict[str, Any]) -> str:
    return str(listed["runs"][0]["place"]).replace("seed0", "seed1")


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"no tar" * 300), gzip.compress(b""), b"\x1f\x8b\x08"],
    ids=["empty", "text", "gzip of text", "gzip of nothing", "the head of a gzip"],
)
def test_a_foreign_file_is_refused(content: bytes, there: Place, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataFault, match="no archive of runs") as refused:
        unpacked(tmp_path / "x", there)
    assert refused.value.remedy


def test_an_archive_that_was_cut_off_or_altered_anywhere_is_refused(packed: Path, there: Place, tmp_path: Path) -> None:
    whole, file = packed.read_bytes(), tmp_path / "damaged.tar.gz"
    for at in range(12, len(whole) - 8, max(1, len(whole) // 40)):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]):
            file.write_bytes(damaged)
            with pytest.raises(DataFault):
                unpacked(file, there)
            assert nothing_in(there)
    with pytest.raises(DataFault, match="There is no file"):
        unpacked(tmp_path / "gone", there)
