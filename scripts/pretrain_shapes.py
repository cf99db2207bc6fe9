"""Train the backbone of the toy tasks anew, and measure it: five minutes of one core.

    python scripts/pretrain_shapes.py FILE.pth

Beside the file a record is written, FILE.json: its sha256, the recipe, and how well linear classifiers on its frozen
features name shapes that it has not seen. The shipped file is ``cissod_bench/backbones/weights/toy-shapes.pth``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from cissod_bench.backbones.pretrained import read_weights
from cissod_bench.backbones.shape_images import draw_shapes
from cissod_bench.backbones.shape_training import (
    Recipe,
    fresh_network,
    linear_probe,
    normalised,
    packed,
    pooled,
    train,
)
from cissod_bench.files.whole_files import write_bytes

FITTED, ASKED = 101, 102  # seeds of the images that the probes are fitted to and asked about
LEVELS = {"stride 8": 1, "stride 16": 2, "stride 32": 3}


def features(net: Any, seed: int, count: int, side: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return pooled features of drawn images, (count, C) of every level, and their labels."""
    rows, labels = [], []
    for first in range(0, count, 50):
        images, classes = draw_shapes(seed, range(first, min(first + 50, count)), side)
        with torch.no_grad():
            rows.append(pooled(net, normalised(images)))
        labels.append(torch.from_numpy(classes))
    return [torch.cat(level) for level in zip(*rows, strict=True)], torch.cat(labels)


def probes(net: Any, side: int, fitted: int, asked: int) -> dict[str, float]:
    """Return level -> share of right answers of a linear classifier on its frozen features, in percent."""
    known, labels = features(net, FITTED, fitted, side)
    others, right = features(net, ASKED, asked, side)
    return {
        name: round(100 * linear_probe(known[level], labels, others[level], right), 2) for name, level in LEVELS.items()
    }


def loaded(path: Path, recipe: Recipe) -> Any:
    """Return a backbone with a file's weights, as rounded there."""
    net = fresh_network(recipe.depth, recipe.base_channels)
    net.load_state_dict(read_weights(str(path)).state, strict=False)
    net.eval()
    return net


def main(words: list[str]) -> int:
    """Train, write and measure; return the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--fitted", type=int, default=2000, help="images that the probes are fitted to")
    parser.add_argument("--asked", type=int, default=2000, help="images that the probes are asked about")
    for field in dataclasses.fields(Recipe):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    given = vars(parser.parse_args(words))
    path, fitted, asked = given.pop("file"), given.pop("fitted"), given.pop("asked")
    recipe = Recipe(**given)
    torch.set_num_threads(1)
    begun, sums = time.process_time(), [0.0, 0.0]

    def say(step: int, loss: float, right: float) -> None:
        sums[0], sums[1] = sums[0] + loss, sums[1] + right
        if (step + 1) % 100 == 0:
            seconds = time.process_time() - begun
            print(f"{step + 1:5} loss {sums[0] / 100:.3f} right {sums[1]:.1f} % {seconds:.0f} s", flush=True)
            sums[:] = [0.0, 0.0]

    content = packed(train(recipe, say), recipe)
    write_bytes(path, content)
    record = {
        "file": path.name,
        "sha256": sha256(content).hexdigest(),
        "bytes": len(content),
        "licence": "Apache-2.0, as the program that drew its images and trained it",
        "recipe": dataclasses.asdict(recipe),
        "seconds of one core": round(time.process_time() - begun),
        "torch": torch.__version__,
        "linear probe, % right": probes(loaded(path, recipe), recipe.side, fitted, asked),
        "probe": {"fitted to images": fitted, "asked about": asked},
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
