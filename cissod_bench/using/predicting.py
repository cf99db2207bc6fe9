"""Detections on photographs, written as COCO files and drawn: one pass, image by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from cissod_bench.contract.parts import Detections
from cissod_bench.errors import DataFault
from cissod_bench.files.whole_files import files_appearing, make_folder, write_json
from cissod_bench.loading.unread import Unread
from cissod_bench.scoring.score_thresholds import ClassThreshold
from cissod_bench.training.predict import detections
from cissod_bench.training.result_files import write_predictions
from cissod_bench.using.loaded import LoadedRun
from cissod_bench.using.photographs import Photographs, Skipped
from cissod_bench.using.pictures import drawn, write_picture

RESULTS = "detections.json.gz"
IMAGES = "images.json"
THRESHOLDS = "thresholds.json"
PICTURES = "pictures"
SHOWN = 0.5
"""Score from which on a detection is drawn where no threshold is named."""
_DIGIT = 1e-6  # the last one of a score in a results file


@dataclass(frozen=True)
class Predicted:
    """What a prediction left behind.

    Attributes:
        folder: that was written to.
        images: how many were looked at.
        boxes: class name -> detections in the results file.
        skipped: images that cannot be read.
    """

    folder: Path
    images: int
    boxes: Mapping[str, int]
    skipped: tuple[Skipped, ...]


def limits_of(run: LoadedRun, picked: Mapping[str, ClassThreshold] | float | None) -> Tensor | None:
    """Return the least score of every channel that is kept, shape (n,), None where all are.

    Args:
        run: whose classes count.
        picked: class name -> threshold, or one for all classes.
    """
    if picked is None:
        return None
    of_class = [picked[name].threshold if isinstance(picked, Mapping) else picked for name in run.classes]
    return torch.tensor(of_class, dtype=torch.float64)


def above(found: Detections, limits: Tensor) -> Detections:
    """Return the detections of an image whose scores reach the limit of their class, in their order.

    Args:
        found: of an image.
        limits: of every channel, shape (n,). Scores count as they are written, with six digits.
    """
    keep = found.scores.double().cpu() >= limits[found.labels.cpu()] - _DIGIT / 2
    return found.kept(keep.to(found.scores.device))


class Prediction:
    """Detections of a run's teacher or student on photographs.

    Args:
        run: as loaded.
        photographs: to look at.
        teacher: the teacher's detections, else the student's.
        limits: as `limits_of` gives them.
        skip: takes images whose pixels turn out to be broken, which are left out.
        progress: told how many images were done since the last call.
    """

    def __init__(
        self,
        run: LoadedRun,
        photographs: Photographs,
        *,
        teacher: bool = True,
        limits: Tensor | None = None,
        skip: Callable[[Skipped], None] = lambda image: None,
        progress: Callable[[int], None] = lambda images: None,
    ) -> None:
        self.run, self.photographs, self.teacher, self.limits = run, photographs, teacher, limits
        self.skip, self.progress = skip, progress
        self.skipped = list(photographs.skipped)
        self.done = list[int]()
        self.boxes = dict.fromkeys(run.classes, 0)

    def __iter__(self) -> Any:
        """Yield the detections image by image, `Detections` in pixels of the image as it is read."""
        source, settings = self.photographs.source, self.run.plan.settings
        rows = range(len(source))
        passed = detections(self.run.detector, source, settings, rows, teacher=self.teacher, on_unread=self._unread)
        for found in passed:
            kept = found if self.limits is None else above(found, self.limits)
            self.done.append(kept.image_index)
            for label in kept.labels.tolist():
                self.boxes[self.run.classes[label]] += 1
            self.progress(1)
            yield kept

    def _unread(self, unread: Unread) -> None:
        row = int(unread.image_id) - 1
        image = Skipped(self.photographs.source.name(row), unread.fault.message)
        self.skipped.append(image)
        self.skip(image)
        self.progress(1)

    def write(self, folder: Path, *, pictures: bool = False, thresholds: Mapping[str, Any] | None = None) -> Predicted:
        """Write the results, the images' records and, if wanted, a picture of every image; all of it or nothing.

        Args:
            folder: where to; files of an earlier prediction there are replaced.
            pictures: draw the detections, too.
            thresholds: what ``thresholds.json`` is to hold; None writes none.

        Raises:
            DataFault: not a single image can be read.
            EnvironmentFault: the place cannot be written.
        """
        with files_appearing(folder) as hidden:
            self._write(hidden, pictures=pictures)
            if thresholds is not None:
                write_json(hidden / THRESHOLDS, thresholds)
        return Predicted(folder, len(self.done), dict(self.boxes), tuple(self.skipped))

    def _write(self, folder: Path, *, pictures: bool) -> None:
        write_predictions(folder / RESULTS, self._drawn(folder / PICTURES) if pictures else self, self.run.category_ids)
        if not self.done:
            raise DataFault(
                f"{self.photographs.folder}: none of the images can be read.",
                remedy="fetch the images again, or name another folder as --images",
            )
        categories = [
            {"id": number, "name": name} for number, name in zip(self.run.category_ids, self.run.classes, strict=True)
        ]
        records = self.photographs.records(self.done)
        info = {
            "run": str(self.run.plan.folder),
            "images": str(self.photographs.folder),
            "iteration": self.run.iteration,
        }
        write_json(folder / IMAGES, {"info": info, "images": records, "annotations": [], "categories": categories})

    def _drawn(self, folder: Path) -> Any:
        shown = torch.full((len(self.run.classes),), SHOWN, dtype=torch.float64) if self.limits is None else self.limits
        for found in self:
            image = self.photographs.source.image(found.image_index)
            name = PurePosixPath(self.photographs.source.name(found.image_index))
            path = folder / name.parent / f"{name.name}.jpg"  # a.png and a.jpg are two
            make_folder(path.parent)
            write_picture(path, drawn(image, above(found, shown), self.run.classes))
            yield found


def thresholds_record(picked: Mapping[str, ClassThreshold], val: Path) -> dict[str, Any]:
    """Return what ``thresholds.json`` holds.

    Args:
        picked: class name -> threshold.
        val: the validation file that they were picked on.
    """
    return {
        "rule": "best F1 per class at IoU 0.50",
        "picked_on": str(val),
        "classes": {name: asdict(own) for name, own in picked.items()},
    }
