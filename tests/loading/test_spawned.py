"""Where processes cannot be forked, a loader worker gets its work pickled: it makes the same views, bit by bit."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from tiny import tiny_training

from cissod_bench.loading import loaders
from cissod_bench.loading.workers import begin_worker


def test_a_worker_that_is_no_fork_makes_the_same_views_of_what_it_is_handed(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "soft-teacher", "workers=0")
    dataset = training.dataset
    handed, gather, begin = pickle.loads(pickle.dumps((dataset, loaders.collate, begin_worker)))
    assert (gather, begin) == (loaders.collate, begin_worker)
    for draw in training.sampler.batch(0):
        mine, its = dataset[draw], handed[draw]
        assert mine.keys() == its.keys()
        assert all(torch.equal(mine[view]["inputs"], its[view]["inputs"]) for view in mine)
