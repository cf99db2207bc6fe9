"""Checkpoints: written whole or not at all, read with ``weights_only`` and nothing else, by rank 0 for all ranks."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import torch

from cissod_bench import distributed
from cissod_bench.contract.parts import Promoted
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files.whole_files import Deferred, replacing
from cissod_bench.records.run_folder import OLDER_CHECKPOINTS
from cissod_bench.training.guards import Streak
from cissod_bench.training.optimisers import load_optimiser
from cissod_bench.training.sending import sent

FORMAT = 1
_UNSOUND = "put a sound copy in its place, or move it away and repeat the command, which trains from the beginning then"
KEYS = (
    "iteration", "generation", "start", "copies", "skipped", "identity", "student", "teacher", "parts", "parts_extra",
    "optimiser", "scaler",
)  # fmt: skip


@dataclass
class Position:
    """How far a training is.

    Attributes:
        iteration: optimiser steps done.
        generation: the running one.
        start: its first iteration.
        copies: source -> how often each of its images is drawn in it; empty for once each.
        skipped: iterations that made no step because a loss or the gradient was not finite.
        statistics: counters of the running generation's pseudo labels; nothing that training reads.
        stage: number of the running stage.
        promoted: pseudo labels that count as labels in the running generation.
        streak: iterations in a row without a step.
        unread: images that could not be read, as `UnreadImages.state` has them.
        logged: by rank, the numbers since the last line of the log; nothing that training reads.
    """

    iteration: int = 0
    generation: int = 0
    start: int = 0
    copies: dict[int, npt.NDArray[np.int32]] = field(default_factory=dict)
    skipped: int = 0
    statistics: dict[str, Any] = field(default_factory=dict)
    stage: int = 0
    promoted: Promoted | None = None
    streak: Streak = field(default_factory=Streak)
    unread: dict[str, Any] = field(default_factory=dict)
    logged: list[dict[str, Any]] = field(default_factory=list)


def _tensors(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(column) for name, column in columns.items()}


def save(
    path: Path,
    position: Position,
    detector: SemiSupervisedDetector,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    identity: dict[str, str],
    parts_extra: dict[str, Any],
) -> None:
    """Write everything that the rest of a training depends on.

    Args:
        path: the file; it is replaced as a whole.
        position: how far the training is.
        detector: student, teacher and the method's state.
        optimiser: of the student.
        scaler: of mixed precision.
        identity: what the run is ("split", "settings"); a resumed run must have the same.
        parts_extra: what the method's `before_save_checkpoint` added.
    """
    state = {
        "format": FORMAT,
        "iteration": position.iteration,
        "generation": position.generation,
        "start": position.start,
        "copies": _tensors({str(source): times for source, times in position.copies.items()}),
        "skipped": position.skipped,
        "statistics": position.statistics,
        "stage": position.stage,
        "promoted": None if position.promoted is None else _tensors(vars(position.promoted)),
        "streak": asdict(position.streak),
        "unread": position.unread,
        "logged": position.logged,
        "identity": identity,
        "student": detector.student.state_dict(),
        "teacher": detector.teacher.state_dict(),
        "parts": detector.parts.state_dict(),
        "parts_extra": parts_extra,
        "optimiser": optimiser.state_dict(),
        "scaler": scaler.state_dict(),
    }
    with replacing(path) as stream:
        deferred = Deferred(stream)  # torch would make an error of its own of a full disk
        torch.save(state, cast("IO[bytes]", deferred))  # of a stream it uses these two methods
        deferred.check()


def keep(path: Path, name: str) -> Path:
    """Let what a checkpoint's file holds now stay in its folder under another name, too, and return that path.

    It is a second name of the same bytes where the disk knows such; checkpoints are replaced, never changed.

    Raises:
        EnvironmentFault: it cannot be copied.
    """
    kept = path.with_name(name)
    hidden = path.with_name(f".{name}.tmp")
    hidden.unlink(missing_ok=True)
    try:
        os.link(path, hidden)
    except OSError:
        with path.open("rb") as source, replacing(kept) as stream:
            shutil.copyfileobj(source, stream)
    else:
        hidden.replace(kept)
    return kept


def keep_older(path: Path, iteration: int, most: int) -> None:
    """Keep a checkpoint that is about to be replaced, and the newest of those kept before.

    Args:
        path: the file.
        iteration: of the checkpoint that replaces it.
        most: how many stay.
    """
    before = iteration_of(path)
    if before is not None and 0 < before < iteration:
        keep(path, f"checkpoint_{before:08d}.pth")
    for old in sorted(path.parent.glob(OLDER_CHECKPOINTS))[:-most]:
        old.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content.

    Only tensors and plain values are unpickled: a file that holds anything else could run code and is refused.

    Raises:
        DataFault: not a checkpoint of ours, damaged, or holding more than tensors and plain values.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own words advise to load it all the same
        raise DataFault(
            f"{path} is not a sound checkpoint: it holds more than tensors and plain values, or is damaged.",
            remedy=_UNSOUND,
        ) from error
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise DataFault(
            f"The checkpoint {path} cannot be read: {reason}.", remedy="make it readable and repeat the command"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataFault(f"{path} is not a sound checkpoint: {reason}", remedy=_UNSOUND) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DataFault(
            f"{path} is not a checkpoint of this format ({FORMAT}).",
            remedy="continue with the release that wrote it (run.json names its version), or pass another "
            "--work-dir to train from the beginning",
        )
    missing = [key for key in KEYS if key not in state]
    if missing:
        raise DataFault(f"{path} is not a sound checkpoint: it lacks {', '.join(missing)}.", remedy=_UNSOUND)
    return state


def iteration_of(path: Path) -> int | None:
    """Return how many iterations a checkpoint holds, None where there is none that can be read; cheap."""
    with suppress(Exception):
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(state["iteration"])
    return None


def read_own(path: Path, identity: dict[str, str]) -> dict[str, Any]:
    """Return the content of a checkpoint of this run.

    Raises:
        DataFault: the file is not sound.
        UsageFault: it belongs to a run with another split or other settings.
    """
    state = read(path)
    for what, own in identity.items():
        if state["identity"].get(what) != own:
            raise UsageFault(
                f"The checkpoint {path} was written with another {what}.",
                remedy=f"repeat the command with the {what} of the first start, or pass another --work-dir",
            )
    return state


def read_shared(path: Path, identity: dict[str, str]) -> dict[str, Any] | None:
    """Return the content of rank 0's checkpoint on every rank, None where rank 0 has none; a collective call.

    Ranks on other machines may see another disk, so what rank 0 has read is sent.

    Raises:
        DataFault, UsageFault: as `read_own`, on all ranks.
    """
    states: list[dict[str, Any]] = []

    def look() -> bool:
        if path.exists():
            states.append(read_own(path, identity))
        return bool(states)

    if not distributed.from_first(look):
        return None
    return sent(states[0] if states else {})


def position_of(state: Mapping[str, Any]) -> Position:
    """Return how far a checkpoint is."""
    promoted = state.get("promoted")
    return Position(
        state["iteration"],
        state["generation"],
        state["start"],
        {int(source): times.numpy() for source, times in state["copies"].items()},
        state["skipped"],
        state.get("statistics", {}),
        state.get("stage", 0),
        None if promoted is None else Promoted(**{name: column.numpy() for name, column in promoted.items()}),
        Streak(**state.get("streak", {})),
        state.get("unread", {}),
        state.get("logged", []),
    )


def load(
    state: Mapping[str, Any],
    detector: SemiSupervisedDetector,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Put a checkpoint's content into detector, optimiser and scaler."""
    detector.student.load_state_dict(state["student"])
    detector.teacher.load_state_dict(state["teacher"])
    detector.parts.load_state_dict(state["parts"])
    detector.parts.after_load_checkpoint(state["parts_extra"])
    load_optimiser(optimiser, state["optimiser"])
    scaler.load_state_dict(state["scaler"])
