"""One run from a split to its record: train, predict with teacher and student, score, write run.json.

From the command to the method: ``cli/run.py`` makes a `Plan` and calls `execute`. `_Work.do` lets ``assembly.prepare``
build the method's parts, detector, sampler and `Training`. `Training.run` asks the parts for copies per generation; its
`step` lets the detector compute the losses (``detector/semi_supervised.py``: student, teacher, thresholds), steps the
optimiser, then updates the method's state (`Parts.after_iteration`) and the teacher.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import torch

from cissod_bench import distributed
from cissod_bench.backbones.pretrained import tell_backbone
from cissod_bench.backbones.weight_files import require_named_file
from cissod_bench.detector.precision import in_software
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.errors import DataFault, EnvironmentFault, Interrupted
from cissod_bench.files.whole_files import append, write_json
from cissod_bench.loading.sources import Source
from cissod_bench.records import log
from cissod_bench.records import run_folder as runs
from cissod_bench.records.pseudo_label_lines import PseudoLabelLine
from cissod_bench.records.record import RunRecord
from cissod_bench.running import beginning, preflight, provenance
from cissod_bench.running.agreement import check_ranks
from cissod_bench.running.assembly import pick_device, prepare, scored_images
from cissod_bench.running.evaluations import Evaluations, check_best_by
from cissod_bench.running.plan import Plan
from cissod_bench.running.progress import Bar
from cissod_bench.running.tracking import Tracker
from cissod_bench.running.turned import settle_readings
from cissod_bench.scoring import evaluate
from cissod_bench.signals import stop_signals
from cissod_bench.training import folders
from cissod_bench.training.loop import Training
from cissod_bench.training.predict import MODELS, labelled_images, predicted_texts, present
from cissod_bench.training.result_files import write_texts

Say = Callable[[str], None]

_PREDICTIONS = tuple(zip(MODELS, (runs.PREDICTIONS, runs.STUDENT_PREDICTIONS), strict=True))


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
        with beginning.only_worker(plan.folder):
            folders.tell_apart(plan.folder, warn)
            if restart and distributed.rank() == 0:
                require_named_file(plan.settings.pretrained)  # else a run would be forgotten for nothing
                beginning.forget(plan.folder)
            # Every rank must take the same way, so the first one reads the folder for all.
            record = RunRecord(**distributed.from_first(lambda: vars(beginning.record_of(plan))))
            if record.status == "done":
                say(f"Already done: {plan.folder} (another --seed or --work-dir trains once more)")
                return record
            require_named_file(plan.settings.pretrained)
            _work_to_the_end(_Work(plan, record, say, warn, quiet))
            return record


def _work_to_the_end(work: _Work) -> None:
    """Do a run's work, and let its record say how it ended."""
    plan, record, device = work.plan, work.record, pick_device()
    record.hardware, record.versions = provenance.hardware(device), provenance.versions()
    if record.hardware["operators"] == "mmcv" and device.type == "cpu":
        work.say("RoIAlign and NMS: mmcv's, by the variable CISSOD_OPERATORS.")
    if in_software(plan.settings.amp, device):
        work.say("This processor has no instructions for bf16: slower here; --set amp=off computes in float32.")
    record.status = "running"
    beginning.write(plan, record)
    try:
        with stop_signals() as work.stop, distributed.watched_peers():
            work.do(device)
    except BaseException as fault:
        record.status = "interrupted" if isinstance(fault, Interrupted | KeyboardInterrupt) else "failed"
        with suppress(EnvironmentFault):  # on a full disk: what is told is the fault that ended the run
            beginning.write(plan, record)
        raise
    else:
        record.status = "done"
        beginning.write(plan, record)
    finally:
        work.tracker.close(record.status)
        work.let_go()


