"""Fig. 4's axis of classes: names where few of them fit, else a few round places."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from split_folders import made_manifest

from cissod_bench.figures.class_axis import class_names, class_ticks, turned_names
from cissod_bench.figures.distributions import draw, panels
from cissod_bench.figures.drawing import NARROW, WIDTHS
from cissod_bench.figures.style import cut, drawing_style

NAMES = ["person", "boat", "car", "kite"]


@pytest.mark.parametrize(
    ("count", "ticks"),
    [
        (1, [1]),
        (2, [1, 2]),
        (6, [1, 2, 3, 4, 5, 6]),
        (12, list(range(1, 13))),
        (13, [1, 4, 8, 13]),
        (80, [1, 20, 40, 60, 80]),
        (365, [1, 100, 200, 365]),
        (1203, [1, 400, 800, 1203]),
    ],
)
def test_ticks_are_round_and_hold_the_last_class(count: int, ticks: list[int]) -> None:
    assert class_ticks(count) == ticks


@pytest.mark.parametrize(
    ("names", "points", "shown"),
    [
        (["person", "dog", "cat"], 150, True),
        (["person", "dog", "cat"], 60, False),  # a name would run into the next
        (["person", "dog", "a bench in the park"], 150, False),
        ([f"c{place}" for place in range(12)], 250, True),
        ([f"c{place}" for place in range(13)], 250, False),
    ],
)
def test_few_classes_are_named_where_every_name_fits(names: list[str], points: float, shown: bool) -> None:
    assert class_names(names, points) == (names if shown else [])


@pytest.mark.parametrize(
    ("names", "points", "shown"),
    [
        (["person", "dog", "cat"], 60, ["person", "dog", "cat"]),
        (["a bench in the park with children"], 60, ["a bench in the pa…"]),
        (["person", "dog", "cat"], 20, []),
        ([f"c{place}" for place in range(25)], 600, []),
    ],
)
def test_names_that_do_not_fit_side_by_side_stand_upright(names: list[str], points: float, shown: list[str]) -> None:
    assert turned_names(names, points) == shown


def drawn(names: Sequence[str], number: int, width: float) -> Figure:
    """Return Fig. 4 of so many panels of these classes, drawn in ``drawing_style``."""
    counts = {
        name: {"images": 1, "boxes": 1, "unlabelled_boxes": 1, "original_boxes": 100 - place}
        for place, name in enumerate(names)
    }
    split = made_manifest(groups={"maj": names[:2], "min": names[2:]}, per_class=counts)
    figure = draw(panels([split] * number), width)
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    return figure


@pytest.mark.parametrize("width", WIDTHS.values())
@pytest.mark.parametrize("count", [9, 16])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_upright_names_stay_on_the_sheet_and_apart(width: float, count: int, number: int) -> None:
    names = [f"{'a bench in the park'[: 19 - place % 3]}{place}" for place in range(count)]
    narrow = width < NARROW  # one panel under another
    with drawing_style():
        figure = drawn(names, number, width)
        for strips, below in zip(figure.axes[1::2], [*figure.axes[2::2], None], strict=True):
            labels, title = strips.get_xticklabels(), strips.xaxis.label.get_window_extent()
            if narrow or number <= 2:
                assert [label.get_text() for label in labels] == [cut(name, 18) for name in names]
                assert {label.get_rotation() for label in labels} == {90.0}
            boxes = [label.get_window_extent() for label in labels]
            assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))
            assert all(box.y0 > title.y1 for box in boxes)
            assert title.y0 > (below.get_window_extent().y1 if narrow and below is not None else 0)


@pytest.mark.parametrize("width", WIDTHS.values())
@pytest.mark.parametrize("number", [1, 2])
def test_names_below_an_axis_do_not_touch(width: float, number: int) -> None:
    with drawing_style():
        for strips in drawn(NAMES, number, width).axes[1::2]:
            labels = strips.get_xticklabels()
            assert [label.get_text() for label in labels] == NAMES
            boxes = [label.get_window_extent() for label in labels]
            assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))
