"""Ways to spoil JSON text: bytes, tokens, values, layout; each drawn from the dice it is given."""

from __future__ import annotations

import copy
import gzip
import json
import random
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

NUMBERS = (
    "NaN", "-Infinity", "1e999", "-1e999", "-1", "0", "-0", "0.5", "1e2", "1E-7", "01", "1.", ".5", "+1", "0x10", "1_0",
    "--1", "1e", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "4611686018427387904",
    "4611686018427387905", "18446744073709551616", "1" + "0" * 400, "1000000", "1000001", "10000000.5", "1e-400", '"7"',
    "true", "null", "[]", "{}", "",
)  # fmt: skip
STRINGS = (
    "", " ", "..", "../x", "a/../../x", "/etc/passwd", "C:\\\\x", "\\\\host\\x", "a\\u0000b", "\\ud800",
    "\\udfff\\ud800", "\\ud83d\\ude00", "\\u202e", "\\x", "\\", "é", "日本", "\u2028", "\x7f", "\x00", "\n", "],[",
    "},{", '\\"},{\\"', "coco", "a:b", "1", "x" * 5000,
)  # fmt: skip
KEYS = (
    "id", "image_id", "category_id", "bbox", "iscrowd", "width", "height", "file_name", "coco_url", "root", "name",
    "images", "annotations", "categories", "info", "area", "ID", "\\u0069d", "x", "",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, -1, 1.0, 0.5, -0.0, 1e7, 1e-9, 2**31, 2**62, 2**62 + 1, 2**63, 2**64, 10**30, "", "1",
    "a", "../x", [], {}, [1], [[]], [{}], {"id": 1}, [1, 2, 3, 4], [0, 0, 0, 0], [-5, -5, 20, 20], [1, 2, 3],
    [1, 2, 3, 4, 5], [1e6, 1e6, 5, 5], [-9.99999, 3, 10.0, 5], [3, 3, 1e7, 1e7], "\ud800", "\x00",
)  # fmt: skip
TOKENS = (
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"},{", b"}]", b"]}", b"},{}", b" ", b"\x00", b"\xff", b"\xc3",
    b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r\n", b"\t", b"\x0b", b"\xc2\xa0", b"//x\n", b"/**/", b"NaN", b"null",
    b"\xf4\x90\x80\x80",
)  # fmt: skip

Mutation = Callable[[bytes, random.Random], bytes]


def span(text: bytes, dice: random.Random) -> slice:
    """Return a place in a text: often short, sometimes long."""
    start = dice.randrange(len(text) + 1)
    return slice(start, start + dice.choice((1, 1, 2, 5, 30, 200, 5000)))


def matched(pattern: bytes, new: Callable[[random.Random], str]) -> Mutation:
    """Return the mutation that replaces one match of a pattern."""

    def change(text: bytes, dice: random.Random) -> bytes:
        found = [match.span() for match in re.finditer(pattern, text)]
        if not found:
            return text
        start, stop = dice.choice(found)
        return text[:start] + new(dice).encode("utf-8", "surrogatepass") + text[stop:]

    return change


def cut_off(text: bytes, dice: random.Random) -> bytes:
    return text[: dice.randrange(len(text) + 1)]


def flip_bytes(text: bytes, dice: random.Random) -> bytes:
    changed = bytearray(text)
    for _ in range(dice.choice((1, 1, 2, 8)) if text else 0):
        changed[dice.randrange(len(changed))] ^= dice.choice((1 << dice.randrange(8), dice.randrange(256)))
    return bytes(changed)


def delete_span(text: bytes, dice: random.Random) -> bytes:
    place = span(text, dice)
    return text[: place.start] + text[place.stop :]


def repeat_span(text: bytes, dice: random.Random) -> bytes:
    place = span(text, dice)
    return text[: place.stop] + text[place] * dice.choice((1, 1, 3)) + text[place.stop :]


def move_span(text: bytes, dice: random.Random) -> bytes:
    place, to = span(text, dice), dice.randrange(len(text) + 1)
    return text[:to] + text[place] + text[to:]


