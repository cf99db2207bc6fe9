"""TensorBoard, MLflow and W&B as this program uses them, through mmengine's visualisation backends.

What differs between them: where a run is kept, how one that was stopped goes on, what a step is, and how it ends.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cissod_bench.errors import EnvironmentFault

PROJECT = "cissod-bench"
_PACKAGES = {"mlflow": "mlflow-skinny"}  # the whole of it would bring another pandas and a server


def check_installed(name: str) -> None:
    """Refuse a tracker whose package is not installed.

    Args:
        name: value of the setting ``tracker``.

    Raises:
        EnvironmentFault: it is not.
    """
    if name != "none" and find_spec(name) is None:
        raise EnvironmentFault(
            f"The tracker {name} needs the package {name}, which is not installed.",
            remedy=f"pip install {_PACKAGES.get(name, name)}, or leave --set tracker={name} out",
        )


class TensorBoard:
    """Event files in a folder; further files of the same folder continue the run.

    Args:
        folder: where the tracker may write.
        title: what the run is called.
        facts: what the run is, name -> value; its "task" is what it is shown with others under.
        run_id: the tracker's own name of the run, as an earlier start noted it; "" for a new one.

    Attributes:
        run_id: the tracker's own name of the run.
    """

    backend = "TensorboardVisBackend"

    def __init__(self, folder: Path, title: str, facts: Mapping[str, str], run_id: str) -> None:
        import mmengine.visualization  # noqa: F401  registers the backends
        from mmengine.registry import VISBACKENDS

        self.folder, self.title, self.facts, self.run_id = folder, title, facts, run_id
        options = {"type": self.backend, "save_dir": str(folder), **self.options()}
        self.shown: Any = VISBACKENDS.build(options)
        self.begin()

    def options(self) -> dict[str, Any]:
        """Return what the backend is told beside its folder."""
        return {}

    def begin(self) -> None:
        """Open the run, which a backend does when its ``experiment`` is first asked for."""
        _ = self.shown.experiment

    def scalars(self, numbers: Mapping[str, float], iteration: int) -> None:
        """Show numbers after an iteration; they are safe when this returns."""
        self.shown.add_scalars(dict(numbers), step=iteration)
        self.shown.experiment.flush()

    def picture(self, name: str, image: npt.NDArray[np.uint8], iteration: int) -> None:
        """Show a picture, RGB, shape (H, W, 3)."""
        self.shown.add_image(name, image, step=iteration)

    def close(self, status: str) -> None:
        """End the run's writing; ``status`` is that of its record."""
        self.shown.close()


class MLflow(TensorBoard):
    """A run on the server that ``MLFLOW_TRACKING_URI`` names, or else files in the folder."""

    backend = "MLflowVisBackend"
    _STATES: Mapping[str, str] = {"done": "FINISHED", "interrupted": "KILLED"}

    def options(self) -> dict[str, Any]:
        """Return the experiment, which is the task's, and the run's name and facts."""
        experiment = f"{PROJECT} {self.facts['task']}"
        server = os.environ.get("MLFLOW_TRACKING_URI")
        if server is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks for it
        return {"exp_name": experiment, "run_name": self.title, "params": dict(self.facts), "tracking_uri": server}

    def begin(self) -> None:
        """Open the run; MLflow continues the one that a variable names."""
        with _kept("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"):  # MLflow removes the first and sets the second
            if self.run_id:
                os.environ["MLFLOW_RUN_ID"] = self.run_id
            self.run_id = self.shown.experiment.active_run().info.run_id

    def scalars(self, numbers: Mapping[str, float], iteration: int) -> None:
        """Show numbers after an iteration."""
        self.shown.add_scalars(dict(numbers), step=iteration)

    def picture(self, name: str, image: npt.NDArray[np.uint8], iteration: int) -> None:
        """Show a picture, RGB, shape (H, W, 3); it is a file of the run."""
        self.shown.add_image(f"{name}/{iteration:08d}.png", image)

    def close(self, status: str) -> None:
        """End the run. The backend's own end would ask for a configuration that it was never given."""
        self.shown.experiment.end_run(self._STATES.get(status, "FAILED"))


class WandB(TensorBoard):
    """A run of W&B, online or offline as its own variables and settings say."""

    backend = "WandbVisBackend"

    def options(self) -> dict[str, Any]:
        """Return project, names and facts of the run; its numbers stand over the iteration, not over W&B's count."""
        self.run_id = self.run_id or secrets.token_hex(4)
        facts, names = dict(self.facts), {"name": self.title, "group": self.facts["task"]}
        run = {"project": PROJECT, "id": self.run_id, "resume": "allow", "config": facts, **names}
        return {
            "init_kwargs": run,
            "define_metric_cfg": [{"name": "iteration"}, {"name": "*", "step_metric": "iteration"}],
        }

    def scalars(self, numbers: Mapping[str, float], iteration: int) -> None:
        """Show numbers after an iteration."""
        self.shown.add_scalars({**numbers, "iteration": iteration})

    def close(self, status: str) -> None:
        """End the run. The backend calls a function for it that W&B is giving up."""
        self.shown.experiment.finish(exit_code=0 if status == "done" else 1)


KINDS: Mapping[str, type[TensorBoard]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
"""Value of the setting ``tracker`` -> what shows a run there."""


@contextmanager
def _kept(*names: str) -> Iterator[None]:
    """Put variables of the environment back as they were."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
