"""AP while training: a curve per method over iterations with the seeds' band, and the best beside the last."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest
from score_records import built, scored

from cissod_bench.catalogue import Entry
from cissod_bench.figures.curves import BASELINE, Point, draw_curves
from cissod_bench.figures.drawing import WIDTHS
from cissod_bench.figures.learning import learning_panels
from cissod_bench.figures.style import drawing_style
from cissod_bench.records import log
from cissod_bench.records import run_folder as runs
from cissod_bench.records.evaluation_lines import Evaluation
from cissod_bench.records.pseudo_label_lines import PseudoLabelLine
from cissod_bench.reporting.tables import Report

METHODS = {name: Entry(name, title, "", "") for name, title in (("soft-teacher", "Soft Teacher"), ("ours", "Ours"))}


def run_of(folder: Path, method: str, seed: int, aps: Sequence[float | None], images: int = 50) -> runs.Run:
    """A run that was evaluated after 200, 400, ... iterations."""
    for place, ap in enumerate(aps, start=1):
        columns = {"all": ap, "maj": ap, "min": None if ap is None else ap / 2}
        line = Evaluation(
            iteration=200 * place, generation=2 * place, images=images, ap={"teacher": columns, "student": columns}
        )
        log.append(folder / runs.LOG, line.written())
    return runs.Run(folder, scored(method, seed))


def report_on(*found: runs.Run) -> Report:
    return built("learning", found, methods=METHODS)


@pytest.fixture
def three(tmp_path: Path) -> list[runs.Run]:
    """Two seeds of Soft Teacher and one of ours."""
    for name in "abc":
        (tmp_path / name).mkdir()
    return [
        run_of(tmp_path / "a", "soft-teacher", 0, (10.0, 20.0, None)),
        run_of(tmp_path / "b", "soft-teacher", 1, (12.0, 26.0, 30.0)),
        run_of(tmp_path / "c", "ours", 0, (11.0, 31.0, 29.0)),
    ]


def test_points_are_means_over_seeds_and_the_band_is_one_deviation(three: list[runs.Run]) -> None:
    (figure,) = report_on(*three).figures
    assert figure.title == "AP while training, Toy shapes, 50 images"
    titles = {"Soft Teacher (n = 2)": BASELINE, "Ours (n = 1)": 0}
    assert set(figure.data["title"]) == set(titles)
    panels = learning_panels(figure.data, titles, ("all", "maj", "min"))
    assert [panel.title for panel in panels] == ["AP, all classes", "AP, majority", "AP, minority"]
    teacher, ours = panels[0].curves
    spread = statistics.stdev((20.0, 26.0))
    assert teacher.points[1] == Point(400, 23.0, pytest.approx(23 - spread), pytest.approx(23 + spread))
    assert teacher.points[2] == Point(600, 30.0)
    assert ours.pieces == [[(200, 11.0), (400, 31.0), (600, 29.0)]]
    assert panels[0].across == (200, 600)
    assert "Ours (n = 1), iteration 400: 31" in figure.svg


def test_runs_of_one_seed_with_two_names_are_two_curves_and_no_two_seeds(tmp_path: Path) -> None:
    named = []
    for name, ap in (("before", 10.0), ("after", 50.0)):
        (tmp_path / name).mkdir()
        run = run_of(tmp_path / name, "ours", 0, (ap,))
        line = PseudoLabelLine(generation=1, iteration=200, group="min", images=3, detected=2, recall=ap)
        log.append(run.folder / runs.PSEUDO_LABELS, line.written())
        named.append(runs.Run(run.folder, dataclasses.replace(run.record, name=name)))
    for report, column, value in (("learning", "column", "all"), ("pseudo_labels", "quantity", "recall")):
        (figure,) = built(report, named, methods=METHODS).figures
        shown = figure.data[figure.data[column] == value]
        assert list(zip(shown["title"], shown["mean"], shown["n"], strict=True)) == [
            ("Ours [after] (n = 1)", 50.0, 1),
            ("Ours [before] (n = 1)", 10.0, 1),
        ]


def test_the_axis_counts_iterations(three: list[runs.Run]) -> None:
    (figure,) = report_on(*three).figures
    panels = learning_panels(figure.data, {"Ours (n = 1)": 0}, ("all",))
    with drawing_style():
        (axes,) = draw_curves(panels, WIDTHS[""], 1).axes
    assert axes.get_xlabel() == "iteration"
    assert [int(place) for place in axes.get_xticks()] == [200, 300, 400, 500, 600]


def test_evaluations_on_other_images_never_share_a_figure(tmp_path: Path, three: list[runs.Run]) -> None:
    (tmp_path / "d").mkdir()
    other = run_of(tmp_path / "d", "ours", 1, (50.0, 60.0), images=300)
    figures = report_on(*three, other).figures
    assert [figure.title.split(", ")[-1] for figure in figures] == ["50 images", "300 images"]
    assert len({figure.stem for figure in figures}) == 2


def test_the_best_stands_beside_the_last_and_says_how_it_was_chosen(three: list[runs.Run]) -> None:
    best = {"column": "all", "iteration": 400, "ap": {"teacher": {"all": 31.0, "maj": 31.0, "min": 15.5}}}
    ours = runs.Run(three[2].folder, dataclasses.replace(three[2].record, best=best))
    (listing,) = report_on(*three[:2], ours).listings
    assert listing.lines[0] == ("Ours (n = 1)", "all", "30.0", "31.0", "1", "400")
    assert [line[1] for line in listing.lines] == ["all", "maj", "min"]
    assert "chosen on the images that are scored" in listing.notes[0]


def test_runs_without_evaluations_have_no_curve(tmp_path: Path) -> None:
    assert report_on(runs.Run(tmp_path, scored())) == Report("learning", "AP while training", order=7)
