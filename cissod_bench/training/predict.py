"""Detections of a trained detector: on the images that are scored, by all ranks; on D_u, for a method.

An image is loaded once for all that look at it. As many images as fit go through a detector together, each padded as it
would be alone (``loading.batches``), and what comes out is put back into the order that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from cissod_bench import distributed
from cissod_bench.contract.parts import Context, Detections, LabelledImage
from cissod_bench.contract.settings import Settings
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.errors import EnvironmentFault
from cissod_bench.loading.batches import Chosen, InOrder, arranged, divisor_of, padded_sizes
from cissod_bench.loading.loaders import ViewsDataset, chosen_batches, scoring_batches
from cissod_bench.loading.sources import Source
from cissod_bench.loading.unread import TakeUnread, refuse
from cissod_bench.signals import stopped
from cissod_bench.training.exchange import exchanged
from cissod_bench.training.result_files import text_of

Model: TypeAlias = Literal["teacher", "student"]
MODELS: tuple[Model, ...] = ("teacher", "student")
Detected: TypeAlias = list[tuple[int, tuple[Detections, ...] | None]]
"""Of a batch: (place, what each model detects there); None of an image that cannot be read."""
CPU_PIXELS = 16 * 320 * 320
"""Of a batch on a CPU, where more at once gains nothing and takes memory (docs/speed.md): one image of ``full``."""


def present(source: Source, absent: Collection[str] = (), rows: Sequence[int] | None = None) -> Sequence[int]:
    """Return the rows of a source's images, without those that the release of the data lacks.

    Args:
        source: the images that are scored.
        absent: names of the files that are lacking; their boxes stay undetected.
        rows: those that are wanted; None for all.
    """
    rows = range(len(source)) if rows is None else rows
    return [row for row in rows if source.name(row) not in absent] if absent else rows


def predict(
    detector: SemiSupervisedDetector,
    source: Source,
    settings: Settings,
    *,
    teacher: bool,
    absent: Collection[str] = (),
    progress: Callable[[int], None] = lambda images: None,
) -> Iterator[Detections]:
    """Yield the detections of one model on every image of a source, in one process.

    Args:
        detector: as trained.
        source: the images that are scored.
        settings: the run's.
        teacher: the teacher's detections, else the student's.
        absent: as for `present`.
        progress: told how many images were done since the last call.
    """
    for found in detections(detector, source, settings, present(source, absent), teacher=teacher):
        yield found
        progress(1)


def predicted_texts(
    detector: SemiSupervisedDetector,
    source: Source,
    settings: Settings,
    category_ids: Sequence[int],
    *,
    models: Sequence[Model] = MODELS,
    absent: Collection[str] = (),
    rows: Sequence[int] | None = None,
    kept: str = "the training is done and kept",
    progress: Callable[[int], None] = lambda predictions: None,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[list[str], None, None]:
    """Yield on rank 0, image by image, what every model detects, as text; the ranks share the work. Collective.

    The batches are those of one process, whatever the number of ranks, and each is worked on by one rank; so is what is
    detected. Ranks other than the first yield nothing, but have to be asked to the end.

    Args:
        detector: as trained, the same on all ranks.
        source: the images that are scored.
        settings: the run's; rank 0's size of a batch counts.
        category_ids: category id of every channel.
        models: who detects.
        absent: as for `present`.
        rows: of the source, those that are looked at; None for all.
        kept: what a stop says of the training.
        progress: told how many predictions all ranks have made since the last call, one per image and model.
        stop: tells whether this rank was asked to stop.

    Raises:
        DataFault: an image cannot be read; on all ranks.
        Interrupted: a rank was asked to stop; on all ranks.
    """
    rows = present(source, absent, rows)
    settings = replace(settings, test_batch=distributed.broadcast(settings.test_batch))
    work = _Pass(detector, source, settings, rows, models)
    own = range(distributed.rank(), len(work.batches), distributed.world_size())
    done, total, held = 0, len(models) * len(rows), InOrder[list[str]]()
    with closing(_texts(work.detected(own), category_ids)) as texts_of_batches:
        for batches, any_asked in exchanged(texts_of_batches, stop):
            asked = any_asked
            for place, texts in (image for batch in batches for image in batch):
                if distributed.rank() == 0:
                    held.add(place, texts)
                done += len(models)
                progress(len(models))
                if not distributed.is_distributed() and stop():  # alone, it need not wait for the end of a batch
                    asked = True
                    break
            if asked:
                words = f"Stopped after {done} of {total} predictions; {kept}."
                raise stopped(words, on_all_ranks=distributed.is_distributed())
            yield from held.ready()


def _texts(
    passed: Generator[Detected, None, None], category_ids: Sequence[int]
) -> Generator[list[tuple[int, list[str]]], None, None]:
    """Yield of every batch pairs (place, a text of each model)."""
    with closing(passed):
        for batch in passed:
            yield [(place, [text_of(own, category_ids) for own in found]) for place, found in batch if found]


def detections(
    detector: SemiSupervisedDetector,
    source: Source,
    settings: Settings,
    indices: Sequence[int],
    *,
    teacher: bool = True,
    on_unread: TakeUnread = refuse,
) -> Iterator[Detections]:
    """Yield the detections on some images of a source, each in the view that images are scored in.

    Args:
        detector: as trained so far.
        source: e.g. D_u; its boxes, if it has any, are not read.
        settings: the run's.
        indices: rows of the source.
        teacher: the teacher's detections, else the student's.
        on_unread: takes the images that cannot be read, which have no detections then; `refuse` ends the pass.
    """
    work = _Pass(detector, source, settings, indices, ("teacher" if teacher else "student",), on_unread)
    held = InOrder[tuple[Detections, ...]]()
    with closing(work.detected(range(len(work.batches)))) as passed:
        for batch in passed:
            for place, found in batch:
                held.add(place, found)
            yield from (found for (found,) in held.ready())


class _Pass:
    """A pass of some models over some images, as many at once as the settings allow and the GPU's memory holds.

    Args:
        detector: as trained so far.
        source: of the images.
        settings: the run's.
        indices: rows of the source.
        models: who detects.
        on_unread: as for `detections`.
    """

    def __init__(
        self,
        detector: SemiSupervisedDetector,
        source: Source,
        settings: Settings,
        indices: Sequence[int],
        models: Sequence[Model],
        on_unread: TakeUnread = refuse,
    ) -> None:
        self.detector, self.source, self.settings, self.models = detector, source, settings, models
        self.on_unread = on_unread
        self.most = settings.test_batch  # views at once; half as many from the moment on at which they did not fit
        own = int(detector.student.data_preprocessor.pad_size_divisor)
        self.divisor = divisor_of(source.sizes, settings, own)
        on_cpu = next(detector.student.parameters()).device.type == "cpu"
        padded = padded_sizes(source.sizes, settings, self.divisor)
        self.batches = arranged(indices, padded, settings.test_batch, CPU_PIXELS if on_cpu else None)

    @torch.no_grad()
    def detected(self, numbers: range) -> Generator[Detected, None, None]:
        """Yield some batches."""
        settings = self.settings
        dataset = ViewsDataset([self.source.without_boxes()], [("test",)], settings)
        context = Context(settings.iterations, settings.iterations)
        draws = Chosen(self.batches, numbers)
        with closing(chosen_batches(dataset, draws, settings.workers, self.on_unread)) as loaded:
            for number, batch in zip(numbers, loaded, strict=True):
                views = batch.get("test", [])
                by_model = [self._by(model, views, context) for model in self.models]
                of_row = {found[0].image_index: found for found in zip(*by_model, strict=True)}
                span = self.batches.span(number)
                rows, places = self.batches.rows[span].tolist(), self.batches.places[span].tolist()
                yield [(place, of_row.get(row)) for place, row in zip(places, rows, strict=True)]

    def _by(self, model: Model, views: Sequence[dict[str, Any]], context: Context) -> list[Detections]:
        """Return what a model detects in every view."""
        found: list[Detections] = []
        while len(found) < len(views):
            some = views[len(found) : len(found) + self.most]
            for view, of_view in zip(some, self._fitting(model, some, context), strict=False):
                sample = view["data_samples"]
                found.append(Detections(sample.img_id, sample.img_index, *of_view))
        return found

    def _fitting(
        self, model: Model, views: Sequence[dict[str, Any]], context: Context
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return what a model detects in some views, or nothing where they do not fit: fewer will be tried next.

        Raises:
            EnvironmentFault: a single view does not fit.
        """
        try:
            with _padding(self.detector, self.divisor):
                return self.detector.predict(views, context, teacher=model == "teacher")
        except torch.OutOfMemoryError as error:
            if len(views) == 1:
                raise EnvironmentFault(
                    f"The GPU's memory does not hold a single image in prediction ({str(error).splitlines()[0]}).",
                    remedy="end what else works on this GPU (nvidia-smi shows it) and repeat the same command",
                ) from None
            self.most = len(views) // 2
        torch.cuda.empty_cache()  # only here: the error itself holds what did not fit
        return []


