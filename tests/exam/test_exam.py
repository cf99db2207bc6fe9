"""The exam notices what it is there for: a method that breaks one rule fails that check and no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import exam_files as files
import numpy as np
import pytest
import torch
from commands import Called

from cissod_bench.catalogue import load_method
from cissod_bench.catalogue.method_files import find_method
from cissod_bench.cli import check_method
from cissod_bench.cli.common import Output
from cissod_bench.contract.method import Method
from cissod_bench.contract.parts import Parts
from cissod_bench.errors import BenchError
from cissod_bench.exam import ranks
from cissod_bench.exam.declaration import check_declaration, faults
from cissod_bench.exam.desk import Desk, garbage, quick_desk
from cissod_bench.exam.fingerprint import different, fingerprint, some
from cissod_bench.exam.outcome import CHECKS, Broken, Outcome, judged
from cissod_bench.exam.sitting import sit


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Three iterations instead of four: generations end before and after the stop as well."""
    return replace(quick_desk(tmp_path_factory.mktemp("desk")), half=3)


def failed(outcomes: Sequence[Outcome]) -> dict[str, str]:
    return {one.check: one.detail for one in outcomes if one.status == "FAIL"}


def sat(folder: Path, desk: Desk, name: str, body: str) -> list[Outcome]:
    outcomes, _ = sit(find_method(str(files.written(folder, name, body))), desk)
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "body", "check", "detail"),
    BREAKS := [
        ("not-finite", files.NOT_FINITE, "training", "iteration 2: loss and 1 more is nan"),
        ("outside-buffers", files.OUTSIDE_BUFFERS, "resume", "continued after 3 iterations: loss of iteration 3 is"),
        ("by-chance", files.BY_CHANCE, "resume", "two runs with one seed differ"),
        ("in-the-box-branch", files.IN_THE_BOX_BRANCH, "regression", "the box branch changes count"),
        ("in-dry-passes", files.IN_DRY_PASSES, "regression", "classification_loss changes [count] although"),
        ("reads-hidden", files.READS_HIDDEN, "hidden", "with another file in their place: before the stop: loss"),
    ],
    ids=[name for name, *_ in BREAKS],
)
def test_a_broken_method_fails_the_check_it_breaks_and_no_other(
    name: str, body: str, check: str, detail: str, tmp_path: Path, desk: Desk
) -> None:
    found = failed(sat(tmp_path, desk, name, body.replace("{hidden!r}", repr(str(desk.hidden)))))
    assert found.keys() == {check}
    assert detail in found[check].replace("['count']", "[count]")


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_the_example_of_the_guide_passes_and_ranks_that_disagree_or_fail_are_told_apart(
    tmp_path: Path, call: Callable[..., Called]
) -> None:
    """One call, because one start of the processes serves all three."""
    file = tmp_path / "mean_scores.py"
    file.write_text(files.example(), encoding="utf-8")
    assert len(files.example().splitlines()) < 40
    biased, failing = (
        files.written(tmp_path, name, body)
        for name, body in (("biased", files.OF_ONE_RANK), ("failing", files.ONE_RANK_FAILS))
    )
    done = call("check-method", file, biased, failing, "--quick", "--json", "--work-dir", tmp_path / "work")
    assert done.code == 1, done.err
    assert f"Error: {biased} fails the check 'processes' (and 1 more): " in done.err
    answers = {answer["method"]: answer for answer in json.loads(done.out)}
    for one, passed in ((file, "PASS"), (biased, "FAIL"), (failing, "FAIL")):
        statuses = {check["check"]: check["status"] for check in answers[str(one)]["checks"]}
        assert statuses == {**dict.fromkeys(CHECKS, "PASS"), "processes": passed, "cost": "-"}
        assert list(statuses) == list(CHECKS)
        assert answers[str(one)]["passed"] is (passed == "PASS")
    details = [answers[str(one)]["checks"][-2]["detail"] for one in (file, biased, failing)]
    assert details[0].startswith("1 tensors of the parts and")
    assert details[1].startswith("parts.count differs between the ranks")
    assert details[2].startswith("a rank fails: ValueError: rank 1 has had enough (failing.py, line ")
    assert "x Soft Teacher's, and holds" in answers[str(file)]["checks"][-1]["detail"]
    assert not (tmp_path / "work").exists()


