"""Fill the tables and plots of the pages from the kept runs below results/ (`make tables`).

A table stands between two lines, ``<!-- table: TITLE -->`` and ``<!-- end -->``, where TITLE is a heading in the
report ("Toy shapes"), "seconds of TITLE" (how long its runs took), "pseudo labels of TITLE" (how good those of its
runs were), "classes of TITLE" (AP of every class), "expectations of photographs", or "the methods" and "card of NAME"
of docs/methods.md. "TITLE | rows: A, B" takes some rows of it, "TITLE | beside: coco-split1" adds the paper's numbers
of a task. What stands between is replaced. Tables are those of the runs on split seed 0, but for the spread over
splits; the plots are the report's, of Soft Teacher and ours.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from expectations import expectations_of, with_variant
from method_cards import cards_of

from cissod_bench.catalogue import list_methods, list_reports, load_report
from cissod_bench.files.whole_files import write_bytes
from cissod_bench.records.pseudo_label_lines import PseudoLabelLine, read_lines
from cissod_bench.records.run_folder import Run, find_runs
from cissod_bench.rendering.markdown import column_rules, grid_text, listing_text, table_text
from cissod_bench.reporting.averaging import scored_model
from cissod_bench.reporting.groups import WORDS
from cissod_bench.reporting.paper_tables import METHODS, TABLES
from cissod_bench.reporting.table_plan import method_title
from cissod_bench.reporting.tables import DASH, Report

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/league.md", "docs/methods.md")
_MARKED = re.compile(
    r"<!-- table: (?P<title>[^>|]+?)(?: \| rows: (?P<rows>[^>]+?))?"
    r"(?: \| beside: (?P<task>[^>]+?))? -->\n.*?<!-- end -->",
    re.DOTALL,
)
PICTURES = {
    "docs/pictures/pseudo-labels-voc-animals.svg": "pseudo_labels_voc-animals_photo-default_split0.svg",
    "docs/pictures/state-voc-animals.svg": "pseudo_labels_voc-animals_photo-default_split0_ours.svg",
    "docs/pictures/pseudo-labels-voc-longtail.svg": "pseudo_labels_voc-animals-longtail_photo-default_split0.svg",
    "docs/pictures/pseudo-labels-toy.svg": "pseudo_labels_toy_mini-default_split0.svg",
    "docs/pictures/state-toy.svg": "pseudo_labels_toy_mini-default_split0_ours.svg",
    "docs/pictures/pseudo-labels-toy-longtail.svg": "pseudo_labels_toy-longtail_mini-default_split0.svg",
    "docs/pictures/state-toy-longtail.svg": "pseudo_labels_toy-longtail_mini-default_split0_ours.svg",
}
"""Picture -> the report's file."""
SPREAD = "split-spread"  # the one report of runs on several splits
_PHASES = ("train", "predict", "evaluate")
_COUNTED = ("detected", "correct", "boxes")


def tables_of(runs: Sequence[Run]) -> dict[str, str]:
    """Return title -> Markdown table of every table in the reports, and what the pages tell of every task's runs.

    Args:
        runs: those on other splits than that of seed 0 count in the spread over splits only.

    Raises:
        ValueError: two tables have one title, so that a page could not say which it means.
    """
    first = on_first_split(runs)
    texts: dict[str, str] = {}
    for name in list_reports():
        report = load_report(name)(runs if name == SPREAD else first, ())
        for title, text in _tables_in(report):
            if title in texts:
                raise ValueError(f"Two tables are called {title!r}; {report.name} holds the second.")
            texts[title] = text
    for more in (seconds_of, pseudo_labels_of, classes_of, expectations_of, cards_of):
        texts |= more(first)
    return texts


def _tables_in(report: Report) -> list[tuple[str, str]]:
    """Return (title, Markdown) of every table of a report."""
    scores = [(table.title, table_text(table)) for table in report.tables]
    return scores + [(listing.title, listing_text(listing)) for listing in report.listings]


