"""Which folder each image of an annotation file lies in, and whether those folders are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cissod_bench.annotations.reading import Annotations
from cissod_bench.errors import DataFault


def places_of(annotations: Annotations, folders: Mapping[str, Path], role: str) -> npt.NDArray[np.int8]:
    """Return the place in ``folders`` of every image's folder, int8 (M,).

    Args:
        annotations: whose image records may name the role of their folder.
        folders: role -> folder of images.
        role: of the records that name none.

    Raises:
        DataFault: a record names a role that has no folder.
    """
    known = {**{name: place for place, name in enumerate(folders)}, "": list(folders).index(role)}
    for number, root in enumerate(annotations.roots):
        if root not in known:
            first = int(np.argmax(annotations.image_root == number))
            raise DataFault(
                f"{annotations.path}: images[{first}].root must be a role of the task's image folders "
                f"({', '.join(folders)}). Got {root!r}.",
                remedy="cissod-bench tasks NAME lists the roles; correct root in the record, or leave it out",
            )
    places = np.array([known[root] for root in annotations.roots], np.int8)
    return places[annotations.image_root] if len(places) else np.zeros(len(annotations.image_ids), np.int8)


def parents_of(names: Sequence[str], image_folder: npt.NDArray[np.int8]) -> tuple[tuple[int, str, int], ...]:
    """Return the folders that images lie in, as (place of the image folder, path below it, images in it).

    Args:
        names: of the images below their folders.
        image_folder: place of each one's folder, shape (M,).
    """
    parents = (name.rpartition("/")[0] for name in names)
    counts = Counter(zip(image_folder.tolist(), parents, strict=True))
    return tuple((place, parent, count) for (place, parent), count in counts.items())


def check_folders(path: Path, folders: Sequence[Path], parents: Sequence[tuple[int, str, int]]) -> None:
    """Refuse images in a folder that is not there: without one of its archives a data set looks whole from above.

    Args:
        path: the annotation file, for the message.
        folders: the image folders.
        parents: as `parents_of` gives them.

    Raises:
        DataFault: there is one; names the first.
    """
    missing = {folders[place] / parent: count for place, parent, count in parents}
    missing = {folder: count for folder, count in missing.items() if not folder.is_dir()}
    if missing:
        folder, count = next(iter(missing.items()))
        others = f" (and {len(missing) - 1} more folders)" if len(missing) > 1 else ""
        raise DataFault(
            f"The image folder {folder} is missing{others}; {path} has {count} images in it.",
            remedy="unpack the images of all archives, or pass the folder that holds them as --data-root",
        )
