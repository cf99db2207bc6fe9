"""Fig. 3: lines of runs read and averaged, curves with gaps and bands, drawings for the page and for print."""

from __future__ import annotations

import dataclasses
import json
import statistics
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from score_records import built, finished
from tiny import tiny_plan

from cissod_bench.catalogue import Entry
from cissod_bench.errors import DataFault
from cissod_bench.figures.curves import (
    BASELINE,
    LOOKS,
    Curve,
    CurvePanel,
    Point,
    curve_drawing,
    draw_curves,
    generation_ticks,
    ticks,
)
from cissod_bench.figures.drawing import PAGE, PRINT, WIDTHS
from cissod_bench.figures.pseudo_labels import averaged, line_frame, quality_panels, state_panels
from cissod_bench.figures.style import drawing_style
from cissod_bench.records import run_folder as runs
from cissod_bench.records.pseudo_label_lines import QUANTITIES, PseudoLabelLine, read_lines
from cissod_bench.records.record import RunRecord
from cissod_bench.rendering.page import render_html
from cissod_bench.reporting.tables import Figure, Report, draw_figures
from cissod_bench.running.run import execute

ENTRIES = {
    "soft-teacher": Entry("soft-teacher", "Soft Teacher", "", ""),
    "ours": Entry("ours", "Ours", "", ""),
    "rfs": Entry("rfs", "RFS", "", ""),
}


def line(generation: int = 1, group: str = "maj", **values: Any) -> dict[str, Any]:
    """A line as Soft Teacher's run writes it."""
    return {
        **{"generation": generation, "iteration": 10 * generation, "group": group, "images": 40, "boxes": 100},
        **{"detected": 50, "correct": 40, "precision": 0.8, "recall": 0.4},
        **{"theta": 0.9, "theta_min": 0.9, "theta_max": 0.9},
        **{"copies_labelled": None, "copies_labelled_max": None, "copies_unlabelled": None},
        **{"copies_unlabelled_max": None, "pool": None, "pool_coverage": None, **values},
    }


def ours(generation: int = 1, group: str = "maj", **values: Any) -> dict[str, Any]:
    """A line as the method's run writes it."""
    own = {"w": 1.5, "w_min": 0.5, "w_max": 3.0, "theta": 0.7, "theta_min": 0.6, "pool": 20, "pool_coverage": 0.25}
    own |= {"copies_labelled": 1.25, "copies_labelled_max": 3}
    own |= {"copies_unlabelled": 1.5, "copies_unlabelled_max": 4} if generation > 1 else {}
    return line(generation, group, **{**own, **values})


def every(make: Any, generations: Sequence[int] = (1, 2), **values: Any) -> list[dict[str, Any]]:
    return [make(generation, group, **values) for generation in generations for group in ("all", "maj", "min")]


def write(folder: Path, lines: Sequence[object]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / runs.PSEUDO_LABELS).write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    return folder


def record(method: str = "soft-teacher", seed: int = 0, **changes: Any) -> RunRecord:
    made = finished(
        method,
        seed,
        ap={"teacher": {"all": 30.0, "maj": 40.0, "min": 10.0}},
        groups={"maj": ["disc"], "min": ["star"]},
    )
    return dataclasses.replace(made, **changes)


