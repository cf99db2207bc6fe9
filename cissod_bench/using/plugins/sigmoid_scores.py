"""Scores of EQLv2 (Tan et al., CVPR 2021) for mmdet: sigmoid(x_j) (1 - sigmoid(x_n)), the background channel n last.

Written by ``cissod-bench export`` beside the settings of a detector; it needs mmdet and torch alone.
"""

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module(force=True)
class SigmoidScores(nn.Module):
    """What mmdet's box head asks its loss for: how many channels the classifier has, and what scores they are.

    It does not train: it has no loss.

    Args:
        num_classes: n, the foreground classes.
        objectness: whether there is the factor 1 - sigmoid(x_n).
    """

    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True

    def __init__(self, num_classes: int, objectness: bool = True) -> None:
        super().__init__()
        self.num_classes, self.objectness = num_classes, objectness

    def get_cls_channels(self, num_classes: int) -> int:
        """Return n + 1."""
        return num_classes + 1

    def get_activation(self, logits: Tensor) -> Tensor:
        """Return the scores of all channels, the background's last, shape (R, n + 1)."""
        probabilities = logits.sigmoid()
        if not self.objectness:
            return probabilities
        background = probabilities[:, -1:]
        return torch.cat([probabilities[:, :-1] * (1 - background), background], dim=1)
