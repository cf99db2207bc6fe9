"""The cells of a sweep: every combination of methods, tasks and seeds is one run. Which they are, and how far.

How far is read from the files of their runs and from who holds their locks. Listing cells needs no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cissod_bench.catalogue.declarations import Entry
from cissod_bench.catalogue.method_files import find_entry, find_method, split_variant
from cissod_bench.catalogue.task_files import find_task
from cissod_bench.contract.presets import preset_name_of, require_profile, resolved
from cissod_bench.errors import DataFault, UsageFault, unknown_name
from cissod_bench.launching.slurm import Job
from cissod_bench.records import run_folder as runs
from cissod_bench.records.record import FREE_SETTINGS, RunRecord
from cissod_bench.records.run_names import check_name, name_of_settings
from cissod_bench.splitting.manifest import split_folder
from cissod_bench.splitting.task import Task
from cissod_bench.sweeping.claims import worked_on

FAILURE = "failure.json"
IDENTITY = ("task", "method", "variant", "preset", "profile", "split_seed", "seed", "name")
"""What names a run: fields of a `Cell` and of a `RunRecord`."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep.

    Attributes:
        task: the sub-task's name.
        named: the task as the user named it, its name or a file.
        method, variant, preset, profile, split_seed, seed: as in `RunRecord`.
        file: the method's Python file, "" where it has a name in the catalogue.
        changes: ``key=value`` changes of settings.
        settings: resolved, as plain JSON.
        name: as in `RunRecord`.
        named_by_user: whether ``name`` is the user's; else it follows from the settings.
    """

    task: str
    named: str
    method: str
    variant: str
    preset: str
    profile: str
    split_seed: int
    seed: int
    file: str = ""
    changes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)
    name: str = ""
    named_by_user: bool = False

    @property
    def row(self) -> str:
        """The method as its folder is called: ``ours+gbr+gbt``."""
        return f"{self.method}+{self.variant}" if self.variant else self.method

    @property
    def title(self) -> str:
        """What a line about the cell calls it."""
        return f"{self.row_and_name} on {self.task}, split seed {self.split_seed}, seed {self.seed}"

    @property
    def row_and_name(self) -> str:
        """The method and what tells its runs apart: ``ours [lr=0.02]``."""
        return f"{self.row} [{self.name}]" if self.name else self.row

    @property
    def place(self) -> Path:
        """The run's folder below ``runs/``."""
        return self._folder(self.name)

    @property
    def older_place(self) -> Path:
        """Where a run of these settings may lie that was begun before they were part of the folder's name."""
        return self.place if self.named_by_user else self._folder("")

    def _folder(self, name: str) -> Path:
        names = (self.task, self.split_seed, self.method, self.variant, self.preset, self.profile, self.seed)
        return runs.run_folder(Path(), *names, name).relative_to("runs")

    @property
    def sources(self) -> tuple[str, str]:
        """The files of the task and of the method, wherever they are named from; "" where the catalogue has them."""
        return _real_file(self.named), _real_file(self.file)

    def words(self) -> list[str]:
        """Return the command line of the run, without its folders, which it takes from the environment."""
        words = ["run", "--method", self.file or self.method, "--task", self.named, "--preset", self.preset]
        words += ["--variant", self.variant] * bool(self.variant)
        words += ["--name", self.name] * self.named_by_user
        words += ["--profile", self.profile, "--split-seed", str(self.split_seed), "--seed", str(self.seed)]
        return words + [word for change in self.changes for word in ("--set", change)]


def _real_file(named: str) -> str:
    return os.path.realpath(named) if named.endswith((".toml", ".py")) else ""


def _method_and_variant(text: str) -> tuple[str, str, str]:
    """Return ("ours", "gbr+gbt", "") for ``ours+gbr+gbt``; last the method's file, for ``FILE.py+variant``.

    Raises:
        UsageFault: there is no such method, or it has no such variant.
    """
    named, variant = split_variant(text)
    entry = find_entry(named)
    if variant and variant not in _variants(entry, named, variant):
        raise unknown_name(f"variant of {entry.name}", variant, _variants(entry, named, variant))
    return entry.name, variant, named if named.endswith(".py") else ""


