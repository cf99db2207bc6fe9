"""Parts that somebody has already: labelled images, unlabelled photographs and images to score, as annotation files.

Nothing is drawn from them. They are written once below the work folder, as the files that everything else reads; the
images stay where they are and the folder holds links to theirs. No box of an unlabelled photograph is known, so none
stands anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from cissod_bench.annotations.file_names import ImageFolder, NamesBelow
from cissod_bench.annotations.label_content import Content, Labelled
from cissod_bench.annotations.label_files import files_of_source
from cissod_bench.annotations.lenient import id_number
from cissod_bench.annotations.photographs import (
    Known,
    Photograph,
    photograph,
    photographs_below,
    sizes_of,
    without_repeats,
)
from cissod_bench.errors import DataFault, first_of
from cissod_bench.files.image_files import unread_below
from cissod_bench.files.images import broken_name_rule
from cissod_bench.files.json_objects import JsonFile
from cissod_bench.files.orientation import Exif, reading_of
from cissod_bench.files.whole_files import json_bytes, make_once
from cissod_bench.splitting.own_labels import MOST_TOLD, LabelledPart, join_parts, names_of, read_part

ANNOTATIONS, IMAGES = "annotations", "images"
LEFT_OUT = "left_out.json"
"""Beside the annotation files: reason -> photographs that are in no part."""

IN_LABELLED = "also in the labelled set, left out of D_u"
IN_SCORED = "also in the scored set, left out of D_u"
UNREADABLE = "of D_u that cannot be read, left out"
OTHER_FORMAT = "of D_u in formats that are not read (such as HEIC), left out"
TWICE = "listed twice in D_u, read once"

VERSION = 2
"""Version of the files; it changes when the same sources would give others."""


@dataclass(frozen=True, kw_only=True)
class OwnParts:
    """Where the parts lie: absolute paths, or paths below the data root.

    Attributes:
        labelled: D_l, all of whose boxes are shown.
        unlabelled: folders of D_u; none where D_l and D_u are to be drawn from the labelled source.
        files: a list of D_u's photographs below its only folder, one a line, or a JSON file with "images"; "" takes all
            that lie in the folders.
        val: what is scored.
        exif: how sizes are measured that no record states.
        classes: names of the classes that count; boxes of others are left out. Empty takes all.
    """

    labelled: LabelledPart
    unlabelled: tuple[str, ...]
    val: LabelledPart
    files: str = ""
    exif: Literal["apply", "ignore", "auto"] = "auto"
    classes: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of the folders of D_u: "unlabelled", "unlabelled-2" and so on."""
        return tuple(f"unlabelled-{number}" if number > 1 else "unlabelled" for number in self._numbers)

    @property
    def _numbers(self) -> range:
        return range(1, len(self.unlabelled) + 1)

    @property
    def measured(self) -> Exif:
        """How images without a stated size are read: as people see them, unless they said otherwise."""
        return "ignore" if self.exif == "ignore" else "apply"

    def folders(self, data_root: Path) -> dict[str, Path]:
        """Return role -> image folder, for the folders that are named."""
        named = {"train": self.labelled.images, "val": self.val.images}
        named |= dict(zip(self.roles, self.unlabelled, strict=True))
        return {role: data_root / path for role, path in named.items() if path}


def write_own_parts(data_root: Path, folder: Path, parts: OwnParts) -> tuple[str, ...]:
    """Write ``annotations/train.json`` (D_l and D_u) and ``val.json`` and links to the images, unless they are there.

    Image records of D_u carry the role of their folder as "root" and have no box.

    Args:
        data_root: what paths are relative to; only read.
        folder: where to; made whole or not at all, and again when a source has changed.
        parts: what there is.

    Returns:
        What the user should know of what was read, a sentence each; nothing where all is there already.

    Raises:
        DataFault: a source is missing or breaks a rule; classes of both labelled sources differ; no photograph is left.
    """
    stamp = {"version": VERSION, "parts": msgspec.to_builtins(parts), "files": _print(data_root, parts)}
    return make_once(folder, stamp, lambda hidden: _write(hidden, data_root, parts)) or ()


