"""The predictions of a run scored once more, wherever the validation file is at hand, and compared with its record."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cissod_bench.errors import DataFault
from cissod_bench.files.hashing import file_sha256
from cissod_bench.files.images import broken_name_rule
from cissod_bench.keeping.pack_format import PREDICTIONS, SPLIT
from cissod_bench.records.run_folder import Run
from cissod_bench.scoring.evaluate import Scores, score_several
from cissod_bench.scoring.points import AP
from cissod_bench.split_folders.listing import data_roots
from cissod_bench.splitting.manifest import Manifest, read_manifest, split_folder

TOLERANCE = 1e-6
"""Points by which two scorings of the same predictions may differ: engines of other versions sum in other orders."""


@dataclass(frozen=True)
class Rescored:
    """What scoring a run again told.

    Attributes:
        models: "teacher" and "student", as far as they were scored and their AP is that of the record.
        why_not: why one was not scored, "" where all were.
    """

    models: tuple[str, ...]
    why_not: str = ""


def rescore(run: Run, data_root: Path, work_dir: Path) -> Rescored:
    """Score a run's predictions again and compare every AP with the record's.

    Args:
        run: finished.
        data_root: the validation file lies below it, or below ``work_dir/data`` where the task is a drawn one.
        work_dir: its splits tell how is scored where the run brings no manifest.

    Raises:
        DataFault: the scores are not those of the record, or the predictions break their format.
    """
    manifest = _manifest(run, work_dir)
    if manifest is None:
        return Rescored((), "the manifest of its split is not at hand")
    truth = _truth(run, manifest, data_root, work_dir)
    if truth is None:
        return Rescored((), f"the validation file {manifest.val.path} of its split is not below {data_root}")
    files = {who: run.folder / name for who, name in PREDICTIONS.items() if who in run.record.ap}
    there = {who: path for who, path in files.items() if path.is_file()}
    if there:
        both = score_several(
            truth,
            list(there.values()),
            groups=run.record.groups,
            max_dets=manifest.max_dets,
            metric=manifest.metric,
            check_boxes=False,
        )
        for who, scores in zip(there, both, strict=True):
            _compare(run, who, scores)
    lacking = [who for who in files if who not in there]
    return Rescored(tuple(there), f"the predictions of the {' and the '.join(lacking)} are missing" if lacking else "")


def _manifest(run: Run, work_dir: Path) -> Manifest | None:
    """Return the manifest that the run brings, or that of the same draw on this machine."""
    record = run.record
    for folder in (run.folder / SPLIT, split_folder(work_dir, record.task, record.split_seed)):
        with suppress(DataFault):
            manifest = read_manifest(folder)
            if manifest.split_sha256 == record.split_sha256:
                return manifest
    return None


def _truth(run: Run, manifest: Manifest, data_root: Path, work_dir: Path) -> Path | None:
    """Return the validation file of a split, None where no file of that name and content is at hand."""
    if broken_name_rule(manifest.val.path) is not None:
        return None
    split = split_folder(work_dir, run.record.task, run.record.split_seed)
    for root in data_roots(split, manifest, data_root, work_dir):
        path = root / manifest.val.path
        if path.is_file() and file_sha256(path) == manifest.val.sha256:
            return path
    return None


def _compare(run: Run, who: str, scores: Scores) -> None:
    record = run.record
    for kind, noted, scored in (
        ("", record.ap[who], scores.columns),
        ("class ", record.per_class.get(who, {}), scores.per_class),
    ):
        if (name := _first_difference(noted, scored)) is not None:
            raise DataFault(
                f"{run.folder}: the predictions of the {who} give AP {_points(scored.get(name))} for {kind}{name!r} "
                f"({scores.engine}), and run.json says {_points(noted[name])} ({record.engine}): one of the two is of "
                "another run, or was changed.",
                remedy="have the run packed again where it was made: cissod-bench runs pack DIR",
            )


def _first_difference(noted: Mapping[str, AP], scored: Mapping[str, AP]) -> str | None:
    """Return the first name whose noted AP is not what was scored, or None."""
    for name, value in noted.items():
        other = scored.get(name)
        if (value is None) != (other is None):
            return name
        if value is not None and other is not None and abs(value - other) > TOLERANCE:
            return name
    return None


def _points(value: AP) -> str:
    return "none" if value is None else f"{value:.6f}"