def test_methods_behind_the_one_that_ends_the_ranks_are_started_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[list[str]] = []
    equal = [{"state": {"parts.a": "1"}}, {"state": {"parts.a": "1"}}]

    def answers(named: Sequence[str], desk: Desk, words: Sequence[str]) -> tuple[list[Any], str]:
        starts.append(list(words))
        place = named.index("bad") if "bad" in named else len(named)
        return [equal] * place, "it said why"

    monkeypatch.setattr(ranks, "_answers", answers)
    outcomes = ranks.check_processes(["one", "bad", "two", "three"], desk, ["check"])
    assert [(one.status, one.detail) for one in outcomes if one.status != "PASS"] == [("FAIL", "it said why")]
    assert [one.status for one in outcomes] == ["PASS", "FAIL", "PASS", "PASS"]
    assert starts == [["check", "one", "bad", "two", "three"], ["check", "two", "three"]]


def test_a_method_that_cannot_be_built_or_run_fails_with_the_line(tmp_path: Path, desk: Desk) -> None:
    body = "\n    def departures(self):\n        return {}\n\n    def stages(self):\n        raise ValueError('none')\n"
    outcomes = sat(tmp_path, desk, "no-stages", body)
    assert failed(outcomes).keys() == {"declaration", "training"}
    assert failed(outcomes)["training"].startswith("ValueError: none (no-stages.py, line ")
    assert {one.check for one in outcomes if one.status == "-"} == {"resume", "regression", "hidden"}


SOUND = Method(title="T", source="s", citation="c", parts=lambda facts: Parts(1), name="sound")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"title": " "}, "title must say something. Got ' '"),
        ({"citation": ""}, "citation must say something. Got ''"),
        ({"summary": None}, "summary must say something. Got None"),
        ({"images": "all"}, "images must be 'semi', 'promoted', 'labelled' or 'oracle'. Got 'all'"),
        ({"images": "oracle"}, "competitor must be False for a method that sees the hidden boxes"),
        ({"reported": {"coco": {"all": 1.0}}}, "reported names the task 'coco', which does not exist: "),
        ({"reported": {"toy": {"r": 1.0}}}, "reported['toy'] names the column 'r'; the task has all, maj, min"),
        ({"reported": {"toy": {"all": 123}}}, "reported['toy']['all'] must be points in [0, 100]. Got 123"),
        ({"variants": {"v": {"a": 1, "b": 2, "c": 3}}}, "variant 'v' must change one or two fields. It changes 3"),
        ({"departures": ("other rates", "")}, "departures[1] must be a sentence. Got ''"),
        ({"variants": {"v": {}}}, "variant 'v' must change one or two fields. It changes 0"),
        ({"reported_variants": {"v": {}}}, "reported_variants names 'v', which is no variant"),
    ],
)
def test_an_unsound_declaration_is_told_in_one_line(fields: dict[str, object], message: str) -> None:
    (fault,) = faults(replace(SOUND, **fields))  # type: ignore[arg-type]
    assert fault.startswith(message)
    assert list(faults(SOUND)) == []


@pytest.mark.parametrize("name", ["title", "source", "summary"])
def test_words_that_a_listing_cannot_read_are_a_fault(name: str) -> None:
    other = replace(load_method("soft-teacher"), **{name: "Put together when it is imported"})  # type: ignore[arg-type]
    assert list(faults(other)) == [f"{name} must be a literal in the file: listings read it unimported"]


