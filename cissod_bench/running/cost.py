"""What a run costs before it starts: operations, images, memory, disk, and hours by the records of runs like it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from cissod_bench.contract.method import Method, RunFacts, parts_of
from cissod_bench.contract.parts import Context, Parts
from cissod_bench.contract.settings import Settings, learning_rate_for
from cissod_bench.contract.stages import spans, unlabelled_from
from cissod_bench.errors import BenchError
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import Run
from cissod_bench.running.iteration_work import IterationWork, counted, derived, state_bytes
from cissod_bench.running.made_images import made_batch, usual_size
from cissod_bench.running.plan import images_of, variant_fields
from cissod_bench.splitting.manifest import Manifest
from cissod_bench.splitting.task import Task

DETECTION_BYTES = 30
"""Of a detection in a gzipped predictions file: 18 to 24 were measured on drawn images and photographs; longer ids and
coordinates take some more."""
MOST_FLOPS = 1e11
"""Up to which an iteration is done on a CPU to be counted: a few seconds."""
UNKNOWN_CLASSES = 80
"""Classes that are taken where a split is not drawn yet: those of MS-COCO."""
SIZES = (
    "labelled_per_gpu", "unlabelled_per_gpu", "amp", "unsup_start", "optimiser", "jitter_times", "backbone", "depth",
    "base_channels", "norm", "frozen_stages", "fpn_channels", "fc_channels", "roi_size", "roi_sampling", "strides",
    "rpn_samples", "roi_samples", "proposals_train", "proposals_test", "teacher_proposals", "short_side", "long_side",
    "test_short_side", "strong_views", "shared_boxes",
)  # fmt: skip
"""Settings on which the time of an iteration depends."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the cost of a run depends on.

    Attributes:
        task, method, variant, profile, settings: of the run.
        classes: names of the foreground classes.
        groups: group -> names of its classes.
        boxes: of D_l per class, shape (n,).
        labelled, unlabelled: images of D_l and D_u; 0 where the split is not drawn yet.
        drawn: whether it is.
    """

    task: Task
    method: Method
    variant: str
    profile: str
    settings: Settings
    classes: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    boxes: tuple[int, ...]
    labelled: int
    unlabelled: int
    drawn: bool = True

    @property
    def images(self) -> tuple[int, int]:
        """Images of each source per iteration and process."""
        return images_of(self.method, self.settings)

    def facts(self) -> RunFacts:
        """Return what a method may know, as far as its work depends on it; every image shows one class."""
        number = len(self.classes)
        return RunFacts(
            task=self.task,
            variant=variant_fields(self.method, self.variant),
            profile=self.profile,
            classes=self.classes,
            groups=self.groups,
            settings=self.settings,
            iterations=self.settings.iterations,
            generations=self.settings.generations,
            labelled_classes=tuple((image % number,) for image in range(max(self.labelled, number))),
            labelled_boxes=self.boxes,
            num_unlabelled=max(self.unlabelled, 1),
            seed=0,
        )


def subject_of(
    task: Task, method: Method, variant: str, profile: str, settings: Settings, manifest: Manifest | None
) -> Subject:
    """Return the subject of a run.

    Args:
        task: of the run.
        method: of the run.
        variant: of the run.
        profile: of the run.
        settings: of the run.
        manifest: of its split; None where that is not drawn yet, for which `UNKNOWN_CLASSES` are taken.
    """
    if manifest is None:
        classes = tuple(f"class {number}" for number in range(UNKNOWN_CLASSES))
        groups = {group: classes[number :: len(task.groups)] for number, group in enumerate(task.groups)}
        boxes, labelled, unlabelled = (1,) * len(classes), 0, 0
    else:
        classes = tuple(manifest.classes)
        groups = {group: tuple(names) for group, names in manifest.groups.items()}
        boxes = tuple(max(manifest.per_class[name].boxes, 1) for name in classes)
        labelled, unlabelled = manifest.counts["labelled"], manifest.counts["unlabelled"]
    return Subject(
        task=task,
        method=method,
        variant=variant,
        profile=profile,
        settings=settings,
        classes=classes,
        groups=groups,
        boxes=boxes,
        labelled=labelled,
        unlabelled=unlabelled,
        drawn=manifest is not None,
    )


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run takes.

    Attributes:
        iterations: T.
        processes: that share it.
        images: of each source per iteration and process.
        begin: the first iteration that draws unlabelled images.
        size: height and width of the made images, pixels.
        work: of one iteration and process; None where it was not measured.
        why_not: why.
        checkpoint: bytes; None where the detector was not built.
        scored: images that are scored; None where they were not looked for.
        predictions: bytes of the files of teacher and student, if every image has as many detections as are kept.
    """

    iterations: int
    processes: int
    images: tuple[int, int]
    begin: int
    size: tuple[int, int]
    work: IterationWork | None = None
    why_not: str = ""
    checkpoint: int | None = None
    scored: int | None = None
    predictions: int | None = None

    @property
    def flops(self) -> float | None:
        """Floating-point operations of the whole training, of all processes."""
        if self.work is None:
            return None
        before, after = self.begin, self.iterations - self.begin
        return self.processes * (before * self.work.labelled_flops + after * self.work.flops)

    @property
    def read(self) -> tuple[int, int]:
        """Labelled and unlabelled images that all processes read in training."""
        labelled, unlabelled = self.images
        return self.processes * self.iterations * labelled, self.processes * (self.iterations - self.begin) * unlabelled


