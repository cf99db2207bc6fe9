"""Time ``make-splits`` on full-size annotation files: seconds and peak memory of a fresh process.

MS-COCO split 1 is also drawn the usual way in the same run, in turn with ours: pycocotools loads the file, loops over
images and boxes choose, ``json.dump(sort_keys=True)`` writes. Objects365-v2 does not fit into memory that way.

    python benchmarks/make_splits.py                      all three; 7 GB of made files in the temporary folder
    python benchmarks/make_splits.py coco --scale 0.05    a quick try
    python benchmarks/make_splits.py coco --data-root D   files that lie below D, where the task looks for them

Wanted, from MS-COCO's 390 MB: at least 15 times faster within 0.4 of the memory; Objects365-v2: at most 4 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cissod_bench.catalogue import load_task
from cissod_bench.splitting.task import Task

TASKS = {"coco": "coco-split1", "lvis": "lvis", "objects365": "coco-o365"}
WANTED_FASTER, WANTED_MEMORY, WANTED_BYTES = 15, 0.4, 4e9
BLOCK = 1 << 16  # records made at a time
_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # ids below 90 that MS-COCO does not use
IDS = {
    "coco": [kind for kind in range(1, 91) if kind not in _COCO_GAPS],
    "lvis": list(range(1, 1204)),
    "objects365": list(range(1, 366)),
}


@dataclass(frozen=True)
class Layout:
    """Size and records of a data set's annotation file, as published.

    Attributes:
        images, boxes: how many there are in train and in val.
        image, box: text of a record; what stands in ``%(...)`` is filled in.
        spread: boxes of the most frequent class for one of the rarest.
        points: of a polygon.
        by_class: whether the boxes of a class stand together; else those of an image do.
    """

    images: tuple[int, int]
    boxes: tuple[int, int]
    image: str
    box: str
    spread: float
    points: int = 0
    by_class: bool = False


_BOX = (
    '{"segmentation": [[%(polygon)s]],"area": %(area).4f,"iscrowd": 0,"image_id": %(image)d,'
    '"bbox": [%(x).2f,%(y).2f,%(w).2f,%(h).2f],"category_id": %(kind)d,"id": %(id)d}'
)
_FETCHED = '"coco_url": "http://images.cocodataset.org/train2017/%(id)012d.jpg","date_captured": "2013-11-14 11:18:45"'
LAYOUTS = {
    "coco": Layout(
        images=(118_287, 5_000),
        boxes=(860_001, 36_781),
        image='{"license": 3,"file_name": "%(id)012d.jpg",' + _FETCHED + ',"height": %(height)d,"width": %(width)d,'
        '"id": %(id)d}',
        box=_BOX,
        spread=100,
        points=21,
        by_class=True,
    ),
    "lvis": Layout(
        images=(100_170, 19_809),
        boxes=(1_270_141, 244_707),
        image='{"id": %(id)d,"license": 3,"height": %(height)d,"width": %(width)d,' + _FETCHED + ',"neg_category_ids": '
        '[%(kind)d,%(other)d],"not_exhaustive_category_ids": []}',
        box=_BOX.replace('"iscrowd": 0,', ""),
        spread=30_000,
        points=30,
    ),
    "objects365": Layout(
        images=(1_742_289, 80_000),
        boxes=(25_407_598, 1_240_587),
        image='{"height": %(height)d, "id": %(id)d, "license": 5, "width": %(width)d, "file_name": '
        '"images/v1/patch%(patch)d/objects365_v1_%(id)08d.jpg", "url": ""}',
        box='{"id": %(id)d, "iscrowd": 0, "isfake": 0, "area": %(area).10f, "isreflected": 0, "bbox": '
        '[%(x).10f, %(y).10f, %(w).10f, %(h).10f], "image_id": %(image)d, "category_id": %(kind)d}',
        spread=100_000,
    ),
}


def write_annotations(path: Path, name: str, categories: list[dict[str, Any]], *, part: int, scale: float) -> None:
    """Write a data set's train (part 0) or val (part 1) file with made numbers: the same each time."""
    layout, dice = LAYOUTS[name], np.random.default_rng(part)
    images, boxes = (max(20 * len(categories), int(scale * full[part])) for full in (layout.images, layout.boxes))
    kinds = np.array([one["id"] for one in categories])
    columns = {
        "id": dice.permutation(2 * images)[:images] + 1,
        "width": dice.integers(400, 641, images),
        "height": dice.integers(400, 641, images),
        "patch": dice.integers(0, 51, images),
        "kind": dice.choice(kinds, images),
        "other": dice.choice(kinds, images),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".half")
    with half.open("w", encoding="ascii") as out:
        out.write('{"info": {"description": "made for measurements"}, "licenses": [], "images": [')
        image = layout.image.replace("train2017", "val2017") if part else layout.image
        write_records(out, image, ({key: values[rows] for key, values in columns.items()} for rows in blocks(images)))
        out.write('], "annotations": [')
        write_records(out, layout.box, box_columns(layout, columns, kinds, boxes, dice))
        out.write('], "categories": ' + json.dumps(categories) + "}")
    half.replace(path)


