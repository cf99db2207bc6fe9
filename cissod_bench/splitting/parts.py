"""Which part of D_l an image is in: as its record says, or by the minority boxes it shows (Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import numpy as np

from cissod_bench.annotations.columns import Ints
from cissod_bench.annotations.reading import Annotations
from cissod_bench.errors import DataFault
from cissod_bench.splitting.task import Task


class _Part(msgspec.Struct):
    part: str = ""


def stated_parts(data: Annotations) -> list[str]:
    """Return the part ("D_m", "D_s") that each image record names, "" where it names none.

    Raises:
        DataFault: a record's part is no text.
    """
    decode = msgspec.json.Decoder(_Part).decode
    starts, lengths = data.image_spans.offsets.tolist(), data.image_spans.lengths.tolist()
    try:
        return [
            decode(data.file.read(start, start + length)).part for start, length in zip(starts, lengths, strict=True)
        ]
    except msgspec.ValidationError as error:
        remedy = 'write "part" as "D_m" or "D_s", or leave it out of all image records'
        raise DataFault(f"{data.path}: images: {error}.", remedy=remedy) from None


def parts_of(task: Task, labelled: Annotations, minority: Collection[str]) -> dict[str, Ints]:
    """Return part -> rows of the images of D_l.

    Where the records do not say, D_s is the images that show a minority box: D_m shows the majority alone (Sec. 3.1).
    Without a minority there is one part.

    Raises:
        DataFault: only some records name a part, one names another than D_m and D_s, or a minority box is shown in D_m.
    """
    if "min" not in task.groups:
        return {"D_l": np.arange(len(labelled.image_ids))}
    rows = [row for row, name in enumerate(labelled.classes) if name in minority]
    of_minority = labelled.instances() & np.isin(labelled.box_class, rows)
    shows = labelled.per_image(of_minority) > 0
    stated = np.array(stated_parts(labelled), dtype=object)
    if (stated == "").all():
        return {"D_m": np.flatnonzero(~shows), "D_s": np.flatnonzero(shows)}
    for row, part in enumerate(stated.tolist()):
        if part not in ("D_m", "D_s"):
            raise DataFault(
                f"{labelled.path}: images[{row}].part must be D_m or D_s, as others say. Got {part!r}.",
                remedy='give every image record "part": "D_m" or "D_s", or none where a minority box tells',
            )
    if (wrong := np.flatnonzero(shows & (stated == "D_m"))).size:
        raise DataFault(
            f"{labelled.path}: images[{wrong[0]}] is of D_m and shows a minority box; D_m shows the majority alone. "
            f"Images that do: {len(wrong)}.",
            remedy='make the "part" of these images "D_s", or take their minority boxes out',
        )
    return {part: np.flatnonzero(stated == part) for part in ("D_m", "D_s")}
