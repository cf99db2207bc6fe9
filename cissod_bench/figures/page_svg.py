"""An SVG file of matplotlib made part of the page: its colours, its font, titles for the mouse, no more than is needed.

A page may hold twenty figures, so what repeats or says nothing goes: ids, clipping, digits, styles of equal marks.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, fromstring, tostring

from cissod_bench.figures.style import VARIABLES

TIPS, ZONE = "tips ", "zone "
"""How an id (matplotlib's ``gid``) begins that carries, as a JSON list, what the mouse shows: a text for each path or
marker that is drawn there, or for each zone without ink."""

JPEG_QUALITY = 78
"""Of images in the page, 0-100."""
_PIXELS = 5 / 3  # of a point: letters of 7 points are 11.7 pixels high where the page has room
_DROPPED = frozenset({"metadata", "style", "clipPath"})
_USUAL = ("font-family:", "stroke-linejoin:")  # how a part of a style begins that the style sheet has for all figures
_PLACE = frozenset({"width", "height", "transform", "x", "y"})  # of an image
_USUAL_TEXT = (*_USUAL, "text-anchor:start", "fill:var(--ink)")
_LINK = "{http://www.w3.org/1999/xlink}href"
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_FRACTION = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def page_svg(drawn: bytes, label: str) -> str:
    """Return a figure as an element for the page.

    Args:
        drawn: matplotlib's SVG file, its letters as text.
        label: what it shows, for those who cannot see it.
    """
    root = fromstring(drawn)
    wide, tall = (float(number) for number in root.attrib["viewBox"].split()[2:])
    shape = {"viewBox": f"0 0 {wide:g} {tall:g}", "width": f"{_PIXELS * wide:.0f}", "height": f"{_PIXELS * tall:.0f}"}
    names = {"xmlns": "http://www.w3.org/2000/svg", "xmlns:xlink": "http://www.w3.org/1999/xlink"}
    page = Element("svg", {"class": "figure", "role": "img", "aria-label": label, **shape, **names})
    page.extend(part for child in root for part in _kept(child))
    _rename(page, hashlib.sha256(drawn).hexdigest()[:6])
    return tostring(page, encoding="unicode").replace(" />", "/>")  # text cannot hold a bare ">"


def _kept(element: Element) -> list[Element]:
    """Return what stands for an element on the page: a smaller one, its children alone, or nothing."""
    tag = element.tag.rpartition("}")[2]
    if tag == "image":
        return [_photograph(element)]
    children = [part for child in element for part in _kept(child)]
    if tag in _DROPPED or (tag in ("defs", "g") and not children):
        return []
    kept = Element(tag, _attributes(element, tag))
    kept.text = element.text if tag == "text" else None
    kept.extend(children)
    _name(kept, element.get("id", ""))
    _share_style(kept)
    return [kept] if tag != "g" or kept.attrib else children


def _photograph(element: Element) -> Element:
    """Return an image as JPEG: as PNG, in which matplotlib writes all, a photograph takes eight times as much."""
    from PIL import Image

    packed = element.attrib[_LINK].partition("base64,")[2]
    stream = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(packed))) as image:
        image.convert("RGB").save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    kept = {name: _rounded(value) for name, value in element.attrib.items() if name in _PLACE}
    return Element("image", kept | {"href": f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"})


def _attributes(element: Element, tag: str) -> dict[str, str]:
    """Return an element's attributes: numbers rounded, colours and font the page's; ids only of what is used again."""
    attributes: dict[str, str] = {key: _rounded(element.attrib[key]) for key in ("x", "y") if key in element.attrib}
    if "d" in element.attrib:
        attributes["d"] = re.sub(r"\s*([A-Za-z])\s*", r"\1", _rounded(element.attrib["d"])).strip()
    if _LINK in element.attrib:
        attributes["xlink:href"] = element.attrib[_LINK]
    if tag == "path" and "id" in element.attrib:
        attributes["id"] = element.attrib["id"]
    transform = _rounded(re.sub(r"rotate\(-?0(?: [^)]*)?\)", "", element.get("transform", ""))).strip()
    style = _style(element.get("style", ""), tag)
    return attributes | {key: text for key, text in (("transform", transform), ("style", style)) if text}


def _style(style: str, tag: str) -> str:
    """Return a style without what the style sheet says of all figures, its colours the sheet's variables."""
    coloured = _COLOUR.sub(lambda match: f"var({VARIABLES[match[0]]})", _rounded(style))
    pairs = [re.sub(r"\s*:\s*", ":", pair.strip(), count=1) for pair in coloured.split(";")]
    usual = _USUAL_TEXT if tag == "text" else _USUAL
    return ";".join(pair for pair in pairs if pair and not pair.startswith(usual))


def _rounded(text: str) -> str:
    return _FRACTION.sub(lambda match: f"{round(float(match[0]), 2) + 0.0:.8g}", text)


def _name(element: Element, gid: str) -> None:
    """Give an element, or each of its markers, the title that its ``gid`` carries."""
    if not gid.startswith((TIPS, ZONE)):
        return
    places = list(element.iter("use")) or list(element.iter("path"))
    for place, text in zip(places, json.loads(gid[len(TIPS) :]), strict=True):
        title = Element("title")
        title.text = text
        place.insert(0, title)
        if gid.startswith(ZONE):
            place.set("class", "zone")
            place.attrib.pop("style", None)


def _share_style(element: Element) -> None:
    """Move the style of markers that look alike to the element around them."""
    markers = [child for child in element if child.tag == "use"]
    styles = {marker.get("style", "") for marker in markers}
    if element.tag == "g" and len(markers) == len(element) > 1 and len(styles) == 1:
        element.set("style", *styles)
        for marker in markers:
            del marker.attrib["style"]


def _rename(page: Element, prefix: str) -> None:
    """Give what is used again names that no other figure of the page has; an id that nothing uses goes."""
    used = {link[1:] for link in _links(page)}
    names = {name: f"m{prefix}{number}" for number, name in enumerate(sorted(used))}
    for element in page.iter():
        if "xlink:href" in element.attrib:
            element.set("xlink:href", f"#{names[element.attrib['xlink:href'][1:]]}")
        if element.get("id") in names:
            element.set("id", names[element.attrib["id"]])
        else:
            element.attrib.pop("id", None)


def _links(page: Element) -> Iterator[str]:
    return (element.attrib["xlink:href"] for element in page.iter() if "xlink:href" in element.attrib)
