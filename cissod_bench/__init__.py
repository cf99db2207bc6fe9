"""cissod-bench: a benchmark of class-imbalanced semi-supervised object detection (CI-SSOD).

``draw_split``, ``load_split``, ``score``, ``train``, ``predict`` and ``report`` do what the commands do, and return it
(docs/python.md). ``gbr``, ``gbt`` and ``crs`` are the paper's equations. All are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from cissod_bench.api import DrawnSplit as DrawnSplit
    from cissod_bench.api import Scores as Scores
    from cissod_bench.api import TrainedRun as TrainedRun
    from cissod_bench.api import draw_split as draw_split
    from cissod_bench.api import load_split as load_split
    from cissod_bench.api import predict as predict
    from cissod_bench.api import report as report
    from cissod_bench.api import score as score
    from cissod_bench.api import train as train

    crs: ModuleType
    gbr: ModuleType
    gbt: ModuleType

__version__ = "0.1.0"

_FUNCTIONS = ("draw_split", "load_split", "score", "train", "predict", "report")
_TYPES = ("DrawnSplit", "Scores", "TrainedRun")
_FORMULAS = ("gbr", "gbt", "crs")


def __getattr__(name: str) -> Any:
    """Import what is offered here when it is asked for."""
    from importlib import import_module
    from types import ModuleType

    if name in (*_FUNCTIONS, *_TYPES):
        value = getattr(import_module("cissod_bench.api"), name)
    elif name in _FORMULAS:
        value = import_module("cissod_bench.api").formulas(name)
    else:
        return getattr(ModuleType(__name__), name)  # fails as for every module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return what is offered, also before it is imported."""
    return sorted({*globals(), *_FUNCTIONS, *_TYPES, *_FORMULAS})
