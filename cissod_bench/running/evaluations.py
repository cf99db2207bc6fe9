"""Evaluation while training: teacher and student scored by all ranks, a line of the log each, the best one kept.

``log.jsonl`` is the truth: which evaluations there were, and which was the best, is read from it at every start. A line
is written when its checkpoint is safe, so an evaluation that a stop cut short is made again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from cissod_bench import distributed
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.errors import DataFault, unknown_name
from cissod_bench.loading.sources import Source
from cissod_bench.records import log
from cissod_bench.records import run_folder as runs
from cissod_bench.records.evaluation_lines import Evaluation, best_of, read_evaluations
from cissod_bench.running.plan import Plan
from cissod_bench.running.tracking import Tracker
from cissod_bench.scoring import evaluate
from cissod_bench.scoring.points import AP
from cissod_bench.training import checkpoint
from cissod_bench.training.evaluating import drawn_rows
from cissod_bench.training.predict import MODELS, predicted_texts, present
from cissod_bench.training.result_files import write_texts

Aps = Mapping[str, Mapping[str, AP]]


def check_best_by(plan: Plan) -> None:
    """Refuse a column that the task does not have.

    Raises:
        UsageFault: names those it has.
    """
    columns = ("all", *plan.groups)
    if plan.settings.best_by not in columns:
        raise unknown_name("column", plan.settings.best_by, columns, remedy=f"--set best_by={columns[0]}")


class Evaluations:
    """The evaluations of one run on one rank.

    Args:
        plan: the run.
        detector: as it is trained.
        scored: the scored images.
        category_ids: category id of every channel.
        stop: tells whether this rank was asked to stop.
        tell: takes words for the live line, on rank 0.
        warn: takes a warning, on rank 0.
        tracker: where the run is shown.

    Attributes:
        lines: those there were, by iteration; equal on all ranks.
        seconds: that they took since this start.
        rows: of the scored images, those that are looked at; None for all.
    """

    def __init__(
        self,
        plan: Plan,
        detector: SemiSupervisedDetector,
        scored: Source,
        category_ids: Sequence[int],
        *,
        stop: Callable[[], bool] = lambda: False,
        tell: Callable[[str], None] = lambda words: None,
        warn: Callable[[str], None] = lambda words: None,
        tracker: Tracker | None = None,
    ) -> None:
        self.plan, self.detector, self.scored, self.category_ids = plan, detector, scored, category_ids
        self.stop, self.tell, self.warn, self.tracker = stop, tell, warn, tracker or Tracker(plan, warn)
        self.rows = drawn_rows(scored, plan.settings.eval_images)
        self.images = len(scored) if self.rows is None else len(self.rows)
        texts = distributed.from_first(lambda: [line.written() for line in read_evaluations(plan.folder)])
        self.lines = [Evaluation.of(text) for text in texts]
        self.seconds = 0.0

    def __call__(self, iteration: int, generation: int) -> None:
        """Score teacher and student as they are now; collective.

        Where the whole of the scored images is taken, the last iteration is scored by the run itself, not here.

        Raises:
            Interrupted: a rank was asked to stop; the evaluation is made when the run is continued.
        """
        is_last = iteration == self.plan.settings.iterations
        if self.knows(iteration) or (is_last and self.rows is None):
            return
        begun = time.perf_counter()
        try:
            aps = self._scored(iteration)
        finally:
            self.seconds += time.perf_counter() - begun
        self.note(iteration, generation, aps, time.perf_counter() - begun)

    def knows(self, iteration: int) -> bool:
        """Return whether there was an evaluation of as many images after an iteration."""
        return any(line.iteration == iteration and line.images == self.images for line in self.lines)

    def note(self, iteration: int, generation: int, aps: Aps, seconds: float) -> None:
        """Add an evaluation: keep its checkpoint if it is the best so far, then write its line (rank 0)."""
        ap = {model: {name: None if v is None else round(v, 6) for name, v in of.items()} for model, of in aps.items()}
        line = Evaluation(iteration=iteration, generation=generation, images=self.images, ap=ap, seconds=seconds)
        self.lines = [other for other in self.lines if other.iteration != iteration] + [line]
        if distributed.rank() == 0:
            if best_of(self.lines, self.plan.settings.best_by) is line:
                checkpoint.keep(self.plan.folder / runs.CHECKPOINT, runs.BEST_CHECKPOINT)
            log.append(self.plan.folder / runs.LOG, line.written())
            self.tracker.catch_up()
            self.tell(words_of(line))

    @property
    def best(self) -> dict[str, Any]:
        """What the record says of the best evaluation, {} where there is none."""
        column = self.plan.settings.best_by
        best = best_of(self.lines, column)
        if best is None:
            return {}
        return {
            "column": column,
            "model": MODELS[0],
            "iteration": best.iteration,
            "images": best.images,
            "of": len(self.scored),
            "ap": {model: dict(aps) for model, aps in best.ap.items()},
            "evaluations": sum(line.images == best.images for line in self.lines),
        }

    def _scored(self, iteration: int) -> dict[str, dict[str, AP]]:
        """Return model -> column -> AP, equal on all ranks; None everywhere where an image cannot be read."""
        plan = self.plan
        paths = [plan.folder / f".evaluation-{model}.tmp" for model in MODELS]
        try:
            self._predict(paths if distributed.rank() == 0 else [], iteration)
            return distributed.from_first(lambda: self._aps(paths))
        except DataFault as fault:  # of an image, on all ranks: an evaluation must not end a training of days
            if distributed.rank() == 0:
                self.warn(f"No evaluation after iteration {iteration}. {fault}")
            return {model: dict.fromkeys(("all", *plan.groups)) for model in MODELS}
        finally:
            for path in paths if distributed.rank() == 0 else []:
                path.unlink(missing_ok=True)

    def _predict(self, paths: Sequence[Any], iteration: int) -> None:
        plan, done = self.plan, 0
        rows = present(self.scored, plan.task.absent, self.rows)
        total = len(MODELS) * len(rows)

        def progress(predictions: int) -> None:
            nonlocal done
            done += predictions
            if distributed.rank() == 0:
                self.tell(f"evaluating {done}/{total}")

        texts = predicted_texts(
            self.detector, self.scored, plan.settings, self.category_ids, absent=plan.task.absent, rows=self.rows,
            kept=f"the training is kept up to iteration {iteration}", progress=progress, stop=self.stop,
        )  # fmt: skip
        with closing(self.tracker.scored(texts, self.scored, rows, self.category_ids, iteration)) as shown:
            write_texts(list(paths), shown)

    def _aps(self, paths: Sequence[Any]) -> dict[str, dict[str, AP]]:
        plan = self.plan
        ids = None if self.rows is None else self.scored.image_ids[self.rows].tolist()
        both = evaluate.score_several(
            plan.val,
            list(paths),
            groups=plan.groups,
            max_dets=plan.task.max_dets,
            metric=plan.task.metric,
            check_boxes=False,
            images=ids,
        )
        return {model: scores.columns for model, scores in zip(MODELS, both, strict=True)}


def words_of(line: Evaluation) -> str:
    """Return an evaluation for the live line: the teacher's AP."""
    aps = line.ap.get(MODELS[0], {})
    return f"AP at {line.iteration}: " + " ".join(
        f"{column} {'n/a' if value is None else f'{value:.1f}'}" for column, value in aps.items()
    )
