"""Data sets of a split for training and scoring: columns of numbers shared by all loader workers."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset

from cissod_bench.annotations import Annotations
from cissod_bench.errors import DataFault
from cissod_bench.images import read_image, safe_path
from cissod_bench.training.registry import build_transforms
from cissod_bench.training.sampler import Draw, TwoSourceSampler
from cissod_bench.training.settings import Settings
from cissod_bench.training.views import View, pipeline

FAULT = "fault"


@dataclass(frozen=True)
class Source:
    """The images of one annotation file with their boxes, as arrays (a worker's fork copies none of them).

    Attributes:
        names: file names, joined; image i's is ``names[name_ends[i - 1]:name_ends[i]]`` in UTF-8.
        name_ends: shape (I,).
        folder: the image folder.
        image_ids: shape (I,).
        sizes: width and height in pixels, shape (I, 2).
        box_ends: image i's boxes are rows ``box_ends[i - 1]:box_ends[i]``, shape (I,).
        boxes: xyxy, shape (B, 4).
        labels: channels, shape (B,).
        ignored: crowd boxes and ignore regions, shape (B,).
    """

    names: bytes
    name_ends: npt.NDArray[np.int64]
    folder: Path
    image_ids: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    box_ends: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.image_ids)

    def file(self, index: int) -> Path:
        """Return the path of an image, inside its folder."""
        begin = int(self.name_ends[index - 1]) if index else 0
        name = self.names[begin : int(self.name_ends[index])].decode("utf-8")
        return safe_path(self.folder, name)

    def box_rows(self, index: int) -> slice:
        """Return the rows of an image's boxes."""
        return slice(int(self.box_ends[index - 1]) if index else 0, int(self.box_ends[index]))

    def landscape(self) -> npt.NDArray[np.int8]:
        """Return 1 for images at least as wide as high, else 0, shape (I,)."""
        return (self.sizes[:, 0] >= self.sizes[:, 1]).astype(np.int8)

    def classes_of_images(self) -> tuple[tuple[int, ...], ...]:
        """Return the sorted channels of every image's boxes that are not ignored."""
        rows = (self.box_rows(i) for i in range(len(self)))
        return tuple(tuple(np.unique(self.labels[r][~self.ignored[r]]).tolist()) for r in rows)

    def boxes_of_classes(self, num_classes: int) -> tuple[int, ...]:
        """Return the number of boxes a channel that are not ignored."""
        return tuple(np.bincount(self.labels[~self.ignored], minlength=num_classes).tolist())

    def without_boxes(self) -> Source:
        """Return the same images with no box: what training may know of D_u (B10)."""
        return _with_boxes(self, np.zeros(len(self), np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros(0))

    def __add__(self, other: Source) -> Source:
        """Return the images of both, e.g. of D_l and of D_u with its hidden boxes."""
        if self.folder != other.folder:
            raise ValueError(f"Sources of one split share their image folder. Got {self.folder} and {other.folder}.")
        columns = ("image_ids", "sizes", "boxes", "labels", "ignored")
        joined: dict[str, Any] = {c: np.concatenate([getattr(self, c), getattr(other, c)]) for c in columns}
        return Source(
            names=self.names + other.names,
            name_ends=np.concatenate([self.name_ends, other.name_ends + len(self.names)]),
            box_ends=np.concatenate([self.box_ends, other.box_ends + len(self.boxes)]),
            folder=self.folder,
            **joined,
        )


def _with_boxes(source: Source, ends: Any, boxes: Any, labels: Any, ignored: Any) -> Source:
    return Source(
        source.names, source.name_ends, source.folder, source.image_ids, source.sizes,
        np.asarray(ends, np.int64), np.asarray(boxes, np.float32), np.asarray(labels, np.int64),
        np.asarray(ignored, np.bool_),
    )  # fmt: skip


def source_of(annotations: Annotations, folder: Path) -> Source:
    """Return the columns of an annotation file that training needs.

    Args:
        annotations: as read; channels are its categories in the order of their ids.
        folder: where the images lie.
    """
    names = [name.encode("utf-8") for name in annotations.file_names]
    order = np.argsort(annotations.box_image, kind="stable")
    counts = np.bincount(annotations.box_image, minlength=len(names))
    boxes = annotations.boxes[order]
    return Source(
        names=b"".join(names),
        name_ends=np.cumsum([len(n) for n in names], dtype=np.int64),
        folder=folder,
        image_ids=np.asarray(annotations.image_ids, np.int64),
        sizes=np.stack([annotations.widths, annotations.heights], axis=1).astype(np.int32),
        box_ends=np.cumsum(counts, dtype=np.int64),
        boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32),
        labels=annotations.box_class[order].astype(np.int64),
        ignored=annotations.crowd[order].astype(np.bool_),
    )


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """Seed Python's and NumPy's global generators, which mmdet's transforms draw from, and put them back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(key)
    np.random.seed(key & 0xFFFFFFFF)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


class ViewsDataset(Dataset[dict[str, Any]]):
    """Views of images; an item is drawn by the sampler, its augmentations by the item's own key.

    Args:
        sources: labelled and unlabelled images (or one source to score).
        views: the views that are made of each source's images.
        settings: sizes and augmentations.
    """

    def __init__(self, sources: Sequence[Source], views: Sequence[Sequence[View]], settings: Settings) -> None:
        self.sources, self.views = tuple(sources), tuple(tuple(v) for v in views)
        self.settings = settings
        self._pipelines: dict[View, Any] = {}

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        source = self.sources[draw.source]
        try:
            image = read_image(source.file(draw.index), *(int(side) for side in source.sizes[draw.index]))
        except DataFault as fault:
            return {FAULT: fault}  # raised in the main process: a worker's exception would drown it in tracebacks
        with seeded(draw.key):
            return {view: self._view(view, image, source, draw.index) for view in self.views[draw.source]}

    def _view(self, view: View, image: npt.NDArray[np.uint8], source: Source, index: int) -> dict[str, Any]:
        from mmdet.structures.bbox import HorizontalBoxes

        rows = source.box_rows(index)
        sample = {
            "img": image.copy(),
            "img_id": int(source.image_ids[index]),
            "img_index": index,
            "img_path": str(source.image_ids[index]),
            "img_shape": image.shape[:2],
            "ori_shape": image.shape[:2],
            "gt_bboxes": HorizontalBoxes(source.boxes[rows].copy()),
            "gt_bboxes_labels": source.labels[rows].copy(),
            "gt_ignore_flags": source.ignored[rows].copy(),
        }
        packed: dict[str, Any] = self._pipeline(view)(sample)
        return packed

    def _pipeline(self, view: View) -> Any:
        if view not in self._pipelines:
            self._pipelines[view] = build_transforms(pipeline(view, self.settings))
        return self._pipelines[view]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pipelines": {}}


def collate(items: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return view -> its samples, in the order drawn."""
    batch: dict[str, list[Any]] = {}
    for item in items:
        for view, sample in item.items():
            batch.setdefault(view, []).append(sample)
    return batch


def _sound(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    for fault in batch.pop(FAULT, []):
        raise fault
    return batch


class _Positions:
    """Hands a loader the sampler's batches from one iteration to another."""

    def __init__(self, sampler: TwoSourceSampler, begin: int, end: int) -> None:
        self.sampler, self.begin, self.end = sampler, begin, end

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.sampler.batches(self.begin, self.end)

    def __len__(self) -> int:
        return self.end - self.begin


def _leave_signals_to_the_main_process(worker: int) -> None:
    """Let a signal to the whole process group stop the training where it can be continued, not a worker's reading."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def training_batches(
    dataset: ViewsDataset, sampler: TwoSourceSampler, begin: int, end: int, workers: int
) -> Iterator[dict[str, list[Any]]]:
    """Yield the batches of iterations begin to end of the current generation.

    A loader ends with its generation, so no batch drawn by the last generation's copies is left in a queue, whatever
    the number of workers.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=_Positions(sampler, begin, end),
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_main_process,
    )
    yield from map(_sound, loader)


def scoring_batches(
    dataset: ViewsDataset, indices: Sequence[int], batch: int, workers: int
) -> Iterator[dict[str, list[Any]]]:
    """Yield batches of the "test" views of source 0's images."""
    draws = [[Draw(0, i, 0) for i in indices[at : at + batch]] for at in range(0, len(indices), batch)]
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=draws,
        collate_fn=collate,
        num_workers=min(workers, len(draws)),
        worker_init_fn=_leave_signals_to_the_main_process,
    )
    yield from map(_sound, loader)