def cost_of(
    subject: Subject,
    processes: int,
    *,
    scored: int | None = None,
    measure: bool = True,
    iterate_on: torch.device | None = None,
) -> Cost:
    """Return what a run takes.

    Args:
        subject: the run.
        processes: that share it.
        scored: images that are scored, as far as known.
        measure: whether the detector is built and its iteration counted or derived.
        iterate_on: device on which an iteration may be done; None derives all from shapes.
    """
    settings = subject.settings
    parts = parts_of(subject.method, subject.facts())
    begin = unlabelled_from(spans(parts.stages(), settings.iterations), settings.unsup_start, settings.iterations)
    cost = Cost(
        iterations=settings.iterations,
        processes=processes,
        images=subject.images,
        begin=begin if subject.images[1] else 0,
        size=usual_size(settings),
        scored=scored,
        predictions=None if scored is None else 2 * scored * settings.max_dets * DETECTION_BYTES,
    )
    if not measure:
        return replace(cost, why_not="left out by --no-measure")
    try:
        return _measured(cost, subject, parts, iterate_on)
    except BenchError as fault:
        return replace(cost, why_not=fault.message)
    except Exception as fault:  # of a method's code, on images that are not its own; a run tells what is wrong with it
        return replace(cost, why_not=f"an iteration on made images ends in {type(fault).__name__}: {fault}")


def _measured(cost: Cost, subject: Subject, parts: Parts, iterate_on: torch.device | None) -> Cost:
    detector = _detector(subject, parts)
    work = derived(detector, cost.images, cost.size)
    checkpoint, _ = state_bytes(detector, subject.settings)
    if iterate_on is not None and (iterate_on.type == "cuda" or work.flops <= MOST_FLOPS):
        batch = made_batch(cost.images, cost.size, len(subject.classes))
        try:
            work = counted(detector.to_device(iterate_on), batch, _last(subject, parts), iterate_on)
        except torch.OutOfMemoryError:
            name = torch.cuda.get_device_name(iterate_on)
            return replace(cost, work=work, checkpoint=checkpoint, why_not=f"an iteration does not fit into {name}")
    return replace(cost, work=work, checkpoint=checkpoint)


def _last(subject: Subject, parts: Parts) -> Context:
    settings = subject.settings
    stage = len(spans(parts.stages(), settings.iterations)) - 1
    return Context(settings.iterations - 1, settings.iterations, settings.generations - 1, settings.generations, stage)


def _detector(subject: Subject, parts: Parts) -> Any:
    """Return the run's detector with random weights, as its last stage has it."""
    from cissod_bench.detector.model_config import faster_rcnn
    from cissod_bench.detector.semi_supervised import SemiSupervisedDetector

    settings = replace(subject.settings, pretrained="")
    if iterates_in_float(settings):
        settings = replace(settings, amp="off")
    model = faster_rcnn(settings, len(subject.classes))
    detector = SemiSupervisedDetector(model, parts, settings, subject.groups, subject.classes)
    context = _last(subject, parts)
    for stage in range(1, context.stage + 1):
        parts.begin_stage(detector.student, replace(context, stage=stage))
        detector.copy_student()
    for one in (detector.student, detector.teacher):
        parts.enter_stage(one, context)
    detector.teacher.requires_grad_(False)
    return detector


def iterates_in_float(settings: Settings) -> bool:
    """Return whether an iteration here is done in float32 though the run's is not: fp16 needs a GPU."""
    return settings.amp == "fp16" and not torch.cuda.is_available()


@dataclass(frozen=True)
class Likely:
    """How long a run takes by the record of another.

    Attributes:
        seconds: of the training, and of scoring where the other run scored the same images.
        scoring: whether that is in it.
        run: the fastest.
        same_method: whether it is of the same method and variant.
        of: how many runs were like it.
    """

    seconds: float
    scoring: bool
    run: Run
    same_method: bool
    of: int


def likely(subject: Subject, runs: Iterable[Run], hardware: Mapping[str, Any], processes: int) -> Likely | None:
    """Return how long a run takes by the fastest finished one on like hardware, None where there is none.

    Like are runs on the same kind of device and as many processes (on CPUs as many threads, too) with the settings
    `SIZES`; one of the same method and variant counts before any other.

    Args:
        subject: the run.
        runs: finished and other ones.
        hardware: of this machine, as a record has it.
        processes: of the run.
    """
    wanted = {name: _plain(getattr(subject.settings, name)) for name in SIZES}
    like = [run for run in runs if _is_like(run.record, wanted, {**hardware, "world_size": processes})]
    same = [run for run in like if (run.record.method, run.record.variant) == (subject.method.name, subject.variant)]
    chosen = same or like
    if not chosen:
        return None
    fastest = max(chosen, key=lambda run: _speed(run.record))
    seconds = subject.settings.iterations / _speed(fastest.record)
    timings, scoring = fastest.record.timings, fastest.record.task == subject.task.name
    if scoring:
        seconds += timings.get("predict", 0.0) + timings.get("evaluate", 0.0)
    return Likely(seconds, scoring, fastest, bool(same), len(chosen))


def _is_like(record: RunRecord, wanted: Mapping[str, Any], hardware: Mapping[str, Any]) -> bool:
    names = ["type", "device", "world_size"] + ["threads"] * (hardware.get("type") == "cpu")
    return (
        record.status == "done"
        and _speed(record) > 0
        and all(record.hardware.get(name) == hardware.get(name) for name in names)
        and all(_plain(record.settings.get(name)) == value for name, value in wanted.items())
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _speed(record: RunRecord) -> float:
    """Return iterations per second over the whole training, 0 where the record does not say."""
    seconds = record.timings.get("train", 0.0)
    return float(record.settings.get("iterations", 0)) / seconds if seconds > 0 else 0.0


def batches_and_rates(subject: Subject, numbers: Sequence[int]) -> list[tuple[int, int, float]]:
    """Return processes, images per iteration and learning rate for some numbers of processes."""
    images = sum(subject.images)
    return [(number, number * images, learning_rate_for(subject.settings, number)) for number in numbers]
