"""A run's folder and its run.json: where it lies, how it is written, how old ones are read.

The record's layout only ever grows by fields with a default: a file of an older schema lacks them, a file of a newer
one carries keys that are passed over. Both keep loading (one file of each schema lies in ``tests/data``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench.controls import has_control
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files.whole_files import make_folder, write_bytes
from cissod_bench.records.older_records import brought_up_to_date
from cissod_bench.records.record import FREE_SETTINGS, RunRecord

RECORD = "run.json"
LOG = "log.jsonl"
PSEUDO_LABELS = "pseudo_labels.jsonl"
PSEUDO_BOXES = "pseudo_boxes.jsonl"
SETTINGS = "settings.json"
CHECKPOINT = "checkpoint.pth"
BEST_CHECKPOINT = "checkpoint_best.pth"
OLDER_CHECKPOINTS = "checkpoint_[0-9]*.pth"
PREDICTIONS = "predictions.json.gz"
STUDENT_PREDICTIONS = "predictions_student.json.gz"
TRACKER = "tracker"
TRACKER_NOTE = "tracker.json"
RESULTS = (
    *(RECORD, LOG, PSEUDO_LABELS, PSEUDO_BOXES, CHECKPOINT, BEST_CHECKPOINT, OLDER_CHECKPOINTS),
    *(PREDICTIONS, STUDENT_PREDICTIONS, TRACKER_NOTE),
)
"""What a run leaves and a new start removes: names, or patterns of names."""

_REPEAT = "put a sound copy in its place, or move it away and repeat the run, which continues from its checkpoint"
_DECODER = msgspec.json.Decoder(RunRecord)


@dataclass(frozen=True, eq=False)
class Run:
    """A run as it lies on disk. It equals itself alone, so it may be the key of a mapping.

    Attributes:
        folder: where its files lie.
        record: its run.json.
    """

    folder: Path
    record: RunRecord


def run_folder(
    work_dir: Path,
    task: str,
    split_seed: int,
    method: str,
    variant: str,
    preset: str,
    profile: str,
    seed: int,
    name: str = "",
) -> Path:
    """Return ``work_dir/runs/<task>/split<k>/<method>[+variant]/<preset>-<profile>[+name]/seed<k>``.

    Nothing is created.

    Args:
        work_dir: what ``--work-dir`` names.
        task: the sub-task's name.
        split_seed: seed of the draw, >= 0.
        method: the method's name.
        variant: the method's variant, "" for the method as it stands.
        preset: scale of the training ("full", "fine-tune", "photo", "mini", "smoke").
        profile: where its constants come from ("default", "paper", "official").
        seed: seed of the training, >= 0.
        name: as in `RunRecord`.

    Raises:
        UsageFault: a name would leave its place in the tree (a slash, a leading dot, a control character).
    """
    named = method if not variant else f"{method}+{variant}"
    scale = f"{preset}-{profile}+{name}" if name else f"{preset}-{profile}"
    for part in (task, named, scale):
        if not part or part.startswith(".") or has_control(part) or "/" in part or "\\" in part:
            raise UsageFault(
                f"The name {part!r} cannot be a folder: it is empty, starts with a dot, or holds a slash or a control "
                "character.",
                remedy="rename the task's or the method's file; its name becomes the folder's",
            )
    return work_dir / "runs" / task / f"split{split_seed}" / named / scale / f"seed{seed}"


def folder_in_use(folder: Path, older: Path, settings: Mapping[str, Any]) -> Path:
    """Return where a run lies: an older folder, if it holds the run from before its settings were part of the name.

    Args:
        folder: its place.
        older: the place without a name.
        settings: the run's, resolved, as plain JSON.
    """
    if folder == older or (folder / RECORD).exists() or not (older / RECORD).exists():
        return folder
    try:
        record = read_record(older)
    except DataFault:
        return folder
    compared = settings.keys() & record.settings.keys() - FREE_SETTINGS
    same = record.settings and all(record.settings[name] == settings[name] for name in compared)
    return older if same and not record.name else folder


def _plain(value: Any) -> Any:
    """Return what JSON knows in place of a path or a NumPy or torch scalar found in the settings."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"run.json cannot hold a {type(value).__name__}: {value!r}")


def write_record(folder: Path, record: RunRecord) -> Path:
    """Write ``folder/run.json`` as a whole or not at all, and return its path; the folder is made where it lacks.

    Raises:
        EnvironmentFault: the place cannot be written.
    """
    text = msgspec.json.format(msgspec.json.encode(record, enc_hook=_plain), indent=2)
    write_bytes(make_folder(folder) / RECORD, text + b"\n")
    return folder / RECORD


def read_record(place: Path) -> RunRecord:
    """Return the record of a run.

    Args:
        place: the run's folder or its run.json. Keys this version does not know are passed over; settings of older
            versions are in the words of this one.

    Raises:
        DataFault: there is no such file, or it is no JSON, or a value breaks the layout; names the file and the place.
    """
    path = place / RECORD if place.is_dir() else place
    try:
        record = _DECODER.decode(path.read_bytes())
    except FileNotFoundError:
        raise DataFault(
            f"{path}: no run was recorded here.",
            remedy="cissod-bench runs list names all runs; to make one: cissod-bench run --method NAME --task NAME",
        ) from None
    except OSError as error:
        remedy = f"make it readable: chmod +r {path}"
        raise DataFault(f"{path}: cannot be read ({error.strerror}).", remedy=remedy) from None
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
    ) as error:  # ValidationError, which names the JSON path, is one too
        raise DataFault(
            f"{path}: not a run record: {error}.",
            remedy=_REPEAT,
        ) from None
    if rule := _broken_rule(record):
        raise DataFault(f"{path}: not a run record: {rule}.", remedy=_REPEAT)
    return brought_up_to_date(record)


def _broken_rule(record: RunRecord) -> str | None:
    """Return the rule that no type states and the record breaks, or None."""
    for name, pair in record.departures.items():
        if len(pair) != 2:
            return f"departures.{name} must be [the paper's value, the value used], got {pair!r}"
    for key, models in (("ap", record.ap), ("per_class", record.per_class)):
        for model, scores in models.items():
            for name, value in scores.items():
                if value is not None and not 0 <= value <= 100 + 1e-6:  # a mean of 100s may round up
                    return f"{key}.{model}.{name} must be points in 0-100 or null, got {value}"
    return None


def _order(run: Run) -> tuple[Any, ...]:
    """Sort key that puts seed 2 before seed 10, which the sorting of paths does not."""
    record = run.record
    return (
        record.task,
        record.split_seed,
        record.method,
        record.variant,
        record.preset,
        record.profile,
        record.name,
        record.seed,
        str(run.folder),
    )


def find_runs(root: Path, *, on_fault: Callable[[DataFault], None] | None = None) -> list[Run]:
    """Return every run below a folder, by task, split seed, method, scale and seed.

    Hidden folders are those of a command that is at work or was killed; nothing reads them.

    Args:
        root: any folder above the runs; may be missing, then there are none.
        on_fault: is handed the fault of each record that cannot be read, which is then passed over; by default each
            is a warning.
    """
    runs = []
    for path in root.rglob(RECORD):
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        try:
            runs.append(Run(path.parent, read_record(path)))
        except DataFault as fault:
            if on_fault is None:
                warnings.warn(str(fault), stacklevel=2)
            else:
                on_fault(fault)
    return sorted(runs, key=_order)


RUN_LOCK = ".lock"  # held by the run itself
