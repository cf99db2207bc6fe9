"""One run from a split to its record: train, predict with teacher and student, score, write run.json."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from cissod_bench import distributed
from cissod_bench.annotations.file_names import ImageFolder
from cissod_bench.annotations.reading import read_annotations
from cissod_bench.backbones.pretrained import backbone_of, tell_backbone
from cissod_bench.contract.method import USES_UNLABELLED, RunFacts
from cissod_bench.contract.settings import departures
from cissod_bench.contract.stages import spans, unlabelled_from
from cissod_bench.detector.model_config import IGNORE_IOF, faster_rcnn
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.errors import DataFault, EnvironmentFault, Interrupted, UsageFault
from cissod_bench.files.hashing import mix
from cissod_bench.files.whole_files import make_folder, remove_leftovers, write_json
from cissod_bench.loading.loaders import ViewsDataset
from cissod_bench.loading.sampler import TwoSourceSampler
from cissod_bench.loading.sources import Source, source_of
from cissod_bench.records import log
from cissod_bench.records import run_folder as runs
from cissod_bench.records.record import FREE_SETTINGS, RunRecord
from cissod_bench.running import preflight, provenance
from cissod_bench.running.agreement import check_alike, check_ranks
from cissod_bench.running.plan import Plan, images_an_iteration, variant_fields
from cissod_bench.running.progress import Bar
from cissod_bench.running.sources import sources
from cissod_bench.running.turned import put_right, settle_readings
from cissod_bench.scoring import evaluate
from cissod_bench.signals import stop_signals, stopped
from cissod_bench.training import folders
from cissod_bench.training.judging import read_hidden
from cissod_bench.training.loop import Training
from cissod_bench.training.predict import labelled_images, predict, write_predictions
from cissod_bench.training.pseudo_quality import Line, PseudoLabelStatistics

Say = Callable[[str], None]


def execute(plan: Plan, *, restart: bool, say: Say, quiet: bool = False, warn: Say = lambda text: None) -> RunRecord:
    """Do what is left of a run and return its record.

    A finished run is returned as it is; an interrupted one continues from its checkpoint.

    Args:
        plan: the run.
        restart: forget what an earlier start left.
        say: takes lines for the user.
        quiet: show no progress.
        warn: takes warnings, on rank 0; that folders differ also on others.

    Raises:
        UsageFault: another process works in the folder, the folder holds a run of other settings, or the ranks of
            the run disagree.
        Interrupted: the run was asked to stop, or another of its ranks is gone; it can be continued.
    """
    with distributed.watched_peers():
        check_ranks(plan)
        with _only_worker(plan.folder):
            folders.tell_apart(plan.folder, warn)
            return _execute(plan, restart=restart, say=say, quiet=quiet, warn=warn)


@contextmanager
def _only_worker(folder: Path) -> Iterator[None]:
    """Hold the folder's lock on the rank that writes; where it cannot be had, all ranks end."""
    locks: list[FileLock] = []
    distributed.from_first(lambda: locks.append(_lock(folder)))
    try:
        if locks:
            remove_leftovers(folder)
        yield
    finally:
        for lock in locks:
            lock.release()


def _lock(folder: Path) -> FileLock:
    lock = FileLock(make_folder(folder) / ".lock")
    try:
        lock.acquire(timeout=1, poll_interval=0.05)  # a look at it, as a sweep takes, lasts an instant
    except Timeout:
        raise UsageFault(
            f"Another process is working in {folder}.", remedy="wait for it, or pass another --seed"
        ) from None
    except OSError as error:
        raise EnvironmentFault(
            f"Cannot lock {folder}: {error.strerror or error}.", remedy="pass a --work-dir that can be written"
        ) from error
    return lock