def blocks(count: int) -> Iterator[slice]:
    """Yield the slices of a few ten thousand rows each."""
    return (slice(start, start + BLOCK) for start in range(0, count, BLOCK))


def box_columns(
    layout: Layout,
    images: dict[str, np.ndarray[Any, Any]],
    kinds: np.ndarray[Any, Any],
    count: int,
    dice: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    """Yield the columns of the box records, a block at a time; every class has twelve boxes at least."""
    shares = np.geomspace(1, 1 / layout.spread, len(kinds))
    kind = dice.choice(len(kinds), count, p=shares / shares.sum()).astype(np.int16)
    kind[dice.choice(count, 12 * len(kinds), replace=False)] = np.repeat(np.arange(len(kinds)), 12)
    image = np.sort(dice.integers(0, len(images["id"]), count, dtype=np.int32))
    order = np.argsort(kind, kind="stable") if layout.by_class else np.arange(count)
    numbers = dice.random((4096, 2 * layout.points)) * 400
    polygons = np.array([",".join(f"{number:.2f}" for number in row) for row in numbers.tolist()], object)
    for rows in blocks(count):
        chosen = order[rows]
        sides = np.stack([images[side][image[chosen]] for side in ("width", "height")])
        w, h = np.maximum(2, dice.random(sides.shape) ** 2 * 0.9 * sides)
        x, y = dice.random(sides.shape) * (sides - (w, h))
        yield {
            "id": chosen + 1,
            "image": images["id"][image[chosen]],
            "kind": kinds[kind[chosen]],
            "polygon": dice.choice(polygons, len(chosen)),
            **{"x": x, "y": y, "w": w, "h": h, "area": w * h},
        }


def write_records(out: IO[str], template: str, blocks_of_columns: Iterator[dict[str, Any]]) -> None:
    """Write records with commas between them."""
    separator = ""
    for columns in blocks_of_columns:
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        out.write(separator + ",".join(template % dict(zip(columns, row, strict=True)) for row in rows))
        separator = ","


def usual_way(annotations: Path, folder: Path) -> dict[str, int]:
    """Draw split 1 the usual way, write its three files and return the number of images in each part."""
    from pycocotools.coco import COCO

    coco = COCO(str(annotations))
    minority = set(coco.getCatIds(catNms=list(load_task(TASKS["coco"]).minority)))
    images = coco.getImgIds()
    random.Random(0).shuffle(images)

    held, d_s = Counter[int](), []  # D_s: images with a minority box until every minority class has ten
    for image in images:
        if all(held[kind] >= 10 for kind in minority):
            break
        boxes = coco.loadAnns(coco.getAnnIds(imgIds=[image], iscrowd=False))
        if found := [box["category_id"] for box in boxes if box["category_id"] in minority]:
            held.update(found)
            d_s.append(image)
    with_majority = []
    for image in images:
        boxes = coco.loadAnns(coco.getAnnIds(imgIds=[image], iscrowd=False))
        if any(box["category_id"] not in minority for box in boxes):
            with_majority.append(image)
    drawn = set(d_s)
    d_m = [image for image in with_majority if image not in drawn][: round(0.1 * len(with_majority))]
    drawn.update(d_m)
    d_u = [image for image in images if image not in drawn]

    shown = coco.loadAnns(coco.getAnnIds(imgIds=d_s))
    shown += [box for box in coco.loadAnns(coco.getAnnIds(imgIds=d_m)) if box["category_id"] not in minority]
    contents = {
        "labelled": (coco.loadImgs(d_s + d_m), shown),
        "unlabelled": (coco.loadImgs(d_u), []),
        "hidden": (coco.loadImgs(d_u), coco.loadAnns(coco.getAnnIds(imgIds=d_u))),
    }
    for name, (records, boxes) in contents.items():
        content = {"images": records, "annotations": boxes, "categories": coco.dataset["categories"]}
        with (folder / f"{name}.json").open("w", encoding="utf-8") as out:
            json.dump(content, out, sort_keys=True)
    return {"D_m": len(d_m), "D_s": len(d_s), "unlabelled": len(d_u)}


class Measured(NamedTuple):
    """A call's wall time in seconds, the most memory it held in bytes, and what it printed."""

    seconds: float
    memory: int
    printed: str


def measured(command: list[str]) -> Measured:
    """Run a command in a fresh process.

    Raises:
        SystemExit: it failed.
    """
    os.sync()  # what earlier calls have left to be written is not this one's matter
    with tempfile.TemporaryFile("w+") as out:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        return Measured(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), out.read())


