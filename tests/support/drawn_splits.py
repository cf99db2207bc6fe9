"""Draw a split from records: as they stand, or laid out, read and written in any other way."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from split_folders import FILES, content, data_bytes

from cissod_bench.annotations import reading as annotations_module
from cissod_bench.annotations.reading import read_annotations
from cissod_bench.files import json_objects as json_files
from cissod_bench.splitting import data_files as split_files
from cissod_bench.splitting import drawing
from cissod_bench.splitting.data_files import write_data_files
from cissod_bench.splitting.options import DrawOptions
from cissod_bench.splitting.split import Split
from cissod_bench.splitting.task import Task

Content = dict[str, list[dict[str, Any]]]

SEEDS = st.integers(0, 2**63 - 1)
PERCENTS = st.sampled_from([10.0, 25.0, 60.0, 100.0])


@dataclass(frozen=True)
class Way:
    """How files are laid out, read and written; none of it may show in a split.

    Attributes:
        shuffled: orders the records; None leaves them as they are.
        style: options of json.dumps.
        packed: whether the files are gzipped.
        piece: bytes read at once.
        batch: records written, boxes judged and images visited at once.
    """

    shuffled: random.Random | None = None
    style: Mapping[str, Any] | None = None
    packed: bool = False
    piece: int = json_files.PIECE_BYTES
    batch: int = 4096


WAYS = st.builds(
    Way,
    shuffled=st.randoms(use_true_random=False),
    style=st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}, {"separators": (" ,\n", ": ")}]),
    packed=st.booleans(),
    piece=st.sampled_from([1, 7, 64, 1000, 4096]),
    batch=st.integers(1, 9),
)


def laid_out(path: Path, data: Content, way: Way) -> Path:
    """Write an annotation file in a way; the order of its records and keys is the way's."""
    arrays = {key: list(records) for key, records in data.items()}
    if way.shuffled is not None:
        for records in arrays.values():
            way.shuffled.shuffle(records)
        arrays = dict(way.shuffled.sample(list(arrays.items()), len(arrays)))
    # Records are dumped one by one in the same style: their bytes are copied, so they are part of a file's content.
    whole = json.dumps(
        {key: [f"@{key}{row}@" for row in range(len(rows))] for key, rows in arrays.items()}, **way.style or {}
    )
    dumped = {f"@{key}{row}@": json.dumps(one) for key, rows in arrays.items() for row, one in enumerate(rows)}
    text = re.sub(r'"(@[a-z]+\d+@)"', lambda match: dumped[match[1]], whole).encode()
    path.write_bytes(gzip.compress(text) if way.packed else text)
    return path


@dataclass(frozen=True)
class Drawn:
    """A split, the content of its data files and their bytes."""

    split: Split
    files: dict[str, Any]
    bytes: list[bytes]


def draw(folder: Path, task: Task, inputs: Mapping[str, Content], options: DrawOptions, way: Way) -> Drawn:
    """Read files laid out in a way, draw, write and read what was written."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(json_files, "PIECE_BYTES", way.piece)
        patch.setattr(split_files, "_BATCH", way.batch)
        patch.setattr(annotations_module, "_BLOCK", way.batch)
        patch.setattr(drawing, "_VISITED_AT_ONCE", way.batch)
        data = {}
        for role, one in inputs.items():
            path = laid_out(folder / f"input_{role}.json", one, way)
            data[role] = stack.enter_context(read_annotations(path, naming=task.naming, swapped=task.swapped))
        split = task.draw(task, data, options)
        write_data_files(folder, split)
    return Drawn(split, {name: content(folder / name) for name in FILES}, data_bytes(folder))


def made(names: list[str], kinds: list[int], places: list[tuple[int, int]], dice: random.Random) -> Content:
    """Return a data set with drawn ids and sizes: places are (row of the image, class id) of each box."""
    ids, numbers = (dice.sample(range(1, 3000), len(rows)) for rows in (names, places))
    sides = [(dice.randint(30, 60), dice.randint(30, 60)) for _ in names]
    rows = zip(ids, names, sides, strict=True)
    boxes = zip(numbers, places, strict=True)
    return {
        "images": [{"id": one, "width": w, "height": h, "file_name": name} for one, name, (w, h) in rows],
        "annotations": [
            {"id": number, "image_id": ids[row], "category_id": kind, "bbox": [1, 2, 3, 4], "iscrowd": 0}
            for number, (row, kind) in boxes
        ],
        "categories": [{"id": kind, "name": f"class {kind}"} for kind in kinds],
    }