def insert_token(text: bytes, dice: random.Random) -> bytes:
    at = dice.choice((0, len(text), dice.randrange(len(text) + 1)))
    return text[:at] + dice.choice(TOKENS) + text[at:]


def nest(text: bytes, dice: random.Random) -> bytes:
    """Put brackets without end in the place of a value."""
    depth = dice.choice((2, 100, 900, 1100, 50_000))
    opening, closing = dice.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")))
    value = opening * depth + b"1" + closing * dice.choice((depth, depth, depth - 1, 0))
    found = [match.end() for match in re.finditer(rb'":\s*', text)]
    at = dice.choice(found) if found else 0
    return text[:at] + value + dice.choice((b",", b"")) + text[at:]


def restyle(text: bytes, dice: random.Random) -> bytes:
    """Lay the same content out in another way."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text.replace(b"\n", b"\r\n")
    if isinstance(value, dict):
        value = dict(dice.sample(list(value.items()), len(value)))
    style = dice.choice(
        ({}, {"indent": 2}, {"indent": "\t"}, {"separators": (",", ":")}, {"separators": (" , ", " : ")})
    )
    return json.dumps(value, ensure_ascii=dice.random() < 0.5, **style).encode("utf-8", "surrogatepass")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield container and key of everything in a parsed file."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def replace_value(text: bytes, dice: random.Random) -> bytes:
    """Replace, remove or repeat a value somewhere in the parsed file."""
    try:
        value = json.loads(text)
        found = list(places(value))
    except (ValueError, RecursionError):
        return text
    if not found:
        return text
    holder, key = dice.choice(found)
    what = dice.randrange(3)
    if what == 0:
        holder[key] = copy.deepcopy(dice.choice(VALUES))
    elif what == 1:
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(dice.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
    else:
        holder[dice.choice(KEYS)] = copy.deepcopy(holder[key])
    return json.dumps(value).encode("utf-8", "surrogatepass")


MUTATIONS: tuple[Mutation, ...] = (
    cut_off,
    flip_bytes,
    flip_bytes,
    delete_span,
    repeat_span,
    move_span,
    insert_token,
    insert_token,
    nest,
    restyle,
    replace_value,
    replace_value,
    replace_value,
    replace_value,
    matched(rb"-?\d+(\.\d+)?", lambda dice: dice.choice(NUMBERS)),
    matched(rb"-?\d+(\.\d+)?", lambda dice: str(dice.choice((dice.randrange(-9, 99), dice.uniform(-99, 999))))),
    matched(rb'(?<=")[^"\\]*(?=")', lambda dice: dice.choice(STRINGS)),
    matched(rb'(?<=")[^"\\]*(?="\s*:)', lambda dice: dice.choice(KEYS)),
    matched(rb"(?<=\{)", lambda dice: f'"{dice.choice(KEYS)}":{dice.choice(NUMBERS)},'),
)


def mutated(text: bytes, dice: random.Random) -> bytes:
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        text = dice.choice(MUTATIONS)(text, dice)
    return text


def packed(text: bytes, dice: random.Random) -> bytes:
    """Return a gzip file made of a text: whole, cut off, changed, in two streams, twice, or filled up with zeros."""
    data, at = gzip.compress(text, mtime=0), dice.randrange(len(text) + 1)
    place = dice.randrange(2, len(data))  # behind the two bytes that tell a gzip file
    flipped = bytes([data[place] ^ (1 << dice.randrange(8))])
    return dice.choice((
        data,
        data[:place],
        data[:place] + flipped + data[place + 1 :],
        gzip.compress(text[:at], mtime=0) + gzip.compress(text[at:], mtime=0),
        data + data,
        data + bytes(dice.randrange(1, 600)),
        data + b"{}",
    ))  # fmt: skip


def unpacked(data: bytes) -> bytes | None:
    """Return the text of a file, None where it is a broken gzip stream."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return None
