"""mmdet settings of the shared detector: Faster R-CNN with FPN, from the run's typed settings."""

from __future__ import annotations

from typing import Any

from cissod_bench.backbones.looks import LOOKS, Kind, Look
from cissod_bench.backbones.timm_networks import channels_at
from cissod_bench.backbones.timm_weights import timm_look
from cissod_bench.contract.settings import Settings

_RESNET_STRIDES = (4, 8, 16, 32)  # of its four stages
IGNORE_IOF = 0.5  # a region that lies in an ignore region by more than this share of its area is no background


def _timm(settings: Settings) -> dict[str, Any]:
    config: dict[str, Any] = {
        "type": "TimmBackbone",
        "name": settings.timm_name,
        "strides": settings.backbone_strides,
        "frozen_stages": settings.frozen_stages,
    }
    if settings.pretrained:
        config["init_cfg"] = {"type": "Pretrained", "checkpoint": settings.pretrained}
    return config


def _backbone(settings: Settings, look: Look) -> dict[str, Any]:
    if settings.timm_name:
        return _timm(settings)
    frozen = settings.norm == "frozen-bn"
    config: dict[str, Any] = {
        "type": "ResNet",
        "depth": settings.depth,
        "base_channels": settings.base_channels,
        "stem_channels": settings.base_channels,
        "num_stages": 4,
        # Blocks that begin as the identity, mmdet's default, keep a detector without pretrained weights on a plateau
        # for hundreds of iterations; pretrained weights overwrite the initial ones anyway.
        "zero_init_residual": False,
        "out_indices": tuple(_RESNET_STRIDES.index(stride) for stride in settings.backbone_strides),
        "frozen_stages": settings.frozen_stages,
        "norm_cfg": {"type": "BN", "requires_grad": False} if frozen else {"type": "GN", "num_groups": 8},
        "norm_eval": frozen,
        "style": look.style,
    }
    if settings.pretrained:
        config["init_cfg"] = {"type": "Pretrained", "checkpoint": settings.pretrained}
    return config


def _look(settings: Settings, kind: Kind | None) -> Look:
    if settings.timm_name:
        return timm_look(settings.timm_name, settings.pretrained)
    return LOOKS[kind or ("scratch" if settings.norm == "gn" else "caffe")]


def _channels(settings: Settings) -> list[int]:
    """Return the channels of the features that the FPN takes from the backbone, from fine to coarse."""
    if settings.timm_name:
        return channels_at(settings.timm_name, settings.backbone_strides)
    first = settings.base_channels * (1 if settings.depth < 50 else 4)
    return [first * stride // _RESNET_STRIDES[0] for stride in settings.backbone_strides]


def _assigner(positive: float, negative: float, low_quality: bool, ignore_iof: float) -> dict[str, Any]:
    return {
        "type": "MatchedFirstAssigner" if ignore_iof > 0 else "MaxIoUAssigner",
        "pos_iou_thr": positive,
        "neg_iou_thr": negative,
        "min_pos_iou": negative,
        "match_low_quality": low_quality,
        "ignore_iof_thr": ignore_iof,
    }


def _sampler(number: int, positive_share: float, add_truth: bool) -> dict[str, Any]:
    return {
        "type": "RandomSampler",
        "num": number,
        "pos_fraction": positive_share,
        "neg_pos_ub": -1,
        "add_gt_as_proposals": add_truth,
    }


def _proposals(limits: tuple[int, int]) -> dict[str, Any]:
    nms = {"type": "nms", "iou_threshold": 0.7}
    return {"nms_pre": limits[0], "max_per_img": limits[1], "nms": nms, "min_bbox_size": 0}


def _coder(spread: tuple[float, float, float, float]) -> dict[str, Any]:
    return {"type": "DeltaXYWHBBoxCoder", "target_means": (0.0, 0.0, 0.0, 0.0), "target_stds": spread}


def _train_settings(settings: Settings, ignore_iof: float) -> dict[str, Any]:
    return {
        "rpn": {
            "assigner": _assigner(0.7, 0.3, True, ignore_iof),
            "sampler": _sampler(settings.rpn_samples, 0.5, False),
            "allowed_border": -1,
            "pos_weight": -1,
            "debug": False,
        },
        "rpn_proposal": _proposals(settings.proposals_train),
        "rcnn": {
            "assigner": _assigner(0.5, 0.5, False, ignore_iof),
            "sampler": _sampler(settings.roi_samples, 0.25, True),
            "pos_weight": -1,
            "debug": False,
        },
    }


def faster_rcnn(
    settings: Settings, num_classes: int, *, ignore_iof: float = -1.0, kind: Kind | None = None
) -> dict[str, Any]:
    """Return mmdet settings of Faster R-CNN with FPN, class-specific L1 box regression and two shared layers.

    Args:
        settings: sizes; with the defaults the detector of Sec. 4.2.
        num_classes: n, the foreground classes.
        ignore_iof: RoIs and anchors whose share inside an ignore region is larger are not negatives; -1 turns it off
            and takes mmdet's own assigner.
        kind: how the backbone sees images; None takes what goes with ``settings.norm`` where nothing is known of it.
    """
    look = _look(settings, kind)
    stages = _channels(settings)
    channels = settings.fpn_channels
    return {
        "type": "FasterRCNN",
        "data_preprocessor": {
            "type": "DetDataPreprocessor",
            "mean": list(look.mean),
            "std": list(look.std),
            "bgr_to_rgb": look.rgb,
            "pad_size_divisor": 32,
        },
        "backbone": _backbone(settings, look),
        "neck": {"type": "FPN", "in_channels": stages, "out_channels": channels, "num_outs": len(settings.strides)},
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": channels,
            "feat_channels": channels,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": [settings.anchor_scale],
                "ratios": [0.5, 1.0, 2.0],
                "strides": list(settings.strides),
            },
            "bbox_coder": _coder((1.0, 1.0, 1.0, 1.0)),
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "roi_head": {
            "type": "StandardRoIHead",
            "bbox_roi_extractor": {
                "type": "SingleRoIExtractor",
                "roi_layer": {
                    "type": "RoIAlign",
                    "output_size": settings.roi_size,
                    "sampling_ratio": settings.roi_sampling,
                },
                "out_channels": channels,
                "finest_scale": settings.roi_finest_side,
                "featmap_strides": list(settings.backbone_strides),
            },
            "bbox_head": {
                "type": "Shared2FCBBoxHead",
                "in_channels": channels,
                "fc_out_channels": settings.fc_channels,
                "roi_feat_size": settings.roi_size,
                "num_classes": num_classes,
                "bbox_coder": _coder((0.1, 0.1, 0.2, 0.2)),
                "reg_class_agnostic": settings.shared_boxes,
                "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
                "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
            },
        },
        "train_cfg": _train_settings(settings, ignore_iof),
        "test_cfg": {
            "rpn": _proposals(settings.proposals_test),
            "rcnn": {
                "score_thr": settings.score_floor,
                "nms": {"type": "nms", "iou_threshold": settings.nms_iou},
                "max_per_img": settings.max_dets,
            },
        },
    }