@dataclass
class _Work:
    """The work of one rank.

    Attributes:
        plan: the run.
        record: filled in as far as the work gets.
        say, warn, quiet: as for `execute`.
        stop: tells whether the run was asked to stop.
        bar: of the training, while it lasts.
        seen: what the live line says of the last evaluation.
        training: while there is work.
        evaluations: those while training, None where there are none.
        tracker: where the run is shown.
    """

    plan: Plan
    record: RunRecord
    say: Say
    warn: Say
    quiet: bool
    stop: Callable[[], bool] = lambda: False
    bar: Bar | None = field(default=None, init=False)
    seen: str = field(default="", init=False)
    training: Training | None = field(default=None, init=False)
    evaluations: Evaluations | None = field(default=None, init=False)
    tracker: Tracker = field(init=False)

    def __post_init__(self) -> None:
        self.tracker = Tracker(self.plan, self.warn)

    def do(self, device: torch.device) -> None:
        """Train, predict and score.

        Raises:
            Interrupted: the run was asked to stop.
        """
        check_best_by(self.plan)
        if self.writes:
            write_json(self.plan.folder / runs.SETTINGS, self.record.settings)
        scored, category_ids = scored_images(self.plan)  # what is wrong with them is told before the training
        training = self.training = prepare(
            self.plan, device, scored, log=self._log, report=self._report, stop=self.stop, warn=self.warn
        )
        scored = settle_readings(self.plan, self.record, training, scored, self.say)
        preflight.check_scored(scored, self.plan.task.absent)
        self._open(training)
        self._begin(training)
        if self.plan.settings.eval_every:
            self.evaluations = training.evaluate = Evaluations(
                self.plan, training.detector, scored, category_ids, stop=self.stop, tell=self._tell, warn=self.warn,
                tracker=self.tracker,
            )  # fmt: skip
        self._train(training)
        self._predict(training.detector, scored, category_ids)
        if self.writes:
            self._score(training.position.generation)
        distributed.barrier()

    @property
    def writes(self) -> bool:
        """Whether this rank writes the run's files and shows its progress."""
        return distributed.rank() == 0

    def let_go(self) -> None:
        """Forget the training, which reports to this work: each would keep the other, and two models with it."""
        self.training = self.evaluations = None

    def _log(self, line: dict[str, float]) -> None:
        if self.writes:
            assert self.bar is not None
            log.append(self.plan.folder / runs.LOG, line)
            self.tracker.catch_up()
            self.bar.advance(int(line["iteration"]) - self.bar.done, f"{note_of(line)}  {self.seen}".rstrip())

    def _tell(self, words: str) -> None:
        """Show what an evaluation says behind the bar of the training, while there is one."""
        self.seen = words
        if self.bar is not None and self.bar.done < self.bar.total:
            self.bar.advance(0, words)

    def _report(self, line: PseudoLabelLine) -> None:
        """Take a line on a generation that ended, and what else there is to keep of it."""
        if self.writes:
            log.append(self.plan.folder / runs.PSEUDO_LABELS, line.written())
            self.tracker.catch_up()
        if line.group == "all" and self.training is not None:
            self._keep(self.training)
            self.tracker.pseudo_labels(self.training.dataset.sources[1], line.iteration)

    def _keep(self, training: Training) -> None:
        """Write the pseudo labels of a few images in the generation that ended."""
        if self.writes and training.statistics is not None:
            lines = b"".join(line.written() for line in training.statistics.ended)
            append(self.plan.folder / runs.PSEUDO_BOXES, lines)

    def _open(self, training: Training) -> None:
        """Let the method look for what it needs, and note what the run is made of."""
        record, parts, labelled = self.record, training.detector.parts, training.dataset.sources[0]
        parts.begin_run(partial(labelled_images, labelled, self.plan.settings, on_unread=training.unread.passed_over))
        record.departures |= parts.departures()
        tell_backbone(record, training.detector.backbone_record, self.say)
        in_first, unlabelled = training.sampler.sizes
        promotable = unlabelled if self.plan.method.images == "promoted" else 0
        record.data = {"labelled": in_first - promotable, "unlabelled": unlabelled}

    def _begin(self, training: Training) -> None:
        """Go to the checkpoint, or to iteration 0, and drop lines of the log from after it."""
        if training.resume():
            self.say(f"Continuing after iteration {training.position.iteration} of {self.plan.settings.iterations}.")
        else:
            preflight.check_drawn(training, self.plan.manifest.counts["labelled"], self.warn)
            training.save()  # iteration 0: a run that dies early continues like any other
        if self.writes:
            for name in (runs.LOG, runs.PSEUDO_LABELS, runs.PSEUDO_BOXES):
                log.rewind(self.plan.folder / name, training.position.iteration)
        self.tracker.begin()
        training.detector.observer = self.tracker.observing(training.detector.observer)

    def _train(self, training: Training) -> None:
        """Train to the end; however that ends, the record says how long it took and what was skipped."""
        record, total = self.record, self.plan.settings.iterations
        begun, first = time.perf_counter(), training.position.iteration
        quiet = self.quiet or not self.writes
        with Bar("train", total, done=first, stream=sys.stderr, quiet=quiet) as self.bar:
            try:
                training.run()
            finally:
                seconds = time.perf_counter() - begun
                if self.evaluations is not None:
                    seconds -= self.evaluations.seconds
                    spent = record.timings.get("evaluations", 0.0) + self.evaluations.seconds
                    record.timings["evaluations"], record.best = spent, self.evaluations.best
                record.timings["train"] = record.timings.get("train", 0.0) + seconds
                record.skipped |= {"iterations": training.position.skipped, **training.unread.skipped}
        if training.position.iteration > first:
            record.timings["iterations_per_second"] = (training.position.iteration - first) / seconds

    def _predict(self, detector: SemiSupervisedDetector, scored: Source, category_ids: tuple[int, ...]) -> None:
        """Write what teacher and student detect on the scored images; collective.

        Raises:
            DataFault: an image cannot be read.
            Interrupted: the run was asked to stop meanwhile.
        """
        plan, begun, quiet = self.plan, time.perf_counter(), self.quiet or not self.writes
        absent = plan.task.absent
        rows = present(scored, absent)
        total = len(MODELS) * len(rows)
        with Bar("predict", total, stream=sys.stderr, quiet=quiet) as bar:
            texts = predicted_texts(
                detector, scored, plan.settings, category_ids, absent=absent, progress=bar.advance, stop=self.stop
            )
            shown = self.tracker.scored(texts, scored, rows, category_ids, plan.settings.iterations)
            with closing(shown), _told_to_fetch():
                write_texts([plan.folder / name for _, name in _PREDICTIONS] if self.writes else [], shown)
        self.record.timings["predict"] = time.perf_counter() - begun

    def _score(self, generation: int) -> None:
        """Fill in the AP of teacher and student, which is the last point of the evaluations where these take all."""
        plan, record, begun = self.plan, self.record, time.perf_counter()
        both = evaluate.score_several(
            plan.val,
            [plan.folder / name for _, name in _PREDICTIONS],
            groups=plan.groups,
            max_dets=plan.task.max_dets,
            metric=plan.task.metric,
            check_boxes=False,
        )
        for (who, _), scores in zip(_PREDICTIONS, both, strict=True):
            record.ap[who], record.per_class[who], record.engine = scores.columns, dict(scores.per_class), scores.engine
        record.timings["evaluate"] = time.perf_counter() - begun
        seen = self.evaluations
        if seen is not None and seen.rows is None and not seen.knows(plan.settings.iterations):
            seconds = record.timings["predict"] + record.timings["evaluate"]
            seen.note(plan.settings.iterations, generation, record.ap, seconds)
            record.best = seen.best


@contextmanager
def _told_to_fetch() -> Iterator[None]:
    """Give the fault of an image that cannot be scored the remedy of that moment."""
    try:
        yield
    except DataFault as fault:
        remedy = "fetch the image again and repeat the same command: the training is done and kept"
        told = DataFault(fault.message, remedy=remedy)
        told.on_all_ranks = fault.on_all_ranks
        raise told from None


def note_of(line: Mapping[str, float]) -> str:
    """Return a log line for the live bar: losses, pseudo boxes per image, thresholds, weights, speed."""
    words = [f"loss {line['loss']:.3f}"]
    pseudo = [f"{name[11:]} {value:.2f}" for name, value in line.items() if name.startswith("pseudo_cls_")]
    if pseudo:
        words.append(f"pseudo boxes/image {' '.join(pseudo)}")
    for name in ("w", "theta"):
        if f"{name}_min" in line:
            words.append(f"{name} {line[f'{name}_min']:.2f}-{line[f'{name}_max']:.2f}")
    return "  ".join(words)
