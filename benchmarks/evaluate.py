"""Time scoring against the reference scorers: pycocotools at the size of COCO val, lvis-api at a quarter of LVIS val.

Both ways read the same two files and score all classes, each time in a fresh process; they take turns. Seconds run from
the files to the numbers, imports excluded; the peak is that of the whole process. A reference is used as its authors
show: load, evaluate, accumulate, summarise. Its numbers (all, AP50, AP75, groups, every class) must equal ours.

    python benchmarks/evaluate.py --data DATA_ROOT [--only coco|lvis] [--scale 0.1] [--rounds 1]

DATA_ROOT (default: the variable CISSOD_TEST_DATA) holds ``coco/annotations/instances_val2017.json`` or ``.json.gz``.
The LVIS files are made here, with the classes of ``lvis/lvis_v1_train_cat_info.json`` where that is there. Detections
are drawn with a fixed seed.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

Groups: TypeAlias = Mapping[str, Sequence[str]]
Numbers: TypeAlias = dict[str, float | None]

EQUAL = 1e-9  # points


@dataclass(frozen=True)
class Row:
    """One comparison: with whom, how many times faster is wanted, and its size; ``max_dets`` detections per image."""

    metric: str
    reference: str
    wanted: int
    images: int
    max_dets: int


ROWS = (Row("coco", "pycocotools", 40, 5000, 100), Row("lvis", "lvis", 50, 4000, 300))


def coco_truth(data: Path, images: int) -> dict[str, Any]:
    """Return COCO val2017, or its first images."""
    path = data / "coco" / "annotations" / "instances_val2017.json"
    packed = path.with_name(path.name + ".gz")
    if not (path.is_file() or packed.is_file()):
        raise SystemExit(f"{path} is missing: pass --data DATA_ROOT, or --only lvis, which needs no data")
    raw = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
    content: dict[str, Any] = msgspec.json.decode(raw)
    kept = content["images"][:images]
    ids = {image["id"] for image in kept}
    return {**content, "images": kept, "annotations": [a for a in content["annotations"] if a["image_id"] in ids]}


def lvis_truth(data: Path, images: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return a file of the format, classes and density of LVIS v1 val, with polygons.

    An image has 12 boxes of up to eight classes, up to eight classes that it is known to lack, and one whose boxes are
    not all annotated.
    """
    categories = lvis_categories(data)
    class_ids = np.array([category["id"] for category in categories])
    shares = np.array([category["instance_count"] for category in categories], float)
    shares /= shares.sum()
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, images + 1):
        width, height = 640, 480
        drawn = class_ids[rng.choice(len(categories), 8, p=shares)]
        absent = np.setdiff1d(rng.choice(class_ids, 8), drawn)
        records.append(
            {
                "id": number,
                "width": width,
                "height": height,
                "coco_url": f"http://images.cocodataset.org/val2017/{number:012}.jpg",
                "neg_category_ids": absent.tolist(),
                "not_exhaustive_category_ids": drawn[:1].tolist(),
            }
        )
        for category in rng.choice(drawn, 12).tolist():
            box = random_boxes(1, width, height, rng)[0]
            corners = box[:2] + box[2:] * rng.random((40, 2))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": box.tolist(),
                    "area": round(float(box[2] * box[3] * 0.6), 2),
                    "segmentation": [corners.round(2).ravel().tolist()],
                }
            )
    return {"images": records, "categories": categories, "annotations": annotations}


def lvis_categories(data: Path) -> list[dict[str, Any]]:
    """Return the 1203 classes of LVIS v1 with their counts; invented ones, as unequal, where the file is missing."""
    path = data / "lvis" / "lvis_v1_train_cat_info.json"
    if path.is_file():
        listed: list[dict[str, Any]] = msgspec.json.decode(path.read_bytes())
        return sorted(listed, key=lambda category: category["id"])
    counts = [max(1, round(50_000 / rank**1.2)) for rank in range(1, 1204)]
    return [
        {
            "id": number,
            "name": f"class {number}",
            "instance_count": count,
            "frequency": "r" if count <= 10 else "c" if count <= 100 else "f",
        }
        for number, count in enumerate(counts, 1)
    ]


