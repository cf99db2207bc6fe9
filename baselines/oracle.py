"""A reference row: the detector trained on D_l and D_u with the hidden boxes of D_u. An upper bound, no competitor."""

from __future__ import annotations

from cissod_bench.contract.method import Method
from cissod_bench.contract.parts import parts_for

METHOD = Method(
    title="Oracle (D_u with its hidden boxes)",
    source="reference row, not in the paper",
    summary="learns from D_l and from D_u with its hidden boxes, without a teacher",
    citation="S. Ren, K. He, R. Girshick, J. Sun: Faster R-CNN. NeurIPS 2015.",
    parts=parts_for,
    images="oracle",
    competitor=False,
)
