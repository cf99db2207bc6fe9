"""What docs/league.md expects of the runs on photographs, and which of it came about.

`EXPECTED` is that page's list "What the paper leads us to expect", number by number, as differences between two rows. A
difference gets its yes or no when both rows have three training seeds; it is taken seed by seed, and its uncertainty is
the standard error of their mean. Whether the seeds suffice for that yes or no is a second question, which a 95 %
interval answers. ``scripts/tables.py`` puts the table into the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from scipy.special import stdtrit

from cissod_bench.catalogue import Entry, list_methods
from cissod_bench.records.run_folder import Run
from cissod_bench.rendering.markdown import column_rules, grid_text
from cissod_bench.reporting.averaging import method_words
from cissod_bench.reporting.groups import WORDS
from cissod_bench.reporting.table_plan import method_title
from cissod_bench.reporting.tables import DASH

SEEDS = 3  # of both rows; with fewer nothing is decided
NAME = "ours"
FIRST, LONG_TAIL = "voc-animals", "voc-animals-longtail"

RULES: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {
        "above": lambda difference, error: difference > error,
        "not above": lambda difference, error: difference <= error,
        "below": lambda difference, error: -difference > error,
        "higher": lambda difference, error: difference > 0,
        "not lower": lambda difference, error: difference >= 0,
        "15 or more": lambda difference, error: difference >= 15,
        "less than 2": lambda difference, error: difference < 2,
        "less than 1": lambda difference, error: difference < 1,
        "-1 or less": lambda difference, error: difference <= -1,
        "-1 or more": lambda difference, error: difference >= -1,
        "within 1": lambda difference, error: abs(difference) <= 1,
    }
)
"""What is said of a difference -> whether it holds for a mean and its standard error, in points."""

LIMITS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("above", "not above", "below", "higher", "not lower"), (0.0,)),
        "15 or more": (15.0,),
        "less than 2": (2.0,),
        "less than 1": (1.0,),
        "-1 or less": (-1.0,),
        "-1 or more": (-1.0,),
        "within 1": (-1.0, 1.0),
    }
)
"""What is said of a difference -> the values on whose one side the true one has to lie, in points."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Expectation:
    """One difference between two rows.

    Attributes:
        number: in the list of the page.
        left: a method, with its variant as in "ours+fl".
        right: what it is compared with; of several, that with the highest mean.
        column: of the AP: "maj", "min", "all", "f", "r".
        rule: one of `RULES`.
        task: the runs' task.
    """

    number: int
    left: str
    right: str | tuple[str, ...]
    column: str
    rule: str
    task: str = field(default=FIRST, kw_only=True)


SOFT = "soft-teacher"
PARTS = ("ours+fl", "ours+crs", "ours+gbt", "ours+gbr")
PAIRS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ours+gbr+gbt": ("ours+gbr", "ours+gbt"),
        "ours+crs+gbr": ("ours+crs", "ours+gbr"),
        "ours+crs+gbt": ("ours+crs", "ours+gbt"),
    }
)
OTHERS = ("supervised", SOFT, "rfs", "eqlv2", "c2am", "crest", "daso", "defrcn")
FIXED = "ours+crs+gbr"  # theta = .9 with CrS and GbR
OF_TABLE_3 = ("rfs", "eqlv2", "c2am", "daso", NAME)

EXPECTED: tuple[Expectation, ...] = (
    Expectation(1, "oracle", "supervised", "min", "15 or more"),
    Expectation(2, SOFT, "supervised", "maj", "above"),
    Expectation(2, SOFT, "supervised", "min", "less than 2"),
    *(Expectation(3, name, SOFT, "min", "above") for name in ("rfs", "eqlv2", "c2am", "daso", "defrcn")),
    Expectation(4, "crest", SOFT, "min", "not above"),
    Expectation(4, "crest", SOFT, "maj", "below"),
    Expectation(5, NAME, OTHERS, "min", "higher"),
    Expectation(5, NAME, OTHERS, "all", "higher"),
    Expectation(6, "eqlv2", SOFT, "maj", "-1 or less"),
    Expectation(6, "defrcn", SOFT, "maj", "-1 or less"),
    Expectation(6, NAME, SOFT, "maj", "-1 or more"),
    *(Expectation(7, name, SOFT, "min", "above") for name in PARTS),
    *(Expectation(7, name, "ours+fl", "min", "higher") for name in PARTS[1:]),
    Expectation(7, "ours+gbr", PARTS[:-1], "min", "higher"),
    *(Expectation(8, pair, own, "min", "above") for pair, both in PAIRS.items() for own in both),
    Expectation(8, NAME, tuple(PAIRS), "min", "above"),
    *(Expectation(9, name, SOFT, "maj", "-1 or more") for name in (*PARTS, *PAIRS, NAME)),
    Expectation(10, "ours+theta-0.5", FIXED, "min", "above"),
    Expectation(10, "ours+theta-0.5", FIXED, "maj", "below"),
    Expectation(11, "ours+theta-c", FIXED, "min", "less than 1"),
    Expectation(11, "ours+theta-p", "ours+theta-c", "min", "higher"),
    Expectation(11, NAME, "ours+theta-p", "min", "not lower"),
    Expectation(12, "ours+labelmatch", "ours+theta-c", "min", "within 1"),
    *(Expectation(13, name, SOFT, "r", "above", task=LONG_TAIL) for name in OF_TABLE_3),
    Expectation(13, NAME, ("supervised", SOFT, *OF_TABLE_3[:-1]), "r", "higher", task=LONG_TAIL),
    Expectation(14, NAME, SOFT, "f", "within 1", task=LONG_TAIL),
)

