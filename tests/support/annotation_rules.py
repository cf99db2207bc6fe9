"""The rules of annotation files, in plain Python over what the json module reads: what fuzz tests compare with."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

from cissod_bench.annotations.naming import Naming
from cissod_bench.files.images import broken_name_rule


class RefusedError(Exception):
    """The model's verdict on a file that breaks a rule."""


def rule(holds: object, text: str) -> None:
    if not holds:
        raise RefusedError(text)


def whole_number(value: Any, least: int, most: int) -> int:
    if type(value) is float and abs(value) <= 2**53 and value == int(value):
        value = int(value)
    rule(type(value) is int and least <= value <= most, f"a whole number is {value!r:.40}")
    return int(value)


def number_of(value: Any) -> int:
    """The whole number that an id stands for."""
    if type(value) is int and abs(value) > ID and value.bit_length() <= 1024:
        value = str(value)
    if type(value) is not str:
        return whole_number(value, -ID, ID)
    rule(value, "an id of no letters")
    is_whole = value.lstrip("-").isdecimal() and value.isascii() and len(value) < 21 and str(int(value)) == value
    if is_whole and abs(int(value)) <= ID:
        return int(value)
    return int(hashlib.sha256(value.encode()).hexdigest(), 16) >> 203


def loaded(text: bytes) -> tuple[dict[str, Any], bool]:
    """Read a file as the json module does, and tell whether a key stands twice in one of its records."""
    outer: list[tuple[str, Any]] = []
    twice = 0

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        outer[:] = members  # the outermost object is closed last
        twice += len(dict(members)) < len(members)
        return dict(members)

    def refuse(word: str) -> None:
        raise RefusedError(f"{word} is no JSON")

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=pairs, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise RefusedError(str(error)) from None
    rule(isinstance(value, dict), "an object is expected")
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise RefusedError("half a surrogate pair is no character") from None
    rule(len(outer) == len(value), "a key stands twice")
    return value, twice > 0


def records(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    rule(isinstance(value.get(key), list), f"{key} is no array")
    rule(all(isinstance(one, dict) for one in value[key]), f"{key} holds something else than objects")
    return value[key]  # type: ignore[no-any-return]


def unique(ids: list[Any]) -> list[Any]:
    rule(len(set(ids)) == len(ids), "an id stands twice")
    return ids


ID = 2**62


def model(text: bytes, naming: Naming) -> dict[str, Any]:
    """Return what a file holds by the stated rules (``annotations``), in plain Python.

    Raises:
        RefusedError: it breaks one.
    """
    rule(not text.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")), "a byte order mark")
    value, twice = loaded(text)
    images, boxes, classes = (records(value, key) for key in ("images", "annotations", "categories"))
    sizes, names = {}, []
    image_ids = unique([number_of(one.get("id")) for one in images])
    for number, one in zip(image_ids, images, strict=True):
        sizes[number] = [whole_number(one.get(side), 1, 1_000_000) for side in ("width", "height")]
        name = one.get("coco_url" if naming == "coco_url" else "file_name")
        rule(isinstance(name, str), "a name is no text")
        names.append("/".join(name.rsplit("/", 2)[-2:]) if naming == "coco_url" else name)
        rule(broken_name_rule(names[-1]) is None, "an unsafe name")
        rule(isinstance(one.get("root", ""), str), "a root is no text")
    numbers = [whole_number(one.get("id"), -ID, ID) for one in classes]
    rule(all(isinstance(one.get("name"), str) for one in classes), "a class name is no text")
    classes = without_roots(classes, numbers, boxes)
    kinds = unique([whole_number(one.get("id"), -ID, ID) for one in classes])
    rule(unique([one["name"] for one in classes]), "no class")
    judged = Counter[str]()
    kept: dict[int, list[float]] = {}
    box_ids = unique([number_of(one.get("id")) for one in boxes])
    for number, one in zip(box_ids, boxes, strict=True):
        rule(number_of(one.get("image_id")) in sizes, "no such image")
        rule(whole_number(one.get("category_id"), -ID, ID) in kinds, "no such class")
        box, crowd = one.get("bbox"), one.get("iscrowd", 0)
        crowd = 0 if crowd is None else crowd
        rule(isinstance(box, list) and len(box) == 4, "no four numbers")
        rule(all(type(side) in (int, float) and abs(side) <= 1e7 for side in box), "no number of pixels")
        rule(type(crowd) in (int, bool, float) and crowd in (0, 1), "iscrowd is odd")
        kept[number] = judge([float(side) for side in box], sizes[number_of(one["image_id"])], bool(crowd), judged)
    instances = len(boxes) - judged["crowd"]
    rule(instances < 3 or judged["reaching"] <= instances / 2 or judged["corners"] < 0.95 * instances, "corner pairs")
    return {
        "twice": twice,
        "image_ids": image_ids,
        "names": names,
        "sizes": [sizes[one] for one in image_ids],
        "classes": [one["name"] for one in sorted(classes, key=lambda one: int(one["id"]))],
        "boxes": {number: box for number, box in kept.items() if box},
        "kinds": {
            number: classes[kinds.index(one["category_id"])]["name"]
            for number, one in zip(box_ids, boxes, strict=True)
            if kept[number]
        },
        "policy": {key: judged[key] for key in ("degenerate", "outside", "clipped", "crowd")},
    }


def without_roots(
    classes: list[dict[str, Any]], numbers: list[int], boxes: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Leave out a root category: it bears a class's name, is others' supercategory, and has none and no box."""
    names = [one["name"] for one in classes]
    above = [one.get("supercategory", "") for one in classes]
    used = [one.get("category_id") for one in boxes]
    return [
        one
        for one, number, over in zip(classes, numbers, above, strict=True)
        if names.count(one["name"]) < 2 or one["name"] not in above or over in names or number in used
    ]


def judge(box: list[float], size: list[int], crowd: bool, judged: Counter[str]) -> list[float]:
    """Return a box after the stated policy, empty where it is dropped, and count what was done."""
    if crowd:
        judged["crowd"] += 1
        return box
    low, high = box[:2], [box[0] + box[2], box[1] + box[3]]
    judged["reaching"] += any(end > side + 0.5 for end, side in zip(high, size, strict=True))
    judged["corners"] += all(
        start < end <= side + 0.5 for start, end, side in zip(low, box[2:], size, strict=True)
    )  # read as x1, y1, x2, y2
    if min(box[2:]) <= 0:
        judged["degenerate"] += 1
        return []
    inner_low = [max(start, 0.0) for start in low]
    inner_high = [min(end, float(side)) for end, side in zip(high, size, strict=True)]
    if any(start >= end for start, end in zip(inner_low, inner_high, strict=True)):
        judged["outside"] += 1
        return []
    if max(*(-start for start in low), *(end - side for end, side in zip(high, size, strict=True))) > 0.5:
        clipped = [round(number, 4) for number in (*inner_low, *map(float.__sub__, inner_high, inner_low))]
        judged["clipped" if min(clipped[2:]) > 0 else "outside"] += 1
        return clipped if min(clipped[2:]) > 0 else []
    return box
