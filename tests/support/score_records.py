"""Records of runs whose scores add up, for tests of the reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cissod_bench import catalogue
from cissod_bench.catalogue import Entry
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.tables import Report, Table
from cissod_bench.splitting.manifest import Manifest

TOY_GROUPS = {"maj": ["disc", "ring"], "min": ["star"]}
TOY_ENTRIES = {"toy": Entry("toy", "Toy shapes", "", "")}
HOSTILE = ("<script>alert(1)</script>", "\\input{/etc/passwd}", "=cmd()")


def finished(method: str = "soft-teacher", seed: int = 0, **fields: Any) -> RunRecord:
    """A finished run on the toy task, without scores where ``fields`` bring none."""
    usual = {
        "task": "toy", "preset": "mini", "profile": "default", "split_seed": 0, "split_sha256": "ab" * 32,
        "status": "done", "created": f"2026-01-01T00:00:{seed:02d}+00:00",
    }  # fmt: skip
    return RunRecord(**{**usual, "method": method, "seed": seed, **fields})


def scored(
    method: str = "ours",
    seed: int = 0,
    aps: Sequence[float | None] = (40.0, 42.0, 8.0),
    groups: Mapping[str, Sequence[str]] = TOY_GROUPS,
    **changes: Any,
) -> RunRecord:
    """A finished run with an AP per class, from which groups and "all" follow as the scorer computes them."""
    classes = dict(zip([name for names in groups.values() for name in names], aps, strict=True))

    def mean(names: Sequence[str]) -> float | None:
        defined = [ap for name in names if (ap := classes[name]) is not None]
        return sum(defined) / len(defined) if defined else None

    columns = {"all": mean(list(classes))} | {group: mean(names) for group, names in groups.items()}
    made = finished(
        method,
        seed,
        ap={"teacher": columns},
        per_class={"teacher": classes},
        groups={group: list(names) for group, names in groups.items()},
    )
    return dataclasses.replace(made, **changes)


def runs_of(*records: RunRecord) -> list[Run]:
    """The records as runs, in folders of their own: runs/0, runs/1, ..."""
    return [Run(Path(f"runs/{number}"), record) for number, record in enumerate(records)]


def built(
    name: str,
    runs: Sequence[Run],
    splits: Sequence[Manifest] = (),
    *,
    methods: Mapping[str, Entry] | None = None,
    tasks: Mapping[str, Entry] | None = TOY_ENTRIES,
) -> Report:
    """The report of that name on some runs; entries stand in for those of the catalogue, None leaves these."""
    with ExitStack() as stack:
        for what, entries in (("list_methods", methods), ("list_tasks", tasks)):
            if entries is not None:
                stack.enter_context(patch.object(catalogue, what, return_value=entries))
        report = catalogue.load_report(name)(runs, splits)
    assert isinstance(report, Report)
    return report


def report_of(name: str, *records: RunRecord, splits: Sequence[Manifest] = (), **entries: Any) -> Report:
    """The report of that name on the runs of some records."""
    return built(name, runs_of(*records), splits, **entries)


def shown(table: Table, title: str, column: str = "all", source: str = "measured", block: int = 0) -> str:
    """A cell as it is printed: mean and spread, or the paper's number; in the column "n" the training seeds."""
    (row,) = (row for row in table.rows if row.title == title)
    if column == "n":
        return str(table.seeds(row, table.blocks[block]))
    cell = table.cell(row, table.blocks[block], column)
    return cell.printed if source == "paper" else cell.text
