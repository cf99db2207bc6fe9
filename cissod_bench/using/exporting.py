"""A run's detector written in a format of other programs, and looked at: do they find the same?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from cissod_bench.contract.stock import Stock
from cissod_bench.files.whole_files import files_appearing
from cissod_bench.loading.loaders import ViewsDataset
from cissod_bench.loading.sampler import Draw
from cissod_bench.training.predict import detections
from cissod_bench.using import exchange_files as files
from cissod_bench.using.agreement import Agreement, Found, compared, found_of, stock_mmdet
from cissod_bench.using.loaded import LoadedRun
from cissod_bench.using.mmdet_files import write_mmdet
from cissod_bench.using.photographs import Photographs
from cissod_bench.using.stock import stock_of

Format: TypeAlias = Literal["mmdet", "onnx", "torchscript", "safetensors"]
FORMATS: tuple[Format, ...] = ("mmdet", "onnx", "torchscript", "safetensors")


@dataclass(frozen=True)
class Exported:
    """What an export left behind.

    Attributes:
        paths: the files; the first one is the detector's.
        agreement: how near its detections are to the run's own; None where that was not looked at.
    """

    paths: tuple[Path, ...]
    agreement: Agreement | None


def export(
    run: LoadedRun, form: Format, folder: Path, images: Photographs | None = None, *, teacher: bool = True
) -> Exported:
    """Write a run's detector, and compare what it finds.

    Args:
        run: as loaded, on the CPU.
        form: of the files.
        folder: where to.
        images: on which it is compared; None leaves that out, as does "safetensors", which is weights alone.
        teacher: the teacher, else the student.

    Raises:
        UsageFault: the method has no stock detector.
        EnvironmentFault: a package of the format is not installed, or mmdet does not load its files.
    """
    detector = stock_of(run, teacher=teacher)
    plan = run.plan
    title = f"{plan.method.title} on {plan.task.title}, iteration {run.iteration}"
    facts = files.facts_of(plan.settings, run.classes, title)
    with files_appearing(folder) as hidden:
        written = _written(run, form, hidden, detector, facts, images)
    paths = [folder / path.name for path in written]
    if images is None or form == "safetensors":
        return Exported(tuple(paths), None)
    rows = range(len(images.source))
    passed = detections(run.detector, images.source, plan.settings, rows, teacher=teacher)
    own = [found_of(of_image) for of_image in passed]
    return Exported(tuple(paths), compared(own, _found(run, form, paths, images), plan.settings.max_dets))


def _written(
    run: LoadedRun, form: Format, folder: Path, detector: Stock, facts: dict[str, Any], images: Photographs | None
) -> list[Path]:
    settings = run.plan.settings
    if form == "mmdet":
        return write_mmdet(folder, detector, settings, run.classes, run.reading, facts["title"])
    if form == "safetensors":
        paths = files.write_tensors(folder, detector, facts)
    else:
        write = files.write_onnx if form == "onnx" else files.write_script
        paths = write(folder, detector, _example(run, images))
    return [*paths, files.write_facts(folder, facts)]


def _example(run: LoadedRun, images: Photographs | None) -> Any:
    """Return an image as it goes into the detector; one of noise where there is none."""
    if images is not None:
        return _views(run, images, [0])[0][0]
    sides = (
        run.plan.settings.test_short_side,
        min(run.plan.settings.long_side, run.plan.settings.test_short_side * 4 // 3),
    )
    return np.random.default_rng(0).integers(0, 255, (*sides, 3), dtype=np.uint8)


def _views(run: LoadedRun, images: Photographs, rows: Any) -> list[tuple[Any, Any]]:
    """Return images as they are scored, (H, W, 3), each with its scale (x, y)."""
    dataset = ViewsDataset([images.source], [("test",)], run.plan.settings)
    views = [dataset[Draw(0, row, 0)]["test"] for row in rows]
    return [(view["inputs"].numpy().transpose(1, 2, 0), view["data_samples"].scale_factor) for view in views]


def _found(run: LoadedRun, form: Format, paths: list[Path], images: Photographs) -> list[Found]:
    """Return what the written detector finds in every image."""
    rows = range(len(images.source))
    if form == "mmdet":
        return stock_mmdet(paths[0], paths[1], [images.source.file(row) for row in rows])[0]
    program = files.onnx_program(paths[0]) if form == "onnx" else files.script_program(paths[0])
    found = []
    for view, scale in _views(run, images, rows):
        boxes, labels, scores = program(view)
        found.append((boxes / np.array([*scale, *scale]), labels, scores))
    return found
