"""A reference row: the detector trained on D_l only. What a method gains over it, it gains from D_u."""

from __future__ import annotations

from cissod_bench.contract.method import Method
from cissod_bench.contract.parts import parts_for

METHOD = Method(
    title="Supervised (D_l only)",
    source="reference row, not in the paper",
    summary="learns from D_l alone, without a teacher",
    citation="S. Ren, K. He, R. Girshick, J. Sun: Faster R-CNN. NeurIPS 2015.",
    parts=parts_for,
    images="labelled",
    competitor=False,
)
