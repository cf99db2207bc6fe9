"""A run's settings as typed Python: presets fix the scale, profiles the constants; ``--set`` changes a field.

The numbers of the paper's Sec. 4.2 stand here once, as the defaults of `Settings`; whatever differs from them in a run
is a departure and goes into its record.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from cissod_bench.contract.frozen_layers import check_frozen_layers
from cissod_bench.errors import UsageFault, unknown_name
from cissod_bench.splitting.task import Task


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every number of a run. The defaults are the paper's (Sec. 4.2) and, where it is silent, Soft Teacher's.

    Attributes:
        iterations: T, optimiser steps; 0 takes the task's own.
        generations: N_t, equal parts of the training.
        milestones: shares of T after which the learning rate is divided by 10.
        warmup_iterations: steps of the linear warm-up.
        warmup_factor: the warm-up's first share of the learning rate.
        labelled_per_gpu: labelled images an iteration and GPU.
        unlabelled_per_gpu: unlabelled images an iteration and GPU.
        reference_images: images an iteration for which ``lr`` is meant; the rate used is scaled linearly.
        optimiser: "sgd" or "adamw".
        lr: learning rate for ``reference_images`` images an iteration.
        momentum: of SGD.
        weight_decay: of the optimiser.
        clip_norm: largest gradient norm; 0 leaves gradients alone.
        amp: mixed precision on GPUs, with a dynamic loss scale.
        unsup_weight: lambda_u, weight of all losses on unlabelled images.
        unsup_start: share of T before which unlabelled images are left out ("burn-in"); 0 is the paper.
        teacher_momentum: the teacher's share in its update.
        teacher_ramp: let the momentum rise from 0 as 1 - 1 / (iteration + 1).
        theta: threshold on classification pseudo labels, score > theta.
        initial_threshold: detections at or below it never become pseudo labels.
        rpn_threshold: threshold on the RPN's pseudo labels.
        box_threshold: box pseudo labels need a localisation uncertainty below it.
        jitter_times: jittered copies a box for its uncertainty.
        jitter_scale: standard deviation of the jitter as a share of the box's side.
        depth: of the ResNet.
        base_channels: of the ResNet's stem.
        norm: "frozen-bn" (pretrained, caffe style) or "gn" (from scratch).
        pretrained: weights of the backbone: a file (of a classifier or a detector), an address or a name that mmengine
            knows; "" starts from random ones, with "gn" and no frozen stage.
        pretrained_kind: how that backbone sees images: "caffe", "torchvision" or "scratch"; "auto": the file tells.
        frozen_stages: stages of the ResNet that are not trained.
        fpn_channels: of the FPN and the RPN.
        fc_channels: of the RoI head's two shared layers.
        roi_size: side of a RoI's pooled features, bins.
        roi_sampling: samples a bin and direction in RoIAlign; 0 takes as many as the bin spans.
        roi_finest_side: RoIs of less than twice this side, pixels, are pooled from the finest level.
        anchor_scale: side of an anchor in strides of its level.
        strides: of the FPN's levels.
        rpn_samples: anchors an image in the RPN's loss.
        roi_samples: RoIs an image in the RoI losses, a quarter of them positive at most.
        proposals_train: proposals (before, after NMS) an image of the student.
        proposals_test: proposals (before, after NMS) an image in scoring.
        teacher_proposals: limits that make the teacher's pseudo labels: "train" (Soft Teacher's) or "test" (mmdet's).
        score_floor: detections need score > floor.
        nms_iou: overlap above which the worse box of a class is dropped.
        max_dets: detections an image.
        short_side: training short side in pixels, drawn from [low, high].
        long_side: largest long side in training and in scoring, pixels.
        test_short_side: short side in scoring, pixels.
        strong_views: "soft-teacher" (its own colours, geometry and erasing; the colours of labelled images, too),
            "mmdet" (mmdet's version of them) or "light" (mmdet's colours and erasing alone, for small drawn images).
        group_by_aspect: fill the images of a source with one orientation.
        workers: loader processes a rank.
        test_batch: images a forward pass in scoring.
        checkpoint_every: iterations between checkpoints.
        log_every: iterations between lines of log.jsonl.
    """

    iterations: int = 0
    generations: int = 10
    milestones: tuple[float, ...] = (0.75, 0.90)
    warmup_iterations: int = 500
    warmup_factor: float = 1e-3
    labelled_per_gpu: int = 1
    unlabelled_per_gpu: int = 4
    reference_images: int = 40  # 8 GPUs x (1 + 4)
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 0.0
    amp: bool = True
    unsup_weight: float = 4.0
    unsup_start: float = 0.0
    teacher_momentum: float = 0.999
    teacher_ramp: bool = True
    theta: float = 0.9
    initial_threshold: float = 0.5
    rpn_threshold: float = 0.9
    box_threshold: float = 0.02
    jitter_times: int = 10
    jitter_scale: float = 0.06
    depth: Literal[18, 34, 50, 101] = 50
    base_channels: int = 64
    norm: Literal["frozen-bn", "gn"] = "frozen-bn"
    pretrained: str = "open-mmlab://detectron2/resnet50_caffe"
    pretrained_kind: Literal["auto", "caffe", "torchvision", "scratch"] = "auto"
    frozen_stages: int = 1
    fpn_channels: int = 256
    fc_channels: int = 1024
    roi_size: int = 7
    roi_sampling: int = 0
    roi_finest_side: int = 56
    anchor_scale: int = 8
    strides: tuple[int, ...] = (4, 8, 16, 32, 64)
    rpn_samples: int = 256
    roi_samples: int = 512
    proposals_train: tuple[int, int] = (2000, 1000)
    proposals_test: tuple[int, int] = (1000, 1000)
    teacher_proposals: Literal["train", "test"] = "train"
    score_floor: float = 0.05
    nms_iou: float = 0.5
    max_dets: int = 100
    short_side: tuple[int, int] = (400, 1200)
    long_side: int = 1333
    test_short_side: int = 800
    strong_views: Literal["soft-teacher", "mmdet", "light"] = "soft-teacher"
    group_by_aspect: bool = True
    workers: int = 5
    test_batch: int = 1
    checkpoint_every: int = 5000
    log_every: int = 50

    @property
    def images_per_gpu(self) -> int:
        """Images an iteration and GPU, labelled and unlabelled."""
        return self.labelled_per_gpu + self.unlabelled_per_gpu


