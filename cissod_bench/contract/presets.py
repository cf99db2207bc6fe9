"""Presets fix a run's scale, profiles its constants."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cissod_bench.contract.changes import with_changes
from cissod_bench.contract.settings import FULL, Settings
from cissod_bench.errors import unknown_name
from cissod_bench.splitting.task import Task

# eval_every = 0 in all presets but full: teacher and student on all 300 images of the toy task take 11 seconds of a
# run's 466 (mean of the kept runs), so an evaluation each two generations would make it 9 % longer. Ask for it:
# --set eval_every=180, and eval_images=50 to take a sixth of the images.

# What small detectors on a CPU share: AdamW instead of SGD because they are trained for minutes; few RoI bins; and
# unlabelled images from 40 % of the run on, because until the teacher has pseudo labels all that is unlabelled is
# trained as background.
SMALL = replace(
    FULL,
    warmup_iterations=30,
    labelled_per_gpu=8,
    optimiser="adamw",
    lr=1e-3,
    weight_decay=1e-2,
    clip_norm=10.0,
    amp="off",
    unsup_start=0.4,
    teacher_momentum=0.99,
    fc_channels=256,
    roi_size=5,
    roi_sampling=1,
    anchor_scale=4,
    teacher_proposals="test",
    workers=1,
    test_batch=16,
    checkpoint_every=100,
    log_every=10,
    eval_every=0,
)

# A detector that learns drawn shapes from nothing in minutes on two cores: few channels, small images, few proposals,
# and more labelled than unlabelled images because a detector that starts from nothing has no pseudo labels at first.
# lambda_u = 4 / 8: with losses that are means over the 8 labelled and the 4 unlabelled images every image weighs the
# same, as with the paper's 4 = 4 / 1. How both were found: docs/tried.md.
MINI = replace(
    SMALL,
    iterations=900,
    unlabelled_per_gpu=4,
    reference_images=12,
    unsup_weight=0.5,
    depth=18,
    base_channels=32,
    norm="gn",
    pretrained="",
    frozen_stages=-1,
    fpn_channels=32,
    strides=(4, 8, 16, 32),
    rpn_samples=64,
    roi_samples=48,
    proposals_train=(120, 64),
    proposals_test=(80, 48),
    short_side=(88, 120),
    long_side=128,
    test_short_side=104,
    strong_views="light",
    group_by_aspect=False,
)

# Photographs on a CPU in minutes: an ImageNet backbone, frozen as a whole, so that nothing is kept for its gradient,
# below a narrow FPN without the level of stride 4. D_l and D_u give eight images each to an iteration. A class with ten
# boxes trains no box regressor of its own, and NMS at .3 drops second boxes and parts of animals from the pseudo
# labels. How it was found: docs/tried.md.
PHOTO = replace(
    SMALL,
    iterations=1000,
    unlabelled_per_gpu=8,
    reference_images=16,
    unsup_weight=1.0,
    amp="bf16",
    backbone="timm:tf_efficientnet_lite2",
    pretrained="package:efficientnet-lite2",
    frozen_stages=4,
    shared_boxes=True,
    nms_iou=0.3,
    fpn_channels=64,
    strides=(8, 16, 32, 64),
    rpn_samples=128,
    roi_samples=96,
    proposals_train=(300, 150),
    proposals_test=(200, 100),
    short_side=(224, 256),
    long_side=340,
    test_short_side=240,
    strong_views="mmdet",
)

# Shows that every part runs; its scores mean nothing.
SMOKE = replace(
    MINI, iterations=20, generations=4, warmup_iterations=5, unsup_start=0.0, checkpoint_every=5, log_every=1
)

# A detector of MS-COCO goes on with own classes: a short schedule at a tenth of the rate it was trained with (0.02 for
# 16 images), smaller images than full's, and unlabelled ones after a fifth of the run, when the rows of classes that it
# does not know have learnt something. Reasoned, not measured.
FINE_TUNE = replace(
    FULL,
    iterations=4000,
    warmup_iterations=100,
    labelled_per_gpu=4,
    unlabelled_per_gpu=4,
    reference_images=16,
    lr=2e-3,
    unsup_weight=1.0,
    unsup_start=0.2,
    teacher_momentum=0.995,
    pretrained="https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_1x_coco/"
    "faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth",
    pretrained_part="detector",
    short_side=(400, 640),
    long_side=1066,
    test_short_side=640,
    checkpoint_every=500,
    eval_every=0,
)

PRESETS: Mapping[str, Settings] = types.MappingProxyType(
    {"full": FULL, "fine-tune": FINE_TUNE, "photo": PHOTO, "mini": MINI, "smoke": SMOKE}
)
PRESET_TITLES: Mapping[str, str] = types.MappingProxyType(
    {
        "full": "the paper's Sec. 4.2, for 8 GPUs: R50-FPN, 1333 x 800, SGD 0.01, 1 + 4 images per GPU; 180,000 "
        "iterations, not measured (50 hours at one a second)",
        "fine-tune": "own photographs, for one GPU: begins as mmdet's R50-FPN of MS-COCO, 1066 x 640, 4 + 4 images; "
        "4,000 iterations, not measured",
        "photo": "own photographs, for a CPU or a small GPU: 240 px, frozen EfficientNet-Lite2 of ImageNet (extra "
        "photos), 8 + 8 images in bf16; about 12 minutes of a CPU core",
        "mini": "the toy tasks, for a CPU: small detector from scratch, 128 px; about 3 minutes on two cores",
        "smoke": "does everything run? mini with 20 iterations, for a CPU; about a minute",
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


def preset_name_of(task: Task, named: str | None) -> str:
    """Return the preset that the user has named, or else the task's own."""
    return named or task.usual_preset


def require_profile(name: str) -> None:
    """Check a profile's name.

    Raises:
        UsageFault: there is no profile of that name.
    """
    if name not in PROFILES:
        raise unknown_name("profile", name, PROFILES, remedy="cissod-bench presets")


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
