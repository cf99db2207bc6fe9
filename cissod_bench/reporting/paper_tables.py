"""The score tables the paper prints (Tables 1-3), AP in points: what every measured number stands beside.

The numbers of one method stand in its own file as ``Method.reported`` too (a test holds the two equal); they are kept
here as well because a table shows the paper's row before anybody has written that method's file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CITATION = (
    "Li, Lin, Zhang, Tan, Li, Han, Ding, Wang, Li: Gradient-based Sampling for Class Imbalanced Semi-supervised "
    "Object Detection. ICCV 2023"
)

METHODS: Mapping[str, str] = {
    "soft-teacher": "Soft Teacher",
    "rfs": "RFS",
    "eqlv2": "EQLv2",
    "c2am": "C2AM",
    "crest": "CReST",
    "daso": "DASO",
    "defrcn": "DeFRCN",
    "ours": "Ours",
}
"""Name on the command line -> title as printed, in the order of the rows of Table 1."""


@dataclass(frozen=True)
class PaperTable:
    """A score table of the paper.

    Attributes:
        number: as printed, "Table 1".
        title: what it is about.
        tasks: task name -> title, its column blocks from left to right.
        columns: score columns of every block, as a run's record names them.
        rows: task name -> method name -> one AP per column, points 0-100.
        classes: task name -> group -> its classes, where the paper says how many they are.
    """

    number: str
    title: str
    tasks: Mapping[str, str]
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Sequence[float]]]
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def value(self, task: str, method: str, column: str) -> float | None:
        """Return the printed AP, or None where the table has no such cell."""
        row = self.rows.get(task, {}).get(method)
        return row[self.columns.index(column)] if row is not None and column in self.columns else None


# Table 1, split 1.
_SPLIT1 = {
    "soft-teacher": (23.6, 31.0, 1.5),
    "rfs": (23.9, 30.2, 4.8),
    "eqlv2": (22.8, 29.1, 6.5),
    "c2am": (24.4, 30.8, 6.2),
    "crest": (22.2, 29.3, 1.0),
    "daso": (24.8, 31.1, 6.0),
    "defrcn": (24.4, 29.4, 9.2),
    "ours": (26.5, 30.7, 13.9),
}
# Table 1, split 2.
_SPLIT2 = {
    "soft-teacher": (17.2, 32.7, 1.7),
    "rfs": (19.8, 32.3, 7.2),
    "eqlv2": (20.2, 31.4, 9.1),
    "c2am": (20.8, 32.9, 8.6),
    "crest": (16.3, 31.2, 1.4),
    "daso": (20.7, 33.0, 8.4),
    "defrcn": (20.9, 30.5, 11.3),
    "ours": (23.8, 32.4, 15.1),
}
# Table 2.
_O365 = {
    "soft-teacher": (4.8, 22.1, 0.2),
    "rfs": (7.2, 23.1, 2.9),
    "eqlv2": (7.4, 20.3, 3.9),
    "c2am": (7.6, 23.2, 3.4),
    "crest": (6.8, 21.3, 2.8),
    "daso": (7.8, 23.3, 3.6),
    "defrcn": (7.9, 21.2, 4.3),
    "ours": (9.2, 23.7, 5.2),
}
# Table 3: groups by image counts in D_l; CReST and DeFRCN are not in it.
_LVIS = {
    "soft-teacher": (7.6, 22.5, 11.9, 2.0),
    "rfs": (8.0, 23.1, 12.7, 2.3),
    "eqlv2": (8.1, 20.2, 11.8, 3.5),
    "c2am": (8.6, 22.1, 12.3, 3.7),
    "daso": (8.7, 23.2, 13.1, 3.2),
    "ours": (8.9, 21.7, 12.3, 4.2),
}

TABLES: tuple[PaperTable, ...] = (
    PaperTable(
        "Table 1",
        "MS-COCO",
        {"coco-split1": "MS-COCO split 1", "coco-split2": "MS-COCO split 2"},
        ("all", "maj", "min"),
        {"coco-split1": _SPLIT1, "coco-split2": _SPLIT2},
        {"coco-split1": {"maj": 60, "min": 20}, "coco-split2": {"maj": 40, "min": 40}},  # Sec. 4.1
    ),
    PaperTable(
        "Table 2",
        "MS-COCO → Objects365",
        {"coco-o365": "MS-COCO → Objects365"},
        ("all", "maj", "min"),
        {"coco-o365": _O365},
        {"coco-o365": {"maj": 78, "min": 287}},  # Sec. 4.1
    ),
    PaperTable("Table 3", "LVIS", {"lvis": "LVIS"}, ("all", "f", "c", "r"), {"lvis": _LVIS}),
)


def class_counts(task: str) -> Mapping[str, int]:
    """Return group -> classes of one of the paper's tasks, empty where it does not say how many they are (LVIS)."""
    return next((table.classes[task] for table in TABLES if task in table.classes), {})
