"""One process of a rehearsal: the program as it is, but images that are not on the disk are drawn by code.

    python scripts/rehearse_rank.py NOTES.jsonl run --method ours --task lvis ...

It notes, a JSON line each, when its training begins and when each step and evaluation is done: seconds since the
process started, processor seconds, and memory as Linux counts it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

STARTED = time.time()


def memory() -> dict[str, float]:
    """Return MB of this process: "peak", "private" pages, and "mapped" pages of files, which processes share."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    kilobytes = {line.partition(":")[0]: float(line.split()[1]) for line in lines if line.endswith(" kB")}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return {"peak": peak, "private": kilobytes.get("RssAnon", 0) / 1e3, "mapped": kilobytes.get("RssFile", 0) / 1e3}


def noted(what: str, notes: Path) -> None:
    """Add a line to the notes."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    line = {
        "rank": int(os.environ["RANK"]),
        "what": what,
        "seconds": time.time() - STARTED,
        "processor": usage.ru_utime + usage.ru_stime,
        **memory(),
    }
    with notes.open("a", encoding="ascii") as out:
        out.write(json.dumps(line) + "\n")


def drawn(name: str, width: int, height: int) -> np.ndarray[Any, Any]:
    """Return an image of random patches, uint8 (height, width, 3); a file has the same one each time."""
    import cv2

    dice = np.random.default_rng(zlib.crc32(name.encode()))
    patches = dice.integers(0, 255, (8, 12, 3), dtype=np.uint8)
    image: np.ndarray[Any, Any] = cv2.resize(patches, (width, height), interpolation=cv2.INTER_NEAREST)
    return image


def draw_missing_images() -> None:
    """Let images that are not there be drawn, and their headers say what their records do."""
    from cissod_bench.files import exif_evidence, images
    from cissod_bench.loading import sources
    from cissod_bench.running import preflight, turned

    read, check, says = images.read_image, images.check_header, exif_evidence._says

    def read_image(path: Path, width: int, height: int, *more: Any) -> Any:
        return read(path, width, height, *more) if path.exists() else drawn(path.name, width, height)

    def check_header(path: Path, width: int = 1, height: int = 1, *more: Any) -> images.Header:
        return check(path, width, height, *more) if path.exists() else images.Header(width, height, 1)

    sources.read_image = read_image
    preflight.check_header = turned.check_header = check_header
    exif_evidence._says = lambda item: says(item) if item[0].exists() else None


def watch(notes: Path) -> None:
    """Note when the training begins, each step, and each evaluation."""
    from cissod_bench.running.evaluations import Evaluations
    from cissod_bench.training.loop import Training

    def after(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*values: Any, **named: Any) -> Any:
            result = work(*values, **named)
            noted(name, notes)
            return result

        return watched

    run = Training.run

    def begun(self: Training, until: int | None = None) -> None:
        noted("start", notes)
        run(self, until)

    Training.run = begun  # type: ignore[method-assign]
    Training.step = after("step", Training.step)  # type: ignore[method-assign]
    Training.save = after("checkpoint", Training.save)  # type: ignore[method-assign]
    Evaluations._scored = after("evaluation", Evaluations._scored)  # type: ignore[method-assign]


def main() -> None:
    """Run the program's command line."""
    notes = Path(sys.argv.pop(1))
    from cissod_bench.cli import entry

    draw_missing_images()
    watch(notes)
    entry()


if __name__ == "__main__":
    main()
