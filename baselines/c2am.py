"""C2AM loss (Wang et al., CVPR 2022) on Soft Teacher: a cosine classifier with margins that follow its weights' norms.

With W_j the weights of channel j (no bias), z the features of a RoI, i its label and cos_j = <W_j, z> / (|W_j| |z|):

    m_ij = max(0, (alpha / pi) ln(|W_i| / |W_j|)), norms without gradient
    L_r = -ln( e^{s cos_i} / (e^{s cos_i} + sum_{j != i} e^{s cos(theta_j + m_ij)}) ),  theta_j = arccos(cos_j)

A norm grows with every step on its class, since the gradient is orthogonal to W_j, and decays with the weight decay: it
tells how much a class is trained. The label with the larger norm gets the margin, which lowers its competitor's logit.
The background is a class as any other. Scores are softmax(s cos), without margins. D_l is drawn as RFS draws it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cissod_bench.contract.method import Method, RunFacts
from cissod_bench.contract.parts import Context, Copies, Parts, group_means
from cissod_bench.contract.repeat_factors import labelled_copies
from cissod_bench.contract.stock import Stock

# The loss has no released code; later papers restate it with these values, its best ones: LVIS mask AP is 14.2, 25.4,
# 25.7, 24.8, 23.6 with s = 10, 20, 30, 40, 50, and 24.1 without margins.
SCALE = 30.0
ALPHA = 0.5
# Ours: mmdet initialises a classifier like this, so that |W_j| is about 0.32 with 1024 features.
INITIAL_SPREAD = 0.01
# Ours: norms below it count as it, so that a RoI with no feature at all has cosines 0.
EPSILON = 1e-6


def cosines(features: Tensor, weight: Tensor) -> Tensor:
    """Return cos_j = <W_j, z> / (|W_j| |z|) in [-1, 1], 0 where a vector is 0, shape (R, K).

    Args:
        features: z, shape (R, D).
        weight: W, shape (K, D).
    """
    return F.linear(F.normalize(features, dim=1, eps=EPSILON), F.normalize(weight, dim=1, eps=EPSILON))


def margins(norms: Tensor, labels: Tensor, alpha: float = ALPHA, *, background: bool = True) -> Tensor:
    """Return m_ij = max(0, (alpha / pi) ln(|W_i| / |W_j|)) in radians for the rows' labels i, shape (R, K).

    Args:
        norms: |W_j|, shape (K,).
        labels: channels in [0, n], n is background, shape (R,).
        alpha: >= 0; 0 is the plain cosine softmax.
        background: whether the background takes part; if not, it neither gets nor gives a margin.
    """
    logarithms = norms.detach().clamp(min=EPSILON).log()
    # theta + m is an angle: a margin above pi, of norms 4 x 10^8 apart, means what pi does.
    result = (alpha / math.pi * (logarithms[labels][:, None] - logarithms)).clamp(0, math.pi)
    if background:
        return result
    last = len(norms) - 1
    result[labels == last] = 0.0
    result[:, last] = 0.0
    return result


def shifted(cosine: Tensor, margin: Tensor) -> Tensor:
    """Return cos(theta + m), falling in m; -1 where theta + m exceeds pi.

    Args:
        cosine: cos theta, any shape.
        margin: m in [0, pi], the same shape.
    """
    sine = (1 - cosine.square()).clamp(min=1e-12).sqrt()
    moved = torch.where(cosine < -margin.cos(), -torch.ones_like(cosine), cosine * margin.cos() - sine * margin.sin())
    # Without a margin the cosine itself, to the last bit, so that equal norms are the plain cosine softmax.
    return torch.where(margin > 0, moved, cosine)


def margin_losses(cosine: Tensor, labels: Tensor, margin: Tensor, scale: float = SCALE) -> Tensor:
    """Return L_r, shape (R,): cross-entropy of s cos(theta_j + m_ij), which is s cos_i at the label.

    Args:
        cosine: cos_j, shape (R, K).
        labels: i, shape (R,).
        margin: m_ij >= 0 with m_ii = 0, shape (R, K).
        scale: s.
    """
    return F.cross_entropy(scale * shifted(cosine, margin), labels, reduction="none")


class CosineClassifier(nn.Module):
    """A linear classifier of directions: s cos_j, without bias.

    Args:
        features: D.
        channels: K.
        scale: s.
    """

    def __init__(self, features: int, channels: int, scale: float = SCALE) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(channels, features))
        nn.init.normal_(self.weight, 0, INITIAL_SPREAD)

    def forward(self, features: Tensor) -> Tensor:
        """Return s cos_j in the weights' full precision, whatever the features come in, shape (R, K)."""
        with torch.autocast(features.device.type, enabled=False):
            return self.scale * cosines(features.to(self.weight.dtype), self.weight)


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What a variant may change.

    Attributes:
        alpha: of the margins; 0 leaves the cosine classifier alone.
        margin_background: whether the background takes part in the margins.
    """

    alpha: float = ALPHA
    margin_background: bool = True


class CategoryAwareMargins(Parts):
    """C2AM's parts for one run; no state but the classifier.

    Args:
        facts: of the run.
    """

    groups: Tensor

    def __init__(self, facts: RunFacts) -> None:
        super().__init__(len(facts.classes), facts.settings.theta)
        self.switches = Switches(**facts.variant)
        self.group_names = tuple(facts.groups)
        self.register_buffer("groups", group_means(facts.classes, facts.groups), persistent=False)
        self._copies = labelled_copies(facts.labelled_classes, self.num_classes, facts.task.repeat_threshold)

    def change_model(self, model: nn.Module) -> None:
        """Put the cosine classifier in the place of the linear one."""
        head: Any = model.get_submodule("roi_head.bbox_head")
        head.fc_cls = CosineClassifier(head.fc_cls.in_features, self.num_classes + 1)

    def stock(self, detector: Stock) -> Stock:
        """Return the detector with mmdet's NormedLinear in the place of the cosine classifier; it has a bias, of 0."""
        prefix, head = "roi_head.bbox_head.fc_cls", detector.box_head
        head["cls_predictor_cfg"] = {"type": "NormedLinear", "temperature": SCALE, "eps": EPSILON**2}
        weight = detector.state[f"{prefix}.weight"]
        detector.state[f"{prefix}.bias"] = weight.new_zeros(len(weight))
        return detector

    @staticmethod
    def _norms(context: Context) -> Tensor:
        """Return |W_j| of the student, never the teacher's, shape (K,)."""
        assert context.student is not None
        weight = context.student.get_parameter("roi_head.bbox_head.fc_cls.weight")
        norms: Tensor = torch.linalg.vector_norm(weight.detach(), dim=1)
        return norms

    def classification_loss(
        self, logits: Tensor, labels: Tensor, label_weights: Tensor, normaliser: Tensor, context: Context
    ) -> Tensor:
        """Return sum_r v_r L_r / Z, a scalar, with the margins of the student's weights as they are."""
        own = self.switches
        margin = margins(self._norms(context).to(logits), labels, own.alpha, background=own.margin_background)
        return (label_weights * margin_losses(logits / SCALE, labels, margin)).sum() / normaliser

    def copies(self, context: Context) -> Copies:
        """Return RFS's copies of D_l."""
        return {0: self._copies}

    def after_iteration(self, context: Context) -> None:
        """Log the norms per group and the background's: who is ahead, and of whom."""
        norms = self._norms(context)
        for name, mean in zip(self.group_names, self.groups @ norms[:-1], strict=True):
            context.logs[f"norm_{name}"] = mean
        context.logs["norm_background"] = norms[-1]


