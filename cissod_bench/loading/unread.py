"""Images that cannot be read while a run trains: replaced, counted, and too many of them refused.

An image that breaks in the middle of a run of days shall cost one draw and not the run, which would end at it again
after every resume. Each rank reads images of its own, so what is known of them is brought together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from cissod_bench import distributed
from cissod_bench.errors import DataFault
from cissod_bench.messages import sendable

UNREAD = "unread"  # key of a batch
SHARE = 0.001  # of a run's images that may be replaced, and one at least


@sendable
@dataclass(frozen=True)
class Unread:
    """An image that could not be read.

    Attributes:
        image_id: of its record.
        fault: what is wrong; names the file.
        replaced: whether another image took its place.
    """

    image_id: int
    fault: DataFault
    replaced: bool = False


TakeUnread: TypeAlias = Callable[[Unread], None]
"""Takes an image that could not be read; may raise its fault."""


def refuse(unread: Unread) -> NoReturn:
    """Raise the fault of an image that could not be read."""
    raise unread.fault


def most_replaced(images: int) -> int:
    """Return how many of a run's images may be replaced: 0.1 %, and one at least."""
    return max(1, int(SHARE * images))


@dataclass
class UnreadImages:
    """What a run knows of images that could not be read; the counts are in its checkpoint.

    Attributes:
        most: different images that may be replaced.
        warn: takes a line for the user, on rank 0.
        left_out: ids of unlabelled images that were broken before iteration 0 and are never drawn.
        images: ids of images that could not be read since, equal on all ranks after `share`.
        draws: how many draws were replaced, equal on all ranks after `share`.
    """

    most: int = 1
    warn: Callable[[str], None] = lambda text: None
    left_out: tuple[int, ...] = ()
    images: tuple[int, ...] = ()
    draws: int = 0
    _seen: list[Unread] = field(default_factory=list)

    @property
    def skipped(self) -> dict[str, int]:
        """What run.json says: different images that were left out or replaced, and replaced draws."""
        return {"images": len({*self.left_out, *self.images}), "draws": self.draws}

    def replaced(self, unread: Unread) -> None:
        """Note an image that could not be read when it was drawn.

        Raises:
            DataFault: nothing could be read in its place, or too many images could not be read.
        """
        if not unread.replaced:
            raise unread.fault
        self.passed_over(unread)

    def passed_over(self, unread: Unread) -> None:
        """Note an image that could not be read and that can be done without.

        Raises:
            DataFault: too many images could not be read.
        """
        self._seen.append(unread)
        self._check(unread.fault)

    def share(self) -> None:
        """Bring together what the ranks have seen since the last call; collective.

        Raises:
            DataFault: too many images could not be read, on all ranks alike.
        """
        every = [one for own in distributed.gather_objects(self._seen) for one in own]
        self._seen = []
        new = {one.image_id: one.fault for one in every if one.image_id not in self.images}
        self.images = tuple(sorted({*self.images, *new}))
        self.draws += sum(one.replaced for one in every)
        if new and distributed.rank() == 0:
            first = next(iter(new.values())).message
            self.warn(
                f"{len(new)} {'image' if len(new) == 1 else 'images'} could not be read, and the next ones drawn took "
                f"their place ({len(self.images)} in this run so far, at most {self.most} may be). The first: {first}"
            )
        if new:
            self._check(next(iter(new.values())))

    def _check(self, last: DataFault) -> None:
        """Refuse to train on once more images could not be read than may be."""
        number = len({*self.images, *(one.image_id for one in self._seen)})
        if number <= self.most:
            return
        fault = DataFault(
            f"{number} images could not be read since the training began, more than the {self.most} that may be "
            f"replaced ({SHARE:.1%}, and one at least). The last: {last.message}",
            remedy="fetch these images again and repeat the same command, which continues from the last checkpoint; "
            "`cissod-bench data check --deep` with this --task names every image that cannot be read",
        )
        fault.on_all_ranks = not self._seen
        raise fault

    def state(self) -> dict[str, Any]:
        """Return what is known, plain values, for a checkpoint; collective."""
        self.share()
        return {"left_out": list(self.left_out), "images": list(self.images), "draws": self.draws}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned; checkpoints of earlier versions have none of it."""
        self.left_out, self.images = tuple(state.get("left_out", ())), tuple(state.get("images", ()))
        self.draws, self._seen = state.get("draws", 0), []


def listed(faults: Iterable[DataFault], most: int = 3) -> str:
    """Return what is wrong with the first few images, a line each."""
    messages = [fault.message for fault in faults]
    more = [f"and {len(messages) - most:,} more"] * (len(messages) > most)
    return "".join(f"\n  {text}" for text in [*messages[:most], *more])