def test_every_variant_is_built_and_the_broken_one_named() -> None:
    built: list[str] = []

    def build(variant: str) -> None:
        built.append(variant)
        if variant == "second":
            raise TypeError("no field 'modles'")

    method = replace(SOUND, variants={"first": {"a": 1}, "second": {"modles": 2}})
    with pytest.raises(Broken, match=r"variant 'second' cannot be built: TypeError: no field 'modles' \(test_exam"):
        check_declaration(method, build)
    assert built == ["", "first", "second"]


class Pool:
    """State that is no tensor, within an object."""

    def __init__(self) -> None:
        self.scores = {3: [0.5, 0.25]}
        self.rows = np.arange(3)
        self.itself = self


def test_fingerprints_see_every_bit_of_nested_state_and_nothing_else() -> None:
    parts = Parts(2)
    parts.pool = Pool()  # type: ignore[assignment]
    parts.register_buffer("empty", torch.zeros(0, 3))
    before = fingerprint(parts)
    assert {"pool.scores[3][1]", "pool.rows", "theta_fixed", "num_classes"} <= before.keys()
    assert different(before, fingerprint(parts)) == []
    parts.pool.scores[3][1] = float(np.nextafter(0.25, 1))
    assert different(before, fingerprint(parts)) == ["pool.scores[3][1]"]
    parts.pool.scores[3][1], parts.theta_fixed[1] = 0.25, -0.9
    assert different(before, fingerprint(parts)) == ["theta_fixed"]
    one, other = (fingerprint(torch.tensor([0.0, sign])) for sign in (0.0, -0.0))
    assert one != other
    assert fingerprint(torch.zeros(2)) != fingerprint(torch.zeros(2, 1))
    assert some(["a", "b", "c"]) == "a and 2 more"


def test_the_file_comes_back_whatever_happens_meanwhile(tmp_path: Path) -> None:
    file = tmp_path / "hidden.json"
    file.write_bytes(b"boxes")
    seen = []
    with pytest.raises(ZeroDivisionError), garbage(file):
        seen.append(file.read_bytes() == b"boxes" or 1 // 0)
    assert seen == []
    assert file.read_bytes() == b"boxes"
    assert list(tmp_path.iterdir()) == [file]


def test_an_error_of_the_method_is_its_failure() -> None:
    assert judged("resume", lambda: "fine") == Outcome("resume", "PASS", "fine")
    assert judged("resume", lambda: str(1 // 0)).detail.startswith("ZeroDivisionError: ")
    assert judged("resume", lambda: str(1 // 0)).status == "FAIL"


def test_the_table_shows_every_check_and_a_failure_ends_with_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    sound = [Outcome("declaration", "PASS", "T [semi]"), Outcome("cost", "-", "1.02 x")]
    broken = [Outcome("declaration", "PASS", "U"), Outcome("resume", "FAIL", "loss of iteration 3")]
    check_method._show(Output(), ["a.py"], [sound])
    assert "T [semi]" in capsys.readouterr().out
    with pytest.raises(BenchError, match=r"^b fails the check 'resume': N \+ resume \+ N equals 2 N") as fault:
        check_method._show(Output(json=True), ["a.py", "b"], [sound, broken])
    assert fault.value.exit_code == 1
    first, second = json.loads(capsys.readouterr().out)
    assert (first["method"], first["passed"]) == ("a.py", True)
    assert (second["method"], second["passed"]) == ("b", False)
    assert second["checks"][1] == {
        "check": "resume", "status": "FAIL", "detail": "loss of iteration 3", "asks": CHECKS["resume"]
    }  # fmt: skip


@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_a_missing_file_is_told_before_anything_is_drawn_or_trained(
    tmp_path: Path, call: Callable[..., Called], quick: tuple[str, ...]
) -> None:
    done = call("check-method", "soft-teacher", tmp_path / "none.py", "--work-dir", tmp_path / "work", *quick)
    assert done.code == 2
    assert f"There is no file {tmp_path / 'none.py'}." in done.err
    assert not (tmp_path / "work").exists()