METHOD = Method(
    title="C2AM",
    source="Sec. 4.3, Tables 1-3",
    summary="a cosine classifier with margins that protect little-trained classes; RFS",
    citation="T. Wang, Y. Zhu, Y. Chen, C. Zhao, B. Yu, J. Wang, M. Tang: C2AM Loss: Chasing a Better Decision "
    "Boundary for Long-Tail Object Detection. CVPR 2022.",
    parts=CategoryAwareMargins,
    reported={
        "coco-split1": {"all": 24.4, "maj": 30.8, "min": 6.2},
        "coco-split2": {"all": 20.8, "maj": 32.9, "min": 8.6},
        "coco-o365": {"all": 7.6, "maj": 23.2, "min": 3.4},
        "lvis": {"all": 8.6, "f": 22.1, "c": 12.3, "r": 3.7},
    },
    variants={
        # Not in the paper: the classifier without its loss; margins among foreground classes only.
        "cosine": {"alpha": 0.0},
        "foreground-margins": {"margin_background": False},
    },
    departures=(
        "no code was released: the formula, s = 30 and alpha = 0.5 are those of later papers that restate the loss",
        "the background takes part in the margins as any class, which those papers leave open (variant "
        "foreground-margins)",
        "under AdamW (photo, mini, smoke), whose steps are of equal size, norms of classes differ little, on photos "
        "those of majority and minority by 7 %: a margin of 0.01 radians, which leaves a cosine classifier with RFS",
    ),
)
