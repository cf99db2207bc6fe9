"""Before iteration 0: which images their headers show to be broken.

A broken image that has a label or is scored would change the data set, so it is refused while nothing is lost yet; an
unlabelled one is left out and counted. The ranks share the work, and what one of them cannot read counts for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from cissod_bench import distributed
from cissod_bench.errors import DataFault
from cissod_bench.files.images import check_header
from cissod_bench.loading.sources import Source
from cissod_bench.loading.unread import listed
from cissod_bench.training.loop import Training

MOST_LEFT_OUT = 0.5  # of D_u: with more missing, the images were not unpacked or lie elsewhere
_THREADS = 8  # reading a header is waiting for a disk
_PIECE = 256
_TOGETHER = 64  # images that a thread is handed at once: handing one over takes as long as looking at it

Say = Callable[[str], None]


def check_scored(source: Source, absent: Sequence[str] = ()) -> None:
    """Refuse scored images that cannot be read; collective.

    Args:
        source: the images that are scored.
        absent: files that the release of the data lacks.

    Raises:
        DataFault: on all ranks; names the first.
    """
    rows = [row for row in range(len(source)) if source.name(row) not in absent]
    _refuse(_broken(source, rows), len(rows), "scored", "without them no AP is that of the data set; ")


def check_drawn(training: Training, labelled: int, warn: Say) -> None:
    """Refuse labelled images that cannot be read and leave unlabelled ones out; collective, before iteration 0.

    Args:
        training: at its first iteration.
        labelled: the number of images of D_l, which source 0 begins with.
        warn: takes a line on what is left out, on rank 0.

    Raises:
        DataFault: on all ranks: a labelled image cannot be read, or most unlabelled ones cannot.
    """
    first, second = training.dataset.sources
    rows = range(labelled)
    _refuse(_broken(first, rows), len(rows), "labelled", "a label is not left out without a word; ")
    unlabelled, rows = (
        (second, range(len(second))) if training.sampler.per_gpu[1] else (first, range(labelled, len(first)))
    )
    broken = _broken(unlabelled, rows)
    if not broken:
        return
    told = f"{len(broken):,} of {len(rows):,} unlabelled images cannot be read"
    if len(broken) > MOST_LEFT_OUT * len(rows):
        raise _on_all_ranks(f"{told}. The first:{listed(fault for _, fault in broken)}", "")
    training.leave_out([int(unlabelled.image_ids[row]) for row, _ in broken])
    if distributed.rank() == 0:
        warn(
            f"{told} and are left out (skipped.images in run.json counts them; `cissod-bench data check --deep` "
            f"with this --task names all). The first:{listed(fault for _, fault in broken)}"
        )


def _refuse(broken: Sequence[tuple[int, DataFault]], images: int, what: str, why: str) -> None:
    if broken:
        faults = listed(fault for _, fault in broken)
        raise _on_all_ranks(f"{len(broken):,} of {images:,} {what} images cannot be read. The first:{faults}", why)


def _on_all_ranks(message: str, why: str) -> DataFault:
    fault = DataFault(
        message,
        remedy=f"{why}fetch them again, or say with --data-root where they lie; `cissod-bench data check --deep` "
        "with this --task names every image that cannot be read",
    )
    fault.on_all_ranks = True
    return fault


def _broken(source: Source, rows: Sequence[int]) -> list[tuple[int, DataFault]]:
    """Return the rows whose headers are broken and what is wrong with each, ascending, equal on all ranks."""
    own = list(_of_this_rank(source, rows[distributed.rank() :: distributed.world_size()]))
    return sorted((one for rank in distributed.gather_objects(own) for one in rank), key=lambda one: one[0])


def _of_this_rank(source: Source, rows: Sequence[int]) -> Iterator[tuple[int, DataFault]]:
    def look(some: Sequence[int]) -> list[tuple[int, DataFault]]:
        faults = []
        for row in some:
            try:
                check_header(source.file(row), *source.size(row), source.reading(row))
            except DataFault as fault:
                faults.append((row, fault))
        return faults

    pieces = (rows[start : start + _TOGETHER] for start in range(0, len(rows), _TOGETHER))
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(islice(pieces, _PIECE)):  # not all at once: their futures would fill the memory
            for faults in pool.map(look, some):
                yield from faults
