"""A whole league as one TOML file: rows of methods on a task, in the order in which their cells are worked off.

[[rows]]
label = "main"
task = "toy"
methods = ["soft-teacher", "ours", "ours+gbr"]
seeds = [0, 1, 2]
split_seeds = "0-4"
preset = "mini"
unlabelled_percent = 25
settings = { theta = 0.8 }
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from cissod_bench.contract.seeds import is_seed, seeds_of
from cissod_bench.contract.settings import SETTINGS
from cissod_bench.errors import UsageFault, unknown_name
from cissod_bench.splitting.options import Percent
from cissod_bench.sweeping.cells import Cell, cells_of

# Without bounds and pattern, which `_numbers` checks: msgspec 0.22 crashes at times after it has read such a union.
Seeds: TypeAlias = list[int] | str
_EXAMPLE = "examples/league.toml is a whole queue file"


class Rows(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A table ``[[rows]]``: every method with every seed on every split seed is one cell.

    Attributes:
        task: name or file of a sub-task, as ``--task`` takes it.
        methods: ``NAME`` or ``FILE.py``, each with ``+VARIANT`` behind it if need be.
        label: what the listing calls them.
        seeds: of the training, numbers or a range such as "0-2".
        split_seeds: of the draws, likewise.
        preset: scale; None takes the task's own: "mini", "photo" or "full" (``Task.preset``).
        profile: where constants come from.
        settings: changes of settings, of their types.
        name: part of the runs' folders; "" takes the settings that were changed.
        unlabelled_percent: share of the images outside D_l that enters D_u where the split is not drawn yet; None takes
            the task's own.
    """

    task: Annotated[str, Meta(min_length=1)]
    methods: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1)]
    label: str = ""
    seeds: Seeds = msgspec.field(default_factory=lambda: [0])
    split_seeds: Seeds = msgspec.field(default_factory=lambda: [0])
    preset: str | None = None
    profile: str = "default"
    settings: dict[str, bool | int | float | str | list[int | float]] = msgspec.field(default_factory=dict)
    name: str = ""
    unlabelled_percent: Percent | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    rows: Annotated[list[Rows], Meta(min_length=1)]


@dataclass(frozen=True)
class Queue:
    """What a queue file says.

    Attributes:
        cells: every run once, in the file's order.
        labels: cell -> the label of the rows it stands in first.
        percents: (task as the user named it, split seed) -> ``unlabelled_percent`` of the draw, where a row states it.
    """

    cells: Sequence[Cell]
    labels: Mapping[Cell, str]
    percents: Mapping[tuple[str, int], float]


def read_queue(path: Path) -> Queue:
    """Return the cells of a queue file.

    Raises:
        UsageFault: the file is missing or no TOML; a key or value is wrong, a name does not exist; two rows want
            different things in one place. The message says in which rows and in which line they begin.
    """
    text = _text(path)
    rows = _rows(path, _parsed(path, text), _lines_of_rows(text))
    places = [_Place(path, number, line) for number, line in enumerate(_lines_of_rows(text), 1)]
    known: dict[Path, tuple[Cell, _Place]] = {}
    labels: dict[Cell, str] = {}
    draws: dict[tuple[str, int], tuple[float | None, _Place]] = {}
    percents: dict[tuple[str, int], float] = {}
    for own, place in zip(rows, places, strict=True):
        cells = place.told(lambda own=own: _cells(own))  # type: ignore[misc]
        for cell in cells:
            draw = (own.unlabelled_percent, place)
            _check_same_draw(draws.setdefault((cell.task, cell.split_seed), draw), own, place)
            if own.unlabelled_percent is not None:
                percents[cell.named, cell.split_seed] = own.unlabelled_percent
            there, first = known.setdefault(cell.place, (cell, place))
            if (there.settings, there.sources) != (cell.settings, cell.sources):
                raise place.refusal(
                    f"{cell.title} has another file or other settings than in {first}; both would be one run's folder.",
                    remedy='give both rows the same settings, or each a name of its own: name = "wide"',
                )
            labels.setdefault(there, own.label)
    return Queue([cell for cell, _ in known.values()], labels, percents)


@dataclass(frozen=True)
class _Place:
    """Rows of a file: which ones, and their first line."""

    path: Path
    number: int
    line: int

    def __str__(self) -> str:
        return f"rows {self.number} (line {self.line})"

    def refusal(self, message: str, *, remedy: str) -> UsageFault:
        """Return the fault of something in these rows."""
        return UsageFault(f"{self.path}, {self}: {message}", remedy=remedy)

    def told(self, make: Callable[[], list[Cell]]) -> list[Cell]:
        """Return what ``make`` returns; its faults name these rows.

        Raises:
            UsageFault: it does.
        """
        try:
            return make()
        except UsageFault as fault:
            raise self.refusal(fault.message, remedy=fault.remedy or _EXAMPLE) from None