FULL = Settings()

# A detector that learns drawn shapes from nothing in minutes on two cores: few channels, small images, few proposals;
# AdamW instead of SGD because it needs no pretrained backbone, and more labelled than unlabelled images because a
# detector that starts from nothing has no pseudo labels at first. Until it has some, all that is unlabelled is trained
# as background, so unlabelled images wait for 40 % of the run. lambda_u = 4 / 8: with losses that are means over the 8
# labelled and the 4 unlabelled images every image weighs the same, as with the paper's 4 = 4 / 1. How both were found:
# docs/paper.md.
MINI = replace(
    FULL,
    iterations=900,
    warmup_iterations=30,
    labelled_per_gpu=8,
    unlabelled_per_gpu=4,
    reference_images=12,
    optimiser="adamw",
    lr=1e-3,
    weight_decay=1e-2,
    clip_norm=10.0,
    amp=False,
    unsup_weight=0.5,
    unsup_start=0.4,
    teacher_momentum=0.99,
    depth=18,
    base_channels=32,
    norm="gn",
    pretrained="",
    frozen_stages=-1,
    fpn_channels=32,
    fc_channels=256,
    roi_size=5,
    roi_sampling=1,
    anchor_scale=4,
    strides=(4, 8, 16, 32),
    rpn_samples=64,
    roi_samples=48,
    proposals_train=(120, 64),
    proposals_test=(80, 48),
    teacher_proposals="test",
    short_side=(88, 120),
    long_side=128,
    test_short_side=104,
    strong_views="light",
    group_by_aspect=False,
    workers=1,
    test_batch=16,
    checkpoint_every=100,
    log_every=10,
)

# Shows that every part runs; its scores mean nothing.
SMOKE = replace(
    MINI, iterations=20, generations=4, warmup_iterations=5, unsup_start=0.0, checkpoint_every=5, log_every=1
)

PRESETS: Mapping[str, Settings] = types.MappingProxyType({"full": FULL, "mini": MINI, "smoke": SMOKE})
PRESET_TITLES: Mapping[str, str] = types.MappingProxyType(
    {
        "full": "the paper's Sec. 4.2, for 8 GPUs: R50-FPN, 1333 x 800, SGD 0.01, 1 + 4 images a GPU",
        "mini": "small detector from scratch, 128 px, for the toy tasks on a CPU in minutes",
        "smoke": "mini with 20 iterations: does everything run?",
    }
)
PROFILES: Mapping[str, str] = types.MappingProxyType(
    {
        "default": "the paper's numbers, the released code's safeguards where the paper is silent",
        "paper": "the paper's text; what it leaves open: presets paper",
        "official": "the released code's constants of GbR, GbT, CrS, not all it does: presets official",
    }
)


