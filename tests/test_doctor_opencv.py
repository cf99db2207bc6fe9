"""The doctor where OpenCV is the one that needs libGL, and libGL is not there."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from cissod_bench import doctor


def test_an_opencv_that_lacks_libgl_is_replaced_and_mmcv_is_not_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(doctor.importlib, "import_module", load)
    fix = doctor.check_mmcv_ops().fix
    assert fix == f"{sys.executable} -m pip install --force-reinstall --no-deps 'opencv-python-headless>=4.10,<5'"