def _print(data_root: Path, parts: OwnParts) -> str:
    """Return a hash that changes with the files of all sources: their names, sizes and times."""
    digest = hashlib.sha256()
    places = [
        *files_of_source(data_root / parts.labelled.annotations, "train"),
        *files_of_source(data_root / parts.val.annotations, "val"),
        *([data_root / parts.files] if parts.files else []),
        *parts.folders(data_root).values(),
    ]
    for place in dict.fromkeys(places):
        digest.update(json.dumps(os.path.realpath(place)).encode())
        for facts in sorted(_facts(place)):
            digest.update(json.dumps(facts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _facts(place: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and time of a file, or of the files in a folder; nothing of what is not there."""
    for folder, inner, names in os.walk(place, followlinks=False) if place.is_dir() else [(str(place), [], [""])]:
        inner.sort()
        for name in names:
            path = os.path.join(folder, name) if name else folder
            try:
                facts = os.stat(path)
            except OSError:  # reading it says why
                continue
            yield os.path.relpath(path, place), facts.st_size, facts.st_mtime_ns


def _write(hidden: Path, data_root: Path, parts: OwnParts) -> tuple[str, ...]:
    """Write all files of a folder that is being made; return what the user should know."""
    (hidden / ANNOTATIONS).mkdir()
    (hidden / IMAGES).mkdir()
    read = {
        role: read_part(hidden, data_root, part, role, parts.measured)
        for role, part in (("train", parts.labelled), ("val", parts.val))
    }
    labelled_images, val_images = read["train"].images, read["val"].images
    (labelled, val), notes = join_parts(read["train"], read["val"], parts.classes, may_name=bool(parts.unlabelled))
    _refuse_boxless(read["train"].source, labelled, "learned")
    _refuse_boxless(read["val"].source, val, "scored")
    left_out: Counter[str] = Counter()
    own = Known([photograph(labelled_images, name).path for name in names_of(labelled)])
    scored = [photograph(val_images, name).path for name in names_of(val)]
    copies = _copies(own, scored, (read["train"].source, read["val"].source))
    records, unread = _unlabelled(data_root, parts, own, Known(scored), left_out) if parts.unlabelled else ([], ())
    train = {**labelled, "images": [*labelled["images"], *records]}
    for role, content in (("train", train), ("val", val)):
        (hidden / ANNOTATIONS / f"{role}.json").write_bytes(msgspec.json.encode(content))
    (hidden / ANNOTATIONS / LEFT_OUT).write_bytes(json_bytes(dict(left_out)))
    folders = parts.folders(data_root) | {"train": labelled_images, "val": val_images}
    for role, place in folders.items():
        (hidden / IMAGES / role).symlink_to(os.path.realpath(place), target_is_directory=True)
    absent = (*_absent(read["train"], labelled), *_absent(read["val"], val))
    return (*notes, *absent, *copies, *unread)


def _absent(part: Labelled, content: Content) -> Iterator[str]:
    """Yield a line on a source whose images are not in their folder, with the place that may be meant."""
    names = names_of(content)
    if gone := [name for name in names if not (part.images / name).exists()]:
        places = (part.images.parent / gone[0], part.images / Path(gone[0]).name)
        there = next((f"; there is {place}" for place in places if place.is_file()), "")
        lack = f"{len(gone):,} of {len(names):,} images of {part.source} are not in {part.images}"
        yield f"{lack}, the first is {gone[0]}{there}."


def _refuse_boxless(source: Path, content: Content, lack: str) -> None:
    """Refuse a labelled source without a box: a run of hours would end with nothing."""
    if all(box.get("iscrowd") for box in content["annotations"]):
        message = f"{source}: its images have no box of a class that counts, so that no class could be {lack}."
        raise DataFault(message, remedy="name labels with boxes in the task file")


def _copies(labelled: Known, scored: Sequence[Path], sources: tuple[Path, Path]) -> tuple[str, ...]:
    """Return what the user should know of scored images that are copies of labelled ones.

    Raises:
        DataFault: a scored image is a labelled one, the same file.
    """
    if same := [path for path in scored if labelled.is_file(path)]:
        number = f"{len(same):,} of {len(scored):,} scored images are"
        alone = sources[0] == sources[1] and sources[0].name.lower().endswith((".yaml", ".yml"))
        other = f"name the part val in {sources[0]}" if alone else "take these images out of one of the two"
        raise DataFault(
            f"{number} labelled images, the first is {same[0]}; an image that is scored must not be trained on. "
            f"[labelled] or [train] is {sources[0]}, [val] is {sources[1]}.",
            remedy=f"name other labels in [val], or {other}",
        )
    copies = [path for path in scored if labelled.holds(path)]
    if not copies:
        return ()
    number = "1 scored image has" if len(copies) == 1 else f"{len(copies):,} scored images have"
    return (f"{number} the bytes of a labelled one, so that AP says too much: {first_of(copies, MOST_TOLD)}.",)


def _unlabelled(
    data_root: Path, parts: OwnParts, labelled: Known, scored: Known, left_out: Counter[str]
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the records of D_u's photographs, and what the user should know; what is left out is counted.

    Raises:
        DataFault: none is left.
    """
    listed = list(_listed(data_root, parts))
    once = list(without_repeats(listed))
    left_out[TWICE] += len(listed) - len(once)
    kept = []
    for one in once:
        reason = IN_LABELLED if labelled.holds(one.path) else IN_SCORED if scored.holds(one.path) else ""
        left_out[reason] += bool(reason)
        kept += [] if reason else [one]
    sizes = sizes_of([one.path for one in kept], reading_of(parts.measured))
    records = [
        _record(one, parts.roles[one.folder], size)
        for one, size in zip(kept, sizes, strict=True)
        if not isinstance(size, DataFault)
    ]
    unread = [size.message.rstrip(".") for size in sizes if isinstance(size, DataFault)]
    left_out[UNREADABLE] += len(unread)
    folders = () if parts.files else parts.unlabelled
    others = [f"{folder}/{name}" for folder in folders for name in unread_below(data_root / folder)]
    left_out[OTHER_FORMAT] += len(others)
    for reason in [reason for reason, count in left_out.items() if not count]:
        del left_out[reason]
    if not records:
        told = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        raise DataFault(
            f"No unlabelled photograph is left of {len(listed):,} in {', '.join(parts.unlabelled)}: {told}.",
            remedy="name folders of further photographs in [unlabelled]",
        )
    notes = [f"{_are(len(unread), 'unlabelled photograph')} left out: {first_of(unread, MOST_TOLD)}."] if unread else []
    if others:
        told = f"left out, because only formats such as JPEG and PNG are read: {first_of(others, MOST_TOLD)}"
        notes.append(f"{_are(len(others), 'unlabelled picture')} {told}.")
    return records, tuple(notes)


def _are(number: int, thing: str) -> str:
    return f"1 {thing} is" if number == 1 else f"{number:,} {thing}s are"


def _record(one: Photograph, role: str, size: tuple[int, int]) -> dict[str, Any]:
    """Return an image record; its id depends on folder and name alone, so it stays when photographs are added."""
    return {
        "id": id_number(f"{role}/{one.name}"),
        "file_name": one.name,
        "width": size[0],
        "height": size[1],
        "root": role,
    }


def _listed(data_root: Path, parts: OwnParts) -> Iterator[Photograph]:
    """Yield the photographs that D_u names."""
    folders = [data_root / folder for folder in parts.unlabelled]
    if not parts.files:
        for number, folder in enumerate(folders):
            yield from photographs_below(folder, number)
        return
    path = data_root / parts.files
    names = _json_names(path) if path.name.endswith((".json", ".json.gz")) else _text_names(path)
    plain = NamesBelow(ImageFolder(folders[0], parts.unlabelled[0])).changed(names)
    for row, name in enumerate(names):
        inside = plain.get(row, name)
        if (rule := broken_name_rule(inside)) is not None:
            remedy = "write names below the folder of [unlabelled], one a line"
            raise DataFault(f"{path}: the name of a photograph {rule}. Got {name[:200]!r}.", remedy=remedy)
        yield photograph(folders[0], inside)


def _text_names(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        remedy = "name a file with the name of one photograph a line"
        raise DataFault(f"{path} cannot be read: {error}.", remedy=remedy) from None
    return [line.strip() for line in lines if line.strip()]


def _json_names(path: Path) -> list[str]:
    """Return the file names of a JSON file's image records; boxes in it are passed over."""
    with JsonFile(path) as file:
        texts = {member.key: member.value() for member in file.members()}
    try:
        images = msgspec.json.decode(texts.get("images", b"[]"), type=list[_Named])
    except msgspec.DecodeError as error:
        raise DataFault(f"{path}: images: {error}.", remedy='write {"images": [{"file_name": "a.jpg"}]}') from None
    return [image.file_name for image in images]


class _Named(msgspec.Struct):
    file_name: str


def left_out_of(path: Path) -> dict[str, int]:
    """Return reason -> photographs in no part, by what lies beside an annotation file of ``write_own_parts``."""
    found: Iterable[tuple[str, int]] = json.loads(path.with_name(LEFT_OUT).read_bytes()).items()
    return dict(found)
