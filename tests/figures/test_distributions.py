"""Fig. 4: what is counted, how a count of nothing is shown, marks that need no colour, files that are equal again."""

from __future__ import annotations

import csv
import io
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from msgspec.structs import replace
from PIL import Image
from score_records import finished
from split_folders import folder, made_manifest

from cissod_bench.catalogue import load_report
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.figures.distributions import (
    NONE,
    distribution_drawing,
    distribution_files,
    draw,
    panels,
    plot_distributions,
    stretches,
)
from cissod_bench.figures.drawing import PRINT, WIDTHS
from cissod_bench.figures.style import MARKS, drawing_style, symbols
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import Run, write_record
from cissod_bench.rendering.markdown import render_markdown
from cissod_bench.rendering.page import render_html
from cissod_bench.reporting.box_counts import distribution_frame
from cissod_bench.reporting.tables import Report, draw_figures
from cissod_bench.splitting.manifest import Manifest, read_manifest

Counts = Mapping[str, tuple[int, int, int]]  # class -> boxes in the original data set, in D_l, hidden in D_u

TWO: Mapping[str, Counts] = {
    "maj": {"person": (1000, 100, 900), "car": (10, 1, 9)},
    "min": {"boat": (100, 10, 60), "kite": (10, 10, 0)},
}
THREE: Mapping[str, Counts] = {
    "f": {f"f{place}": (9000 - 10 * place, 800, 8000) for place in range(40)},
    "c": {f"c{place}": (400 - place, 40, 300) for place in range(100)},
    "r": {f"r{place}": (1 + place % 5, 1, place % 5) for place in range(200)},
}


def manifest(task: str = "toy", groups: Mapping[str, Counts] = TWO, seed: int = 0, **changes: Any) -> Manifest:
    """What Fig. 4 reads of a manifest; classes stand in another order than their frequencies."""
    counts = {name: own for members in groups.values() for name, own in members.items()}
    facts = {
        "task": task,
        "title": f"Task {task}",
        "split_seed": seed,
        "split_sha256": f"{task}{seed}".ljust(64, "0"),
        "groups": {group: list(members) for group, members in groups.items()},
        "per_class": {
            name: {"images": 1, "boxes": shown, "unlabelled_boxes": hidden, "original_boxes": original}
            for name, (original, shown, hidden) in counts.items()
        },
    }
    return made_manifest(**{**facts, **changes})


def without_count(whole: Manifest, name: str, key: str) -> Manifest:
    """The manifest as an older version wrote it, without one of the counts of a class."""
    counts = replace(whole.per_class[name], **{key: None})
    return replace(whole, per_class={**whole.per_class, name: counts})


def record(task: str = "toy", sha256: str = "") -> RunRecord:
    return finished(task=task, split_sha256=sha256, ap={"teacher": {"all": 1.0}})


def report(*splits: Manifest, runs: Sequence[RunRecord] = ()) -> Report:
    built = load_report("distributions")([Run(Path("run"), one) for one in runs], splits)
    assert isinstance(built, Report)
    return built


def drawn(*splits: Manifest, width: float = WIDTHS[""]) -> Figure:
    with drawing_style():
        figure = draw(panels(splits), width)
        FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    return figure


def test_classes_stand_by_their_boxes_in_the_original_data_set_and_ties_as_in_the_manifest() -> None:
    frame = distribution_frame([manifest()])
    places = dict(zip(frame["class"], frame["index"], strict=True))
    assert places == {"person": 1, "boat": 2, "car": 3, "kite": 4}
    assert len(frame) == 4 * 3
    boat = frame[frame["class"] == "boat"].set_index("part")
    assert boat["boxes"].to_dict() == {"original": 100, "labelled": 10, "unlabelled": 60}
    assert boat["log10"].to_dict() == {"original": 2.0, "labelled": 1.0, "unlabelled": pytest.approx(math.log10(60))}
    assert set(boat["group"]) == {"min"}


def test_no_boxes_have_no_logarithm() -> None:
    frame = distribution_frame([manifest()])
    assert math.isnan(frame[(frame["class"] == "kite") & (frame["part"] == "unlabelled")]["log10"].item())
    assert frame["log10"].isna().sum() == 1


