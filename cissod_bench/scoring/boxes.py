"""What scorers take: the boxes of a validation file and those of a model, as columns of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALL_AREAS = [0.0, 1e10]
"""px²: the area range "all" of COCO and LVIS, that of AP; ``by_size.py`` takes others, too."""


@dataclass(frozen=True)
class Federated:
    """What an LVIS file says beyond its boxes; an image is annotated for some of the classes only. N boxes, I images.

    Attributes:
        absent: I lists of channels that the image is known to lack (``neg_category_ids``).
        incomplete: I lists of channels of which it has more than the annotated boxes (``not_exhaustive_category_ids``).
        area: float64 (N,), px², as annotated (of the mask), else of the box; >= 0.
        ignored: bool (N,), boxes that neither have to be found nor make a detection wrong (``ignore``).
    """

    absent: Sequence[Sequence[int]]
    incomplete: Sequence[Sequence[int]]
    area: NDArray[np.float64]
    ignored: NDArray[np.bool_]


@dataclass(frozen=True)
class GroundTruth:
    """Boxes of a validation file as columns; N boxes, I images, K classes.

    Attributes:
        image_ids: int64 (I,), ascending, as in the file.
        class_ids: int64 (K,), ascending, as in the file.
        class_names: K names in the order of ``class_ids``.
        image: int64 (N,), place in ``image_ids``.
        channel: int64 (N,), place in ``class_ids``.
        boxes: float64 (N, 4), x, y, width, height in pixels.
        crowd: bool (N,), regions that neither have to be found nor make a detection wrong. Federated scoring does not
            know them and takes them for boxes like others.
        federated: None where the file was read for the metric "coco".
        sizes: float64 (I, 2), width and height of the images, NaN where the file does not state them; None where it
            states none.
        area: float64 (N,), px², as annotated, else of the box; None where the file was read for another metric.
        file_names: of the images, "" where the file does not state one; None where it states none.
    """

    image_ids: NDArray[np.int64]
    class_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    image: NDArray[np.int64]
    channel: NDArray[np.int64]
    boxes: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    federated: Federated | None = None
    sizes: NDArray[np.float64] | None = None
    area: NDArray[np.float64] | None = None
    file_names: tuple[str, ...] | None = None

    def of_images(self, image_ids: Sequence[int]) -> GroundTruth:
        """Return some of the images with their boxes, and all classes; ids that the file lacks are passed over."""
        kept = np.isin(self.image_ids, np.asarray(image_ids, np.int64))
        rows, federated = kept[self.image], self.federated
        if federated is not None:
            lists = (federated.absent, federated.incomplete)
            absent, incomplete = ([own for own, is_kept in zip(of, kept, strict=True) if is_kept] for of in lists)
            federated = Federated(absent, incomplete, federated.area[rows], federated.ignored[rows])
        return replace(
            self,
            image_ids=self.image_ids[kept],
            image=(np.cumsum(kept) - 1)[self.image[rows]],
            channel=self.channel[rows],
            boxes=self.boxes[rows],
            crowd=self.crowd[rows],
            federated=federated,
            sizes=None if self.sizes is None else self.sizes[kept],
            area=None if self.area is None else self.area[rows],
            file_names=None if self.file_names is None else tuple(compress(self.file_names, kept)),
        )


@dataclass(frozen=True)
class Detections:
    """A model's boxes as columns in the order of the file, which breaks ties in score; D boxes.

    Attributes:
        image: int64 (D,), place in ``GroundTruth.image_ids``.
        channel: int64 (D,), place in ``GroundTruth.class_ids``.
        boxes: float64 (D, 4), x, y, width, height in pixels.
        scores: float64 (D,), finite.
    """

    image: NDArray[np.int64]
    channel: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]

    def only(self, keep: NDArray[np.bool_]) -> Detections:
        """Return some of the detections, in their order."""
        return Detections(self.image[keep], self.channel[keep], self.boxes[keep], self.scores[keep])


def areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the areas of boxes (N, 4), px², float64 (N,); infinite where a box is too large for a float."""
    with np.errstate(over="ignore"):
        product: NDArray[np.float64] = boxes[:, 2] * boxes[:, 3]
    return product


def exist(area: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which boxes lvis-api knows at all by their area in px²: one between 0 and infinity, bool (N,)."""
    return (area > 0) & (area < np.inf)


def numbered_from_one(truth: GroundTruth) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return images and classes for a scorer, numbered 1, 2, ... in the order of their ids.

    That keeps the order scorers depend on (ties in score are broken by image id, then by place in the file), and it
    avoids two of the references' traps: an annotation whose id is 0 counts as missed, and ids above 2^53 collide once
    they are floats. Annotations are numbered from 1 for the same reason.
    """
    images: list[dict[str, Any]] = [{"id": number} for number in range(1, len(truth.image_ids) + 1)]
    if truth.federated is not None:
        lists = zip(images, truth.federated.absent, truth.federated.incomplete, strict=True)
        for image, absent, incomplete in lists:
            image["neg_category_ids"] = [channel + 1 for channel in absent]
            image["not_exhaustive_category_ids"] = [channel + 1 for channel in incomplete]
    classes = [{"id": number, "name": str(number)} for number in range(1, len(truth.class_ids) + 1)]
    return images, classes
