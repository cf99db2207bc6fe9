"""The archive in which finished runs travel: a gzipped tar that begins with a list of all it holds.

``pack.json`` names every run with its split's hash, and every file with its size and hash. Behind it come these files
in that order and nothing else, so that an archive is read once, from its beginning to its end, and whatever is not as
listed ends the reading. The bytes depend on the content alone: no time, no owner, no name of a machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from cissod_bench.records import run_folder as runs
from cissod_bench.records.record import RunRecord
from cissod_bench.splitting.manifest import MANIFEST

LIST = "pack.json"
FORMAT: Final = "cissod-bench runs"
SCHEMA = 1
MOST_LIST_BYTES = 64 << 20
SPLIT = "split"
"""Folder within a run's that holds the manifest of its split."""
SPLIT_MANIFEST = f"{SPLIT}/{MANIFEST}"
PREDICTIONS = {"teacher": runs.PREDICTIONS, "student": runs.STUDENT_PREDICTIONS}
"""Model -> the file of its detections."""
FILES = (
    runs.RECORD,
    SPLIT_MANIFEST,
    runs.SETTINGS,
    runs.LOG,
    runs.PSEUDO_LABELS,
    runs.PSEUDO_BOXES,
    runs.PREDICTIONS,
    runs.STUDENT_PREDICTIONS,
)
"""What of a run travels, as far as it is there: all that its scores follow from, and no checkpoint."""

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class PackedFile(msgspec.Struct, frozen=True):
    """A file: its size in bytes and the sha256 of its content."""

    bytes: Annotated[int, Meta(ge=0)]
    sha256: Sha256


class PackedRun(msgspec.Struct, frozen=True):
    """A run in an archive.

    Attributes:
        place: its folder below ``runs/``, with slashes.
        split_sha256: hash over the data files of its split.
        files: name -> the file; the names are among `FILES`, in that order.
    """

    place: str
    split_sha256: str
    files: dict[str, PackedFile]


class PackList(msgspec.Struct, frozen=True):
    """The content of ``pack.json``.

    Attributes:
        format: `FORMAT`.
        schema: version of the layout.
        tool_version: of the program that wrote it.
        runs: by their places.
    """

    format: str
    schema: int
    tool_version: str
    runs: list[PackedRun]


def place_of(record: RunRecord) -> str:
    """Return a run's folder below ``runs/``, by its record.

    Raises:
        UsageFault: a name in it could not be a folder.
    """
    names = (record.task, record.split_seed, record.method, record.variant, record.preset, record.profile, record.seed)
    return runs.run_folder(Path(), *names, record.name).relative_to("runs").as_posix()