Scores: TypeAlias = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Method with its variant -> training seed -> AP of every column, in points."""


def scores_of(runs: Sequence[Run], task: str) -> dict[str, dict[int, dict[str, float]]]:
    """Return the teacher's AP of a task's finished runs on split seed 0 that have no name."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for record in (run.record for run in runs):
        if (record.task, record.split_seed, record.status, record.name) == (task, 0, "done", ""):
            teacher = {column: ap for column, ap in record.ap["teacher"].items() if ap is not None}
            found.setdefault(method_words(record), {})[record.seed] = teacher
    return found


class Seen(NamedTuple):
    """The differences of one expectation.

    Attributes:
        against: what the left row was compared with.
        mean: of the differences, points.
        error: its standard error, points.
        n: training seeds, at least `SEEDS`.
    """

    against: str
    mean: float
    error: float
    n: int


def is_clear(seen: Seen, rule: str) -> bool:
    """Return whether no limit of the rule lies in the 95 % interval of the mean difference.

    The interval is mean +- t times its standard error, with t of Student's distribution with n - 1 degrees of freedom:
    4.3 with three seeds. The limit itself counts as inside.
    """
    reach = float(stdtrit(seen.n - 1, (1 + CONFIDENCE) / 2)) * seen.error
    return all(abs(seen.mean - limit) > reach for limit in LIMITS[rule])


def difference(scores: Scores, expected: Expectation) -> Seen | None:
    """Return what was seen of an expected difference.

    None where a row has fewer than `SEEDS` training seeds with the other.
    """
    rights = (expected.right,) if isinstance(expected.right, str) else expected.right
    column, left = expected.column, scores.get(expected.left, {})
    shared = {name: sorted(left.keys() & scores.get(name, {}).keys()) for name in rights}
    if any(len(seeds) < SEEDS for seeds in shared.values()):
        return None
    best = max(rights, key=lambda name: mean(scores[name][seed][column] for seed in shared[name]))
    differences = [left[seed][column] - scores[best][seed][column] for seed in shared[best]]
    n = len(differences)
    return Seen(best, mean(differences), stdev(differences) / math.sqrt(n), n)


def expectations_of(runs: Sequence[Run]) -> dict[str, str]:
    """Return "expectations of photographs" -> Markdown table of what was seen; the last row counts the rest."""
    methods = list_methods()
    scores = {task: scores_of(runs, task) for task in (FIRST, LONG_TAIL)}
    rows: list[tuple[str, ...]] = []
    for expected in EXPECTED:
        found = difference(scores[expected.task], expected)
        if found is not None:
            best = "" if isinstance(expected.right, str) else "the best of the others, "
            group = WORDS.get(expected.column, "all classes")
            words = f"{_title(methods, expected.left)} − {best}{_title(methods, found.against)}"
            verdict = "yes" if RULES[expected.rule](found.mean, found.error) else "**no**"
            clear = "clear" if is_clear(found, expected.rule) else "open"
            seen = f"{found.mean:+.1f} ± {found.error:.1f}"
            rows.append((str(expected.number), words, group, expected.rule, seen, verdict, clear))
    if waiting := len(EXPECTED) - len(rows):
        rows.append(("", f"{waiting} more", "", "", DASH, "not yet", ""))
    heads = ("", "difference", "AP", "expected", "seen", "", "95 %")
    return {"expectations of photographs": grid_text(heads, column_rules(len(heads), 4), rows)}


def _title(methods: Mapping[str, Entry], name: str) -> str:
    """Return the title of a method with its variant, without a note in brackets: "ours+fl" is "Ours [fl]"."""
    method, _, variant = name.partition("+")
    title, _, _ = method_title(methods, method).partition(" (")
    return with_variant(title, variant)


def with_variant(title: str, variant: str) -> str:
    """Return a method's title with its variant in square brackets, if it has one."""
    return f"{title}{variant and f' [{variant}]'}"
