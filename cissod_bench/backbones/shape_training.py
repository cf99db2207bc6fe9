"""A ResNet that learns to name drawn shapes: how the weights of ``package:toy-shapes`` were made.

``python scripts/pretrain_shapes.py FILE.pth`` trains it anew. Every number comes from the recipe: one machine gives the
same bytes again; another processor rounds otherwise, and its backbone is as good but not the same.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cissod_bench.backbones.looks import LOOKS, Kind
from cissod_bench.backbones.pretrained import shapes_of
from cissod_bench.backbones.shape_images import SHAPES, Image, draw_shapes
from cissod_bench.quiet import quiet_imports

KIND: Kind = "torchvision"
"""How the backbone sees images: red first, ImageNet's mean and deviation."""


@dataclass(frozen=True)
class Recipe:
    """How a backbone is pretrained: AdamW on cross entropy, no image seen twice.

    Attributes:
        seed: of the images and of the first weights.
        depth: layers of the ResNet.
        base_channels: of its stem.
        side: of the images, pixels.
        batch: images per step.
        steps: of the optimiser.
        warmup: steps in which the rate rises to ``lr``; then it falls to 0 as half a cosine.
        lr: largest learning rate.
        weight_decay: of AdamW.
    """

    seed: int = 1
    depth: int = 18
    base_channels: int = 20
    side: int = 96
    batch: int = 32
    steps: int = 1500
    warmup: int = 100
    lr: float = 2e-3
    weight_decay: float = 0.05


def rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step, 0 to ``steps`` - 1: a linear rise, then half a cosine."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return recipe.lr * (1 + math.cos(math.pi * share)) / 2


def fresh_network(depth: int, base_channels: int) -> Any:
    """Return mmdet's plain ResNet with random weights and batch norms that learn.

    Args:
        depth: of the ResNet.
        base_channels: of its stem.
    """
    with quiet_imports():
        from mmdet.models.backbones import ResNet
    net = ResNet(
        depth, base_channels=base_channels, stem_channels=base_channels, norm_eval=False, zero_init_residual=False
    )
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return net


def normalised(images: Image) -> Tensor:
    """Return images as the backbone sees them, float32 (B, 3, H, W), red first.

    Args:
        images: uint8 BGR (B, H, W, 3).
    """
    look = LOOKS[KIND]
    pixels = torch.from_numpy(np.ascontiguousarray(images[..., ::-1])).permute(0, 3, 1, 2).float()
    return (pixels - torch.tensor(look.mean)[:, None, None]) / torch.tensor(look.std)[:, None, None]


def train(recipe: Recipe, say: Callable[[int, float, float], None] = lambda step, loss, right: None) -> Any:
    """Return a backbone that was trained to name shapes; torch's random numbers outside stay as they were.

    Args:
        recipe: all numbers.
        say: told step, loss and share of right answers of every batch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = fresh_network(recipe.depth, recipe.base_channels)
        net.train()  # mmdet's returns nothing
        head = nn.Linear(net.feat_dim, len(SHAPES))
        for step, (loss, right) in enumerate(_steps(net, head, recipe)):
            say(step, loss, right)
    net.eval()
    return net


def _steps(net: Any, head: nn.Module, recipe: Recipe) -> Iterator[tuple[float, float]]:
    """Make all steps; yield each one's loss and its share of right answers."""
    weights = [*net.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=recipe.lr, weight_decay=recipe.weight_decay)
    for step in range(recipe.steps):
        numbers = range(step * recipe.batch, (step + 1) * recipe.batch)
        images, classes = draw_shapes(recipe.seed, numbers, recipe.side)
        labels = torch.from_numpy(classes)
        answers = head(pooled(net, normalised(images))[-1])
        loss = nn.functional.cross_entropy(answers, labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.param_groups[0]["lr"] = rate(step, recipe)
        optimiser.step()
        yield float(loss.detach()), float((answers.argmax(dim=1) == labels).float().mean())


def pooled(net: Any, images: Tensor) -> list[Tensor]:
    """Return the means over the image of a backbone's features, (B, C) of every level, from fine to coarse.

    Args:
        net: a backbone; it gives features (B, C, H, W) of several levels.
        images: normalised, (B, 3, H, W).
    """
    return [level.mean(dim=(2, 3)) for level in net(images)]


def linear_probe(
    fitted: Tensor, fitted_labels: Tensor, asked: Tensor, asked_labels: Tensor, ridge: float = 1e-3
) -> float:
    """Return the share of images, 0 to 1, that a linear classifier names rightly: least squares with a penalty.

    Args:
        fitted: features it is fitted to, (N, C).
        fitted_labels: int64 (N,).
        asked: other features, which it is asked about, (M, C).
        asked_labels: int64 (M,).
        ridge: penalty on squared weights of features of deviation 1, a share of N.
    """
    mean, deviation = fitted.double().mean(dim=0), fitted.double().std(dim=0).clamp(min=1e-6)
    inputs, others = ((rows.double() - mean) / deviation for rows in (fitted, asked))
    classes = int(torch.cat([fitted_labels, asked_labels]).max()) + 1
    wanted = nn.functional.one_hot(fitted_labels, classes).double()
    shift = wanted.mean(dim=0)  # the inputs' means are 0
    square = inputs.T @ inputs + ridge * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(square, inputs.T @ (wanted - shift))
    answers = (others @ weights + shift).argmax(dim=1)
    return float((answers == asked_labels).double().mean())


def packed(net: Any, recipe: Recipe) -> bytes:
    """Return a backbone as a file of torch.save: convolutions in half precision, norms in single.

    Args:
        net: as `train` returns it.
        recipe: of that training.
    """
    state = net.state_dict()
    names = shapes_of(recipe.depth, recipe.base_channels, "frozen-bn")
    held = {name: state[name].half() if state[name].dim() == 4 else state[name].clone() for name in names}
    stream = io.BytesIO()  # a path would put its name into the file
    torch.save(held, stream)
    return stream.getvalue()
