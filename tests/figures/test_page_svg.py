"""A figure in the page: drawn by print's function, in the style sheet's colours, with titles, and nothing it loads."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from importlib import resources

import pytest
from split_folders import made_manifest

from cissod_bench.figures.class_bars import BarPanel, class_bars
from cissod_bench.figures.curves import LOOKS, Curve, CurvePanel, Point, curve_drawing, draw_curves
from cissod_bench.figures.distributions import distribution_drawing
from cissod_bench.figures.drawing import PAGE, PRINT, WIDTHS, Drawing, print_bytes
from cissod_bench.figures.style import VARIABLES, drawing_style
from cissod_bench.splitting.manifest import Manifest

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
COUNTS = {"images": 1, "boxes": 3, "unlabelled_boxes": 0, "original_boxes": 9}


def curves(title: str = "Recall (%)", high: float = 60.0) -> Drawing:
    points = tuple(Point(x, 10.0 * x, 5.0, high) for x in range(1, 4))
    panel = CurvePanel(title, tuple(Curve(f"m{look}", look, points) for look in range(len(LOOKS))), (0.0, 100.0))
    return curve_drawing("curves", dict.fromkeys(WIDTHS, ([panel], 2)), "curves")


def bars(*names: str, title: str = "m") -> Drawing:
    return class_bars([BarPanel(title, dict.fromkeys(names, 20.0), dict.fromkeys(names, 1.0))], {"maj": names})


def split_of(groups: Mapping[str, list[str]]) -> Manifest:
    """The manifest of a split with these groups of classes, all of them with equal counts."""
    counts = {name: COUNTS for names in groups.values() for name in names}
    return made_manifest(task="t", title="Task", split_sha256="0" * 64, groups=groups, per_class=counts)


def boxes(*names: str) -> Drawing:
    groups = {"maj": list(names), "min": ["kite"]}
    return distribution_drawing([split_of(groups)])


EVERY = {"curves": curves(), "bars": bars("disc", "ring"), "boxes": boxes("disc")}


@pytest.mark.parametrize("name", EVERY)
def test_colours_are_the_style_sheets_and_fonts_the_pages(name: str) -> None:
    page = EVERY[name].page()
    assert set(re.findall(r"var\((.*?)\)", page)) <= set(VARIABLES.values())
    for part in ("font-family", "url(", "<style", "<metadata", "http://www.w3.org/1999/02"):
        assert part not in page
    assert re.findall(r"#[0-9a-fA-F]{6}\b(?!\d)", re.sub(r'xlink:href="[^"]*"', "", page)) == []


def test_every_colour_has_a_value_for_light_and_another_for_dark() -> None:
    sheet = (resources.files("cissod_bench.rendering") / "report.html.j2").read_text(encoding="utf-8")
    for variable in VARIABLES.values():
        light, dark = re.findall(rf"{variable}: (#[0-9a-f]+);", sheet)
        assert light != dark, variable


@pytest.mark.parametrize("name", EVERY)
def test_equal_figures_are_equal_elements_and_ids_are_no_other_figures(name: str) -> None:
    page = EVERY[name].page()
    assert EVERY[name].page() == page
    root = ElementTree.fromstring(page)
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(set(ids)) == len(ids)
    assert {f"#{name}" for name in ids} == {element.attrib[LINK] for element in root.iter() if LINK in element.attrib}
    others = [ElementTree.fromstring(drawing.page()) for other, drawing in EVERY.items() if other != name]
    assert not {element.get("id", "") for other in others for element in other.iter()} & set(ids)


def test_text_stays_text_and_letters_do_not_shrink_on_a_wide_page() -> None:
    root = ElementTree.fromstring(curves().page())
    texts = {element.text: element for element in root.iter(f"{SVG}text")}
    assert {"Recall (%)", "m0", "generation", "100"} <= set(texts)
    scale = float(root.attrib["width"]) / float(root.attrib["viewBox"].split()[2])
    sizes = re.findall(r"font-size:([\d.]+)px", curves().page())
    assert min(map(float, sizes)) * scale > 10


def test_each_point_bar_and_class_says_what_it_is() -> None:
    titles = {
        name: [title.text for title in ElementTree.fromstring(drawing.page()).iter(f"{SVG}title")]
        for name, drawing in EVERY.items()
    }
    assert len(titles["curves"]) == 3 * len(LOOKS)
    assert titles["curves"][0] == "m0, generation 1: 10 (5 to 60)"
    assert titles["bars"] == ["m, disc: 20.0 ± 1.0", "m, ring: 20.0 ± 1.0"]
    assert titles["boxes"] == [
        f"{name} ({group}): 9 in the original data set, 3 in D_l, 0 hidden in D_u"
        for name, group in (("disc", "maj"), ("kite", "min"))
    ]


def test_a_point_and_a_class_alone_say_it_too() -> None:
    one = CurvePanel("w", (Curve("m", 0, (Point(1, 0.5),)),))
    page = curve_drawing("one", {PAGE: ([one], 1)}, "one").page()
    assert page.count("<title>m, generation 1: 0.5</title>") == 1
    alone = distribution_drawing([split_of({"maj": ["disc"]})])
    assert alone.page().count("<title>") == 1
    assert alone.page().count('class="zone"') == 1


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_print_holds_nothing_for_the_mouse(kind: str) -> None:
    panel = CurvePanel("Recall (%)", (Curve("m", 0, (Point(1, 1.0), Point(2, 2.0))),))
    with drawing_style():
        figure, plain = (draw_curves([panel], WIDTHS[""], 2) for _ in range(2))
        for artist in plain.findobj():
            artist.set_gid(None)
        assert print_bytes(figure, kind) == print_bytes(plain, kind)
    for data in boxes("disc").files("svg").values():
        assert b"tips" not in data
        assert b"zone" not in data


def test_each_place_has_its_width() -> None:
    drawing = curves()
    with drawing_style():
        assert {place: drawing.draw(place).get_figwidth() for place in WIDTHS} == dict(WIDTHS)
    assert set(drawing.files("pdf")) == {f"curves{place}.pdf" for place in PRINT}


def test_a_band_ends_where_its_panel_does() -> None:
    """The page has no clipping, which would need an address."""
    highest = [
        min(float(y) for y in re.findall(r"[ML][\d.]+ (-?[\d.]+)", band.attrib["d"]))
        for high in (100.0, 150.0)
        for band in ElementTree.fromstring(curves(high=high).page()).iter(f"{SVG}path")
        if "d" in band.attrib and band.attrib["d"].count("L") > 5
    ]
    assert len(set(highest)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "</svg><script>x</script>",
        "a & b ]]>",
        'quote" onload="x',
        "$x_1$ \\frac",
        "\x00\x1b[31m",
        "\ud800",
        "",
        "名前",
        "x" * 300,
        "tips [",
        "-->",
    ],
)
def test_any_name_can_be_drawn(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for page in (curves(name).page(), bars(name, "ring", title=name).page(), boxes(name).page()):
            page.encode()
            tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(page).iter()}
            assert tags <= {"svg", "g", "path", "defs", "use", "text", "title"}
            assert "onload" not in {key for element in ElementTree.fromstring(page).iter() for key in element.attrib}


def test_more_groups_than_marks_are_drawn() -> None:
    groups = {f"g{number}": [f"c{number}"] for number in range(5)}
    classes = {name: COUNTS for names in groups.values() for name in names}
    drawing = distribution_drawing([split_of(groups)])
    assert "g1 / g2 / g3" in drawing.page()
    assert class_bars([BarPanel("m", dict.fromkeys(classes, 5.0), {})], groups).page().count("<title>") == 5


def test_matplotlib_is_loaded_only_when_something_is_drawn() -> None:
    code = (
        "import sys\n"
        "from cissod_bench.catalogue import list_reports, load_report\n"
        "for name in list_reports(): load_report(name)([], ())\n"
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
