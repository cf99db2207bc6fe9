"""The cells of a sweep: every combination of methods, tasks and seeds is one run. Listing them needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cissod_bench.catalogue.declarations import Entry
from cissod_bench.catalogue.method_files import find_entry, find_method, split_variant
from cissod_bench.catalogue.task_files import find_task
from cissod_bench.contract.presets import PROFILES, resolved
from cissod_bench.errors import unknown_name
from cissod_bench.records import run_folder as runs
from cissod_bench.splitting.task import Task

IDENTITY = ("task", "method", "variant", "preset", "profile", "split_seed", "seed")
"""What names a run: fields of a `Cell` and of a `RunRecord`."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep.

    Attributes:
        task: the sub-task's name.
        named: the task as the user named it, its name or a TOML file.
        method, variant, preset, profile, split_seed, seed: as in `RunRecord`.
        file: the method's Python file, "" where it has a name in the catalogue.
        changes: ``key=value`` changes of settings.
        settings: resolved, as plain JSON.
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

    @property
    def row(self) -> str:
        """The method as its folder is called: ``ours+gbr+gbt``."""
        return f"{self.method}+{self.variant}" if self.variant else self.method

    @property
    def title(self) -> str:
        """What a line about the cell calls it."""
        return f"{self.row} on {self.task}, split seed {self.split_seed}, seed {self.seed}"

    @property
    def place(self) -> Path:
        """The run's folder below ``runs/``."""
        names = (self.task, self.split_seed, self.method, self.variant, self.preset, self.profile, self.seed)
        return runs.run_folder(Path(), *names).relative_to("runs")

    def words(self) -> list[str]:
        """Return the command line of the run, without its folders, which it takes from the environment."""
        words = ["run", "--method", self.file or self.method, "--task", self.named, "--preset", self.preset]
        words += ["--variant", self.variant] * bool(self.variant)
        words += ["--profile", self.profile, "--split-seed", str(self.split_seed), "--seed", str(self.seed)]
        return words + [word for change in self.changes for word in ("--set", change)]


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


def _settings(task: Task, preset_name: str, changes: Sequence[str]) -> dict[str, Any]:
    """Return the settings a run resolves to, as its record holds them."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(resolved(task, preset_name, changes))))
    return plain


def cells_of(
    methods: Sequence[str],
    tasks: Sequence[str],
    *,
    split_seeds: Sequence[int] = (0,),
    seeds: Sequence[int] = (0,),
    preset_name: str | None = None,
    profile: str = "default",
    changes: Sequence[str] = (),
) -> list[Cell]:
    """Return every combination once, seed by seed, so that a table has all its rows before it has all its seeds.

    Args:
        methods: ``NAME`` or ``NAME+variant``; for a name may stand a Python file.
        tasks: names or TOML files.
        split_seeds: of the draws.
        seeds: of the training.
        preset_name: scale; None takes "mini" for toy tasks and "full" else.
        profile: where constants come from.
        changes: ``key=value`` changes of settings.

    Raises:
        UsageFault: a name or a setting does not exist; before anything runs.
    """
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES, remedy="cissod-bench presets")
    named = [(name, find_task(name)) for name in tasks]
    methods_named = [_method_and_variant(text) for text in methods]
    scales = [preset_name or ("mini" if task.is_toy else "full") for _, task in named]
    settings = [_settings(task, scale, changes) for (_, task), scale in zip(named, scales, strict=True)]
    cells = [
        Cell(
            task=task.name,
            named=name,
            method=method,
            variant=variant,
            preset=scale,
            profile=profile,
            split_seed=split_seed,
            seed=seed,
            file=file,
            changes=tuple(changes),
            settings=resolved_settings,
        )
        for split_seed in split_seeds
        for seed in seeds
        for (name, task), scale, resolved_settings in zip(named, scales, settings, strict=True)
        for method, variant, file in methods_named
    ]
    return list({cell.place: cell for cell in cells}.values())