def preset(name: str, *, task_iterations: int) -> Settings:
    """Return a preset's settings; where it leaves T open, the task's own is taken.

    Raises:
        UsageFault: there is no preset of that name.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS, remedy="cissod-bench presets")
    chosen = PRESETS[name]
    return chosen if chosen.iterations else replace(chosen, iterations=task_iterations)


def _parse(text: str, kind: Any) -> Any:
    """Return ``text`` as a value of an annotated type; raises ValueError."""
    if typing.get_origin(kind) is Literal:
        options = {str(option): option for option in typing.get_args(kind)}
        if text not in options:
            raise ValueError(f"one of {', '.join(options)}")
        return options[text]
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        words = [word for word in text.strip("()[]").split(",") if word.strip()]
        if Ellipsis not in inner and len(words) != len(inner):
            raise ValueError(f"{len(inner)} numbers separated by commas")
        return tuple(_parse(word.strip(), inner[0]) for word in words)
    if kind is bool:
        if text.lower() not in {"true", "false", "1", "0"}:
            raise ValueError("true or false")
        return text.lower() in {"true", "1"}
    try:
        return kind(text)
    except ValueError:
        raise ValueError({int: "an integer", float: "a number"}.get(kind, str(kind))) from None


def with_changes(settings: Settings, changes: Sequence[str]) -> Settings:
    """Return settings with ``key=value`` changes.

    Raises:
        UsageFault: not of that form, no such setting (with near matches), or a value of another type.
    """
    kinds = typing.get_type_hints(Settings)
    for change in changes:
        key, equals, text = change.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise UsageFault(f"--set needs key=value. Got {change!r} instead.", remedy="cissod-bench presets mini")
        if key not in kinds or key not in {f.name for f in fields(Settings)}:
            raise unknown_name("setting", key, [f.name for f in fields(Settings)], remedy="cissod-bench presets mini")
        try:
            value = _parse(text.strip(), kinds[key])
        except ValueError as rule:
            message = f"Setting {key!r} must be {rule}. Got {text!r} instead."
            raise UsageFault(message, remedy=_usual(key)) from None
        settings = replace(settings, **{key: value})
    return checked(settings)


def _usual(name: str) -> str:
    """Return how a setting gets the value that it has in the preset full."""
    value = {**vars(Settings()), "iterations": 180_000}[name]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"--set {name}={text} is the preset full's; cissod-bench presets lists all settings"


_INFINITY = float("inf")
# Setting -> its least and greatest value; of a tuple, of each of its numbers.
_BOUNDS: Mapping[str, tuple[float, float]] = types.MappingProxyType(
    {
        "iterations": (1, _INFINITY), "generations": (1, _INFINITY), "milestones": (0, 1),
        "warmup_iterations": (0, _INFINITY), "warmup_factor": (0, 1), "labelled_per_gpu": (1, _INFINITY),
        "unlabelled_per_gpu": (0, _INFINITY), "reference_images": (1, _INFINITY), "lr": (1e-12, 1e3),
        "momentum": (0, 1), "weight_decay": (0, 1e3), "clip_norm": (0, 1e9), "unsup_weight": (0, 1e6),
        "unsup_start": (0, 1), "teacher_momentum": (0, 1), "theta": (0, 1), "initial_threshold": (0, 1),
        "rpn_threshold": (0, 1), "box_threshold": (0, 1e6), "jitter_times": (2, 1000), "jitter_scale": (0, 10),
        "base_channels": (8, 1024), "frozen_stages": (-1, 4), "fpn_channels": (1, 4096), "fc_channels": (1, 65536),
        "roi_size": (1, 56), "roi_sampling": (0, 16), "roi_finest_side": (1, 4096), "anchor_scale": (1, 64),
        "strides": (1, 1024), "rpn_samples": (1, 65536), "roi_samples": (1, 65536), "proposals_train": (1, 100_000),
        "proposals_test": (1, 100_000), "score_floor": (0, 1), "nms_iou": (0, 1), "max_dets": (1, 100_000),
        "short_side": (1, 100_000), "long_side": (1, 100_000), "test_short_side": (1, 100_000), "workers": (0, 256),
        "test_batch": (1, 4096), "checkpoint_every": (1, _INFINITY), "log_every": (1, _INFINITY),
    }
)  # fmt: skip


def checked(settings: Settings) -> Settings:
    """Return the settings.

    Raises:
        UsageFault: a value is out of its range, or two do not go together; the message says the rule.
    """
    for name, (low, high) in _BOUNDS.items():
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not low <= number <= high or abs(number) == _INFINITY:  # a NaN fails the first comparison
                limits = f"at least {low:g}" if high == _INFINITY else f"in [{low:g}, {high:g}]"
                message = f"Setting {name!r} must be {limits}. Got {number!r} instead."
                raise UsageFault(message, remedy=_usual(name))
    rules = {
        f"'generations' must be at most 'iterations' ({settings.iterations}). Got {settings.generations}": (
            settings.generations <= settings.iterations
        ),
        f"'short_side' must be (low, high) with low <= high. Got {settings.short_side}": (
            settings.short_side[0] <= settings.short_side[1]
        ),
        f"'strides' must be four or more rising numbers. Got {settings.strides}": (
            len(settings.strides) >= 4 and list(settings.strides) == sorted(set(settings.strides))
        ),
        f"'base_channels' must be a multiple of 8 for group norm. Got {settings.base_channels}": (
            settings.norm != "gn" or settings.base_channels % 8 == 0
        ),
    }
    for rule, holds in rules.items():
        if not holds:
            name = rule.split("'")[1]
            fewer = f"--set generations={settings.iterations} or fewer"
            raise UsageFault(f"Setting {rule} instead.", remedy=fewer if name == "generations" else _usual(name))
    check_frozen_layers(settings)
    return settings


def resolved(task: Task, preset_name: str, changes: Sequence[str] = ()) -> Settings:
    """Return the settings of a run: a preset at the task's length and limits, with the user's changes.

    Args:
        task: the sub-task.
        preset_name: one of `PRESETS`.
        changes: as `with_changes` takes them.

    Raises:
        UsageFault: a name or value does not exist.
    """
    chosen = preset(preset_name, task_iterations=task.iterations)
    return with_changes(replace(chosen, max_dets=task.max_dets, score_floor=task.score_floor), changes)


def departures(
    settings: Settings, *, task_iterations: int, world_size: int, images: int | None = None
) -> dict[str, list[Any]]:
    """Return what differs from the paper: setting -> [the paper's value, the value used].

    Args:
        settings: the run's.
        task_iterations: T of the task in the paper.
        world_size: processes.
        images: drawn an iteration and process, where a method leaves a source out.
    """
    paper = dataclasses.asdict(replace(FULL, iterations=task_iterations))
    used = dataclasses.asdict(settings)
    found = {name: [paper[name], used[name]] for name in paper if paper[name] != used[name]}
    drawn = (settings.images_per_gpu if images is None else images) * world_size
    if drawn != FULL.reference_images:
        found["images_per_iteration"] = [FULL.reference_images, drawn]
    if learning_rate_for(settings, world_size) != FULL.lr:
        found["lr_used"] = [FULL.lr, learning_rate_for(settings, world_size)]
    return found


def learning_rate_for(settings: Settings, world_size: int) -> float:
    """Return the base learning rate, scaled linearly with the images an iteration (Goyal et al., 2017)."""
    return settings.lr * settings.images_per_gpu * world_size / settings.reference_images


def learning_rate(iteration: int, settings: Settings, world_size: int, span: tuple[int, int] | None = None) -> float:
    """Return the learning rate of an iteration: linear warm-up, then / 10 after each milestone (Sec. 4.2).

    Args:
        iteration: optimiser steps done before it.
        settings: the run's.
        world_size: processes.
        span: first and last + 1 iteration of the running stage, whose milestones count from its begin; None is the
            whole run. Only the first stage has a warm-up.
    """
    begin, end = span or (0, settings.iterations)
    base = learning_rate_for(settings, world_size)
    passed = sum(iteration - begin >= share * (end - begin) for share in settings.milestones)
    rate = base * 0.1**passed
    if iteration < settings.warmup_iterations and begin == 0:
        rate *= settings.warmup_factor + (1 - settings.warmup_factor) * iteration / settings.warmup_iterations
    return rate