@pytest.mark.parametrize("key", ["original_boxes", "unlabelled_boxes"])
def test_a_manifest_of_an_older_version_is_answered_with_the_command_that_renews_it(key: str) -> None:
    old = without_count(manifest("coco-split1", seed=3), "boat", key)
    with pytest.raises(DataFault) as caught:
        distribution_frame([old])
    for part in ("coco-split1", "split seed 3", f"per_class['boat'].{key}"):
        assert part in caught.value.message
    assert "make-splits --task coco-split1 --split-seed 3 --force" in str(caught.value.remedy)
    with pytest.raises(DataFault, match="imported without the task's own training file") as imported:
        distribution_frame([replace(old, imported=True)])
    assert "splits import" in str(imported.value.remedy)


def test_files_of_both_widths_have_their_size_in_print(tmp_path: Path) -> None:
    files = plot_distributions([manifest(), manifest("lvis", THREE)], tmp_path / "new" / "place")
    assert sorted(path.name for path in files) == [
        *("distributions.png", "distributions.svg", "distributions_column.png", "distributions_column.svg"),
    ]
    assert all(path.is_file() for path in files)
    for suffix in PRINT:
        inches = WIDTHS[suffix]
        with Image.open(tmp_path / "new" / "place" / f"distributions{suffix}.png") as picture:
            assert picture.width == pytest.approx(300 * inches, abs=1)
            assert picture.info["dpi"][0] == pytest.approx(300, abs=1)
            assert "Software" not in picture.info


@pytest.mark.parametrize("kind", ["png", "svg", "pdf", "csv"])
def test_equal_splits_give_equal_bytes_whatever_the_users_style(kind: str, tmp_path: Path) -> None:
    splits = [manifest(), manifest("lvis", THREE)]
    first = distribution_files(splits, kind)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": None, "lines.linewidth": 9}):
        assert distribution_files(splits, kind) == first
        assert matplotlib.rcParams["font.size"] == 30


def test_an_svg_file_holds_no_date_and_needs_no_font() -> None:
    for data in distribution_files([manifest()], "svg").values():
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(data).iter()}
        assert not tags & {"text", "date", "creator"}
        assert "path" in tags


def test_the_numbers_come_as_csv_too(tmp_path: Path) -> None:
    (path,) = plot_distributions([manifest()], tmp_path, ["csv"])
    lines = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [line["boxes"] for line in lines if line["class"] == "kite"] == ["10", "10", "0"]
    assert [line["log10"] for line in lines if line["class"] == "kite"] == ["1.0", "1.0", ""]


@pytest.mark.parametrize(("splits", "formats"), [([], ["png"]), ([manifest()], ["gif"]), ([manifest()], [])])
def test_nothing_to_draw_and_unknown_formats_are_refused(
    splits: list[Manifest], formats: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UsageFault):
        plot_distributions(splits, tmp_path / "out", formats)
    assert not (tmp_path / "out").exists()


def marks(figure: Figure, shape: str, panel: int = 0) -> dict[float, float]:
    """Return place -> height of a panel's marks of one shape."""
    (line,) = [line for line in figure.axes[2 * panel].lines if line.get_marker() == shape]
    return dict(zip(line.get_xdata(), line.get_ydata(), strict=True))  # type: ignore[arg-type]


def labels(figure: Figure, panel: int = 0) -> dict[float, str]:
    axes = figure.axes[2 * panel]
    return dict(zip(axes.get_yticks(), (label.get_text() for label in axes.get_yticklabels()), strict=True))


def test_a_mark_stands_at_the_logarithm_of_its_count() -> None:
    figure = drawn(manifest())
    assert marks(figure, "o") == {1: 2.0, 3: 0.0}
    assert marks(figure, "^") == {2: 1.0, 4: 1.0}


def test_a_count_of_nothing_stands_at_none_below_one() -> None:
    without = manifest(groups={"maj": {"a": (50, 5, 40)}, "min": {"b": (10, 0, 0), "c": (5, 1, 1)}})
    figure = drawn(without)
    assert marks(figure, "^") == {2: NONE, 3: 0.0}
    assert labels(figure)[NONE] == "none"
    assert NONE < 0 < figure.axes[0].get_ylim()[1]
    (bars,) = [line for line in figure.axes[0].lines if line.get_marker() == "None" and np.size(line.get_xdata()) == 9]
    assert np.asarray(bars.get_ydata())[3] == NONE
    assert ">none</text>" in distribution_drawing([without]).page()


