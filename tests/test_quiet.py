"""mmdet's import is silent, and only its two known messages are."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from cissod_bench.quiet import PRINTED, WARNED, quiet_imports


def test_the_printed_message_is_dropped_with_its_line_end(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet_imports():
        print("before")
        print(PRINTED)
        sys.stdout.write(PRINTED + "\n")
        print("after")
    assert capsys.readouterr().out == "before\nafter\n"


def test_an_empty_line_of_somebody_else_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet_imports():
        print(PRINTED)
        print()
        print(f"{PRINTED} And more.")
    assert capsys.readouterr().out == f"\n{PRINTED} And more.\n"


def test_other_warnings_are_shown() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with quiet_imports():
            warnings.warn(f"{WARNED}, metrics will not be computed.", UserWarning, stacklevel=1)
            warnings.warn("the disk is full", UserWarning, stacklevel=1)
        warnings.warn(WARNED, UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["the disk is full", WARNED]


def imported(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_mmdet_is_imported_without_a_word() -> None:
    quietly = "import mmdet.datasets, mmdet.evaluation, mmdet.models"
    code = f"from cissod_bench.quiet import quiet_imports\nwith quiet_imports():\n    {quietly}\nimport mmdet.apis"
    assert imported(code) == ""


@pytest.mark.slow
def test_mmdet_still_says_what_is_silenced() -> None:
    """Once this fails, cissod_bench/quiet.py can go."""
    said = imported("import mmdet.datasets, mmdet.evaluation")
    assert PRINTED in said
    assert WARNED in said
