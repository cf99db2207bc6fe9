"""Data sets of a split for training and scoring: columns of numbers shared by all loader workers."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset, get_worker_info

from cissod_bench.contract.parts import Promoted
from cissod_bench.contract.settings import Settings
from cissod_bench.errors import DataFault, EnvironmentFault
from cissod_bench.files.orientation import Reading
from cissod_bench.loading.batches import Chosen
from cissod_bench.loading.parcels import Parcel
from cissod_bench.loading.pipelines import build_transforms
from cissod_bench.loading.sampler import Draw, ScoringDraws, TrainingDraws, TwoSourceSampler
from cissod_bench.loading.sources import Source
from cissod_bench.loading.unread import UNREAD, TakeUnread, Unread, refuse
from cissod_bench.loading.views import View, pipeline
from cissod_bench.loading.workers import begin_worker, no_worker_left

MOST_TRIES = 10  # images that are tried for a place before reading itself must be what is broken
PATIENCE = 600.0  # seconds for a batch of images to be read, which takes a few at the paper's scale


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
            "img": image,
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


def sent(items: Sequence[dict[str, Any]]) -> dict[str, list[Any]] | Parcel:
    """Return a batch as `collate` has it; a worker's goes as one parcel."""
    batch = collate(items)
    return batch if get_worker_info() is None else Parcel(batch)


def _opened(batch: dict[str, list[Any]] | Parcel, on_unread: TakeUnread) -> dict[str, list[Any]]:
    """Return what `sent` has sent without the images that could not be read, which ``on_unread`` takes."""
    content = batch.opened() if isinstance(batch, Parcel) else batch
    for unread in content.pop(UNREAD, []):
        on_unread(unread)
    return content


def _loaded(
    dataset: ViewsDataset, draws: Any, workers: int, on_unread: TakeUnread
) -> Generator[dict[str, list[Any]], None, None]:
    """Yield the batches of some draws, each a list of `Draw`; ``on_unread`` takes their images that could not be read.

    Raises:
        EnvironmentFault: a worker has died, or has given nothing for `PATIENCE` seconds.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=draws,
        collate_fn=sent,
        num_workers=workers,
        timeout=PATIENCE if workers else 0,
        worker_init_fn=begin_worker,
    )
    lost = ""
    with no_worker_left():
        # Workers are forks, which share a page until one of them writes to it. The garbage collector writes to every
        # object there is, so whoever ran it would copy them all: 100 MB per process.
        gc.freeze()
        try:
            yield from (_opened(batch, on_unread) for batch in loader)
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
    dataset: ViewsDataset, sampler: TwoSourceSampler, begin: int, end: int, workers: int, on_unread: TakeUnread = refuse
) -> Generator[dict[str, list[Any]], None, None]:
    """Yield the batches of iterations begin to end of the current generation.

    A loader ends with its generation, so no batch drawn by the last generation's copies is left in a queue, whatever
    the number of workers. ``on_unread`` takes the images that could not be read before a batch comes; `refuse` ends it.
    """
    yield from _loaded(dataset, TrainingDraws(sampler, begin, end), workers, on_unread)


def scoring_batches(
    dataset: ViewsDataset, indices: Sequence[int], batch: int, workers: int, on_unread: TakeUnread = refuse
) -> Generator[dict[str, list[Any]], None, None]:
    """Yield batches of the "test" views of source 0's images; ``on_unread`` takes those that could not be read."""
    yield from chosen_batches(dataset, ScoringDraws(indices, batch), workers, on_unread)


def chosen_batches(
    dataset: ViewsDataset, draws: Chosen | ScoringDraws, workers: int, on_unread: TakeUnread = refuse
) -> Generator[dict[str, list[Any]], None, None]:
    """Yield some batches of the "test" views of source 0's images; ``on_unread`` takes those that could not be read."""
    yield from _loaded(dataset, draws, min(workers, len(draws)), on_unread)
