"""scripts/setup.sh: which steps it takes; stand-ins for Python note what they are asked and install nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAND_IN = """#!/bin/sh
case "$*" in
    -V) echo "Python {version}" ;;
    "-m venv "*) for venv; do :; done; mkdir -p "$venv/bin"; cp "$0" "$venv/bin/python"
        for program in uv cissod-bench; do ln -sf /bin/true "$venv/bin/$program"; done ;;
    *) echo "$*" >>"{asked}" ;;
esac
"""


class Checkout:
    """This checkout with an environment elsewhere, set up by a stand-in for Python."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, folder / "asked"

    def set_up(self, version: str = "", **settings: str) -> str:
        """Set up with a Python of that version, or with none named; return what was said."""
        variables = {"VENV": str(self.folder / "venv"), **settings}
        if version:
            variables["PYTHON"] = str(self.folder / f"python{version}")
            Path(variables["PYTHON"]).write_text(STAND_IN.format(version=version, asked=self.asked), encoding="utf-8")
            Path(variables["PYTHON"]).chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "EXTRAS", "TORCH", "UV")}
        script = ("sh", str(ROOT / "scripts/setup.sh"))
        # Its output ends with it: none of its own processes may hold it open.
        done = subprocess.run(
            script, env={**kept, **variables}, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def words(self) -> str:
        return self.asked.read_text(encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_without_the_extra_train_neither_torch_nor_a_compiler_is_asked_for(checkout: Checkout) -> None:
    checkout.set_up("3.13.0", EXTRAS="lvis,dev", CXX="no-such-compiler")
    assert "-e .[lvis,dev]" in checkout.words()
    assert not any(name in checkout.words() for name in ("setup_torch", "setup_mmcv", "torch", "timm", "import mmcv"))


def test_with_the_extra_train_torch_comes_before_mmcv_and_mmcv_before_the_rest(checkout: Checkout) -> None:
    checkout.set_up("3.11.7", EXTRAS="train", TORCH="torch-2.13.0.whl")
    places = [checkout.words().index(word) for word in ("setup_torch.py", "setup_mmcv.py", "-e .[train]", "timm")]
    assert places == sorted(places)


def test_set_up_repeated_does_nothing_until_another_python_is_asked_for(checkout: Checkout) -> None:
    assert "Set up in" in checkout.set_up("3.12.1", EXTRAS="lvis,dev")
    assert checkout.set_up("3.12.1", EXTRAS="lvis,dev") == ""
    assert checkout.set_up(EXTRAS="lvis,dev") == ""
    said = checkout.set_up("3.13.0", EXTRAS="lvis,dev")
    assert "has Python 3.12.1, PYTHON is Python 3.13.0: it is made again." in said
    assert checkout.set_up(EXTRAS="lvis,dev") == ""
