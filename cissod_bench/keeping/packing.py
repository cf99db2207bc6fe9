"""Finished runs into one archive that others can check."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import msgspec

from cissod_bench import __version__
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files.hashing import file_sha256
from cissod_bench.files.whole_files import replacing
from cissod_bench.keeping.pack_format import (
    FILES,
    FORMAT,
    LIST,
    PREDICTIONS,
    SCHEMA,
    SPLIT,
    SPLIT_MANIFEST,
    PackedFile,
    PackedRun,
    PackList,
    place_of,
)
from cissod_bench.records.run_folder import Run
from cissod_bench.splitting.manifest import MANIFEST, read_manifest, split_folder


@dataclass(frozen=True)
class _Chosen:
    """A run's place in the archive and the files that go there, by their names."""

    place: str
    run: Run
    files: dict[str, Path]

    @property
    def lacking(self) -> list[str]:
        """What stands in the way of scoring it again elsewhere."""
        lacks = [f"no predictions of the {who}" for who, name in PREDICTIONS.items() if name not in self.files]
        return lacks + ["no manifest of its split"] * (SPLIT_MANIFEST not in self.files)


@dataclass(frozen=True)
class Packed:
    """What was packed.

    Attributes:
        file: the archive.
        sha256: of its bytes.
        places: of the runs, below ``runs/``.
        warnings: runs that others cannot score again, with the reason.
    """

    file: Path
    sha256: str
    places: tuple[str, ...]
    warnings: tuple[str, ...]


def pack(runs: Sequence[Run], file: Path, work_dir: Path) -> Packed:
    """Write finished runs into one archive, whole or not at all; the same runs give the same bytes.

    Args:
        runs: finished; in any order.
        file: the archive to make.
        work_dir: below it, or beside the runs, lies the manifest of their split.

    Raises:
        UsageFault: there is none, one is not finished, two are the same run, or the file is there already.
        DataFault: a file changed while it was packed.
        EnvironmentFault: the archive cannot be written.
    """
    if not runs:
        raise UsageFault("There is no finished run to pack.", remedy="cissod-bench runs list")
    if unfinished := [run for run in runs if run.record.status != "done"]:
        message = f"{unfinished[0].folder} is not finished ({unfinished[0].record.status}): its scores are not known."
        raise UsageFault(message, remedy="continue it first: the same command as at its start")
    if file.exists():
        raise UsageFault(f"{file} is there already and stays.", remedy="name another file with --out")
    chosen = sorted((_chosen(run, work_dir) for run in runs), key=lambda one: one.place)
    for first, second in pairwise(chosen):
        if first.place == second.place:
            message = f"{first.run.folder} and {second.run.folder} are the same run by their records."
            raise UsageFault(message, remedy="pack them into files of their own")
    _write(chosen, file)
    warnings = tuple(f"{one.place}: {', '.join(one.lacking)}" for one in chosen if one.lacking)
    return Packed(file, file_sha256(file), tuple(one.place for one in chosen), warnings)


def _chosen(run: Run, work_dir: Path) -> _Chosen:
    places = {name: run.folder / name for name in FILES}
    if (manifest := _manifest_file(run, work_dir)) is not None:
        places[SPLIT_MANIFEST] = manifest
    else:
        del places[SPLIT_MANIFEST]
    return _Chosen(place_of(run.record), run, {name: path for name, path in places.items() if path.is_file()})


def _manifest_file(run: Run, work_dir: Path) -> Path | None:
    """Return the manifest of the run's split: of its own, or of the split folder if that holds the same draw."""
    record, above = run.record, run.folder.resolve().parents
    folders = [run.folder / SPLIT, split_folder(work_dir, record.task, record.split_seed)]
    if len(above) > 5:  # <work>/runs/<task>/split<k>/<method>/<scale>/seed<k>
        folders.append(split_folder(above[5], record.task, record.split_seed))
    for folder in folders:
        with suppress(DataFault):
            if read_manifest(folder).split_sha256 == record.split_sha256:
                return folder / MANIFEST
    return None


def _write(chosen: Sequence[_Chosen], file: Path) -> None:
    listed = [
        PackedRun(one.place, one.run.record.split_sha256, {name: _packed(path) for name, path in one.files.items()})
        for one in chosen
    ]
    content = msgspec.json.format(msgspec.json.encode(PackList(FORMAT, SCHEMA, __version__, listed)), indent=2)
    with (
        replacing(file) as stream,
        gzip.GzipFile("", "wb", 6, stream, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        archive.addfile(_entry(LIST, len(content)), io.BytesIO(content))
        for one, run in zip(chosen, listed, strict=True):
            for name, path in one.files.items():
                _add(archive, f"{one.place}/{name}", path, run.files[name])


def _packed(path: Path) -> PackedFile:
    return PackedFile(path.stat().st_size, file_sha256(path))


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """Return the head of a file in the archive; owner and time are nobody's and none."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


def _add(archive: tarfile.TarFile, name: str, path: Path, listed: PackedFile) -> None:
    with path.open("rb") as stream:
        hashed = _Hashed(stream)
        try:
            archive.addfile(_entry(name, listed.bytes), hashed)
        except OSError as error:
            if hashed.ended:
                raise _changed(path) from error
            raise
    if hashed.digest.hexdigest() != listed.sha256:
        raise _changed(path)


def _changed(path: Path) -> DataFault:
    return DataFault(f"{path} changed while it was packed.", remedy="repeat the command when nobody writes there")


class _Hashed:
    """A stream that hashes what is read of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.digest, self.ended = stream, hashlib.sha256(), False

    def read(self, size: int = -1) -> Any:
        data = self._stream.read(size)
        self.digest.update(data)
        self.ended = len(data) < size
        return data
