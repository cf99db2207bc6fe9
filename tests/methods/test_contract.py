"""Every method of the catalogue sits the exam of ``cissod-bench check-method``; a new file is in it at once."""

from __future__ import annotations

import pytest

from cissod_bench.catalogue import list_methods, load_method
from cissod_bench.exam.declaration import faults
from cissod_bench.exam.desk import Desk, quick_desk
from cissod_bench.exam.outcome import Outcome
from cissod_bench.exam.ranks import check_processes
from cissod_bench.exam.sitting import sit

METHODS = tuple(list_methods())


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return quick_desk(tmp_path_factory.mktemp("desk"))


def failed(outcomes: list[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if one.status == "FAIL"]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_declares_itself_soundly(name: str) -> None:
    assert list(faults(load_method(name))) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_resumes_exactly_and_keeps_its_hands_off(name: str, desk: Desk) -> None:
    outcomes, whole = sit(load_method(name), desk)
    assert failed(outcomes) == []
    assert whole is not None
    assert len(whole.lines) == 8


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_two_processes_with_half_the_data_each_hold_one_state_of_every_method(desk: Desk) -> None:
    for name in METHODS:
        desk.plan(load_method(name))  # the split is there before two processes ask for it
    outcomes = check_processes(METHODS, desk, ["check-method", "--quick", "--ranks", str(desk.work)])
    assert {name: one.detail for name, one in zip(METHODS, outcomes, strict=True) if one.status != "PASS"} == {}