def random_boxes(count: int, width: int, height: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return boxes x, y, width, height of at least 8 pixels in an image, (count, 4)."""
    sides = np.array([width, height]) * rng.uniform(0.02, 0.5, (count, 2))
    sides = np.maximum(sides, 8)
    corner = rng.random((count, 2)) * (np.array([width, height]) - sides)
    return np.hstack([corner, sides]).round(2)


def detections(truth: Mapping[str, Any], an_image: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return as many detections of every image: its boxes moved a little, most of them of the right class, and noise.

    Scores have three digits, so that there are ties.
    """
    class_ids = np.array([category["id"] for category in truth["categories"]])
    of_image: dict[int, list[Any]] = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    found = []
    for image in truth["images"]:
        boxes = random_boxes(an_image, image["width"], image["height"], rng)
        classes = rng.choice(class_ids, an_image)
        scores = rng.beta(1, 8, an_image)
        if annotations := of_image[image["id"]]:
            source = rng.integers(0, len(annotations), an_image * 2 // 3)
            near = np.array([annotations[i]["bbox"] for i in source]).reshape(-1, 4)
            size = np.maximum(near[:, 2:], 1)
            boxes[: len(near), :2] = near[:, :2] + rng.normal(0, 0.08, (len(near), 2)) * size
            boxes[: len(near), 2:] = size * np.exp(rng.normal(0, 0.08, (len(near), 2)))
            right = rng.random(len(near)) < 0.8
            classes[: len(near)][right] = np.array([annotations[i]["category_id"] for i in source])[right]
            scores[: len(near)] = rng.beta(2, 3, len(near))
        columns = zip(classes.tolist(), boxes.round(3).tolist(), scores.round(3).tolist(), strict=True)
        found += [{"image_id": image["id"], "category_id": c, "bbox": b, "score": s} for c, b, s in columns]
    return found


def write_files(row: Row, data: Path, scale: float, folder: Path) -> tuple[Path, Path, dict[str, int]]:
    """Write the validation file and the predictions of a row; return them and their sizes."""
    rng = np.random.default_rng(0)
    images = max(1, round(scale * row.images))
    truth = coco_truth(data, images) if row.metric == "coco" else lvis_truth(data, images, rng)
    found = detections(truth, row.max_dets, rng)
    files = folder / f"{row.metric}_truth.json", folder / f"{row.metric}_found.json"
    for file, content in zip(files, (truth, found), strict=True):
        file.write_bytes(msgspec.json.encode(content))
    sizes = {key: len(truth[key]) for key in ("images", "categories", "annotations")}
    return *files, {**sizes, "detections": len(found)}


def groups_of(row: Row, truth: Path) -> Groups:
    """Return maj and min of the paper's split 1, or LVIS's own frequent, common and rare classes."""
    from cissod_bench.catalogue import load_task

    categories = msgspec.json.decode(truth.read_bytes())["categories"]
    if row.metric == "lvis":
        return {group: [c["name"] for c in categories if c["frequency"] == group] for group in "fcr"}
    minority = load_task("coco-split1").minority
    return {"maj": [c["name"] for c in categories if c["name"] not in minority], "min": list(minority)}


def score_ours(row: Row, truth: Path, found: Path, groups: Groups) -> tuple[float, Numbers]:
    """Return our seconds and numbers."""
    import hotcoco  # noqa: F401 - imported before the clock starts, like the references

    from cissod_bench.scoring.evaluate import score

    begun = time.perf_counter()
    scores = score(truth, found, groups=groups, max_dets=row.max_dets, metric=row.metric)
    seconds = time.perf_counter() - begun
    return seconds, {**scores.columns, "AP50": scores.ap50, "AP75": scores.ap75, **scores.per_class}


def score_with_pycocotools(row: Row, truth: Path, found: Path, groups: Groups) -> tuple[float, Numbers]:
    """Return the seconds and numbers of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    begun = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(str(truth))
        scorer = COCOeval(gt, gt.loadRes(str(found)), "bbox")
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    seconds = time.perf_counter() - begun
    names = [category["name"] for category in gt.loadCats(scorer.params.catIds)]
    ours = {"all": scorer.stats[0], "AP50": scorer.stats[1], "AP75": scorer.stats[2]}
    return seconds, {**points(ours), **by_group(scorer.eval["precision"][:, :, :, 0, 2], names, groups)}


def score_with_lvis(row: Row, truth: Path, found: Path, groups: Groups) -> tuple[float, Numbers]:
    """Return the seconds and numbers of lvis-api."""
    from cissod_bench.scoring.references import surroundings

    with surroundings():
        from lvis import LVISEval

        begun = time.perf_counter()
        scorer = LVISEval(str(truth), str(found), "bbox")
        scorer.run()
        seconds = time.perf_counter() - begun
    names = [category["name"] for category in scorer.lvis_gt.load_cats(scorer.params.cat_ids)]
    own = {"all": "AP", "AP50": "AP50", "AP75": "AP75", "f": "APf", "c": "APc", "r": "APr"}
    classes = by_group(scorer.eval["precision"][:, :, :, 0], names, {})
    return seconds, {**classes, **points({key: scorer.results[theirs] for key, theirs in own.items()})}


WAYS = {"ours": score_ours, "pycocotools": score_with_pycocotools, "lvis": score_with_lvis}


def points(values: Mapping[str, float]) -> Numbers:
    """Return shares as points, and -1, which stands for "not defined", as None."""
    return {name: 100 * float(value) if value > -1 else None for name, value in values.items()}


def by_group(precision: NDArray[np.float64], names: Sequence[str], groups: Groups) -> Numbers:
    """Return AP of every group and class from a reference's precision array (T, R, K)."""

    def mean(channels: Sequence[int]) -> float:
        defined = precision[:, :, channels][precision[:, :, channels] > -1]
        return float(defined.mean()) if defined.size else -1.0

    parts = {group: [names.index(name) for name in members] for group, members in groups.items()}
    return points({group: mean(channels) for group, channels in parts.items()}) | points(
        {name: mean([channel]) for channel, name in enumerate(names)}
    )


def peak_bytes() -> int:
    """Return the most memory this process has held so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # resource's figure may be that of the parent that forked this process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) << 10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def child(way: str, row: Row, truth: Path, found: Path, groups: Path) -> None:
    """Score in this process and print seconds, peak and numbers as JSON."""
    seconds, numbers = WAYS[way](row, truth, found, json.loads(groups.read_bytes()))
    print(json.dumps({"seconds": seconds, "peak": peak_bytes(), "numbers": numbers}))


def measured(way: str, row: Row, files: Sequence[Path]) -> dict[str, Any]:
    """Score in a fresh process; return what it printed."""
    command = [sys.executable, __file__, "--child", way, row.metric, *map(str, files)]
    result: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    print(f"  {way:12}{result['seconds']:9.2f} s  {result['peak'] / 1e9:6.2f} GB", flush=True)
    return result


def largest_difference(ours: Numbers, reference: Numbers) -> float:
    """Return it in points; infinite where the names differ, or only one of two is defined."""
    if ours.keys() != reference.keys():
        return float("inf")
    pairs = [(ours[name], reference[name]) for name in ours]
    if any((one is None) != (other is None) for one, other in pairs):
        return float("inf")
    return max(abs(one - other) for one, other in pairs if one is not None and other is not None)


def compare(row: Row, data: Path, scale: float, rounds: int) -> bool:
    """Print both ways' figures side by side; return whether the numbers are equal and ours is fast enough."""
    with tempfile.TemporaryDirectory(prefix="cissod-benchmark-") as name:
        folder = Path(name)
        truth, found, sizes = write_files(row, data, scale, folder)
        groups = folder / "groups.json"
        groups.write_text(json.dumps(groups_of(row, truth)))
        title = ", ".join(f"{count:,} {key}" for key, count in sizes.items())
        print(f"{row.metric}: {title}; {row.reference} {version(row.reference)}")
        turns = ["ours", row.reference, "ours"] * rounds
        results = [(way, measured(way, row, (truth, found, groups))) for way in turns]
    ours, reference = ([r for way, r in results if (way == "ours") == wanted] for wanted in (True, False))
    seconds = [statistics.median(r["seconds"] for r in runs) for runs in (ours, reference)]
    memory = [max(r["peak"] for r in runs) for runs in (ours, reference)]
    difference = max(largest_difference(one["numbers"], other["numbers"]) for one in ours for other in reference)
    times, is_equal = seconds[1] / seconds[0], difference <= EQUAL
    shown = {key: value for key, value in ours[0]["numbers"].items() if key in ("all", "maj", "min", "f", "c", "r")}
    print(f"  {times:.0f} times faster (wanted: {row.wanted}), {memory[0] / memory[1]:.2f} of the memory")
    print(f"  {', '.join(f'{key} {value:.6f}' for key, value in shown.items() if value is not None)}")
    print(f"  {len(ours[0]['numbers'])} numbers, largest difference {difference:.1e} points: ", end="")
    print("equal" if is_equal else f"NOT EQUAL (wanted: <= {EQUAL})", flush=True)
    return is_equal and (times >= row.wanted or scale < 1)


def main() -> int:
    """Compare the rows that are asked for; return 1 where numbers differ or, at full size, one is too slow."""
    parser = argparse.ArgumentParser(description="Time scoring against pycocotools and lvis-api.")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CISSOD_TEST_DATA", "data")))
    parser.add_argument("--only", choices=[row.metric for row in ROWS])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the images")
    parser.add_argument("--rounds", type=int, default=1, help="each: ours, the reference, ours")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        way, metric, *files = chosen.child
        child(way, next(row for row in ROWS if row.metric == metric), *map(Path, files))
        return 0
    rows = [row for row in ROWS if chosen.only in (None, row.metric)]
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, hotcoco {version('hotcoco')}; {load}")
    good = [compare(row, chosen.data, chosen.scale, chosen.rounds) for row in rows]
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
