"""Average precision in points."""

from __future__ import annotations

from typing import TypeAlias

AP: TypeAlias = float | None
"""Average precision in points, 0-100; None where a class or group has no ground-truth box (never -1, never 0)."""
