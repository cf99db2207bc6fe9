"""Images of shapes on varied backgrounds, drawn by code: the data of tasks that need no download.

Colour, size, place and rotation say nothing about the class; only the outline does. All numbers come from a counter
hashed by SplitMix, not from NumPy's generators, whose streams may change between versions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.files.hashing import splitmix64
from cissod_bench.files.whole_files import make_once

Points: TypeAlias = npt.NDArray[np.float64]
Pixels: TypeAlias = npt.NDArray[np.float32]

VERSION = 3
"""Version of the drawing; it changes when the same numbers would give other images."""

SIZES = ((128, 96), (96, 128), (112, 112), (128, 112), (112, 128))
"""Width and height of the images, pixels: landscape, portrait and square."""

OBJECT_PIXELS = (22.0, 60.0)


class Dice:
    """Random numbers of one image, from a key and a counter.

    Args:
        key: what the numbers depend on.
    """

    def __init__(self, key: str) -> None:
        self._key = np.frombuffer(hashlib.sha256(key.encode()).digest()[:8], "<u8")[0]
        self._count = 0
        self._ready: list[float] = []

    def many(self, count: int) -> Points:
        """Return ``count`` numbers, uniform in [0, 1)."""
        counter = np.arange(self._count, self._count + count, dtype=np.uint64)
        self._count += count
        return (splitmix64(splitmix64(counter) ^ self._key) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number, uniform in [low, high)."""
        if not self._ready:
            self._ready = self.many(128).tolist()  # hashing one by one would take longer than painting
        return low + (high - low) * self._ready.pop()

    def pick(self, weights: Sequence[float]) -> int:
        """Return an index with a probability in proportion to its weight."""
        sums = np.cumsum(weights)
        return int(np.searchsorted(sums, self.number(0, float(sums[-1])), side="right"))


def _ring_of(radii: Sequence[float], count: int) -> Points:
    """Return ``count`` corners around the origin whose radii go round ``radii``; the first points up."""
    angles = [2 * math.pi * k / count - math.pi / 2 for k in range(count)]
    lengths = [radii[k % len(radii)] for k in range(count)]
    return np.array([(r * math.cos(a), r * math.sin(a)) for r, a in zip(lengths, angles, strict=True)])


def _corners(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=np.float64)


def _heart() -> Points:
    angles = [2 * math.pi * k / 40 for k in range(40)]
    x = [math.sin(a) ** 3 for a in angles]
    y = [-(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) / 16 for a in angles]
    return np.array([x, y]).T


def _moon() -> Points:
    outer = [math.pi * (0.25 + 1.5 * k / 27) for k in range(28)]
    inner = [math.pi * (1.62 - 1.24 * k / 23) for k in range(24)]
    points = [(math.cos(a), math.sin(a)) for a in outer]
    return np.array(points + [(0.42 + 0.77 * math.cos(a), 0.77 * math.sin(a)) for a in inner])


def _cross() -> Points:
    arm = ((-0.33, -1.0), (0.33, -1.0), (0.33, -0.33), (1.0, -0.33), (1.0, 0.33), (0.33, 0.33))
    return _corners(*arm, *((-x, -y) for x, y in arm))


OUTLINES: Mapping[str, tuple[Points, ...]] = {
    "circle": (_ring_of([1], 40),),
    "square": (_corners((-1, -1), (1, -1), (1, 1), (-1, 1)),),
    "triangle": (_corners((0, -1), (1, 0.9), (-1, 0.9)),),
    "star": (_ring_of([1, 0.4], 10),),
    "cross": (_cross(),),
    "ring": (_ring_of([1], 40), _ring_of([0.52], 32)),
    "heart": (_heart(),),
    "arrow": (_corners((0, -1), (0.95, 0), (0.36, 0), (0.36, 1), (-0.36, 1), (-0.36, 0), (-0.95, 0)),),
    "moon": (_moon(),),
    "hourglass": (_corners((-0.9, -1), (0.9, -1), (0.16, 0), (0.9, 1), (-0.9, 1), (-0.16, 0)),),
}
"""Shape -> its closed outlines in [-1, 1]; where two overlap there is a hole."""


@dataclass(frozen=True)
class Placed:
    """A shape in an image: its class, outlines in pixels, and box x1, y1, x2, y2 cut to the image."""

    shape: str
    outlines: tuple[Points, ...]
    box: tuple[float, float, float, float]


