"""A split as folders that Hugging Face's ``datasets`` loads: images beside one ``metadata.jsonl`` for each part.

``labelled`` holds D_l with its boxes, ``validation`` the scored images, ``unlabelled`` D_u without any box. The card
``README.md`` says so to the hub. The split's own four files lie in ``split``: its hash is checked on them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cissod_bench.annotations.file_names import ImageFolder
from cissod_bench.annotations.reading import Annotations, read_annotations
from cissod_bench.errors import DataFault
from cissod_bench.files.images import safe_path
from cissod_bench.files.json_objects import Progress
from cissod_bench.files.whole_files import folder_appearing, locked, write_bytes
from cissod_bench.split_folders.hub_card import card
from cissod_bench.split_folders.publishing import Terms, check_new
from cissod_bench.splitting.data_files import FILES, LABELLED, UNLABELLED
from cissod_bench.splitting.manifest import MANIFEST, Manifest, verify

METADATA, CARD = "metadata.jsonl", "README.md"
SPLIT = "split"
VALIDATION, UNLABELLED_PART = "validation", "unlabelled"

_TELL_EVERY = 256


def write_hub_folder(
    folder: Path,
    out: Path,
    terms: Terms,
    *,
    root: Path,
    val: Path | None,
    within: Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a split with its images into a new folder that ``datasets.load_dataset`` reads; return its parts.

    Args:
        folder: of the split; its files are compared with their hashes before.
        out: the folder to make.
        terms: what only the user knows.
        root: what the image folders of the manifest are relative to.
        val: the validation file; None leaves "validation" out.
        within: the data root, in which links may leave an image's folder; None keeps them in it.
        progress: called now and then while images are copied.

    Raises:
        DataFault: the split is broken, or an image is missing.
        UsageFault: ``out`` is there already.
        EnvironmentFault: it cannot be written.
    """
    check_new(out)
    manifest = verify(folder)
    files = {"labelled": folder / LABELLED, VALIDATION: val, UNLABELLED_PART: folder / UNLABELLED}
    there = {part: path for part, path in files.items() if path is not None}
    with locked(out), folder_appearing(out) as hidden:
        (hidden / SPLIT).mkdir()
        for name in (*FILES, MANIFEST):
            shutil.copyfile(folder / name, hidden / SPLIT / name)
        parts = _parts(folder / LABELLED)
        for part, path in there.items():
            _write_part(hidden / part, path, manifest, root, within, parts, progress)
        write_bytes(hidden / CARD, card(manifest, terms, tuple(there)).encode())
    return [out / part for part in there]


def _write_part(
    place: Path,
    path: Path,
    manifest: Manifest,
    root: Path,
    within: Path | None,
    parts: Mapping[int, str],
    progress: Progress | None,
) -> None:
    """Copy the images of an annotation file and write their records."""
    place.mkdir()
    role = "val" if place.name == VALIDATION else "train"
    with _opened(path, manifest, root, role) as data:
        names = []
        for row, (source, name) in enumerate(_files(data, manifest, root, role, within)):
            _copy(source, place / name)
            names.append(name)
            if progress is not None and row % _TELL_EVERY == 0:
                progress(f"Copying images of {place.name}", row, len(data.image_ids))
        records = _records(data, names)
        if place.name != UNLABELLED_PART:
            for record, objects in zip(records, _objects(data), strict=True):
                # Both parts of a configuration need the same columns.
                record |= {"part": parts.get(record["image_id"], "val")} if parts else {}
                record["objects"] = objects
    write_bytes(place / METADATA, b"".join(msgspec.json.encode(record) + b"\n" for record in records))


def _opened(path: Path, manifest: Manifest, root: Path, role: str) -> Annotations:
    """Return a file of the split, whose names are plain and sizes right, or the validation file as it was published."""
    files, named = manifest.doubtful_sizes, manifest.images.get("val", "")
    if role != "val":
        return read_annotations(path, naming=manifest.naming, doubtful=files)
    return read_annotations(path, naming=manifest.naming, swapped=files, folder=ImageFolder(root / named, named))


def _records(data: Annotations, names: Sequence[str]) -> list[dict[str, Any]]:
    sizes = zip(names, data.image_ids.tolist(), data.widths.tolist(), data.heights.tolist(), strict=True)
    keys = ("file_name", "image_id", "width", "height")
    return [dict(zip(keys, values, strict=True)) for values in sizes]


class _Image(msgspec.Struct):
    id: int
    part: str = ""


class _Images(msgspec.Struct):
    images: list[_Image]


def _parts(path: Path) -> dict[int, str]:
    """Return image id -> "D_m" or "D_s"; nothing where D_l has one part."""
    images = msgspec.json.decode(path.read_bytes(), type=_Images).images
    return {image.id: image.part for image in images} if all(image.part for image in images) else {}


def _files(
    data: Annotations, manifest: Manifest, root: Path, role: str, within: Path | None
) -> Iterator[tuple[Path, str]]:
    """Yield each image's file and its name below the part's folder: role of its folder, then its own."""
    for row, name in enumerate(data.file_names):
        named = data.roots[data.image_root[row]] if data.roots else ""
        folder = named or role
        if folder not in manifest.images:
            raise DataFault(
                f"{data.path}: the image {name} is of the role {folder!r}, for which the manifest names no folder.",
                remedy="cissod-bench splits verify",
            )
        yield safe_path(root / manifest.images[folder], name, within), f"{folder}/{name}"


def _copy(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, place)
    except FileNotFoundError:
        raise DataFault(
            f"The image {source} is missing.", remedy="say with --data-root where the images of the task lie"
        ) from None


def _objects(data: Annotations) -> Iterator[Mapping[str, list[Any]]]:
    """Yield the objects of each image as columns, the way ``datasets`` holds them."""
    order = np.argsort(data.box_image, kind="stable")
    ends = np.cumsum(np.bincount(data.box_image, minlength=len(data.image_ids)))
    for rows in np.split(order, ends[:-1]):
        classes = data.box_class[rows].tolist()
        yield {
            "id": data.box_ids[rows].tolist(),
            "bbox": data.boxes[rows].tolist(),
            "category_id": [data.category_ids[row] for row in classes],
            "category": [data.classes[row] for row in classes],
            "ignored": data.crowd[rows].tolist(),
        }
