"""Memory of the data loader's workers over 10,000 batches: columns of numbers are shared, not copied.

A worker is a fork, which shares the main process's pages until somebody writes to them. Reading a Python object writes
its reference count; reading an array writes nothing. So lists of records grow into one copy per worker, and the columns
of `loading/loaders.py` must not. Measured are the main process and two workers together: the proportional set size
(pages that k processes share count 1/k in each) and the unique one (pages of one process only), after a warm-up and at
the end. Pages of files are left out, because other programs that come and go share those of the libraries. Wanted: the
whole, which is the proportional one, grows by at most 5 %. A step of a few MiB per worker, once, is Python's own:
pathlib interns the parts of every path, and in the end the table of interned strings is made anew.

Run ``.venv/bin/python benchmarks/loader_memory.py [--like lvis|objects365] [--batches N] [--lists]`` from the root of
the repository, on Linux >= 5.4. ``--lists`` measures Python lists in the columns' place.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cissod_bench.contract.presets import SMOKE
from cissod_bench.loading.loaders import ViewsDataset, training_batches
from cissod_bench.loading.sampler import TwoSourceSampler
from cissod_bench.loading.sources import Source

SIZES = {"lvis": (100_000, 1_270_000, 1203), "objects365": (1_700_000, 25_400_000, 365)}  # images, boxes, classes
FILES, WIDTH, HEIGHT = 10, 32, 24
WANTED = 5.0  # percent
# Views as small as the images: what is measured is memory, and pixels would only take time.
SETTINGS = replace(SMOKE, short_side=(24, 32), long_side=40)


class Memory(NamedTuple):
    """Mebibytes of all processes together."""

    proportional: float
    unique: float


class Listed:
    """A column as Python objects, a number or a list of numbers per row; its parts are given as arrays."""

    def __init__(self, column: np.ndarray[Any, Any]) -> None:
        self.rows, self.kind, self.width = column.tolist(), column.dtype, column.shape[1:]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        found = self.rows[key]
        return np.array(found, self.kind).reshape(-1, *self.width) if isinstance(key, slice) else found


def write_images(folder: Path) -> None:
    """Write the few tiny images that all records name."""
    import cv2

    for number in range(FILES):
        pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        (folder / f"patch{number}").mkdir()
        cv2.imwrite(str(folder / name_of(number)), pixels)


def name_of(number: int) -> str:
    """Return a name as long as those of Objects365."""
    return f"patch{number}/objects365_v2_{number:08d}.png"


def draw_source(folder: Path, images: int, boxes: int, classes: int) -> Source:
    """Return a source of so many images and boxes, in columns."""
    rng = np.random.default_rng(0)
    owners = np.sort(rng.integers(0, images, boxes, dtype=np.int32))
    corners = rng.random((boxes, 2), np.float32) * (WIDTH / 2, HEIGHT / 2)
    names = [name_of(number).encode() for number in range(FILES)]
    return Source(
        names=b"".join((names * (images // FILES + 1))[:images]),
        name_ends=np.arange(1, images + 1) * len(names[0]),
        folders=(folder,),
        image_folder=np.zeros(images, np.int8),
        image_ids=np.arange(images) * 7 + 100_000,
        sizes=np.tile(np.array([[WIDTH, HEIGHT]], np.int32), (images, 1)),
        box_ends=np.cumsum(np.bincount(owners, minlength=images)),
        boxes=np.concatenate([corners, corners + 4 + rng.random((boxes, 2), np.float32) * 8], axis=1, dtype=np.float32),
        labels=rng.integers(0, classes, boxes),
        ignored=np.zeros(boxes, np.bool_),
    )


def as_lists(source: Source) -> Source:
    """Return the same source with Python lists for columns."""
    columns = ("name_ends", "image_ids", "sizes", "box_ends", "boxes", "labels", "ignored")
    lists: dict[str, Any] = {name: Listed(getattr(source, name)) for name in columns}
    return replace(source, **lists)


def memory() -> Memory:
    """Return the memory of this process and its children."""
    proportional = unique = 0
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        proportional += sizes["Pss_Anon"] + sizes["Pss_Shmem"]
        unique += sizes["Private_Dirty"]
    return Memory(proportional / 1024, unique / 1024)


def watch(
    source: Source, per_gpu: tuple[int, int], *, warm_up: int, batches: int, every: int, workers: int = 2
) -> Iterator[tuple[int, Memory]]:
    """Load batches and yield (batches since the warm-up, memory) at 0 and after every ``every`` of them.

    Args:
        source: labelled images; the unlabelled ones are the same without their boxes.
        per_gpu: labelled and unlabelled images per batch.
        warm_up: batches before the first measurement.
        batches: loaded after it.
        every: batches between measurements.
        workers: of the loader.
    """
    dataset = ViewsDataset((source, source.without_boxes()), (("sup",), ("weak", "strong")), SETTINGS)
    sampler = TwoSourceSampler((len(source), len(source)), per_gpu, seed=0)
    for number, _ in enumerate(training_batches(dataset, sampler, 0, warm_up + batches, workers), 1 - warm_up):
        if number >= 0 and number % every == 0:
            yield number, memory()


def main(like: str, batches: int, lists: bool) -> None:
    """Print the memory every tenth of the batches and its growth."""
    images, boxes, classes = SIZES[like]
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        source = draw_source(Path(folder), images, boxes, classes)
        source = as_lists(source) if lists else source
        print(f"{images:,} images, {boxes:,} boxes in {'lists' if lists else 'columns'}; 2 workers, 1 + 4 per batch")
        print(f"{'batches':>8}  {'PSS':>9}  {'USS':>9}  {'seconds':>7}")
        started, all_of_them = time.perf_counter(), []
        for number, now in watch(source, (1, 4), warm_up=500, batches=batches, every=max(batches // 10, 1)):
            all_of_them.append(now)
            seconds = time.perf_counter() - started
            print(f"{number:8,}  {now.proportional:5.0f} MiB  {now.unique:5.0f} MiB  {seconds:7.0f}", flush=True)
    for name, wanted in zip(Memory._fields, (f" (wanted: <= {WANTED} %)", ""), strict=True):
        begin, end = getattr(all_of_them[0], name), getattr(all_of_them[-1], name)
        print(f"{name}: {begin:.0f} -> {end:.0f} MiB, growth {100 * (end / begin - 1):+.1f} %{wanted}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--like", choices=SIZES, default="lvis")
    parser.add_argument("--batches", type=int, default=10_000)
    parser.add_argument("--lists", action="store_true")
    words = parser.parse_args()
    main(words.like, words.batches, words.lists)
