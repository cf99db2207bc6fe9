"""What a loader worker sends: the batch it made, bit by bit, with all its numbers in one block of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from detectors import batch
from mmdet.structures.bbox import HorizontalBoxes
from tiny import tiny_training

from cissod_bench.loading import loaders
from cissod_bench.loading.loaders import training_batches
from cissod_bench.loading.parcels import Parcel


def tensors_of(value: Any) -> list[torch.Tensor]:
    """All tensors within a batch, in its order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict | list | tuple):
        return [own for inner in (value.values() if isinstance(value, dict) else value) for own in tensors_of(inner)]
    return tensors_of(vars(value)) if hasattr(value, "__dict__") else []


def test_an_opened_parcel_holds_what_was_put_into_it() -> None:
    content: dict[str, Any] = batch(3)
    content["sup"][0]["data_samples"].gt_instances.bboxes = HorizontalBoxes(
        content["sup"][0]["data_samples"].gt_instances.bboxes
    )
    content["more"] = {"number": 0.1, "far": torch.arange(12.0).view(3, 4).t(), "one": torch.tensor(7), "none": None}
    content["more"]["matrix"] = np.eye(3, dtype=np.float32)[:, ::-1]
    opened = Parcel(content).opened()
    assert len(tensors_of(content)) == len(tensors_of(opened)) > 20
    for before, after in zip(tensors_of(content), tensors_of(opened), strict=True):
        assert before.dtype == after.dtype
        assert torch.equal(before, after)
    np.testing.assert_array_equal(opened["more"]["matrix"], content["more"]["matrix"])
    samples = content["sup"][0]["data_samples"], opened["sup"][0]["data_samples"]
    assert set(samples[0].metainfo_keys()) == set(samples[1].metainfo_keys())
    assert isinstance(samples[1].gt_instances.bboxes, HorizontalBoxes)


def test_what_comes_out_of_a_parcel_may_be_written_to_and_overlaps_nothing() -> None:
    opened = Parcel({"first": torch.zeros(5, dtype=torch.uint8), "second": torch.zeros(5)}).opened()
    opened["first"].fill_(255)
    assert not opened["second"].any()


def test_a_parcel_sends_one_tensor_and_few_words() -> None:
    parcel = Parcel(batch(3))
    assert len(tensors_of(parcel)) == 1
    assert len(parcel._words) < 10_000 < parcel._block.numel()


def test_a_worker_sends_parcels_and_the_batches_are_those_of_no_worker(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tiny_training(tmp_path, "soft-teacher", "workers=0")
    opened: list[Parcel] = []

    def open_(parcel: Parcel, opening: Any = Parcel.opened) -> Any:
        opened.append(parcel)
        return opening(parcel)

    monkeypatch.setattr(loaders.Parcel, "opened", open_)
    both = [list(training_batches(training.dataset, training.sampler, 0, 2, workers)) for workers in (0, 1)]
    assert len(opened) == 2
    for alone, sent in zip(*both, strict=True):
        assert list(alone) == list(sent)
        pairs = zip(tensors_of(alone), tensors_of(sent), strict=True)
        assert all(torch.equal(mine, its) for mine, its in pairs)