def on_first_split(runs: Sequence[Run]) -> list[Run]:
    """Return the runs on split seed 0."""
    return [run for run in runs if run.record.split_seed == 0]


def seconds_of(runs: Sequence[Run]) -> dict[str, str]:
    """Return "seconds of TITLE" -> table of the wall seconds per run, least and most, for every task."""
    texts: dict[str, str] = {}
    heads = ("method", "runs", "seconds per run")
    for task, methods in _by_method(runs).items():
        rows = []
        for name, of_method in methods.items():
            times = sorted(round(sum(run.record.timings.get(phase, 0) for phase in _PHASES)) for run in of_method)
            rows.append((name, str(len(of_method)), "-".join(map(str, dict.fromkeys((times[0], times[-1]))))))
        texts[f"seconds of {task}"] = grid_text(heads, column_rules(len(heads), 1), rows)
    return texts


def pseudo_labels_of(runs: Sequence[Run]) -> dict[str, str]:
    """Return "pseudo labels of TITLE" -> table of their quality and of the method's state, for every task.

    Over the last fifth of the generations and all training seeds; precision and recall are those of all pseudo labels
    together, the others are means.
    """
    texts: dict[str, str] = {}
    heads = ("method", "classes", "precision %", "recall %", "theta", "w", "copies D_l", "copies D_u")
    for task, methods in _by_method(runs).items():
        rows: list[tuple[str, ...]] = []
        for name, of_method in methods.items():
            lines = [line for run in of_method for line in _last_lines(run.folder)]
            groups = dict.fromkeys(line.group for line in lines if line.group != "all")
            for number, group in enumerate(groups):
                cells = _quality([line for line in lines if line.group == group])
                rows.append(("" if number else name, WORDS.get(group, group), *cells))
        if rows:
            texts[f"pseudo labels of {task}"] = grid_text(heads, column_rules(len(heads), 2), rows)
    return texts