@contextmanager
def _padding(detector: SemiSupervisedDetector, divisor: int) -> Iterator[None]:
    """Let student and teacher pad images to multiples of ``divisor`` pixels while the block runs."""
    preprocessors = [model.data_preprocessor for model in (detector.student, detector.teacher)]
    before = [preprocessor.pad_size_divisor for preprocessor in preprocessors]
    try:
        for preprocessor in preprocessors:
            preprocessor.pad_size_divisor = divisor
        yield
    finally:
        for preprocessor, own in zip(preprocessors, before, strict=True):
            preprocessor.pad_size_divisor = own


def labelled_images(
    source: Source, settings: Settings, indices: Sequence[int], on_unread: TakeUnread = refuse
) -> Iterator[LabelledImage]:
    """Yield some images of a source with their boxes, in the view that images are scored in.

    Args:
        source: e.g. D_l.
        settings: the run's.
        indices: rows of the source.
        on_unread: takes the images that cannot be read, which are passed over then; `refuse` ends the pass.
    """
    dataset = ViewsDataset([source], [("test",)], settings)
    with closing(scoring_batches(dataset, indices, settings.test_batch, settings.workers, on_unread)) as batches:
        for view in (view for batch in batches for view in batch.get("test", [])):
            truth = view["data_samples"].gt_instances
            boxes = getattr(truth.bboxes, "tensor", truth.bboxes)
            yield LabelledImage(view["inputs"], boxes, torch.as_tensor(truth.labels))
