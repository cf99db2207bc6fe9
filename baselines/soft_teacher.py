"""Soft Teacher (Xu et al., ICCV 2021): the detector every other row starts from."""

from __future__ import annotations

from cissod_bench.contract.method import Method
from cissod_bench.contract.parts import parts_for

METHOD = Method(
    title="Soft Teacher",
    source="Sec. 4.3, Tables 1-3",
    summary="the teacher, a running average of the student, labels D_u for it",
    citation="M. Xu, Z. Zhang, H. Hu, J. Wang, L. Wang, F. Wei, X. Bai, Z. Liu: End-to-End Semi-Supervised Object "
    "Detection with Soft Teacher. ICCV 2021.",
    parts=parts_for,
    reported={
        "coco-split1": {"all": 23.6, "maj": 31.0, "min": 1.5},
        "coco-split2": {"all": 17.2, "maj": 32.7, "min": 1.7},
        "coco-o365": {"all": 4.8, "maj": 22.1, "min": 0.2},
        "lvis": {"all": 7.6, "f": 22.5, "c": 11.9, "r": 2.0},
    },
)
