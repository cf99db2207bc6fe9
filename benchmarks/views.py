"""Time of the views of an image: quick transforms beside mmdet's and Pillow's, per operation and per view.

Both run in turns in one process on the same images from the same random state, OpenCV with one thread as in a loader's
workers. Printed are medians in milliseconds of the process's own time and the median of the ratios of pairs. Wanted: a
strong view takes half the time at most, at every size. Run ``.venv/bin/python benchmarks/views.py`` from the root of
the repository; ``--pairs N`` changes how often, ``--quick`` leaves out single operations and the largest size.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from pillow_colours import recoloured_by_pillow

from cissod_bench.contract.settings import FULL, Settings
from cissod_bench.loading import transforms
from cissod_bench.loading.loaders import seeded
from cissod_bench.loading.pipelines import build_transforms
from cissod_bench.loading.transforms import COLOURS
from cissod_bench.loading.views import COLOUR, GEOMETRY, pipeline

SIZES = {"1333 x 800": (480, 800, 1333, 800), "240 px": (240, 320, 240, 180), "128 px": (96, 128, 128, 96)}
VIEWS = ("weak", "sup", "strong")
WANTED = 2.0
Timed: TypeAlias = Callable[[int], float]  # random key -> seconds


def photo(height: int, width: int) -> Any:
    """Return an image with large and small structure, which cannot be written to."""
    numbers = np.random.default_rng(0)
    coarse = numbers.integers(0, 256, (max(height // 16, 2), max(width // 16, 2), 3), np.uint8)
    noise = numbers.normal(0, 6, (height, width, 3))
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    image = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    image.setflags(write=False)
    return image


def sample_of(image: Any) -> dict[str, Any]:
    """Return what a view begins with: an image and seven boxes."""
    from mmdet.structures.bbox import HorizontalBoxes

    height, width = image.shape[:2]
    corners = np.random.default_rng(1).random((7, 4)).astype(np.float32) * np.array([width, height] * 2, np.float32) / 2
    corners[:, 2:] += corners[:, :2]
    return {
        "img": image, "img_id": 1, "img_index": 0, "img_path": "1", "img_shape": (height, width),
        "ori_shape": (height, width), "gt_bboxes": HorizontalBoxes(corners), "gt_bboxes_labels": np.zeros(7, np.int64),
        "gt_ignore_flags": np.zeros(7, bool),
    }  # fmt: skip


@contextmanager
def pillow() -> Iterator[None]:
    """Let Soft Teacher's colours be Pillow's."""
    ours = transforms.recoloured
    transforms.recoloured = recoloured_by_pillow
    try:
        yield
    finally:
        transforms.recoloured = ours


def compare(name: str, slow: Timed, quick: Timed, pairs: int) -> float:
    """Print the medians of two functions that are called in turns, and return the median of the ratios."""
    times: list[tuple[float, float]] = []
    for key in range(-2, pairs):
        pair = []
        for function in (slow, quick) if key % 2 else (quick, slow):
            pair.append(function(abs(key)))
        if key >= 0:
            times.append((pair[0], pair[1]) if key % 2 else (pair[1], pair[0]))
    ratio = median(before / after for before, after in times)
    slow_ms, quick_ms = (1e3 * median(column) for column in zip(*times, strict=True))
    print(f"  {name:32}{slow_ms:9.3f}{quick_ms:9.3f}{ratio:8.2f}x", flush=True)
    return ratio


def operations(image: Any, pairs: int) -> None:
    """Compare every operation alone."""
    for name in COLOUR + GEOMETRY:
        space = [{"type": "RandAugment", "aug_space": [[{"type": name}]], "aug_num": 1}]
        slow, quick = (build_transforms(space, quick=quick) for quick in (False, True))
        compare(f"mmdet's {name}", drawn(slow, image), drawn(quick, image), pairs)
    for name in COLOURS[1:]:
        before, now = (timed(function, image, name) for function in (recoloured_by_pillow, transforms.recoloured))
        compare(f"Soft Teacher's {name}", before, now, pairs)


def drawn(built: Any, image: Any, *, before: bool = False) -> Timed:
    """Return what draws and applies some transforms, as it was done before or is now.

    What was done: the image was copied for every view, and Soft Teacher's colours were Pillow's.
    """

    def run(key: int) -> float:
        sample = sample_of(image)
        with seeded(key), pillow() if before else nullcontext():
            begin = time.process_time()
            built(sample | {"img": image.copy()} if before else sample)
            return time.process_time() - begin

    return run


def timed(function: Callable[[Any, str, int], Any], image: Any, name: str) -> Timed:
    """Return what applies one of Soft Teacher's colours, all levels in turn."""

    def run(key: int) -> float:
        begin = time.process_time()
        function(image, name, key % 9 + 1)
        return time.process_time() - begin

    return run


def views(settings: Settings, image: Any, pairs: int) -> float:
    """Compare every view; return the ratio of the strong one."""
    for view in VIEWS:
        slow, quick = (build_transforms(pipeline(view, settings), quick=quick) for quick in (False, True))
        name = f"{settings.strong_views}: {view}"
        ratio = compare(name, drawn(slow, image, before=True), drawn(quick, image), pairs)
    return ratio


def main() -> int:
    """Print both tables; returns 1 where a strong view gains less than wanted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=90, help="of runs a line")
    parser.add_argument("--quick", action="store_true", help="views only, at the small sizes")
    given = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    least = float("inf")
    for name, (height, width, long_side, short_side) in SIZES.items():
        if given.quick and name.startswith("1333"):
            continue
        print(f"{name}, one thread{'':14}before  quick ms   ratio")
        if not given.quick:
            operations(photo(short_side, long_side), max(given.pairs // 6, 3))
        for kind in ("soft-teacher", "mmdet", "light"):
            settings = replace(FULL, strong_views=kind, long_side=long_side, short_side=(short_side, short_side))
            least = min(least, views(settings, photo(height, width), given.pairs))
    print(f"strong views: at least {least:.2f}x, wanted {WANTED}x")
    return int(least < WANTED)


if __name__ == "__main__":
    raise SystemExit(main())
