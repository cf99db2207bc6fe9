"""A line of log.jsonl that holds an evaluation while training: AP of teacher and student on the scored images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cissod_bench.records.line_files import lines_of
from cissod_bench.records.run_folder import LOG
from cissod_bench.scoring.points import AP

MODELS = ("teacher", "student")
_MARK = "eval_images"  # which lines are evaluations


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """AP after an iteration.

    Attributes:
        iteration: optimiser steps done.
        generation: the running one.
        images: how many were scored.
        ap: "teacher" and "student" -> {"all", group...} in points or None; all None where an image could not be read.
        seconds: that it took.
    """

    iteration: int
    generation: int
    images: int
    ap: Mapping[str, Mapping[str, AP]]
    seconds: float = 0.0

    def written(self) -> dict[str, float | None]:
        """Return the line as the log holds it: AP as "ap_teacher_all"."""
        aps = {f"ap_{model}_{column}": value for model, aps in self.ap.items() for column, value in aps.items()}
        place: dict[str, float | None] = {"iteration": self.iteration, "generation": self.generation}
        return {**place, _MARK: self.images, **aps, "seconds": self.seconds}

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Evaluation:
        """Return what a line of the log says."""
        ap: dict[str, dict[str, AP]] = {}
        for model in MODELS:
            start = f"ap_{model}_"
            ap[model] = {name[len(start) :]: value for name, value in line.items() if name.startswith(start)}
        place = {"iteration": int(line["iteration"]), "generation": int(line["generation"])}
        return cls(**place, images=int(line[_MARK]), ap=ap, seconds=float(line["seconds"]))

    def value(self, column: str, model: str = "teacher") -> AP:
        """Return the AP of a column, None where it is undefined."""
        return self.ap.get(model, {}).get(column)


def read_evaluations(folder: Path) -> list[Evaluation]:
    """Return the evaluations of a run by iteration, the last of each; none where there is no log.

    A line that is cut short, as a killed run leaves one, is passed over.

    Raises:
        DataFault: the log cannot be read.
    """
    evaluations: dict[int, Evaluation] = {}
    for text in lines_of(folder / LOG):
        if f'"{_MARK}"'.encode() not in text:
            continue
        try:
            line = Evaluation.of(json.loads(text))
        except (ValueError, KeyError, TypeError):
            continue
        evaluations[line.iteration] = line
    return [evaluations[iteration] for iteration in sorted(evaluations)]


def best_of(evaluations: Sequence[Evaluation], column: str, model: str = "teacher") -> Evaluation | None:
    """Return the evaluation with the highest AP of a column, the first of equals, None where none is defined.

    Evaluations of another number of images than the last one's are not compared.
    """
    defined = [(line.value(column, model), line) for line in evaluations if line.images == evaluations[-1].images]
    known = [(value, line) for value, line in defined if value is not None]
    return max(known, key=lambda pair: pair[0])[1] if known else None
