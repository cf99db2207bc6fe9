"""Files of a run that hold a line of JSON per event, for who reads them."""

from __future__ import annotations

from pathlib import Path

from cissod_bench.errors import DataFault


def lines_of(path: Path) -> list[bytes]:
    """Return the lines of a file; none where there is no file.

    Raises:
        DataFault: it cannot be read.
    """
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataFault(
            f"{path}: cannot be read ({error.strerror}).",
            remedy="make the file readable, or take the run's folder out of what --runs names",
        ) from None
