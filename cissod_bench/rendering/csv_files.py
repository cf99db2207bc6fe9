"""Numbers as CSV files that a spreadsheet can open: text stays text, whatever it begins with, and numbers numbers."""

from __future__ import annotations

import re

import pandas as pd

# A spreadsheet runs text that starts with one of these; some take the wide forms for the same.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV with a line of heads."""
    safe = frame.map(csv_cell).set_axis([csv_cell(str(name)) for name in frame.columns], axis="columns")
    return str(safe.to_csv(index=False, lineterminator="\n"))


def csv_cell(value: object) -> object:
    """Return a value no spreadsheet takes for a formula: such text gets an apostrophe, and numbers stay numbers."""
    if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