def parts(counts: dict[str, int]) -> tuple[int, int]:
    """Return what both ways must agree in: the images of D_m, and those of all parts."""
    return counts["D_m"], counts["D_m"] + counts["D_s"] + counts["unlabelled"]


def compare(name: str, root: Path, work: Path, repeats: int) -> None:
    """Draw a task ``repeats`` times, MS-COCO in turn with the usual way, and print a line for each way."""
    task = load_task(TASKS[name])
    ours, usual = [], []
    for _ in range(repeats):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        command = [sys.executable, "-m", "cissod_bench", "make-splits", "--task", TASKS[name], "--json", "-q"]
        ours.append(measured([*command, "--data-root", str(root), "--work-dir", str(work)]))
        if name == "coco":
            usual.append(measured([sys.executable, __file__, "--usual", str(root / task.inputs["train"]), str(work)]))
            counts = [json.loads(ours[-1].printed)[0]["counts"], json.loads(usual[-1].printed.splitlines()[-1])]
            assert parts(counts[0]) == parts(counts[1]), counts
    size = sum((root / path).stat().st_size for path in task.inputs.values())
    print(f"{task.title}: {size / 1e6:,.0f} MB of annotations")
    for title, calls in (("ours", ours), ("usual way", usual)):
        if calls:
            seconds = sorted(call.seconds for call in calls)
            spread = f"{seconds[0]:.1f}-{seconds[-1]:.1f} s in {repeats} calls"
            memory = max(call.memory for call in calls) / 1e6
            print(f"  {title:<9} median {statistics.median(seconds):7.1f} s ({spread}), peak {memory:7,.0f} MB")
    if usual:
        faster = statistics.median(other.seconds / one.seconds for one, other in zip(ours, usual, strict=True))
        memory = max(call.memory for call in ours) / max(call.memory for call in usual)
        print(
            f"  {faster:.1f} times faster (wanted {WANTED_FASTER}), {memory:.2f} of the memory (wanted {WANTED_MEMORY})"
        )
    if name == "objects365":
        print(f"  wanted: peak {WANTED_BYTES / 1e6:,.0f} MB at most")
    sys.stdout.flush()


def categories_of(name: str) -> list[dict[str, Any]]:
    """Return the category records of a data set; MS-COCO's names are the real ones, which its splits ask for."""
    real: dict[int, str] = {}
    if name == "coco":
        from mmdet.datasets import CocoDataset

        real = dict(zip(IDS["coco"], CocoDataset.METAINFO["classes"], strict=True))
    return [{"id": kind, "name": real.get(kind, f"class {kind}"), "frequency": "f"} for kind in IDS[name]]


def make_missing(task: Task, root: Path, scale: float) -> None:
    """Write the annotation files of a task that are not there."""
    for role, path in task.inputs.items():
        name = next(known for known in LAYOUTS if path.startswith(known))
        if not (root / path).is_file():
            # In another process: a child's peak memory counts what its parent holds when it starts.
            with ProcessPoolExecutor(1) as pool:
                part = 1 if role == "val" else 0
                pool.submit(write_annotations, root / path, name, categories_of(name), part=part, scale=scale).result()


def main() -> None:
    """Make what files are missing and time each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="|".join(TASKS))
    parser.add_argument("--scale", type=float, default=1.0, help="size of the files made, 1 for the real one's")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data-root", type=Path, help="where the files lie, or are to be made and kept")
    parser.add_argument("--usual", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.usual:
        print(json.dumps(usual_way(*options.usual)))
        return
    if unknown := [name for name in options.names if name not in TASKS]:
        parser.error(f"there is no {unknown[0]!r}; known: {', '.join(TASKS)}")
    for name in options.names or TASKS:
        with tempfile.TemporaryDirectory() as folder:
            root = options.data_root or Path(folder) / "data"
            make_missing(load_task(TASKS[name]), root, options.scale)
            compare(name, root, Path(folder) / "work", options.repeats)


if __name__ == "__main__":
    main()