class Place:
    """Runs with their files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs: list[runs.Run] = []

    def add(self, one: RunRecord, lines: Sequence[object]) -> Place:
        self.runs.append(runs.Run(write(self.root / str(len(self.runs)), lines), one))
        return self

    def report(self) -> Report:
        return built("pseudo_labels", self.runs, methods=ENTRIES)

    def figure(self, number: int = 0) -> Figure:
        return self.report().figures[number]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "runs")


def panel(figure_frame: Any, title: str, methods: dict[str, int], groups: Sequence[str] = ("maj", "min")) -> CurvePanel:
    (found,) = [one for one in quality_panels(figure_frame, methods, groups) if one.title == title]
    return found


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = read_lines(write(tmp_path, [*every(ours), {**line(3), "new": "key"}]))
    assert len(found) == 7
    assert (found[1].group, found[1].w_max, found[1].copies_unlabelled, found[-1].generation) == ("maj", 3.0, None, 3)
    assert read_lines(tmp_path / "nowhere") == []


def test_of_a_generation_written_twice_the_last_counts(tmp_path: Path) -> None:
    (found,) = read_lines(write(tmp_path, [line(recall=0.1), line(recall=0.2)]))
    assert found.recall == 0.2


@pytest.mark.parametrize("broken", ['{"generation": 1', '{"generation": "one"}', "[]", '{"generation": 1}', "\xff"])
def test_a_broken_line_is_named(broken: str, tmp_path: Path) -> None:
    path = write(tmp_path, [line()]) / runs.PSEUDO_LABELS
    path.write_bytes(path.read_bytes() + b"\n" + broken.encode("latin-1"))
    with pytest.raises(DataFault, match=r"pseudo_labels\.jsonl, line 3: "):
        read_lines(tmp_path)


def test_values_are_averaged_over_the_runs_that_have_them(tmp_path: Path) -> None:
    frames = [
        line_frame(read_lines(write(tmp_path / str(seed), [line(precision=precision)])), {"task": "toy"})
        for seed, precision in enumerate((0.5, None, 0.8))
    ]
    means = averaged(frames).set_index("quantity")
    assert tuple(means.loc["precision", ["mean", "std", "n"]]) == pytest.approx((0.65, statistics.stdev([0.5, 0.8]), 2))
    assert means.loc["recall", "n"] == 3
    assert means.loc["w", "n"] == 0
    assert np.isnan(means.loc["w", "mean"])


def test_fig_3_has_a_panel_a_measure_and_group_and_a_curve_a_method(place: Place) -> None:
    place.add(record("ours"), every(ours, recall=0.5)).add(record(), every(line))
    figure = place.figure()
    assert (figure.title, figure.scale) == (
        "Figure 3: Pseudo labels, Toy shapes",
        "preset mini, profile default, split seed 0",
    )
    assert list(dict.fromkeys(figure.data["title"])) == ["Soft Teacher (n = 1)", "Ours (n = 1)"]
    panels = quality_panels(figure.data, {"Soft Teacher (n = 1)": BASELINE, "Ours (n = 1)": 0}, ["maj", "min"])
    assert [one.title for one in panels] == [
        *("Precision, majority (%)", "Precision, minority (%)", "Recall, majority (%)", "Recall, minority (%)"),
    ]
    assert [curve.points[0].y for curve in panels[3].curves] == pytest.approx([40.0, 50.0])
    for words in ("Precision, minority (%)", "Ours (n = 1), generation 2: 50"):
        assert words in figure.svg


def test_points_are_means_and_bands_one_deviation(place: Place) -> None:
    for seed, recall in enumerate((0.2, 0.3, 0.6)):
        place.add(record(seed=seed), every(line, recall=recall))
    curve = panel(place.figure().data, "Recall, minority (%)", {"Soft Teacher (n = 3)": 0}).curves[0]
    deviation = 100 * statistics.stdev([0.2, 0.3, 0.6])
    point = curve.points[0]
    assert (point.y, point.low, point.high) == pytest.approx((36.667, 36.667 - deviation, 36.667 + deviation), abs=0.01)
    assert len(curve.bands) == 1


def test_no_pseudo_label_is_a_gap_in_precision_and_nothing_found_is_a_recall_of_zero(place: Place) -> None:
    nothing: dict[str, Any] = {"detected": 0, "correct": 0, "precision": None, "recall": 0.0}
    lines = [line(1), line(2, **nothing), line(3)]
    frame = place.add(record(), lines).figure().data
    precision = panel(frame, "Precision, majority (%)", {"Soft Teacher (n = 1)": 0}, ["maj"]).curves[0]
    recall = panel(frame, "Recall, majority (%)", {"Soft Teacher (n = 1)": 0}, ["maj"]).curves[0]
    assert precision.pieces == [[(1, 80.0)], [(3, 80.0)]]
    assert recall.pieces == [[(1, 40.0), (2, 0.0), (3, 40.0)]]


@pytest.mark.parametrize(
    "change",
    [{"preset": "smoke"}, {"profile": "paper"}, {"split_seed": 1}, {"task": "mine"}, {"split_sha256": "cd" * 32}],
)
def test_scales_tasks_and_splits_never_share_a_figure(change: dict[str, Any], place: Place) -> None:
    place.add(record(), every(line)).add(record(seed=1, **change), every(line, recall=0.9))
    figures = place.report().figures
    assert len(figures) == 2
    assert len({figure.stem for figure in figures}) == 2
    assert len({(figure.title, figure.scale) for figure in figures}) == 2
    for figure in figures:
        assert list(dict.fromkeys(figure.data["title"])) == ["Soft Teacher (n = 1)"]


def test_runs_with_other_settings_are_curves_of_their_own(place: Place) -> None:
    for seed, lr in enumerate((0.2, 0.5)):
        place.add(record("ours", seed, departures={"lr": [0.01, lr]}), every(ours))
    figures = place.report().figures
    assert list(dict.fromkeys(figures[0].data["title"])) == ["Ours [1] (n = 1)", "Ours [2] (n = 1)"]
    assert len({figure.stem for figure in figures}) == len(figures) == 3


def test_only_runs_that_are_done_and_no_variants_are_drawn(place: Place) -> None:
    assert place.add(record("ours", variant="gbr"), every(ours)).report().figures == ()
    assert place.add(record(status="interrupted"), every(line)).report().figures == ()
    (tmp := place.root / "none").mkdir(parents=True)
    place.runs.append(runs.Run(tmp, record()))
    assert place.report() == Report("pseudo_labels", "Pseudo labels", order=3)


def test_a_copied_run_does_not_count_twice(place: Place) -> None:
    place.add(record(created="2026-01-01"), every(line)).add(record(created="2026-01-02"), every(line, recall=0.9))
    assert list(dict.fromkeys(place.figure().data["title"])) == ["Soft Teacher (n = 1)"]
    curve = panel(place.figure().data, "Recall, minority (%)", {"Soft Teacher (n = 1)": 0}).curves[0]
    assert curve.points[0].y == pytest.approx(90)


def test_a_run_with_a_broken_file_is_left_out_and_named(place: Place) -> None:
    place.add(record(), every(line)).add(record("ours"), [{"generation": "x"}])
    report = place.report()
    assert list(dict.fromkeys(report.figures[0].data["method"])) == ["soft-teacher"]
    (note,) = report.notes
    assert "leaves out a run" in note
    assert "line 1" in note


def test_methods_that_adapt_have_a_figure_of_their_state(place: Place) -> None:
    copies: dict[str, Any] = {"copies_labelled": 1.2, "copies_labelled_max": 2}
    place.add(record(), every(line)).add(record("rfs"), every(line, **copies)).add(record("ours"), every(ours))
    assert [figure.title for figure in place.report().figures] == [
        "Figure 3: Pseudo labels, Toy shapes",
        "Weights, thresholds, copies and pool: Ours (n = 1), Toy shapes",
    ]


def test_where_nobody_knows_the_boxes_of_photographs_no_empty_fig_3_is_drawn(place: Place) -> None:
    unknown: dict[str, Any] = {"boxes": None, "correct": None, "precision": None, "recall": None}
    place.add(record(), every(line, **unknown)).add(record("ours"), every(ours, **unknown))
    report = place.report()
    (state,) = report.figures
    assert state.title == "Weights, thresholds, copies and pool: Ours (n = 1), Toy shapes"
    assert set(state.data["method"]) == {"ours"}
    assert report.notes == ("Fig. 3 leaves out Toy shapes: nobody knows the boxes of its unlabelled images.",)


def test_the_state_shows_the_spread_over_classes_copies_and_the_pool(place: Place) -> None:
    place.add(record("ours"), [*every(ours, (1,)), *every(ours, (2,), w=2.0, theta=0.8)])
    weight, theta, copies, pool = state_panels(place.figure().data, ["maj", "min"])
    assert [curve.title for curve in weight.curves] == ["majority", "minority"]
    assert weight.curves[1].points == (Point(1, 1.5, 0.5, 3.0), Point(2, 2.0, 0.5, 3.0))
    assert weight.ends[1] > 3
    assert (theta.up, theta.curves[0].points[1]) == ((0.0, 1.0), Point(2, 0.8, 0.6, 0.9))
    assert [curve.title for curve in copies.curves] == ["D_l, mean", "D_u, mean", "D_l, most", "D_u, most"]
    assert copies.curves[1].pieces == [[(2, 1.5)]]
    assert pool.curves[0].pieces == [[(1, 25.0), (2, 25.0)]]


def test_what_a_method_does_not_have_has_no_panel(place: Place) -> None:
    place.add(record("ours"), every(line, theta_min=0.5))
    assert [one.title for one in state_panels(place.figure().data, ["maj", "min"])] == ["Threshold θ"]


def test_every_file_is_drawn_and_equal_runs_give_equal_bytes(place: Place) -> None:
    place.add(record(), every(line)).add(record("ours"), every(ours))
    for kind in ("png", "svg"):
        files = draw_figures([place.report()], kind)
        stem = "figures/pseudo_labels_toy_mini-default_split0"
        assert sorted(files) == sorted(f"{stem}{end}.{kind}" for end in ("", "_column", "_ours", "_ours_column"))
        assert files == draw_figures([place.report()], kind)


def test_names_with_markup_are_shown_as_they_are_and_make_harmless_files(place: Place) -> None:
    odd: dict[str, Any] = {"task": "../$x", "title": "$a_1$ <script>", "groups": {"$m$": [], "<b>": []}}
    lines = [ours(generation, group) for generation in (1, 2) for group in ("all", "$m$", "<b>")]
    report = place.add(record("ours", **odd), lines).report()
    page = render_html([report], place.runs)
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    names = [name.removeprefix("figures/") for name in draw_figures([report], "svg")]
    assert len(names) == 4
    assert not any(letter in name for name in names for letter in "/$< ")
    other = Place(place.root / "other").add(record("ours", **{**odd, "task": "..$x"}), lines).report()
    assert other.figures[0].stem != report.figures[0].stem


def test_the_page_draws_sound_svg(place: Place) -> None:
    place.add(record(), every(line)).add(record("ours"), every(ours)).add(record("ours", 1), every(ours, recall=0.6))
    for figure in place.report().figures:
        styles = [element.get("style", "") for element in ElementTree.fromstring(figure.svg).iter()]
        curve, band, dot = (
            "fill:none;stroke:var(--navy)",
            "fill:var(--navy);fill-opacity:0.15",
            "fill:var(--navy);stroke:",
        )
        for part in (curve, band, dot):
            assert any(style.startswith(part) for style in styles)
    assert "url(" not in render_html([place.report()], place.runs)


def panels_of(number: int, curves: int) -> list[CurvePanel]:
    def points(shift: int) -> tuple[Point, ...]:
        return tuple(Point(x, 10.0 * (x % 5) + shift, max(0.0, 10.0 * (x % 5) - 5), 60.0) for x in range(1, 11))

    return [
        CurvePanel(
            f"Precision, a group of the user {place} (%)",
            tuple(Curve(f"Method {n} (n = 3)", n, points(n)) for n in range(curves)),
            (0, 100),
        )
        for place in range(number)
    ]


@pytest.mark.parametrize(
    ("width", "across"), [(WIDTHS[""], 4), (WIDTHS[""], 3), (WIDTHS["_column"], 2), (WIDTHS[PAGE], 2)]
)
@pytest.mark.parametrize("curves", [1, 2, 8])
def test_everything_lies_on_the_page_and_panels_keep_apart(width: float, across: int, curves: int) -> None:
    with drawing_style():
        figure = draw_curves(panels_of(6, curves), width, across)
        FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    box = figure.get_tightbbox()
    assert min(box.x0, box.y0) >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= figure.get_figheight() + 0.01
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible() and text.get_text()]
    assert min(float(text.get_fontsize()) for text in texts) >= 5
    boxes = [one for axes in figure.axes if (one := axes.get_tightbbox()) is not None]
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            assert min(one.x1, other.x1) - max(one.x0, other.x0) <= 0 or min(one.y1, other.y1) <= max(one.y0, other.y0)


def test_looks_differ_without_colour() -> None:
    assert len({(look.shape, look.filled) for look in LOOKS}) == len(LOOKS)
    method, baseline = LOOKS[0], LOOKS[BASELINE]
    assert method.dashes != baseline.dashes
    grey = [float(np.dot(to_rgb(look.colour), (0.299, 0.587, 0.114))) for look in (method, baseline)]
    assert abs(grey[0] - grey[1]) > 0.15


def test_a_panel_without_a_value_is_drawn_empty() -> None:
    empty = CurvePanel("Precision", (Curve("m", 0, (Point(1, None), Point(2, None))),), (0, 100))
    drawing = curve_drawing("nothing", dict.fromkeys((*PRINT, PAGE), ([empty], 2)), "f")
    assert drawing.page().count("fill:none;stroke:var(--navy)") == 1  # the legend's
    assert set(drawing.files("svg")) == {"f.svg", "f_column.svg"}
    alone = CurvePanel("w", (Curve("m", 0, (Point(1, 0.0),)),))
    assert alone.ends == (0.0, 1.0)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [((0, 100), [0, 20, 40, 60, 80, 100]), ((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]), ((0, 3.18), [0, 1, 2, 3])],
)
def test_ticks_are_round(ends: tuple[float, float], expected: list[float]) -> None:
    assert ticks(*ends) == expected


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((1, 10), list(range(1, 11))),
        ((4, 4), [4]),
        ((5, 10), [5, 6, 7, 8, 9, 10]),
        ((1, 20), [1, 4, 7, 10, 13, 16, 20]),
    ],
)
def test_generations_from_the_first_to_the_last_are_on_the_axis(ends: tuple[int, int], expected: list[int]) -> None:
    assert generation_ticks(*ends) == expected


@pytest.mark.slow
def test_runs_write_what_the_figure_reads(tmp_path: Path) -> None:
    found = []
    for method in ("soft-teacher", "ours"):
        plan = tiny_plan(tmp_path, method, "iterations=6", "generations=3")
        execute(plan, restart=False, say=lambda text: None)
        lines = read_lines(plan.folder)
        assert [(one.generation, one.group) for one in lines] == [
            (generation, group) for generation in (1, 2, 3) for group in ("all", "maj", "min")
        ]
        written = json.loads((plan.folder / runs.PSEUDO_LABELS).read_bytes().splitlines()[-1])
        assert set(written) <= set(PseudoLabelLine.__struct_fields__) - {"more"} == {"generation", "group", *QUANTITIES}
        found.append(runs.Run(plan.folder, runs.read_record(plan.folder)))
    report = built("pseudo_labels", found, methods=ENTRIES)
    assert [figure.title for figure in report.figures] == [
        "Figure 3: Pseudo labels, Toy shapes",
        "Weights, thresholds, copies and pool: Ours (n = 1), Toy shapes",
    ]
    assert len(state_panels(report.figures[0].data[lambda frame: frame["method"] == "ours"], ["maj", "min"])) == 4