def _last_lines(folder: Path) -> list[PseudoLabelLine]:
    """Return a run's lines of its last fifth of generations."""
    lines = read_lines(folder)
    last = max((line.generation for line in lines), default=0)
    return [line for line in lines if line.generation > last - max(1, last // 5)]


def _quality(lines: Sequence[PseudoLabelLine]) -> list[str]:
    """Return the cells of a method and group."""
    detected, correct, boxes = (sum(getattr(line, name) or 0 for line in lines) for name in _COUNTED)
    shares = [f"{100 * correct / of:.1f}" if of else DASH for of in (detected, boxes)]
    means = []
    for name in ("theta", "w", "copies_labelled", "copies_unlabelled"):
        values = [value for line in lines if (value := getattr(line, name)) is not None]
        means.append(f"{sum(values) / len(values):.2f}" if values else DASH)
    return shares + means


def classes_of(runs: Sequence[Run]) -> dict[str, str]:
    """Return "classes of TITLE" -> table of the AP of every class, the mean over the training seeds, for every task.

    The methods as they stand, without variants; classes group by group, as the task names them.
    """
    texts: dict[str, str] = {}
    for task, methods in _by_method([run for run in runs if not run.record.variant]).items():
        groups = next(iter(methods.values()))[0].record.groups
        names = [name for members in groups.values() for name in members]
        rows = []
        for title, of_method in methods.items():
            found = [run.record.per_class[scored_model(run.record)] for run in of_method]
            rows.append((title, *(_mean_ap([aps[name] for aps in found]) for name in names)))
        heads = ["method", *(f"{name} ({group})" for group, members in groups.items() for name in members)]
        texts[f"classes of {task}"] = grid_text(heads, column_rules(len(heads), 1), rows)
    return texts


def _mean_ap(values: Sequence[float | None]) -> str:
    """Return the mean of APs as text, a dash where one is undefined."""
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.1f}" if len(known) == len(values) else DASH


def _by_method(runs: Sequence[Run]) -> dict[str, dict[str, list[Run]]]:
    """Return title of the task -> method, with its variant in brackets -> finished runs."""
    methods = list_methods()
    tasks: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        record = run.record
        if record.status == "done":
            name = with_variant(method_title(methods, record.method), record.variant)
            tasks.setdefault(record.title, {}).setdefault(name, []).append(run)
    return tasks


def pictures_of(runs: Sequence[Run]) -> dict[str, bytes]:
    """Return picture -> bytes: Fig. 3 with Soft Teacher and ours, and what our weights and thresholds did meanwhile.

    Raises:
        KeyError: there are no runs for one of them.
    """
    shown = [run for run in on_first_split(runs) if run.record.method in {"soft-teacher", "ours"}]
    drawn: dict[str, bytes] = {}
    for figure in load_report("pseudo_labels")(shown, ()).figures:
        drawn |= figure.files("svg") if figure.files else {}
    return {picture: drawn[file] for picture, file in PICTURES.items()}


def filled(text: str, tables: Mapping[str, str]) -> str:
    """Return a page with its marked tables replaced.

    Raises:
        KeyError: a marker names a table that the runs do not give, or a row that the table lacks.
    """

    def replaced(match: re.Match[str]) -> str:
        title, rows = match["title"], match["rows"]
        if title not in tables:
            raise KeyError(f"no table {title!r}; there are {', '.join(sorted(tables))}")
        table = only_rows(tables[title], rows.split(", ")) if rows else tables[title]
        table = beside_paper(table, match["task"]) if match["task"] else table
        return f"{match[0].splitlines()[0]}\n{table}\n<!-- end -->"

    return _MARKED.sub(replaced, text)


def beside_paper(table: str, task: str) -> str:
    """Return a Markdown table of methods with the paper's AP of one of its tasks in further columns, the highest bold.

    Raises:
        StopIteration: the paper has no such task.
    """
    paper = next(paper for paper in TABLES if task in paper.tasks)
    highest = [max(row[place] for row in paper.rows[task].values()) for place in range(len(paper.columns))]
    names = {title: name for name, title in METHODS.items()}
    lines = []
    for line, text in enumerate(table.splitlines()):
        printed = paper.rows[task].get(names.get(_title_in(text), ""))
        if line == 0:
            cells = [f"paper: {column}" for column in paper.columns]
        elif line == 1:
            cells = ["---:"] * len(paper.columns)
        elif printed is None:
            cells = [DASH] * len(paper.columns)
        else:
            cells = [f"**{ap:.1f}**" if ap == best else f"{ap:.1f}" for ap, best in zip(printed, highest, strict=True)]
        lines.append(" | ".join([text.removesuffix(" |"), *cells]) + " |")
    return "\n".join(lines)


def _title_in(line: str) -> str:
    """Return the title in a line of a Markdown table, without a note in brackets."""
    return line.strip("|").split("|")[0].strip(" *").split(" (")[0]


def only_rows(table: str, titles: Sequence[str]) -> str:
    """Return a Markdown table with its heads and the rows of these titles, a note in brackets left out ("Oracle").

    Raises:
        KeyError: a title is that of no row.
    """
    lines = table.splitlines()
    of_title = {_title_in(line): line for line in lines[2:]}
    missing = [title for title in titles if title not in of_title]
    if missing:
        raise KeyError(f"no row {missing[0]!r}; there are {', '.join(of_title)}")
    return "\n".join([*lines[:2], *(of_title[title] for title in titles)])


def main() -> int:
    """Rewrite pages and pictures; say which changed."""
    runs = find_runs(ROOT / "results")
    tables = tables_of(runs)
    new = {page: filled((ROOT / page).read_text(encoding="utf-8"), tables).encode("utf-8") for page in PAGES}
    for name, data in {**new, **pictures_of(runs)}.items():
        path = ROOT / name
        same = path.exists() and path.read_bytes() == data
        print(f"{name}: {'unchanged' if same else 'rewritten'}")
        if not same:
            write_bytes(path, data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