def _check_same_draw(first: tuple[float | None, _Place], rows: Rows, place: _Place) -> None:
    """Refuse rows that want another share of unlabelled images in a split than earlier ones."""
    percent, earlier = first
    if percent != rows.unlabelled_percent:
        wanted = ["the task's own" if one is None else f"{one:g}" for one in (rows.unlabelled_percent, percent)]
        raise place.refusal(
            f"unlabelled_percent is {wanted[0]} here and {wanted[1]} in {earlier}, on the same task and split seed; a "
            "split is drawn once.",
            remedy="write the same unlabelled_percent in both, or take other split_seeds",
        )


def _cells(rows: Rows) -> list[Cell]:
    """Return the cells of some rows: split seed by split seed, seed by seed.

    Raises:
        UsageFault: a name or a setting does not exist.
    """
    return cells_of(
        rows.methods,
        [rows.task],
        split_seeds=_numbers("split_seeds", rows.split_seeds),
        seeds=_numbers("seeds", rows.seeds),
        preset_name=rows.preset,
        profile=rows.profile,
        changes=[_change(name, value) for name, value in rows.settings.items()],
        name=rows.name,
    )


def _numbers(key: str, seeds: list[int] | str) -> Sequence[int]:
    """Return the seeds of a list or a range.

    Raises:
        UsageFault: there is none, or one is out of its range.
    """
    try:
        if isinstance(seeds, str):
            return seeds_of(seeds)
        if seeds and all(map(is_seed, seeds)):
            return seeds
        reason = "holds a number that is no seed" if seeds else "is empty"
    except ValueError as fault:
        reason = str(fault)
    raise UsageFault(
        f"{key} must be a list of numbers in [0, 2^63) or a range. Got {seeds!r}, which {reason}.",
        remedy=f'write {key} = [0, 1, 2] or {key} = "0-2"',
    )


def _change(name: str, value: Any) -> str:
    """Return a setting as ``--set`` takes it.

    Raises:
        UsageFault: there is none of that name, or the value is not of its type.
    """
    if name not in SETTINGS:
        raise unknown_name("setting", name, SETTINGS, remedy="cissod-bench presets mini")
    setting = SETTINGS[name]
    values = value if isinstance(value, list) else [value]
    # TOML has one way to write a number of each kind; a text in a number's place is a slip of the pen.
    fits: Any = {bool: bool, int: int, float: (int, float), str: str}[setting.kind]
    wrong = [one for one in values if not isinstance(one, fits) or (isinstance(one, bool) and setting.kind is not bool)]
    if wrong or isinstance(value, list) != (setting.count is not None):
        what = "a list, each " if setting.count is not None else ""
        raise UsageFault(
            f"settings.{name} must be {what}{setting.range}. Got {value!r}.", remedy="cissod-bench presets mini"
        )
    return f"{name}={','.join(map(str, values))}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageFault(f"{path} cannot be read: {error.strerror}.", remedy=_EXAMPLE) from None
    except UnicodeDecodeError as error:
        raise UsageFault(f"{path} is not UTF-8: byte {error.start}.", remedy="save the file as UTF-8") from None


def _parsed(path: Path, text: str) -> dict[str, Any]:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        content: dict[str, Any] = toml.loads(text)
    except toml.TOMLDecodeError as error:  # its message ends with line and column
        raise UsageFault(f"{path} is no TOML: {error}.", remedy=_EXAMPLE) from None
    return content


def _lines_of_rows(text: str) -> list[int]:
    """Return the line at which each table ``[[rows]]`` begins."""
    header = re.compile(r"\s*\[\[\s*\"?rows\"?\s*\]\]")
    return [number for number, line in enumerate(text.splitlines(), 1) if header.match(line)]


def _rows(path: Path, content: Mapping[str, Any], lines: Sequence[int]) -> list[Rows]:
    """Return the tables of a file.

    Raises:
        UsageFault: a key is unknown, missing or of the wrong type.
    """
    tables = content.get("rows", [])
    if not isinstance(tables, list) or len(tables) != len(lines) or not tables:
        raise UsageFault(f"{path} holds no table [[rows]] with lines of its own.", remedy=_EXAMPLE)
    if strange := [key for key in content if key != "rows"]:
        raise UsageFault(
            f"{path}: {strange[0]!r} stands outside of the tables [[rows]], which hold everything.",
            remedy=f"move {strange[0]!r} below a line [[rows]]",
        )
    return [_converted(_Place(path, number, lines[number - 1]), table) for number, table in enumerate(tables, 1)]


def _converted(place: _Place, table: Any) -> Rows:
    known = [one.name for one in msgspec.structs.fields(Rows)]
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.5)
            raise place.refusal(
                f"there is no key {key!r}. Known: {', '.join(known)}.",
                remedy=f"write {near[0]!r} for {key!r}" if near else f"take {key!r} out",
            )
    try:
        return msgspec.convert(table, Rows)
    except msgspec.ValidationError as error:
        rule, _, where = str(error).partition(" - at `$")
        key = where.rstrip("`").lstrip(".")
        raise place.refusal(f"{key + ': ' if key else ''}{rule}.", remedy=_EXAMPLE) from None
