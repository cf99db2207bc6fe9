"""Time the gradient matrix of Eq. 1-2: one ``index_add_`` against blocks of 64 proposals that materialise [64, C, C].

The second way is that of the released code: O(P C^2) time and memory. Both run paired in one process, in the same type
and with the same number of threads, and must agree. Processor time is compared, which other programs do not lengthen.
Wanted: at least 1000 times faster at 1204 channels (LVIS). Run ``.venv/bin/python benchmarks/gradient_matrix.py
[proposals]`` from the root of the repository.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from method.gbr import gradient_matrix

CHANNELS = {81: 3, 366: 3, 1204: 1}  # MS-COCO, Objects365, LVIS -> repetitions of the slow way
FAST_REPEATS = 20
BLOCK = 64
GAMMA = 1.0
WANTED = 1000  # times, at the most channels


def chunked_matrix(logits: Tensor, labels: Tensor, label_weights: Tensor) -> Tensor:
    """Return the same matrix from the derivatives of all C possible losses of every proposal, a block at a time."""
    channels = logits.shape[1]
    matrix = logits.new_zeros(channels, channels)
    for begin in range(0, len(logits), BLOCK):
        rows = slice(begin, begin + BLOCK)
        probabilities = logits[rows].softmax(dim=1)
        rest = 1 - probabilities
        push = label_weights[rows, None] * (rest - GAMMA * probabilities * probabilities.log())
        every = probabilities[:, None, :] - torch.eye(channels)  # (64, label, logit)
        every *= push[:, :, None]
        every *= torch.nn.functional.one_hot(labels[rows], channels)[:, :, None]
        matrix += every.sum(dim=0)
    return matrix.T


def timed(call: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """Return the median processor time of a call, in seconds, and what it returned last."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        result = call()
        times.append(time.process_time() - started)
    return statistics.median(times), result


def compare(channels: int, proposals: int, repeats: int) -> tuple[float, float, float]:
    """Return both ways' seconds and their largest difference, as a share of the largest entry."""
    generator = torch.Generator().manual_seed(channels)
    logits = 2 * torch.randn(proposals, channels, generator=generator)
    labels = torch.randint(channels, (proposals,), generator=generator)
    weights = torch.rand(proposals, generator=generator)
    slow, expected = timed(lambda: chunked_matrix(logits, labels, weights), repeats)
    gradient_matrix(logits, labels, weights, GAMMA)  # the first call allocates
    fast, found = timed(lambda: gradient_matrix(logits, labels, weights, GAMMA), FAST_REPEATS)
    return slow, fast, float((found - expected).abs().max() / expected.abs().max())


def main(proposals: int) -> None:
    """Print one line a number of channels."""
    print(f"{proposals} proposals, float32, {torch.get_num_threads()} thread(s), torch {torch.__version__}")
    print(f"{'channels':>8}  {'blocks of 64':>12}  {'index_add':>10}  {'faster':>8}  {'difference':>10}")
    for channels, repeats in CHANNELS.items():
        slow, fast, difference = compare(channels, proposals, repeats)
        print(f"{channels:8}  {slow:10.3f} s  {1000 * fast:7.2f} ms  {slow / fast:7.0f}x  {difference:10.1e}")
    print(f"wanted: >= {WANTED}x at {max(CHANNELS)} channels")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 512)
