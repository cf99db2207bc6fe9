"""Where an exam is sat: a task, a scale, a folder with its own split, and thresholds that pseudo labels pass."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from cissod_bench.catalogue import load_task
from cissod_bench.contract.method import USES_UNLABELLED, Method
from cissod_bench.contract.parts import Context
from cissod_bench.contract.settings import Settings
from cissod_bench.running.assembly import prepare
from cissod_bench.running.plan import Plan, make_plan
from cissod_bench.split_folders import ensure as tasks
from cissod_bench.splitting.task import Task
from cissod_bench.splitting.toy_images import write_shapes
from cissod_bench.training.loop import Training
from cissod_bench.training.predict import detections

CPU = torch.device("cpu")  # the same sums bit by bit, every time
PROBED = 4  # images of D_u whose detections set the thresholds
CONFIDENT, SURE = 20, 10  # detections per image above the initial threshold and above theta

# Smallest settings with which every part of an iteration has something to do.
_QUICK = (
    "depth=18", "base_channels=8", "fpn_channels=16", "fc_channels=32", "roi_samples=16", "rpn_samples=16",
    "proposals_train=50,20", "proposals_test=50,20", "labelled_per_gpu=1", "unlabelled_per_gpu=2", "jitter_times=3",
    "short_side=56,64", "long_side=72", "test_short_side=64",
)  # fmt: skip
# Three generations end within N iterations and within the N after them, and none of them at N: a checkpoint in the
# midst of a generation has to bring its copies along. No checkpoint but the one that is asked for.
_ALWAYS = ("generations=3", "workers=0", "checkpoint_every=1000000", "unsup_start=0")


def _draw_few(folder: Path) -> None:
    """Draw 46 images of four shapes."""
    weights = {"circle": 1.2, "heart": 1.0, "square": 1.1, "arrow": 1.0}
    write_shapes(folder, {"train": 40, "val": 6}, weights, seed=1, most=4)


@dataclass(frozen=True)
class Desk:
    """What an exam is sat at.

    Attributes:
        task: that draws its own images.
        work: scratch folder with the exam's own split, which checks may spoil, and its runs.
        half: N, the iterations before and after the resumption.
        changes: ``key=value`` changes of the preset ``smoke``.
        pairs: of steps that are timed.
    """

    task: Task
    work: Path
    half: int
    changes: tuple[str, ...] = ()
    pairs: int = 8

    def plan(self, method: Method, variant: str = "") -> Plan:
        """Return the plan of 2 N iterations; the split is drawn if it is not there."""
        changes = (f"iterations={2 * self.half}", *_ALWAYS, *self.changes)
        return make_plan(
            self.task, method, data_root=self.work, work_dir=self.work, variant=variant, preset_name="smoke",
            changes=changes,
        )  # fmt: skip

    @property
    def hidden(self) -> Path:
        """The file with the boxes of D_u."""
        return self.work / "splits" / self.task.name / "seed0" / "hidden.json"


def quick_desk(work: Path) -> Desk:
    """Return a desk of seconds: four shapes on 46 images, 4 + 4 iterations of a detector of a few thousand weights.

    Args:
        work: a folder that may be written to.
    """
    defaults = {"labelled_percent": 20.0, "min_instances": 2}
    task = replace(load_task("toy"), prepare=_draw_few, minority=("heart", "arrow"), draw_defaults=defaults)
    return Desk(task, work, 4, _QUICK, 4)


def usual_desk(work: Path, data: Path) -> Desk:
    """Return the desk of the toy task at the scale of the preset ``smoke``: 10 + 10 iterations.

    Args:
        work: a folder that may be written to.
        data: work directory whose ``data/toy`` is taken, or drawn where it is not there yet.
    """
    task = load_task("toy")
    assert task.prepare is not None
    images = tasks.task_data_root(task, data, data).resolve()
    task.prepare(images)
    (work / "data").mkdir(parents=True, exist_ok=True)
    if not (work / "data" / task.name).exists():
        (work / "data" / task.name).symlink_to(images, target_is_directory=True)
    return Desk(task, work, 10)


def trained(plan: Plan, settings: Settings, place: str = "probe") -> Training:
    """Return a training at its first iteration, on the CPU.

    Args:
        plan: of the run.
        settings: from `opened`.
        place: runs of one place share their folder, and so their checkpoint.
    """
    folder = plan.folder / place
    folder.mkdir(parents=True, exist_ok=True)
    return prepare(replace(plan, settings=settings, folder=folder), CPU)


def opened(plan: Plan) -> Settings:
    """Return the settings with thresholds that some detections of the untrained teacher of this method pass.

    An untrained detector is sure of nothing: with the thresholds of a real run no pseudo label would be left. What it
    gives its best detections depends on the method's classifier (a softmax starts near 1 / (n + 1), a sigmoid with a
    prior near that), so it is measured: the initial threshold is passed by about 20 detections per image, theta by 10.
    Where a method has stages it is measured as the last one begins, whose classifier may be another.
    """
    if plan.method.images not in USES_UNLABELLED:
        return plan.settings
    none = replace(plan.settings, score_floor=0.0, initial_threshold=0.0, rpn_threshold=0.0, theta=0.0)
    training = trained(plan, none)
    _to_last_stage(training)
    source = training.dataset.sources[1]
    rows = range(min(PROBED, len(source)))
    detected = islice(detections(training.detector, source, training.settings, rows), len(rows))
    scores = torch.cat([of_image.scores for of_image in detected]).sort(descending=True).values.tolist()
    low, high = (scores[min(number * len(rows), len(scores) - 1)] for number in (CONFIDENT, SURE))
    return replace(
        plan.settings, score_floor=min(plan.settings.score_floor, low / 2), initial_threshold=low, rpn_threshold=high,
        theta=high, box_threshold=5.0,
    )  # fmt: skip


def _to_last_stage(training: Training) -> None:
    """Let the method change the untrained models as it does where its stages begin."""
    detector, settings = training.detector, training.settings
    for span in training.spans[1:]:
        context = Context(span.begin, settings.iterations, 0, settings.generations, span.number)
        detector.parts.begin_stage(detector.student, context)
        detector.copy_student()
        for model in (detector.student, detector.teacher):
            detector.parts.enter_stage(model, context)


@contextmanager
def garbage(file: Path) -> Iterator[None]:
    """Replace a file's content by something else while the block runs, without the warning that it judges nothing."""
    kept = file.with_name(file.name + ".kept")
    shutil.copyfile(file, kept)
    try:
        file.write_bytes(b"no boxes here")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Pseudo labels are not judged")
            yield
    finally:
        kept.replace(file)
