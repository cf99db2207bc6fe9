"""A split as a Croissant data set: its files, and a description of them that programs read.

Croissant is MLCommons' vocabulary for data sets (version 1.0, JSON-LD). Described are the files with their hashes, and
as record sets the classes with their groups, the images of D_l and of D_u, and the boxes of both. Images are no part of
it: they stay with those who published them, and the manifest says how they are named.

A file that two record sets are read from stands there twice, because readers read it in one way only.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from cissod_bench.errors import DataFault
from cissod_bench.files.hashing import file_sha256
from cissod_bench.files.whole_files import folder_appearing, locked, write_json
from cissod_bench.split_folders.publishing import Terms, bibtex, check_new, description, split_name
from cissod_bench.splitting.data_files import FILES, HIDDEN, LABELLED, UNLABELLED
from cissod_bench.splitting.manifest import MANIFEST, Manifest, verify

CROISSANT = "croissant.json"
BOXES = "#annotations"
"""Behind the name of a file: the same file, read for its boxes."""
VERSION = "http://mlcommons.org/croissant/1.0"

_Json: TypeAlias = dict[str, Any]

# The context that version 1.0 of the vocabulary prescribes.
_CROISSANT_WORDS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet", "format",
    "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{word: f"cr:{word}" for word in _CROISSANT_WORDS},
}

_TYPES = {
    "id": "sc:Integer",
    "image_id": "sc:Integer",
    "category_id": "sc:Integer",
    "width": "sc:Integer",
    "height": "sc:Integer",
    "iscrowd": "sc:Integer",
    "bbox": "cr:BoundingBox",
}


class _Image(msgspec.Struct):
    id: int
    width: int
    height: int
    file_name: str | msgspec.UnsetType = msgspec.UNSET
    coco_url: str | msgspec.UnsetType = msgspec.UNSET
    part: str | msgspec.UnsetType = msgspec.UNSET
    root: str | msgspec.UnsetType = msgspec.UNSET


class _Box(msgspec.Struct):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int | msgspec.UnsetType = msgspec.UNSET


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Box]


class _Category(msgspec.Struct):
    id: int
    name: str


class _Categories(msgspec.Struct):
    categories: list[_Category]


def write_croissant(folder: Path, out: Path, terms: Terms) -> list[Path]:
    """Write a split's four files and their description into a new folder; return what was written.

    Args:
        folder: of the split; its files are compared with their hashes before.
        out: the folder to make; the same split and terms give the same bytes.
        terms: what only the user knows.

    Raises:
        DataFault: the split is broken.
        UsageFault: ``out`` is there already.
        EnvironmentFault: it cannot be written.
    """
    check_new(out)
    manifest = verify(folder)
    with locked(out), folder_appearing(out) as hidden:
        for name in (*FILES, MANIFEST):
            shutil.copyfile(folder / name, hidden / name)
        write_json(hidden / CROISSANT, described(hidden, manifest, terms))
    return [out / name for name in (CROISSANT, *FILES, MANIFEST)]


def described(folder: Path, manifest: Manifest, terms: Terms) -> _Json:
    """Return the description of a split's files as JSON-LD.

    Args:
        folder: where the four files lie.
        manifest: of the split.
        terms: what only the user knows.

    Raises:
        DataFault: a data file cannot be read.
    """
    labelled = _read(folder / LABELLED, _File)
    record_sets = [
        _classes(_read(folder / LABELLED, _Categories).categories, manifest),
        _images("labelled_images", LABELLED, labelled.images),
        _boxes("labelled_boxes", LABELLED, labelled.annotations, "labelled_images"),
        _images("unlabelled_images", UNLABELLED, _read(folder / UNLABELLED, _File).images),
    ]
    if manifest.hidden_known:
        record_sets.append(
            _boxes("hidden_boxes", HIDDEN, _read(folder / HIDDEN, _File).annotations, "unlabelled_images")
        )
    optional = {
        "license": terms.license,
        "url": terms.url,
        "datePublished": terms.date,
        "creator": [{"@type": "sc:Person", "name": name} for name in terms.creators],
    }
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": split_name(manifest),
        "description": description(manifest),
        "conformsTo": VERSION,
        "citeAs": bibtex(manifest, terms),
        "identifier": f"sha256:{manifest.split_sha256}",
        "version": "1.0.0",
        **{key: value for key, value in optional.items() if value},
        "distribution": [
            *(_file(folder / name, manifest) for name in (*FILES, MANIFEST)),
            *(_file(folder / name, manifest, as_name=name + BOXES) for name in (LABELLED, HIDDEN)),
        ],
        "recordSet": [one for one in record_sets if one],
    }


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise DataFault(f"{path} cannot be read: {error}.", remedy="cissod-bench splits verify") from None


def _file(path: Path, manifest: Manifest, as_name: str = "") -> _Json:
    return {
        "@type": "cr:FileObject",
        "@id": as_name or path.name,
        "name": as_name or path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": "application/json",
        "sha256": manifest.files.get(path.name) or file_sha256(path),
    }


def _classes(categories: Sequence[_Category], manifest: Manifest) -> _Json:
    """Return the record set of the classes, which holds its records itself: number, name and group."""
    fields = [_field("classes", "id", "sc:Integer"), *(_field("classes", key, "sc:Text") for key in ("name", "group"))]
    rows = [
        {"classes/id": one.id, "classes/name": one.name, "classes/group": manifest.group_of[one.name]}
        for one in categories
    ]
    return {**_record_set("classes", fields), "key": {"@id": "classes/id"}, "data": rows}


def _images(name: str, file: str, images: Sequence[_Image]) -> _Json:
    fields = [_read_field(name, key, file, f"$.images[*].{key}") for key in _in_all(images, _Image)]
    return _record_set(name, fields) | {"key": {"@id": f"{name}/id"}} if fields else {}


def _boxes(name: str, file: str, boxes: Sequence[_Box], images: str) -> _Json:
    links = {"image_id": f"{images}/id", "category_id": "classes/id"}
    fields = []
    for key in _in_all(boxes, _Box):
        field = _read_field(name, key, file + BOXES, f"$.annotations[*].{key}")
        if key in links:
            field["references"] = {"field": {"@id": links[key]}}
        if key == "bbox":
            field["source"]["format"] = "XYWH"
            field["description"] = "x, y of the upper left corner, width and height in pixels"
        fields.append(field)
    return _record_set(name, fields) | {"key": {"@id": f"{name}/id"}} if fields else {}


def _in_all(records: Sequence[msgspec.Struct], kind: type[msgspec.Struct]) -> Iterable[str]:
    """Return the keys that all records have; a path to a key that some lack would join records of other images."""
    keys = [field.name for field in msgspec.structs.fields(kind)]
    return [key for key in keys if records and all(getattr(one, key) is not msgspec.UNSET for one in records)]


def _record_set(name: str, fields: Sequence[_Json]) -> _Json:
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": list(fields)}


def _field(record_set: str, key: str, kind: str) -> _Json:
    return {"@type": "cr:Field", "@id": f"{record_set}/{key}", "name": f"{record_set}/{key}", "dataType": kind}


def _read_field(record_set: str, key: str, file: str, json_path: str) -> _Json:
    source = {"fileObject": {"@id": file}, "extract": {"jsonPath": json_path}}
    return {**_field(record_set, key, _TYPES.get(key, "sc:Text")), "source": source}