def _execute(plan: Plan, *, restart: bool, say: Say, quiet: bool, warn: Say) -> RunRecord:
    if restart and distributed.rank() == 0:
        for name in runs.RESULTS:
            (plan.folder / name).unlink(missing_ok=True)
    # Every rank must take the same way, so the first one reads the folder for all.
    record = RunRecord(**distributed.from_first(lambda: vars(_record(plan))))
    if record.status == "done":
        say(f"Already done: {plan.folder} (another --seed or --work-dir trains once more)")
        return record
    device = pick_device()
    record.hardware, record.versions = provenance.hardware(device), provenance.versions()
    record.status = "running"
    _write(plan, record)
    try:
        with stop_signals() as stop, distributed.watched_peers():
            _work(plan, record, device, say, quiet, stop, warn)
    except BaseException as fault:
        record.status = "interrupted" if isinstance(fault, Interrupted | KeyboardInterrupt) else "failed"
        with suppress(EnvironmentFault):  # on a full disk: what is told is the fault that ended the run
            _write(plan, record)
        raise
    record.status = "done"
    _write(plan, record)
    return record


def _record(plan: Plan) -> RunRecord:
    """Return the folder's record, or a new one.

    Raises:
        UsageFault: the folder holds a run of another split or of other settings.
    """
    settings = asdict(plan.settings)
    fresh = RunRecord(
        task=plan.task.name,
        title=plan.task.title,
        method=plan.method.name,
        variant=plan.variant,
        preset=plan.preset,
        profile=plan.profile,
        split_seed=plan.split_seed,
        seed=plan.seed,
        split_sha256=plan.split_sha256,
        status="running",
        groups=plan.groups,
        settings=settings,
        departures=departures(
            plan.settings,
            task_iterations=plan.task.iterations,
            world_size=distributed.world_size(),
            images=sum(images_an_iteration(plan)),
        ),
        command=list(plan.command),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    if not (plan.folder / runs.RECORD).exists():
        return fresh
    old = runs.read_record(plan.folder)
    plain = json.loads(json.dumps(settings))
    compared = plain.keys() & old.settings.keys() - FREE_SETTINGS
    changed = sorted(name for name in compared if old.settings[name] != plain[name])
    if old.split_sha256 != plan.split_sha256:
        raise UsageFault(
            f"{plan.folder} holds a run on another draw of the split.",
            remedy="pass another --work-dir: it draws the present split anew, and this run stays",
        )
    if changed:
        raise UsageFault(
            f"{plan.folder} holds a run with other settings ({', '.join(changed)}).",
            remedy="repeat the settings of the first start, or pass another --work-dir",
        )
    return old


def _write(plan: Plan, record: RunRecord) -> None:
    if distributed.rank() == 0:
        runs.write_record(plan.folder, record)


def pick_device() -> torch.device:
    """Return this rank's GPU where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index = distributed.local_rank() % torch.cuda.device_count()  # Slurm may show each process its own GPU alone
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def scored_images(plan: Plan) -> tuple[Source, tuple[int, ...]]:
    """Return the images that are scored and the category id of every channel.

    Raises:
        DataFault: the file has other classes than the split, or a folder of its images is missing.
    """
    # The split's files hold the right sizes; those of this one are as they were published.
    folder = ImageFolder(plan.images["val"], plan.task.images["val"])
    with read_annotations(plan.val, naming=plan.naming, swapped=plan.task.swapped, folder=folder) as file:
        if file.classes != plan.classes:
            raise DataFault(f"{plan.val} has other classes than the split.", remedy="draw the split again")
        source = source_of(file, plan.images, "val", plan.readings)
        return put_right(source, plan.task.swapped), file.category_ids


def prepare(plan: Plan, device: torch.device, scored: Source | None = None, **hooks: Any) -> Training:
    """Return a run's training, at its first iteration.

    Args:
        plan: the run.
        device: of the detector.
        scored: the scored images, which are none of D_l and D_u.
        hooks: ``log``, ``report`` and ``stop`` of `Training`.

    Raises:
        DataFault: D_l or D_u has no image, an image file stands in two records, or the pretrained backbone's file does
            not fit.
        EnvironmentFault: that file can neither be read nor fetched.
    """
    labelled, unlabelled = sources(plan, scored)
    per_gpu = images_an_iteration(plan)
    for source, name, wanted in zip((labelled, unlabelled), ("labelled", "unlabelled"), per_gpu, strict=True):
        if wanted and not len(source):
            raise DataFault(f"{plan.split / name}.json has no image to train on.", remedy="draw the split again")
    promotable = len(unlabelled) if plan.method.images == "promoted" else 0
    facts = RunFacts(
        task=plan.task,
        variant=variant_fields(plan.method, plan.variant),
        profile=plan.profile,
        classes=plan.classes,
        groups={name: tuple(members) for name, members in plan.groups.items()},
        settings=plan.settings,
        iterations=plan.settings.iterations,
        generations=plan.settings.generations,
        labelled_classes=labelled.classes_of_images()[: len(labelled) - promotable],
        labelled_boxes=labelled.boxes_of_classes(len(plan.classes)),
        num_unlabelled=len(unlabelled),
        seed=plan.seed,
    )
    # Weights are drawn on every rank from the run's seed, so they are equal everywhere.
    torch.manual_seed(int(mix(plan.seed, 0x11)[0] >> 1))
    ignores = plan.manifest.dm_minority == "ignore" or plan.method.images == "promoted"
    backbone = backbone_of(plan.settings)
    known = {} if backbone is None else {"pretrained backbone": f"{backbone.kind} {backbone.sha256}"}
    check_alike(known)
    ignore_iof, kind = IGNORE_IOF if ignores else -1.0, None if backbone is None else backbone.kind
    model = faster_rcnn(plan.settings, len(plan.classes), ignore_iof=ignore_iof, kind=kind)
    parts = plan.method.parts(facts)
    detector = SemiSupervisedDetector(model, parts, plan.settings, plan.groups, plan.classes)
    detector.backbone_record = {} if backbone is None else backbone.record()
    aspects = [s.landscape() for s in (labelled, unlabelled)] if plan.settings.group_by_aspect else None
    begin = unlabelled_from(
        spans(parts.stages(), plan.settings.iterations), plan.settings.unsup_start, plan.settings.iterations
    )
    sizes, world = (len(labelled), len(unlabelled)), distributed.world_size()
    sampler = TwoSourceSampler(sizes, per_gpu, plan.seed, distributed.rank(), world, aspects, (0, begin))
    views = ViewsDataset((labelled, unlabelled), (("sup",), ("weak", "strong")), plan.settings)
    identity = {**plan.identity(), **known, "number of processes": str(distributed.world_size())}
    file = plan.folder / runs.CHECKPOINT
    return Training(
        detector.to_device(device), views, sampler, plan.settings, seed=plan.seed, file=file, identity=identity,
        statistics=statistics(plan), **hooks
    )  # fmt: skip


def statistics(plan: Plan) -> PseudoLabelStatistics | None:
    """Return what judges the run's pseudo labels, None where there are none."""
    if plan.method.images not in USES_UNLABELLED:
        return None
    hidden = partial(read_hidden, plan.split / "hidden.json", plan.classes, plan.naming)
    return PseudoLabelStatistics(plan.groups, plan.classes, hidden)


def _work(
    plan: Plan, record: RunRecord, device: torch.device, say: Say, quiet: bool, stop: Callable[[], bool], warn: Say
) -> None:
    """Train, predict and score; fills the record in."""
    main = distributed.rank() == 0
    if main:
        write_json(plan.folder / runs.SETTINGS, record.settings)
    stream = sys.stderr
    bar: list[Bar] = []

    def take(line: dict[str, float]) -> None:
        if main:
            log.append(plan.folder / runs.LOG, line)
            bar[0].advance(int(line["iteration"]) - bar[0].done, note_of(line))

    def report(line: Line) -> None:
        if main:
            log.append(plan.folder / runs.PSEUDO_LABELS, line)

    scored = scored_images(plan)  # what is wrong with them is told before the training, not after it
    training = prepare(plan, device, scored[0], log=take, report=report, stop=stop, warn=warn)
    scored = settle_readings(plan, record, training, scored[0], say), scored[1]
    preflight.check_scored(scored[0], plan.task.absent)
    training.detector.parts.begin_run(
        partial(labelled_images, training.dataset.sources[0], plan.settings, told=training.unread.passed_over)
    )
    record.departures |= training.detector.parts.departures()
    tell_backbone(record, training.detector.backbone_record, say)
    unlabelled = training.sampler.sizes[1]
    promotable = unlabelled if plan.method.images == "promoted" else 0
    record.data = {"labelled": training.sampler.sizes[0] - promotable, "unlabelled": unlabelled}
    if training.resume():
        say(f"Continuing after iteration {training.position.iteration} of {plan.settings.iterations}.")
    else:
        preflight.check_drawn(training, plan.manifest.counts["labelled"], warn)
        training.save()  # iteration 0: a run that dies early continues like any other
    if main:
        for name in (runs.LOG, runs.PSEUDO_LABELS):
            log.rewind(plan.folder / name, training.position.iteration)
    begun, first = time.perf_counter(), training.position.iteration
    with Bar("train", plan.settings.iterations, done=first, stream=stream, quiet=quiet or not main) as shown:
        bar.append(shown)
        try:
            training.run()
        finally:
            seconds = time.perf_counter() - begun
            record.timings["train"] = record.timings.get("train", 0.0) + seconds
            record.skipped |= {"iterations": training.position.skipped, **training.unread.skipped}
    if training.position.iteration > first:
        record.timings["iterations_per_second"] = (training.position.iteration - first) / seconds
    if main:
        _score(plan, record, training.detector, scored, stream, quiet, stop)
    distributed.barrier()


def note_of(line: Mapping[str, float]) -> str:
    """Return a log line for the live bar: losses, pseudo boxes an image, thresholds, weights, speed."""
    words = [f"loss {line['loss']:.3f}"]
    pseudo = [f"{name[11:]} {value:.2f}" for name, value in line.items() if name.startswith("pseudo_cls_")]
    if pseudo:
        words.append(f"pseudo boxes/image {' '.join(pseudo)}")
    for name in ("w", "theta"):
        if f"{name}_min" in line:
            words.append(f"{name} {line[f'{name}_min']:.2f}-{line[f'{name}_max']:.2f}")
    return "  ".join(words)


def _score(
    plan: Plan,
    record: RunRecord,
    detector: SemiSupervisedDetector,
    scored: tuple[Source, tuple[int, ...]],
    stream: Any,
    quiet: bool,
    stop: Callable[[], bool],
) -> None:
    """Predict with teacher and student on the scored images and fill in their AP.

    Raises:
        Interrupted: the run was asked to stop while it predicted.
    """
    source, category_ids = scored
    begun = time.perf_counter()

    def advance(images: int) -> None:
        bar.advance(images)
        if stop():
            raise stopped(f"Stopped after {bar.done} of {bar.total} predictions; the training is done and kept.")

    with Bar("predict", 2 * len(source), stream=stream, quiet=quiet) as bar:
        for who, name in (("teacher", runs.PREDICTIONS), ("student", runs.STUDENT_PREDICTIONS)):
            found = predict(
                detector,
                source,
                plan.settings,
                teacher=who == "teacher",
                absent=plan.task.absent,
                progress=advance,
            )
            try:
                write_predictions(plan.folder / name, found, category_ids)
            except DataFault as fault:
                remedy = "fetch the image again and repeat the same command: the training is done and kept"
                raise DataFault(fault.message, remedy=remedy) from None
    record.timings["predict"] = time.perf_counter() - begun
    begun = time.perf_counter()
    for who, name in (("teacher", runs.PREDICTIONS), ("student", runs.STUDENT_PREDICTIONS)):
        scores = evaluate.score(
            plan.val,
            plan.folder / name,
            groups=plan.groups,
            max_dets=plan.task.max_dets,
            metric=plan.task.metric,
            check_boxes=False,
        )
        record.ap[who], record.per_class[who], record.engine = scores.columns, dict(scores.per_class), scores.engine
    record.timings["evaluate"] = time.perf_counter() - begun