def place(shape: str, dice: Dice, width: int, height: int) -> Placed:
    """Return a shape at a drawn place, size, aspect and rotation; one in six reaches over the image's edge."""
    low, high = OBJECT_PIXELS
    size = low * (high / low) ** dice.number()
    aspect = math.exp(dice.number(-0.2, 0.2))
    turn = math.radians(dice.number(-12, 12))
    scale = np.array([size / 2 * math.sqrt(aspect), size / 2 / math.sqrt(aspect)])
    spin = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    outlines = [(points * scale) @ spin.T for points in OUTLINES[shape]]
    first, last = outlines[0].min(axis=0), outlines[0].max(axis=0)
    over = 0.2 * (last - first) if dice.number() < 1 / 6 else np.ones(2)
    sign = -1 if over[0] != 1 else 1  # inwards by a pixel, or outwards by up to a fifth of the shape
    low_corner, room = sign * over, np.array([width, height]) - (last - first) - 2 * sign * over
    shift = low_corner + np.array([dice.number(), dice.number()]) * np.maximum(room, 0) - first
    outlines = [points + shift for points in outlines]
    x1, y1 = np.maximum(outlines[0].min(axis=0), 0)
    x2, y2 = np.minimum(outlines[0].max(axis=0), [width, height])
    x1, y1, x2, y2 = (round(float(number), 2) for number in (x1, y1, x2, y2))
    return Placed(shape, tuple(outlines), (x1, y1, x2, y2))


def overlap(one: Placed, other: Placed) -> float:
    """Return the intersection of two boxes over the area of the smaller one, 0 to 1."""
    a, b = one.box, other.box
    inner = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return inner / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _mix(first: Pixels, second: Pixels, share: Pixels) -> Pixels:
    return first + (second - first) * share[..., None]


def _colour(dice: Dice, saturation: float = 1.0) -> Pixels:
    colour = 255 * dice.many(3)
    tinted: Pixels = (colour.mean() + saturation * (colour - colour.mean())).astype(np.float32)
    return tinted


def _clouds(dice: Dice, width: int, height: int, cells: int) -> Pixels:
    """Return smooth noise in [0, 1), (height, width)."""
    import cv2

    coarse = dice.many((cells + 1) ** 2).reshape(cells + 1, cells + 1).astype(np.float32)
    return cast(Pixels, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))