SVG = "{http://www.w3.org/2000/svg}"
NUMBERS = re.compile(r"-?\d+(?:\.\d+)?")


def test_on_the_page_a_count_of_nothing_stands_at_none_too() -> None:
    without = manifest(groups={"maj": {"a": (50, 5, 40)}, "min": {"b": (10, 0, 0)}})
    root = ElementTree.fromstring(distribution_drawing([without]).page())
    (label,) = [element for element in root.iter(f"{SVG}text") if element.text == "none"]
    places = [float(mark.attrib["y"]) for mark in root.iter(f"{SVG}use")]
    ticks = [place for place in places if abs(place - float(label.attrib["y"])) < 4]
    none = ticks[0]  # its letters stand on a line just below their middle
    (bars,) = [path.attrib["d"] for path in root.iter(f"{SVG}path") if path.attrib.get("d", "").count("M") == 2]
    heights = [float(NUMBERS.findall(bar)[1]) for bar in bars.split("M")[1:]]
    assert heights[1] == pytest.approx(none, abs=0.1)
    assert heights[0] < heights[1]
    triangles = [use for use in root.iter(f"{SVG}use") if "var(--vermillion)" in use.get("style", "")]
    assert float(triangles[0].attrib["y"]) == pytest.approx(none, abs=0.1)


def test_nothing_is_said_of_none_where_every_class_has_boxes() -> None:
    full = manifest(groups={"maj": {"a": (50, 5, 40)}, "min": {"b": (10, 1, 9)}})
    assert "none" not in labels(drawn(full)).values()
    assert ">none</text>" not in distribution_drawing([full]).page()


def test_groups_differ_in_shape_or_fill_and_in_lightness() -> None:
    assert len({(mark.shape, mark.filled) for mark in MARKS}) == len(MARKS) == 3
    assert len({mark.shape for mark in MARKS}) == 3
    greys = sorted(float(np.dot(to_rgb(mark.colour), (0.299, 0.587, 0.114))) for mark in MARKS)
    assert min(np.diff(greys)) > 0.08


def test_every_class_stands_in_one_strip_and_each_strip_is_named() -> None:
    strips = drawn(manifest("lvis", THREE)).axes[1]
    assert [label.get_text() for label in strips.get_yticklabels()] == ["f", "c", "r"]
    covered = [
        place
        for bars in strips.collections
        for path in bars.get_paths()
        for place in range(round(path.get_extents().x0 + 0.5), round(path.get_extents().x1 + 0.5))
    ]
    assert sorted(covered) == list(range(1, 341))


@pytest.mark.parametrize("width", WIDTHS.values())
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_everything_lies_on_the_page_and_no_letters_are_too_small_to_read(number: int, width: float) -> None:
    splits = [manifest(f"task {place}" * (1 + 5 * place), (TWO, THREE)[place % 2]) for place in range(number)]
    figure = drawn(*splits, width=width)
    box = figure.get_tightbbox()
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= figure.get_figheight() + 0.01
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible() and text.get_text()]
    assert min(float(text.get_fontsize()) for text in texts) >= 5
    assert figure.get_figheight() <= 11


def test_neighbouring_panels_do_not_run_into_each_other() -> None:
    figure = drawn(*(manifest(f"t{place}", THREE) for place in range(4)))
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for place, one in enumerate(boxes):
        for number, other in enumerate(boxes[place + 1 :], start=place + 1):
            own_strips = number == place + 1 and place % 2 == 0  # they meet on purpose
            assert one is not None
            assert other is not None
            overlap = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
            assert own_strips or min(overlap) <= 0, (place, number)


def test_names_with_markup_are_shown_as_they_are() -> None:
    odd = manifest(title="$x_1$ <script>", groups={"$m$": {"<b>": (9, 3, 6)}, "min": {"$y": (3, 1, 2)}})
    title = drawn(odd).axes[0].get_title(loc="left")
    assert title == symbols("$x_1$ <script>")
    assert not matplotlib.cbook.is_math_text(title)
    page = distribution_drawing([odd]).page()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;b&gt; ($m$): 9 in the original data set, 3 in D_l, 6 hidden in D_u" in page


