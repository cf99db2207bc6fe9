"""A folder of XML files as PASCAL VOC's tools write them, with any classes and any file names.

What the numbers mean is VOC's own (``voc``): pixels are counted from 1, corners lie inside the box, an object that is
``difficult`` is an ignore region. An annotation names its photograph in ``filename``; where no file has that name, the
photograph is the one with the annotation's own name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from cissod_bench.annotations.label_content import Labelled, LabelledImage, LabelledObject, content_of
from cissod_bench.annotations.voc import ANNOTATIONS, PHOTOGRAPHS, broken, object_of, size_of
from cissod_bench.errors import DataFault, FaultList, first_of
from cissod_bench.files.image_files import images_below
from cissod_bench.files.images import check_header
from cissod_bench.files.json_objects import Progress
from cissod_bench.files.xml_trees import Element, read_xml

_MEND = "write the annotation as PASCAL VOC does, or take the file out of the folder"
_TELL_EVERY = 256
_SHOWN = 5  # annotations that a message names


def read_xml_folder(folder: Path, images: Path | None = None, *, progress: Progress | None = None) -> Labelled:
    """Return all annotations of a folder and the folders in it.

    Args:
        folder: of the XML files, or one that holds them in ``Annotations``; only read.
        images: the folder of the photographs; None takes ``JPEGImages`` or ``images`` beside the XML files' folder, or
            else that folder itself.
        progress: called now and then.

    Raises:
        DataFault: a folder is missing or holds no XML; an annotation is none, lacks a part, breaks a rule or has no
            photograph; two are of one photograph. The message names the file and, within it, the line.
    """
    place = folder / ANNOTATIONS if (folder / ANNOTATIONS).is_dir() else folder
    photographs = images if images is not None else _photographs_beside(place)
    files = _xml_files(place)
    there = _Photographs(photographs)
    counts: Counter[str] = Counter()
    read: dict[str, tuple[Path, LabelledImage]] = {}
    absent, faults = list[str](), FaultList()
    for done, path in enumerate(files):
        with faults.noted():
            root = _root(path)
            name = there.named(root.text_of("filename") or "", path.relative_to(place))
            if name is None:
                absent.append(path.relative_to(place).as_posix())
                continue
            if name in read:
                raise DataFault(
                    f"{path}: its photograph {name} is annotated in {read[name][0]}, too.",
                    remedy="keep one annotation for each photograph",
                )
            read[name] = path, _image(path, root, name, photographs, counts)
        if progress is not None and done % _TELL_EVERY == 0:
            progress(f"Reading {place}", done, len(files))
    faults.tell()
    if absent:
        raise DataFault(
            f"{photographs} holds no photograph for {len(absent):,} of {len(files):,} annotations in {place}: "
            f"{first_of(sorted(absent), _SHOWN)}.",
            remedy="correct the name of the image folder, or take the annotations out that have no photograph",
        )
    counts["without_annotation"] = len(there.names - read.keys())
    labelled = [image for _, image in read.values()]
    return Labelled(
        format="voc",
        source=folder,
        images=photographs,
        content=content_of(labelled, _categories(place, labelled)),
        counts=+counts,
    )


def _photographs_beside(place: Path) -> Path:
    beside = (place.parent / name for name in (PHOTOGRAPHS, "images"))
    return next((folder for folder in beside if folder.is_dir()), place)


def _xml_files(place: Path) -> list[Path]:
    if not place.is_dir():
        raise DataFault(f"The folder {place} is missing.", remedy="correct the name of the folder of XML files")
    files = sorted(path for path in place.rglob("*.[xX][mM][lL]") if not path.name.startswith("."))
    if not files:
        raise DataFault(
            f"{place} holds no file whose name ends in .xml.",
            remedy="name the folder of PASCAL VOC's XML files, YOLO's data.yaml, or a COCO file that ends in .json",
        )
    return files


class _Photographs:
    """The photographs of a folder, found by the names that annotations give them."""

    def __init__(self, folder: Path) -> None:
        self.names = frozenset(images_below(folder))
        self._by_stem: dict[str, list[str]] = {}
        for name in sorted(self.names):
            self._by_stem.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(name)

    def named(self, file_name: str, annotation: Path) -> str | None:
        """Return the photograph of an annotation as a name below the folder; None where there is none."""
        below = annotation.parent.as_posix()
        last = file_name.replace("\\", "/").rpartition("/")[2]
        for name in (f"{below}/{last}", last):
            plain = PurePosixPath(name).as_posix()
            if last and plain in self.names:
                return plain
        for stem in (annotation.with_suffix("").as_posix(), annotation.stem):
            if stem in self._by_stem:
                return self._by_stem[stem][0]
        return None


def _root(path: Path) -> Element:
    """Return the outermost element of an annotation."""
    try:
        root = read_xml(path)
        if root.tag != "annotation":
            raise broken(path, root, f"the outermost element must be annotation, and is {root.tag!r}")
    except DataFault as fault:
        raise DataFault(fault.message, remedy=_MEND) from None
    return root


def _image(path: Path, root: Element, name: str, photographs: Path, counts: Counter[str]) -> LabelledImage:
    try:
        if _states_size(root):
            width, height = size_of(path, root)
        else:
            width, height = check_header(photographs / name)[:2]
            counts["sizes_read"] += 1
        objects = tuple(_objects(path, root, width, height))
    except DataFault as fault:
        raise DataFault(fault.message, remedy=_MEND) from None
    counts["ignored"] += sum(labelled.ignored for labelled in objects)
    return LabelledImage(name, width, height, objects)


def _states_size(root: Element) -> bool:
    """Return whether an annotation states a size; some tools write 0 where they do not know it."""
    return any((root.text_of("size", side) or "0") not in ("0", "0.0") for side in ("width", "height"))


def _objects(path: Path, root: Element, width: int, height: int) -> Iterator[LabelledObject]:
    for entry in root.all("object"):
        found = object_of(path, entry, width, height, known=())
        yield LabelledObject(found.name, found.box, found.difficult)


def _categories(place: Path, images: Sequence[LabelledImage]) -> Mapping[int, str]:
    """Return the classes in the order of the alphabet, numbered from 1."""
    names = sorted({labelled.name for image in images for labelled in image.objects})
    if not names:
        raise DataFault(
            f"The annotations in {place} name no object.", remedy="name a folder whose annotations have objects"
        )
    return dict(enumerate(names, 1))
