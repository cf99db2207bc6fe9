"""Data sets of a split for training and scoring: columns of numbers shared by all loader workers."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset

from cissod_bench.annotations import Annotations
from cissod_bench.errors import DataFault, EnvironmentFault
from cissod_bench.images import read_image, safe_path
from cissod_bench.orientation import AS_STORED, Reading
from cissod_bench.training.image_folders import check_folders, places_of
from cissod_bench.training.parts import Promoted
from cissod_bench.training.registry import build_transforms
from cissod_bench.training.sampler import Draw, Pieces, Positions, TwoSourceSampler
from cissod_bench.training.settings import Settings
from cissod_bench.training.unread import UNREAD, Told, Unread, refuse
from cissod_bench.training.views import View, pipeline
from cissod_bench.training.workers import begin_worker, no_worker_left

MOST_TRIES = 10  # images that are tried for a place before reading itself must be what is broken
PATIENCE = 600.0  # seconds for a batch of images to be read, which takes a few at the paper's scale


@dataclass(frozen=True)
class Source:
    """The images of one annotation file with their boxes, as arrays (a worker's fork copies none of them).

    Attributes:
        names: file names, joined; image i's is ``names[name_ends[i - 1]:name_ends[i]]`` in UTF-8.
        name_ends: shape (I,).
        folders: the image folders of the task, the same for all sources of a run.
        image_folder: place in ``folders`` of the one each image lies in, shape (I,).
        image_ids: shape (I,).
        sizes: width and height in pixels, shape (I, 2).
        box_ends: image i's boxes are rows ``box_ends[i - 1]:box_ends[i]``, shape (I,).
        boxes: xyxy, shape (B, 4).
        labels: channels, shape (B,).
        ignored: crowd boxes and ignore regions, shape (B,).
        readings: how the images of each of ``folders`` are turned; as they are stored where it is empty.
    """

    names: bytes
    name_ends: npt.NDArray[np.int64]
    folders: tuple[Path, ...]
    image_folder: npt.NDArray[np.int8]
    image_ids: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    box_ends: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]
    readings: tuple[Reading, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    def name(self, index: int) -> str:
        """Return the name of an image below its folder."""
        begin = int(self.name_ends[index - 1]) if index else 0
        return self.names[begin : int(self.name_ends[index])].decode("utf-8")

    def file(self, index: int) -> Path:
        """Return the path of an image, inside its folder."""
        return safe_path(self.folders[self.image_folder[index]], self.name(index))

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """Return an image as ``read_image`` does."""
        return read_image(self.file(index), *self.size(index), self.reading(index))

    def reading(self, index: int) -> Reading:
        """Return how an image is turned."""
        return self.readings[self.image_folder[index]] if self.readings else AS_STORED

    def size(self, index: int) -> tuple[int, int]:
        """Return the width and height that an image's record states, pixels."""
        width, height = (int(side) for side in self.sizes[index])
        return width, height

    def box_rows(self, index: int) -> slice:
        """Return the rows of an image's boxes."""
        return slice(int(self.box_ends[index - 1]) if index else 0, int(self.box_ends[index]))

    def rows_of(self, image_ids: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the rows of the images with some ids, ascending; ids of other sources have none."""
        return np.flatnonzero(np.isin(self.image_ids, np.asarray(image_ids, np.int64)))

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
        none = np.zeros(0, np.int64)
        return replace(
            self,
            box_ends=np.zeros(len(self), np.int64),
            boxes=np.zeros((0, 4), np.float32),
            labels=none,
            ignored=none.astype(np.bool_),
        )

    def with_promoted(self, promoted: Promoted, first: int) -> Source:
        """Return the same images with further boxes on those that had none.

        Args:
            promoted: boxes; ``promoted.images`` counts from ``first``.
            first: row of the first image that may get boxes; none from there on has any.
        """
        assert first == 0 or self.box_ends[-1] == self.box_ends[first - 1], "images from `first` on have no box yet"
        order = np.argsort(promoted.images, kind="stable")
        ends = self.box_ends.copy()
        ends[first:] += np.cumsum(np.bincount(promoted.images, minlength=len(self) - first))
        return replace(
            self,
            box_ends=ends,
            boxes=np.concatenate([self.boxes, promoted.boxes[order].astype(np.float32)]),
            labels=np.concatenate([self.labels, promoted.labels[order].astype(np.int64)]),
            ignored=np.concatenate([self.ignored, promoted.ignored[order].astype(np.bool_)]),
        )

    def __add__(self, other: Source) -> Source:
        """Return the images of both, e.g. of D_l and of D_u with its hidden boxes."""
        if self.folders != other.folders:
            raise ValueError(f"Sources of one run share their image folders. Got {self.folders} and {other.folders}.")
        columns = ("image_folder", "image_ids", "sizes", "boxes", "labels", "ignored")
        joined: dict[str, Any] = {c: np.concatenate([getattr(self, c), getattr(other, c)]) for c in columns}
        return Source(
            names=self.names + other.names,
            name_ends=np.concatenate([self.name_ends, other.name_ends + len(self.names)]),
            box_ends=np.concatenate([self.box_ends, other.box_ends + len(self.boxes)]),
            folders=self.folders,
            readings=self.readings,
            **joined,
        )


def source_of(
    annotations: Annotations,
    folders: Mapping[str, Path],
    role: str,
    readings: Mapping[str, Reading] | None = None,
) -> Source:
    """Return the columns of an annotation file that training needs.

    Args:
        annotations: as read; channels are its categories in the order of their ids.
        folders: role -> folder of images; a record's ``root`` is the role of its own.
        role: of the records that name no root: "train" or "val".
        readings: role -> how its images are turned; None reads all as they are stored.

    Raises:
        DataFault: a record names a role that has no folder, or a folder that images lie in is missing.
    """
    image_folder = places_of(annotations, folders, role)
    check_folders(annotations, tuple(folders.values()), image_folder)
    names = [name.encode("utf-8") for name in annotations.file_names]
    order = np.argsort(annotations.box_image, kind="stable")
    counts = np.bincount(annotations.box_image, minlength=len(names))
    boxes = annotations.boxes[order]
    boxes[:, 2:] += boxes[:, :2]
    return Source(
        names=b"".join(names),
        name_ends=np.cumsum([len(n) for n in names], dtype=np.int64),
        folders=tuple(folders.values()),
        image_folder=image_folder,
        image_ids=np.asarray(annotations.image_ids, np.int64),
        sizes=np.stack([annotations.widths, annotations.heights], axis=1).astype(np.int32),
        box_ends=np.cumsum(counts, dtype=np.int64),
        boxes=boxes.astype(np.float32),
        labels=annotations.box_class[order].astype(np.int64),
        ignored=annotations.crowd[order].astype(np.bool_),
        readings=tuple(readings[name] for name in folders) if readings else (),
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
        self._annotated = self.sources[0]
        self.settings = settings
        self.following: Callable[[Draw], Draw] | None = None  # what replaces an image that cannot be read
        self._pipelines: dict[View, Any] = {}
        for view in {view for own in self.views for view in own}:
            self._pipeline(view)  # what is imported here is not imported by every worker of every generation

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def promote(self, promoted: Promoted | None) -> None:
        """Let unlabelled images count as labelled ones from the next loader on; replaces those before.

        Args:
            promoted: their boxes; source 0 ends with the images of source 1.
        """
        own = self._annotated
        if promoted is not None:
            own = own.with_promoted(promoted, len(own) - len(self.sources[1]))
        self.sources = (own, *self.sources[1:])

    def read_as(self, readings: Mapping[str, Reading]) -> None:
        """Turn images from the next loader on as decided: role -> how, in the order of the sources' folders."""
        turned = tuple(readings.values())
        self.sources = tuple(replace(source, readings=turned) for source in self.sources)
        self._annotated = replace(self._annotated, readings=turned)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        unread: list[Unread] = []  # told in the main process: a worker's exception would drown it in tracebacks
        for _ in range(MOST_TRIES):
            source = self.sources[draw.source]
            try:
                image = source.image(draw.index)
            except DataFault as fault:
                unread.append(Unread(int(source.image_ids[draw.index]), fault))
                if self.following is None:
                    break
                draw = self.following(draw)
                continue
            with seeded(draw.key):
                item: dict[str, Any] = {
                    view: self._view(view, image, source, draw.index) for view in self.views[draw.source]
                }
            return item | {UNREAD: [replace(one, replaced=True) for one in unread]} if unread else item
        return {UNREAD: unread}

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
    """Return view -> its samples, in the order drawn, and the images that could not be read."""
    batch: dict[str, list[Any]] = {}
    for item in items:
        for view, sample in item.items():
            batch.setdefault(view, []).extend(sample if view == UNREAD else [sample])
    return batch


def _told(batch: dict[str, list[Any]], told: Told) -> dict[str, list[Any]]:
    for unread in batch.pop(UNREAD, []):
        told(unread)
    return batch


def _loaded(dataset: ViewsDataset, draws: Any, workers: int, told: Told) -> Generator[dict[str, list[Any]], None, None]:
    """Yield the batches of some draws, each a list of `Draw`; ``told`` takes their images that could not be read.

    Raises:
        EnvironmentFault: a worker has died, or has given nothing for `PATIENCE` seconds.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=draws,
        collate_fn=collate,
        num_workers=workers,
        timeout=PATIENCE if workers else 0,
        worker_init_fn=begin_worker,
    )
    lost = ""
    with no_worker_left():
        # Workers are forks, which share a page until one of them writes to it. The garbage collector writes to every
        # object there is, so whoever ran it would copy them all: 100 MB a process.
        gc.freeze()
        try:
            yield from (_told(batch, told) for batch in loader)
        except RuntimeError as error:
            lost = str(error)
            if not lost.startswith("DataLoader "):
                raise
        finally:
            gc.unfreeze()
    if lost:
        raise EnvironmentFault(
            f"A process that reads images is dead or stuck ({lost.splitlines()[0].rstrip('.')}).",
            remedy="repeat the same command to continue from the last checkpoint; should it happen again, see what "
            "`cissod-bench doctor` says of shared memory, or add --set workers=0",
        )


def training_batches(
    dataset: ViewsDataset, sampler: TwoSourceSampler, begin: int, end: int, workers: int, told: Told = refuse
) -> Generator[dict[str, list[Any]], None, None]:
    """Yield the batches of iterations begin to end of the current generation.

    A loader ends with its generation, so no batch drawn by the last generation's copies is left in a queue, whatever
    the number of workers. ``told`` takes the images that could not be read before a batch comes; `refuse` ends it.
    """
    yield from _loaded(dataset, Positions(sampler, begin, end), workers, told)


def scoring_batches(
    dataset: ViewsDataset, indices: Sequence[int], batch: int, workers: int, told: Told = refuse
) -> Generator[dict[str, list[Any]], None, None]:
    """Yield batches of the "test" views of source 0's images; ``told`` takes those that could not be read."""
    draws = Pieces(indices, batch)
    yield from _loaded(dataset, draws, min(workers, len(draws)), told)