def background(dice: Dice, width: int, height: int) -> Pixels:
    """Return a background, float32 (height, width, 3), 0-255: a gradient, clouds, stripes or tiles, and clutter."""
    import cv2

    down, right = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = dice.number(0, 2 * math.pi)
    along = np.float32(math.cos(angle)) * right + np.float32(math.sin(angle)) * down
    share = (along - along.min()) / (along.max() - along.min())
    pixels = _mix(_colour(dice, 0.3), _colour(dice, 0.3), share)
    kind = dice.pick([1, 1, 1, 1])
    if kind == 1:
        pattern = _clouds(dice, width, height, 3 + int(dice.number(0, 6)))
    elif kind == 2:
        pattern = (np.sin(along * np.float32(dice.number(0.15, 0.6))) > 0).astype(np.float32)
    elif kind == 3:
        tile = int(dice.number(8, 24))
        pattern = ((down // tile + right // tile) % 2).astype(np.float32)
    else:
        pattern = np.zeros((height, width), np.float32)
    pixels = _mix(pixels, _colour(dice, 0.5), pattern * np.float32(dice.number(0.05, 0.3)))
    for _ in range(int(dice.number(0, 4))):  # thin strokes: edges that belong to no shape
        ends = (dice.many(4) * [width, height, width, height]).astype(int).tolist()
        cv2.line(pixels, ends[:2], ends[2:], _colour(dice, 0.5).tolist(), 1, cv2.LINE_AA)
    return pixels


def paint(pixels: Pixels, placed: Placed, dice: Dice) -> None:
    """Paint a shape over an image: a colour that stands out, shaded, half of them with a rim."""
    import cv2

    left, top = math.floor(placed.box[0]), math.floor(placed.box[1])
    right, bottom = math.ceil(placed.box[2]), math.ceil(placed.box[3])
    part = pixels[top:bottom, left:right]  # only this part is touched: a tenth of the work
    mask = np.zeros(part.shape[:2], np.uint8)
    corners = [np.round((points - 0.5 - [left, top]) * 16).astype(np.int32) for points in placed.outlines]
    cv2.fillPoly(mask, corners, 255, cv2.LINE_AA, 4)
    around = part.mean(axis=(0, 1))
    colour = max((_colour(dice) for _ in range(4)), key=lambda one: float(np.abs(one - around).sum()))
    clouds = _clouds(dice, right - left, bottom - top, 2)
    shaded = _mix(colour, np.float32(255) * (colour < 128), np.float32(0.3) * clouds)
    part[:] = _mix(part, shaded, mask.astype(np.float32) / np.float32(255))
    if dice.number() < 0.5:
        rim = np.zeros(part.shape[:2], np.uint8)
        cv2.polylines(rim, corners, True, 255, 1, cv2.LINE_AA, 4)
        part[:] = _mix(part, np.float32(255) - colour, rim.astype(np.float32) * np.float32(0.7 / 255))


def with_noise(pixels: Pixels, dice: Dice) -> npt.NDArray[np.uint8]:
    """Return an image with grey noise in whole grey levels, the last step of a drawing."""
    height, width = pixels.shape[:2]
    noise = (dice.many(height * width) - 0.5).reshape(height, width, 1)
    pixels = pixels + np.float32(dice.number(2, 12)) * noise.astype(np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def draw_image(key: str, weights: Mapping[str, float], most: int) -> tuple[npt.NDArray[np.uint8], list[Placed]]:
    """Return an image, uint8 BGR (height, width, 3), and its shapes.

    Args:
        key: the image's name; the same key gives the same image.
        weights: shape -> how often it is drawn, relative to the others.
        most: shapes an image, 1 to ``most``.
    """
    dice = Dice(key)
    width, height = SIZES[dice.pick([2, 2, 1, 1, 1])]
    pixels = background(dice, width, height)
    shapes, shown = list(weights), list[Placed]()
    for _ in range(1 + int(dice.number(0, most))):
        for _ in range(10):  # a shape that would cover another one is placed elsewhere, or left out
            placed = place(shapes[dice.pick(list(weights.values()))], dice, width, height)
            if all(overlap(placed, other) < 0.3 for other in shown):
                paint(pixels, placed, dice)
                shown.append(placed)
                break
    return with_noise(pixels, dice), shown


def write_shapes(
    folder: Path,
    counts: Mapping[str, int],
    weights: Mapping[str, float],
    *,
    seed: int,
    most: int,
    own_weights: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Write ``images/<role>/`` and ``annotations/<role>.json`` for every role, unless they are there.

    Args:
        folder: where to; made whole or not at all.
        counts: role -> number of images.
        weights: shape -> how often it is drawn; its classes, in this order.
        seed: other seeds give other images.
        most: shapes an image, 1 to ``most``.
        own_weights: role -> the weights of that role, where they differ; of the same shapes.
    """
    own = {role: dict(own) for role, own in (own_weights or {}).items()}
    stamp: dict[str, Any] = {"version": VERSION, "counts": dict(counts), "weights": dict(weights)}
    stamp |= {"seed": seed, "most": most, **({"own_weights": own} if own else {})}

    def make(hidden: Path) -> None:
        for role, count in counts.items():
            of_role = {name: own.get(role, weights)[name] for name in weights}
            _write_role(hidden, role, count, of_role, seed=seed, most=most)

    make_once(folder, stamp, make)


def _write_role(folder: Path, role: str, count: int, weights: Mapping[str, float], *, seed: int, most: int) -> None:
    import cv2

    (folder / "images" / role).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    classes = {name: number for number, name in enumerate(weights, 1)}
    for number in range(1, count + 1):
        pixels, shown = draw_image(f"{seed}/{role}/{number}", weights, most)
        name = f"{number:06d}.png"
        # Fast compression: these files are read far more often than they are written.
        written, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        assert written
        (folder / "images" / role / name).write_bytes(data.tobytes())
        images.append({"id": number, "file_name": name, "width": pixels.shape[1], "height": pixels.shape[0]})
        for placed in shown:
            x1, y1, x2, y2 = placed.box
            box = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": number,
                    "category_id": classes[placed.shape],
                    "bbox": box,
                    "area": round(box[2] * box[3], 2),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for name, number in classes.items()]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "annotations" / f"{role}.json").write_bytes(msgspec.json.encode(content))
