r"""Text from files on its way to a terminal: characters that would steer it are written out.

A class may be called "\x1b[31mcar\r". Printed as it is, it would colour what follows and overwrite its own line. The
characters are listed here, not asked of ``str.isprintable``, whose answer changes with Python's version of Unicode.
"""

from __future__ import annotations

import re

CONTROLS = "\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""Inside of a regular expression's brackets: C0, DEL and C1, ends of lines and paragraphs, changes of the writing's
direction, halves of surrogate pairs."""

_CONTROL = re.compile(f"[{CONTROLS}]")
_BUT_LINE_END = re.compile(f"(?!\n)[{CONTROLS}]")


def has_control(text: str) -> bool:
    """Return whether a text holds a control character."""
    return not (text.isascii() and text.isprintable()) and _CONTROL.search(text) is not None


def shown(text: str) -> str:
    r"""Return a text with its control characters written out, as ``\x1b`` and ``\r``; line ends stay.

    For whole messages and tables, whose line ends are ours.
    """
    return text if text.isascii() and text.isprintable() else _BUT_LINE_END.sub(_written_out, text)


def shown_name(name: str) -> str:
    r"""Return a name from a file with every control character written out, line ends too (``\n``)."""
    return _CONTROL.sub(_written_out, name)


def json_shown(text: str) -> str:
    r"""Return JSON text of the same meaning, with control characters within its strings written out, as ``\u009b``."""
    return _BUT_LINE_END.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def _written_out(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")