def test_the_pages_drawing_is_sound_and_tells_each_class_of_a_few() -> None:
    few, many = (distribution_drawing([manifest(groups=groups)]).page() for groups in (TWO, THREE))
    for drawing in (few, many):
        ElementTree.fromstring(drawing)
    assert few.count("<title>") == 4
    crowd = {"maj": {f"c{place}": (9, 1, 8) for place in range(500)}, "min": {"b": (10, 1, 9)}}
    assert distribution_drawing([manifest(groups=crowd)]).page().count("<title>") == 0


@pytest.mark.parametrize(
    ("places", "found"), [([], []), ([3], [(3, 1)]), ([1, 2, 3, 7, 9, 10], [(1, 3), (7, 1), (9, 2)])]
)
def test_successive_places_are_one_stretch(places: list[int], found: list[tuple[int, int]]) -> None:
    assert stretches(places) == found


def test_a_report_shows_one_split_a_task_the_papers_first() -> None:
    splits = [
        manifest("toy"),
        manifest("mine"),
        manifest("lvis", THREE),
        manifest("coco-split1"),
        manifest("toy", seed=1),
    ]
    (figure,) = report(*splits).figures
    shown = figure.data.drop_duplicates("split_sha256")
    assert list(zip(shown["task"], shown["split_seed"], strict=True)) == [
        ("coco-split1", 0),
        ("lvis", 0),
        ("mine", 0),
        ("toy", 0),
    ]
    assert figure.scale == "split seed 0"


def test_a_report_prefers_the_split_that_was_run() -> None:
    ran = manifest("toy", seed=4)
    (figure,) = report(manifest("lvis", THREE), manifest("toy"), ran, runs=[record(sha256=ran.split_sha256)]).figures
    assert set(figure.data["split_seed"][figure.data["task"] == "toy"]) == {4}
    assert figure.scale == "split seeds: Task lvis 0, Task toy 4"


def test_a_report_leaves_an_older_split_out_and_says_so() -> None:
    old = without_count(manifest("coco-split1"), "boat", "original_boxes")
    built = report(old, manifest())
    assert set(built.figures[0].data["task"]) == {"toy"}
    (note,) = built.notes
    assert "leaves out coco-split1" in note
    assert "make-splits --task coco-split1 --split-seed 0 --force" in note
    assert report(old).figures == ()
    assert report().figures == ()


def test_a_report_is_drawn_in_every_format() -> None:
    built = report(manifest())
    assert list(draw_figures([built], "png")) == ["figures/distributions.png", "figures/distributions_column.png"]
    markdown = render_markdown([built], ())
    assert "![Figure 4: Boxes of every class](figures/distributions.svg)" in markdown["distributions.md"]
    assert markdown["figures/distributions.svg"].startswith("<?xml")
    page = render_html([built], ())
    assert "<h2>Figure 4: Boxes of every class</h2>" in page
    assert "var(--area)" in page
    assert "url(" not in page
    assert len(built.frames["distributions_figures"]) == 12


def test_the_command_draws_the_splits_it_finds_beside_the_runs(
    split: Callable[..., Any], call: Callable[..., Any], tmp_path: Path
) -> None:
    assert split().code == 0
    drawn_from = read_manifest(folder(tmp_path))
    work = tmp_path / "work"
    write_record(work / "runs" / "one", record("tiny", drawn_from.split_sha256))
    answer = call("report", "--work-dir", work, "--format", "csv,html,png,svg")
    assert answer.code == 0, answer.err
    made = {path.relative_to(work / "reports").as_posix() for path in (work / "reports").rglob("*")}
    assert made >= {"figures/distributions.png", "figures/distributions_column.svg", "distributions_figures.csv"}
    assert "Written: 8 files of figures below" in answer.out  # two figures, each in two widths and two formats
    assert "Figures for print: --format svg,png" in call("report", "--work-dir", work).out
    frame = distribution_frame([drawn_from])
    boxes = {part: own.set_index("class")["boxes"] for part, own in frame.groupby("part")}
    assert (boxes["original"] >= boxes["labelled"] + boxes["unlabelled"]).all()
    assert boxes["original"].sum() > boxes["unlabelled"].sum() > 0
    lines = list(csv.DictReader((work / "reports" / "distributions_figures.csv").open()))
    assert [int(line["boxes"]) for line in lines] == frame["boxes"].tolist()
