"""CReST in training: images of D_u become labelled ones, exact resume, two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crest_trainings import SETTINGS, same, training_of
from ranks import two_processes
from tiny import tiny_plan
from watched_trainings import losses_of

from cissod_bench.training.loop import Training


def labelled_views(training: Training) -> list[list[Any]]:
    """The labelled samples of every iteration."""
    views: list[list[Any]] = []
    step = training.step

    def watched(batch: dict[str, Any], iteration: int) -> dict[str, Any]:
        views.append([view["data_samples"] for view in batch["sup"]])
        return step(batch, iteration)

    training.step = watched  # type: ignore[method-assign]
    training.run()
    return views


def labelled_images(training: Training) -> int:
    return len(training.dataset.sources[0]) - len(training.dataset.sources[1])


def test_promoted_images_are_drawn_as_labelled_ones_with_the_pools_boxes(tmp_path: Path) -> None:
    training = training_of(tmp_path, "labelled_per_gpu=4", variant="")
    before = training.dataset.sources[0]
    lines: list[dict[str, Any]] = []
    training.log = lines.append
    views = labelled_views(training)
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert [line["promoted_images"] > 0 for line in lines] == [False] * 2 + [True] * 4
    first, promoted = labelled_images(training), training.position.promoted
    assert promoted is not None
    of_d_u = set(training.dataset.sources[1].image_ids.tolist())
    assert not any(view.img_id in of_d_u for drawn in views[:2] for view in drawn)
    assert any(view.img_id in of_d_u for drawn in views[2:4] for view in drawn)
    drawn = [view for drawn in views[4:] for view in drawn if view.img_id in of_d_u]
    assert drawn
    chosen = set(promoted.images[~promoted.ignored].tolist())
    for view in drawn:
        row = view.img_index - first
        assert row in chosen
        own = promoted.images == row
        assert sorted(view.gt_instances.labels.tolist()) == sorted(promoted.labels[own & ~promoted.ignored].tolist())
        assert sorted(view.ignored_instances.labels.tolist()) == sorted(
            promoted.labels[own & promoted.ignored].tolist()
        )
    # Generations begin from D_l, whose labels never change; D_u is drawn uniformly.
    after = training.dataset.sources[0]
    rows = slice(0, int(before.box_ends[first - 1]))
    for name in ("boxes", "labels", "ignored"):
        np.testing.assert_array_equal(getattr(after, name)[rows], getattr(before, name)[rows])
    np.testing.assert_array_equal(after.box_ends[:first], before.box_ends[:first])
    assert training.position.copies.keys() == {0}
    copies = training.position.copies[0]
    assert copies[:first].min() >= 1
    assert set(np.flatnonzero(copies[first:]).tolist()) == chosen


def test_half_and_resume_equals_the_whole_across_a_generation_with_promoted_images(tmp_path: Path) -> None:
    whole = training_of(tmp_path / "whole")
    expected = losses_of(whole)
    assert int(whole.detector.parts.alignment.pushed) > 0
    assert expected[-1]["promoted_images"] > 0
    for stop in (3, 4):  # in a generation with promoted images, at its end
        first = training_of(tmp_path / f"half{stop}")
        losses_of(first, until=stop)
        first.save()
        assert first.position.promoted is not None
        second = training_of(tmp_path / f"half{stop}")
        assert second.resume()
        assert losses_of(second) == expected[stop:]
        same(whole, second)


def test_images_that_wait_are_not_promoted_and_leave_the_alignment_empty(tmp_path: Path) -> None:
    training = training_of(tmp_path, "unsup_start=0.6")
    lines = losses_of(training, until=4)
    assert training.position.generation == 1
    assert training.position.promoted is None
    assert int(training.detector.parts.alignment.pushed) == 0
    assert all(np.isfinite(value) for line in lines for value in line.values())


TRAIN = """
import sys, torch
from pathlib import Path
from crest_trainings import same, training_of
from watched_trainings import losses_of
from cissod_bench import distributed
distributed.start(torch.device("cpu"))
folder = Path({folder!r})
whole = training_of(folder / "whole")
expected = losses_of(whole)
first = training_of(folder / "half")
losses_of(first, until=3)
first.save()
second = training_of(folder / "half")
assert second.resume()
assert losses_of(second) == expected[3:]
same(whole, second)
promoted = whole.position.promoted
torch.save(
    {{
        "weights": whole.detector.state_dict(), "copies": whole.position.copies[0].tolist(),
        "promoted": {{name: torch.from_numpy(column) for name, column in vars(promoted).items()}},
        "pool": whole.detector.parts.keeper.pool.tensors(),
    }},
    folder / f"rank{{distributed.rank()}}.pth",
)
distributed.stop()
"""


@pytest.mark.slow
def test_training_on_two_processes_agrees_on_everything_and_resumes_exactly(tmp_path: Path) -> None:
    for name in ("whole", "half"):  # draws the split before two processes ask for it
        tiny_plan(tmp_path / name, "crest", *SETTINGS, variant="crest+")
    one, other = two_processes(TRAIN, tmp_path)
    assert one["copies"] == other["copies"]
    for kind in ("weights", "promoted", "pool"):
        for name, value in one[kind].items():
            assert torch.equal(value, other[kind][name]), name
    assert len(one["promoted"]["images"]) > 0
    assert int(one["weights"]["parts.alignment.pushed"]) > 0