def _variants(entry: Entry, named: str, wanted: str) -> Mapping[str, Any]:
    """Return a method's variants; the method, and torch with it, is imported only if they are not literals."""
    literal: Mapping[str, Any] = entry.literals.get("variants", {})
    return literal if wanted in literal else find_method(named).variants


def _settings(task: Task, preset_name: str, changes: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return the settings a run resolves to, as its record holds them, and what it is called by them."""
    settings = asdict(resolved(task, preset_name, changes))
    name = name_of_settings(settings, asdict(resolved(task, preset_name)))
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain, name


def cells_of(
    methods: Sequence[str],
    tasks: Sequence[str],
    *,
    split_seeds: Sequence[int] = (0,),
    seeds: Sequence[int] = (0,),
    preset_name: str | None = None,
    profile: str = "default",
    changes: Sequence[str] = (),
    name: str = "",
) -> list[Cell]:
    """Return every combination once, seed by seed, so that a table has all its rows before it has all its seeds.

    Args:
        methods: ``NAME`` or ``NAME+variant``; for a name may stand a Python file.
        tasks: names or files.
        split_seeds: of the draws.
        seeds: of the training.
        preset_name: scale; None takes the task's own.
        profile: where constants come from.
        changes: ``key=value`` changes of settings.
        name: what the user calls the runs; "" takes the settings that differ from the preset.

    Raises:
        UsageFault: a name or a setting does not exist, or two files have one name; before anything runs.
    """
    require_profile(profile)
    if name:
        check_name(name)
    named = [(name, find_task(name)) for name in tasks]
    methods_named = [_method_and_variant(text) for text in methods]
    scales = [preset_name_of(task, preset_name) for _, task in named]
    settings = [_settings(task, scale, changes) for (_, task), scale in zip(named, scales, strict=True)]
    cells = [
        Cell(
            task=task.name,
            named=text,
            method=method,
            variant=variant,
            preset=scale,
            profile=profile,
            split_seed=split_seed,
            seed=seed,
            file=file,
            changes=tuple(changes),
            settings=resolved_settings,
            name=name or by_settings,
            named_by_user=bool(name),
        )
        for split_seed in split_seeds
        for seed in seeds
        for (text, task), scale, (resolved_settings, by_settings) in zip(named, scales, settings, strict=True)
        for method, variant, file in methods_named
    ]
    return _each_once(cells)


def _each_once(cells: Sequence[Cell]) -> list[Cell]:
    """Return every run once.

    Raises:
        UsageFault: runs of two files would lie in one folder, and only one of them would be run.
    """
    known: dict[Path, Cell] = {}
    for cell in cells:
        there = known.setdefault(cell.place, cell)
        for first, second in zip(there.sources, cell.sources, strict=True):
            if first != second:
                raise UsageFault(
                    f"{first} and {second} have the same name; the runs of both would lie in one folder, {cell.place}.",
                    remedy="rename one of the two files",
                )
    return list(known.values())


State: TypeAlias = Literal["done", "running", "queued", "interrupted", "failed", "waiting"]


@dataclass(frozen=True)
class Seen:
    """What is known of a cell.

    Attributes:
        state: "done", "running" (a process works on it), "queued" (a cluster's job waits), "interrupted" (to be
            continued), "failed" or "waiting".
        record: the run's, where there is one.
        note: of a failed cell its message, of a begun one how far it is.
        final: a failed cell that running it again would not mend.
        job: of a cluster, that works or will work on it.
    """

    state: State
    record: RunRecord | None = None
    note: str = ""
    final: bool = False
    job: Job | None = None

    def scores(self) -> dict[str, float | None]:
        """Return the teacher's AP of all classes and of the last group (min, or r on LVIS); empty before the end."""
        if self.state != "done" or self.record is None:
            return {}
        ap = self.record.ap.get("teacher", {})
        return {name: ap.get(name) for name in ("all", *list(self.record.groups)[1:][-1:])}


@dataclass(frozen=True)
class Folders:
    """Where a sweep's runs lie.

    Attributes:
        work_dir: runs lie below ``runs/``, splits below ``splits/``.
        results: finished records kept elsewhere, laid out as below ``runs/``; None keeps none.
    """

    work_dir: Path
    results: Path | None = None

    def run(self, cell: Cell) -> Path:
        """Return the run's folder."""
        return _in_use(self.work_dir / "runs", cell)

    def kept(self, cell: Cell) -> Path | None:
        """Return the folder of its kept record."""
        return None if self.results is None else _in_use(self.results, cell)

    def look(self, cell: Cell) -> Seen:
        """Return a cell's state, a process at work included."""
        seen = self.recorded(cell)
        if seen.state == "done" or seen.final or not worked_on(self.run(cell)):
            return seen
        return Seen("running", seen.record, self.progress(cell))

    def recorded(self, cell: Cell) -> Seen:
        """Return a cell's state by its files alone: one that says "running" was killed unless somebody is at work.

        The run in the work folder and the kept record are looked at in this order, and the first that is done decides;
        so a cell may be done while the work folder holds a run of it that is not.
        """
        begun = None
        for folder in (self.run(cell), self.kept(cell)):
            if folder is None or not (folder / runs.RECORD).is_file():
                continue
            try:
                record = runs.read_record(folder)
            except DataFault as fault:
                return Seen("failed", note=str(fault), final=True)
            if record.status == "done":
                broken = self._broken_rule(cell, folder, record)
                return Seen("failed", record, broken, final=True) if broken else Seen("done", record)
            begun = begun or record
        return self._unfinished(cell, begun)

    def _unfinished(self, cell: Cell, record: RunRecord | None) -> Seen:
        """Return the state of a run that is not done and that nobody works on."""
        message = _failure(self.run(cell))
        if message is not None:
            return Seen("failed", record, message)
        if record is None:
            return Seen("waiting")
        return Seen("failed" if record.status == "failed" else "interrupted", record, self.progress(cell))

    def progress(self, cell: Cell) -> str:
        """Return how far a run's log is, as ``510/900``, or "" where it has none."""
        with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
            with (self.run(cell) / runs.LOG).open("rb") as log:
                log.seek(max(0, log.seek(0, 2) - 65536))
                last = log.read().rsplit(b"\n", 2)[-2]
            return f"{json.loads(last)['iteration']}/{cell.settings['iterations']}"
        return ""

    def _broken_rule(self, cell: Cell, folder: Path, record: RunRecord) -> str:
        """Return why a finished record is not the cell's, or ""."""
        for name in IDENTITY:
            if name == "name" and not record.name and not cell.named_by_user:
                continue  # from before settings were part of the name; they are compared below
            if getattr(record, name) != getattr(cell, name):
                return f"{folder} holds a run with {name} {getattr(record, name)!r}; wanted is {getattr(cell, name)!r}"
        compared = cell.settings.keys() & record.settings.keys() - FREE_SETTINGS
        changed = sorted(name for name in compared if record.settings[name] != cell.settings[name])
        remedy = "move it elsewhere, or repeat the sweep with its settings or another --name, --work-dir or --results"
        if changed:
            return f"{folder} holds a finished run with other settings ({', '.join(changed)}): {remedy}"
        drawn = self._split_sha256(cell)
        if drawn and drawn != record.split_sha256:
            return f"{folder} holds a finished run on another draw of the split: {remedy}"
        return ""

    def _split_sha256(self, cell: Cell) -> str | None:
        """Return the hash of the split the cell would be run on, None while it is not drawn."""
        manifest = split_folder(self.work_dir, cell.task, cell.split_seed) / "manifest.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(manifest.read_bytes())["split_sha256"])
        return None


def _in_use(root: Path, cell: Cell) -> Path:
    return runs.folder_in_use(root / cell.place, root / cell.older_place, cell.settings)


def _failure(folder: Path) -> str | None:
    """Return why a run failed, unless it was continued since."""
    record, failure = folder / runs.RECORD, folder / FAILURE
    with suppress(OSError, ValueError, KeyError, TypeError):
        if not record.exists() or failure.stat().st_mtime >= record.stat().st_mtime:
            return str(json.loads(failure.read_bytes())["message"])
    return None
