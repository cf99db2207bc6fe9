"""A run in a tracker: what its log holds, and a few pictures.

``log.jsonl`` and ``pseudo_labels.jsonl`` stay the truth: the tracker is shown their lines, each once. How far it has
come stands in ``tracker.json``, so that a continued run goes on there: training makes the lines after a checkpoint
again as they were. A tracker that fails is left, with a warning; the run goes on without it.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from cissod_bench import distributed
from cissod_bench.contract.parts import Detections
from cissod_bench.files.whole_files import write_json
from cissod_bench.loading.sources import Source
from cissod_bench.records import run_folder as runs
from cissod_bench.running.pictures import Box, boxes_of_detections, boxes_of_text, with_boxes
from cissod_bench.running.plan import Plan
from cissod_bench.running.trackers import KINDS, TensorBoard

PICTURES = 4
"""Scored images that are shown, always the same ones."""
Texts: TypeAlias = Generator[list[str], None, None]
Observer: TypeAlias = Callable[[Sequence[Detections], Tensor], None]
_NO_SCALARS = frozenset({"iteration", "generation", "eval_images", "group"})


class Tracker:
    """Where one run is shown. It does nothing with the setting ``tracker=none``, and on ranks other than the first.

    Args:
        plan: the run.
        warn: takes one line, if the tracker fails.
    """

    def __init__(self, plan: Plan, warn: Callable[[str], None]) -> None:
        self.plan, self.warn = plan, warn
        self._board: TensorBoard | None = None
        self._note: dict[str, Any] = {"tracker": plan.settings.tracker, "run": "", "shown": {}}
        self._read: dict[str, int] = {}  # bytes of each file that were looked at since this start
        self._seen: tuple[list[Detections], Tensor] | None = None

    def begin(self) -> None:
        """Open the tracker and show what the log holds by now and the tracker does not."""
        if self.plan.settings.tracker != "none" and distributed.rank() == 0:
            with self._watched():
                self._open()
            self.catch_up()

    def _open(self) -> None:
        plan, path = self.plan, self.plan.folder / runs.TRACKER_NOTE
        note = json.loads(path.read_bytes()) if path.exists() else {}
        if note.get("tracker") == plan.settings.tracker:
            self._note = note
        else:  # of an earlier start with another tracker, or of a run that --restart has removed
            shutil.rmtree(plan.folder / runs.TRACKER, ignore_errors=True)
        kind = KINDS[plan.settings.tracker]
        self._board = kind(plan.folder / runs.TRACKER, title_of(plan), facts_of(plan), self._note["run"])
        self._note["run"] = self._board.run_id
        write_json(path, self._note)

    def catch_up(self) -> None:
        """Show the lines of the log that the tracker has not seen."""
        if self._board is None:
            return
        with self._watched():
            for name in (runs.LOG, runs.PSEUDO_LABELS):
                for text in self._new(name):
                    self._line(json.loads(text))
            write_json(self.plan.folder / runs.TRACKER_NOTE, self._note)

    def _new(self, name: str) -> list[bytes]:
        """Return the lines of a file that were added since the last look."""
        path = self.plan.folder / name
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._read.get(name, 0))
            text = file.read()
            self._read[name] = file.tell()
        return text.splitlines()

    def _line(self, line: Mapping[str, Any]) -> None:
        assert self._board is not None
        what = part_of(line)
        if line["iteration"] > self._note["shown"].get(what, 0):
            self._board.scalars(scalars_of(line), line["iteration"])
            self._note["shown"][what] = line["iteration"]

    def observing(self, observer: Observer | None) -> Observer | None:
        """Return an observer of pseudo labels that also keeps those of the last iteration for a picture."""
        if self._board is None or observer is None:
            return observer

        def observed(detections: Sequence[Detections], theta: Tensor) -> None:
            self._seen = list(detections), theta
            observer(detections, theta)

        return observed

    def pseudo_labels(self, unlabelled: Source, iteration: int) -> None:
        """Show the unlabelled images of the last iteration on this rank with their pseudo labels.

        Args:
            unlabelled: the source that they were drawn from.
            iteration: the last one.
        """
        if self._board is None or self._seen is None:
            return
        (detections, theta), self._seen = self._seen, None
        with self._watched():
            for place, found in enumerate(detections[:PICTURES]):
                used = (found.scores > theta[found.labels]).cpu().numpy()
                boxes = boxes_of_detections(found, used, self.plan.classes)
                self._picture(f"pseudo_labels/{place}", unlabelled, found.image_index, boxes, iteration)

    def _picture(self, name: str, source: Source, row: int, boxes: Sequence[Box], iteration: int) -> None:
        """Show an image with boxes, unless it was shown after this iteration before the run was continued."""
        shown = self._note["shown"]
        if self._board is not None and iteration > shown.get(f"picture {name}", 0):
            self._board.picture(f"pictures/{name}", with_boxes(source.image(row), boxes, self.plan.groups), iteration)
            shown[f"picture {name}"] = iteration

    def scored(
        self, texts: Texts, source: Source, rows: Sequence[int], category_ids: Sequence[int], iteration: int
    ) -> Texts:
        """Yield detections as they come, and show some of the images with the first model's when all have come.

        Args:
            texts: of every image one text per model, as ``training.predict.predicted_texts`` yields them.
            source: the scored images.
            rows: of the images, in the order of ``texts``.
            category_ids: category id of every channel.
            iteration: the last one before the scoring.
        """
        wanted = set(np.linspace(0, len(rows) - 1, min(PICTURES, len(rows))).astype(int).tolist())
        kept: dict[int, str] = {}
        with closing(texts):
            for place, of_image in enumerate(texts):
                if self._board is not None and place in wanted:
                    kept[place] = of_image[0]
                yield of_image
        if self._board is not None and kept:
            names = dict(zip(category_ids, self.plan.classes, strict=True))
            with self._watched():
                for number, (place, text) in enumerate(sorted(kept.items())):
                    boxes = boxes_of_text(text, names)
                    self._picture(f"scored/{number}", source, rows[place], boxes, iteration)

    def close(self, status: str) -> None:
        """Show what is left and end the tracker's run.

        Args:
            status: of the run's record.
        """
        self.catch_up()
        if self._board is not None:
            with self._watched():
                self._board.close(status)
        self._board = None

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Leave a tracker that fails; put back the random numbers it may have drawn."""
        python, numpy = random.getstate(), np.random.get_state()
        try:
            yield
        except Exception as error:  # a server that is gone must not end a training of days
            self._board = None
            what = str(error).strip().splitlines()
            said = f"{type(error).__name__}: {what[0] if what else ''}"
            self.warn(f"The tracker {self.plan.settings.tracker} failed and is left ({said}); log.jsonl has all.")
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def part_of(line: Mapping[str, Any]) -> str:
    """Return which part of a run a line of its log tells of: the first half of its numbers' names."""
    if "group" in line:
        return f"pseudo_labels/{line['group']}"
    return "evaluation" if "eval_images" in line else "train"


def scalars_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Return a line's numbers by the names a tracker shows: "train/loss", "evaluation/ap_teacher_all"."""
    part = part_of(line)
    numbers = {
        name: value for name, value in line.items() if name not in _NO_SCALARS and isinstance(value, int | float)
    }
    return {f"{part}/{name}": float(value) for name, value in numbers.items() if math.isfinite(value)}


def title_of(plan: Plan) -> str:
    """Return what a tracker calls a run."""
    method = f"{plan.method.name}+{plan.variant}" if plan.variant else plan.method.name
    return f"{method} {plan.preset}-{plan.profile} split {plan.split_seed} seed {plan.seed}"


def facts_of(plan: Plan) -> dict[str, str]:
    """Return what a run is, for a tracker's list of runs."""
    names = ("variant", "preset", "profile", "split_seed", "seed")
    facts = {name: str(getattr(plan, name)) for name in names}
    return {"task": plan.task.name, "method": plan.method.name, **facts, "folder": str(plan.folder)}
