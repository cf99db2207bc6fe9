"""Bad annotation files, one case a row: exit code 3, the file and the place named, nothing written."""

# ruff: noqa: E501 - a case is a row

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Content = dict[str, Any]


def text(change: Callable[[Content], Any]) -> Callable[[bytes], bytes]:
    """Make a change of the parsed file into a change of its bytes."""

    def changed(data: bytes) -> bytes:
        content = json.loads(data)
        change(content)
        return json.dumps(content).encode()

    return changed


def put(value: Any, *place: Any) -> Callable[[bytes], bytes]:
    """Put a value at a place such as ("annotations", 17, "bbox", 2)."""

    def change(content: Any) -> None:
        for key in place[:-1]:
            content = content[key]
        content[place[-1]] = value

    return text(change)


def drop(*place: Any) -> Callable[[bytes], bytes]:
    """Remove what stands at a place."""

    def change(content: Any) -> None:
        for key in place[:-1]:
            content = content[key]
        del content[place[-1]]

    return text(change)


def raw(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Replace the first occurrence of some bytes."""

    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    return change


def copy_first(key: str) -> Callable[[bytes], bytes]:
    return text(lambda content: content[key].append(dict(content[key][0])))


def corners(content: Content) -> None:
    for box in content["annotations"]:
        x, y, width, height = box["bbox"]
        box["bbox"] = [x, y, x + width, y + height]


# name: (change of the file's bytes, what the message must hold besides the file's path)
CASES: dict[str, tuple[Callable[[bytes], bytes | None], tuple[str, ...]]] = {
    "missing": (lambda data: None, ("does not exist", "--data-root")),
    "empty": (lambda data: b"", ("is empty (0 bytes)",)),
    "blank": (lambda data: b" \n", ("cut off at byte 2",)),
    "byte order mark": (lambda data: b"\xef\xbb\xbf" + data, ("byte order mark", "UTF-8")),
    "utf-16": (lambda data: data.decode().encode("utf-16"), ("byte order mark",)),
    "html": (lambda data: b"<!DOCTYPE html>", ("line 1, byte 0", "not JSON", "<!DOCTYPE")),
    "a list": (lambda data: b"[]", ("not an array (a results file?)",)),
    "a string": (lambda data: b'"images"', ("not JSON: '{' is expected",)),
    "an empty object": (lambda data: b"{}", ("the key 'images' is missing",)),
    "cut off in a record": (lambda data: data[: data.rindex(b'"bbox"')], ("cut off at byte", "annotations[", "not closed")),
    "cut off between records": (lambda data: data[: data.rindex(b'{"id"', 0, data.index(b'"annotations"')) - 1], ("cut off", "images[")),
    "cut off behind the arrays": (lambda data: data[:-1], ("cut off at byte",)),
    "cut off in the key": (lambda data: data[: data.index(b'"annotations"') + 6], ("cut off at byte", "a key in quotes")),
    "text behind the object": (lambda data: data + b"{}", ("nothing may follow",)),
    "two objects' keys": (lambda data: data[:-1] + b',"images":[]}', ("the key 'images' stands twice",)),
    "a trailing comma": (lambda data: data[:-1] + b",}", ("a key in quotes is expected",)),
    "a comma too many in the array": (raw(b"}],", b"},],"), ("images[40]", "an object is expected")),
    "no comma between records": (raw(b'},{"id":2', b'}{"id":2'), ("images[1]", "',' or ']' is expected")),
    "a broken record": (raw(b'"image_id":', b'"image_id";'), ("annotations[0]", "not JSON")),
    "a control character": (raw(b"000001.png", b"00\n001.png"), ("images[0]", "invalid character")),
    "not utf-8": (raw(b"000001.png", b"\xff00001.png"), ("line 1, byte 32", "not UTF-8")),
    "not utf-8 in a field of no interest": (raw(b'{"id":2,', b'{"note":"\xe9","id":2,'), ("line 1", "not UTF-8")),
    "not utf-8 in a class": (raw(b"arrow", b"\xe9rrow"), ("line 1", "not UTF-8")),
    "not utf-8 in a key": (raw(b"categories", b"\xe9ategories"), ("line 1", "not UTF-8")),
    "a control character in a key": (raw(b'"categories"', b'"cat\negories"'), ("the key is not JSON", "invalid character")),
    "half a surrogate pair in a key": (raw(b'"categories"', b'"\\ud800"'), ("the key is not JSON",)),
    "a number among records": (text(lambda one: one["annotations"].insert(1, 5)), ("annotations[1]", "object")),
    "no images": (drop("images"), ("the key 'images' is missing",)),
    "no annotations": (drop("annotations"), ("the key 'annotations' is missing",)),
    "no categories": (drop("categories"), ("the key 'categories' is missing",)),
    "images an object": (put({}, "images"), ("'images' must be an array",)),
    "annotations null": (put(None, "annotations"), ("'annotations' must be an array",)),
    "categories a number": (put(3, "categories"), ("categories: Expected `array`, got `int`",)),
    "categories empty": (put([], "categories"), ("categories must hold 1 to 32767 classes",)),
    "an image without a width": (drop("images", 3, "width"), ("images[3]", "missing required field `width`")),
    "an image without a name": (drop("images", 3, "file_name"), ("images[3]", "missing required field `file_name`")),
    "an image of width 0": (put(0, "images", 3, "width"), ("images[3].width", ">= 1")),
    "a huge height": (put(10**12, "images", 3, "height"), ("images[3].height", "<= 1000000")),
    "a height in text": (put("96", "images", 3, "height"), ("images[3].height", "Expected `int`, got `str`")),
    "an image id in text that stands as a number too": (put("7", "images", 3, "id"), ("images[6].id is 7, as is images[3]",)),
    "an id of no letters": (put("", "images", 3, "id"), ("images[3].id", "Expected `int`, got `str`")),
    "an id that is true": (put(True, "images", 3, "id"), ("images[3].id", "Expected `int`, got `bool`")),
    "a class id in text": (put("1", "categories", 0, "id"), ("categories[0].id", "Expected `int`, got `str`")),
    "a box's class in text": (put("1", "annotations", 7, "category_id"), ("annotations[7].category_id", "Expected `int`, got `str`")),
    "an id with a fraction": (put(4.5, "images", 3, "id"), ("images[3].id", "Expected `int`, got `float`")),
    "a name that is a number": (put(4, "images", 3, "file_name"), ("images[3].file_name", "Expected `str`")),
    "a box without an image": (drop("annotations", 7, "image_id"), ("annotations[7]", "`image_id`")),
    "a box without a class": (drop("annotations", 7, "category_id"), ("annotations[7]", "`category_id`")),
    "a box without an id": (drop("annotations", 7, "id"), ("annotations[7]", "`id`")),
    "a box without numbers": (drop("annotations", 7, "bbox"), ("annotations[7]", "`bbox`")),
    "three numbers": (put([1, 2, 3], "annotations", 7, "bbox"), ("annotations[7].bbox", "length 4")),
    "five numbers": (put([1, 2, 3, 4, 5], "annotations", 7, "bbox"), ("annotations[7].bbox", "length 4")),
    "a number in text": (put("3", "annotations", 7, "bbox", 2), ("annotations[7].bbox[2]", "Expected `float`, got `str`")),
    "a null": (put(None, "annotations", 7, "bbox", 2), ("annotations[7].bbox[2]", "got `null`")),
    "a huge coordinate": (put(1e300, "annotations", 7, "bbox", 2), ("annotations[7].bbox[2]", "<= 10000000")),
    "NaN": (put(float("nan"), "annotations", 7, "bbox", 2), ("annotations[7]", "NaN is no JSON number")),
    "Infinity": (put(float("inf"), "annotations", 7, "bbox", 2), ("annotations[7]", "Infinity is no JSON number")),
    "minus Infinity": (put(-float("inf"), "annotations", 7, "bbox", 2), ("annotations[7]", "-Infinity")),
    "a number beyond floats": (raw(b'"bbox":[', b'"bbox":[1e999,'), ("annotations[0].bbox[0]", "out of range")),
    "a huge class id": (put(10**30, "annotations", 7, "category_id"), ("annotations[7].category_id", "<=")),
    "a number that is no id": (put(10**400, "annotations", 7, "id"), ("annotations[7].id", "<=")),
    "a decimal beyond what floats hold": (put(1e20, "annotations", 7, "id"), ("annotations[7].id", "Expected `int`, got `float`")),
    "a width with a fraction": (put(64.5, "images", 3, "width"), ("images[3].width", "Expected `int`, got `float`")),
    "crowd one half": (put(0.5, "annotations", 7, "iscrowd"), ("annotations[7].iscrowd",)),
    "a fault behind a decimal": (text(lambda one: (one["images"][0].update(id=1.0), one["images"][5].update(width=None))), ("images[5].width", "got `null`")),
    "crowd 2": (put(2, "annotations", 7, "iscrowd"), ("annotations[7].iscrowd", "<= 1")),
    "crowd in text": (put("no", "annotations", 7, "iscrowd"), ("annotations[7].iscrowd",)),
    "an image twice": (copy_first("images"), ("images[40].id is 1, as is images[0].id",)),
    "a box twice": (copy_first("annotations"), (".id is 1, as is annotations[0].id",)),
    "a class id twice": (put(1, "categories", 2, "id"), ("categories[2].id is 1, as is categories[0].id",)),
    "a class name twice": (put("circle", "categories", 2, "name"), ("categories[2].name is 'circle', as is categories[0]",)),
    "a class without a name": (drop("categories", 2, "name"), ("categories[2]", "`name`")),
    "a box of an unknown image": (put(999, "annotations", 7, "image_id"), ("annotations[7].image_id is 999", "no image")),
    "a box of an unknown class": (put(77, "annotations", 7, "category_id"), ("annotations[7].category_id is 77", "no category")),
    "boxes but no images": (put([], "images"), ("annotations[0].image_id is 1", "no image")),
    "a name that climbs": (put("../a.png", "images", 3, "file_name"), ("images[3].file_name", "'../a.png'")),
    "an absolute name": (put("/etc/passwd", "images", 3, "file_name"), ("images[3].file_name", "relative")),
    "a NUL in a name": (put("a\0.png", "images", 3, "file_name"), ("images[3].file_name", "printable")),
    "an empty name": (put("", "images", 3, "file_name"), ("images[3].file_name", "printable")),
    "corner pairs": (text(corners), ("annotations[*].bbox", "[x, y, width, height]", "x2 - x1")),
    "no box of a minority class": (
        text(lambda one: one.update(annotations=[box for box in one["annotations"] if box["category_id"] != 5])),
        ("each class to be covered needs 3 boxes", "'arrow' (0)"),
    ),
    "a record nested without end": (
        raw(b'{"id":2,', b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b',"id":2,'), ("images[0]", "nests too deeply")
    ),
    "a value nested without end": (lambda data: data[:-1] + b',"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}", ("'x'", "recursion")),
    "a broken gzip stream": (lambda data: gzip.compress(data)[:-20], ("broken gzip",)),
    "gzip of nothing": (lambda data: gzip.compress(b""), ("is empty (0 bytes)",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_bad_file_is_refused_and_nothing_is_written(
    name: str, tiny_coco: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    change, wanted = CASES[name]
    path = tiny_coco / "tiny/annotations/train.json"
    data = change(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    done = call(
        "make-splits", "--task", tiny_coco / "tiny.toml", "--data-root", tiny_coco, "--work-dir", tmp_path / "work"
    )
    assert done.code == 3, done.err
    assert str(path) in done.err
    assert "\n  -> " in done.err  # the remedy
    assert [part for part in wanted if part not in done.err] == [], done.err
    assert "Traceback" not in done.err
    left = [path.name for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert left in ([], [".seed0.lock"])


@pytest.mark.parametrize("name", ["empty", "cut off in a record", "NaN", "corner pairs", "a broken gzip stream"])
def test_the_val_file_is_checked_as_well(name: str, tiny_coco: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    path = tiny_coco / "tiny/annotations/val.json"
    data = CASES[name][0](path.read_bytes())
    assert data is not None
    path.write_bytes(data)
    done = call(
        "make-splits", "--task", tiny_coco / "tiny.toml", "--data-root", tiny_coco, "--work-dir", tmp_path / "work"
    )
    assert done.code == 3, done.err
    assert str(path) in done.err
    assert "\n  -> " in done.err  # the remedy


def test_a_folder_in_place_of_a_file_is_named(tiny_coco: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    path = tiny_coco / "tiny/annotations/train.json"
    path.unlink()
    path.mkdir()
    done = call(
        "make-splits", "--task", tiny_coco / "tiny.toml", "--data-root", tiny_coco, "--work-dir", tmp_path / "work"
    )
    assert done.code == 3
    assert str(path) in done.err


def test_the_line_of_a_fault_is_counted(tiny_coco: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    path = tiny_coco / "tiny/annotations/train.json"
    lines = json.dumps(json.loads(path.read_bytes()), indent=1).splitlines()
    row = next(number for number, line in enumerate(lines) if '"bbox"' in line)
    lines[row + 1] = "nonsense,"
    path.write_text("\n".join(lines), encoding="utf-8")
    record = max(number for number in range(row) if lines[number].strip() == "{")
    done = call(
        "make-splits", "--task", tiny_coco / "tiny.toml", "--data-root", tiny_coco, "--work-dir", tmp_path / "work"
    )
    assert f"line {record + 1}, " in done.err
