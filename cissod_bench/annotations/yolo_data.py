"""YOLO's ``data.yaml``: the names of the classes, and which images belong to a part.

``path`` is the folder that the parts are named from, ``train``, ``val`` and ``test`` are a folder, a ``.txt`` file that
lists images, or several of these; ``names`` is a list or numbered. Where ``path`` leads nowhere, because it names a
folder of the machine that the data comes from, the parts are named from the file's own folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cissod_bench.errors import DataFault
from cissod_bench.files.image_files import images_below, is_image_name

PARTS = ("train", "val", "test")
_EXAMPLE = 'a whole file is: path: ., train: images/train, val: images/val, names: ["cat", "dog"]; one key a line'


@dataclass(frozen=True, kw_only=True)
class YoloData:
    """What a ``data.yaml`` says.

    Attributes:
        path: the file.
        names: number -> name of every class, numbered from 0.
        key_points: numbers that follow each box in the label files; 0 where there are no key points.
        parts: name of a part -> its entries, as they are written.
        base: the folder that they are named from.
    """

    path: Path
    names: Mapping[int, str]
    key_points: int
    parts: Mapping[str, tuple[str, ...]]
    base: Path

    def images(self, part: str) -> list[Path]:
        """Return the images of a part, in the order of its entries; one that is listed twice stands there twice.

        Raises:
            DataFault: there is no such part, a folder, list or image is missing, or there is no image.
        """
        if part not in self.parts:
            known = ", ".join(self.parts) or "none"
            raise DataFault(
                f"{self.path}: there is no part {part!r}; there is {known}.",
                remedy=f"write a line such as {part}: images/{part}",
            )
        images = [image for entry in self.parts[part] for image in self._of_entry(part, entry)]
        if not images:
            raise DataFault(f"{self._place(part)}: {part} holds no image.", remedy=f"correct {part}, or add images")
        return images

    def _of_entry(self, part: str, entry: str) -> Iterator[Path]:
        place = self.base / entry
        if not place.exists() and entry.startswith("../"):  # Roboflow names its folders from one below
            place = self.base / entry.removeprefix("../")
        if not place.exists():
            raise DataFault(
                f"{self._place(part)}: {part} is {entry!r}, but there is no {self.base / entry}.",
                remedy=f"correct {part} or path; a path is named from the folder of {self.path.name}",
            )
        if place.is_dir():
            yield from (place / name for name in images_below(place))
        else:
            yield from _listed(place, self.base)

    def _place(self, key: str) -> str:
        return f"{self.path}, line {_line_of(self.path.read_text(encoding='utf-8-sig'), key)}"


def read_data_yaml(path: Path) -> YoloData:
    """Return what a ``data.yaml`` says.

    Raises:
        DataFault: it cannot be read, is no YAML, or a key is missing or breaks a rule; the message names the line.
    """
    text = _text(path)
    content = _parsed(path, text)

    def fault(key: str, rule: str) -> DataFault:
        return DataFault(f"{path}, line {_line_of(text, key)}: {rule}.", remedy=_EXAMPLE)

    if "names" not in content:
        raise DataFault(f"{path}: the key 'names' is missing; it names the classes.", remedy=_EXAMPLE)
    names = _names(content["names"])
    if isinstance(names, str):
        raise fault("names", names)
    count = content.get("nc", str(len(names)))
    if count != str(len(names)):
        raise fault("nc", f"nc is {count!r}, but names holds {len(names)} classes")
    shape = content.get("kpt_shape", [])
    if shape and not (isinstance(shape, list) and len(shape) == 2 and all(str(side).isdecimal() for side in shape)):
        raise fault("kpt_shape", f"kpt_shape is two whole numbers, and not {shape!r}")
    parts = {}
    for part in PARTS:
        entries = content.get(part) or []
        entries = [entries] if isinstance(entries, str) else entries
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise fault(part, f"{part} is a folder, a list file or several of these, and not {entries!r}")
        if entries:
            parts[part] = tuple(entry.replace("\\", "/") for entry in entries)
    return YoloData(
        path=path,
        names=names,
        key_points=int(shape[0]) * int(shape[1]) if shape else 0,
        parts=parts,
        base=_base(path, content.get("path")),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataFault(f"{path} cannot be read: {error.strerror}.", remedy="correct the name of the file") from None
    except UnicodeDecodeError as error:
        raise DataFault(f"{path} is not UTF-8: byte {error.start}.", remedy="save the file as UTF-8") from None


def _parsed(path: Path, text: str) -> dict[str, Any]:
    """Return the content of a YAML file; every number, true and null in it as the text that stands there.

    A class may be called "no", and "1" may be one.
    """
    import yaml

    try:
        content = yaml.load(text, Loader=yaml.BaseLoader)  # makes no objects but dicts, lists and texts
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
        raise DataFault(f"{place}: this is no YAML ({getattr(error, 'problem', error)}).", remedy=_EXAMPLE) from None
    except RecursionError:
        raise DataFault(f"{path}: this is no data.yaml; it nests too deep.", remedy=_EXAMPLE) from None
    if not isinstance(content, dict):
        raise DataFault(f"{path}: this is no data.yaml; it holds no keys.", remedy=_EXAMPLE)
    return content


def _names(names: object) -> dict[int, str] | str:
    """Return number -> name, or the rule that the names break."""
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    if not isinstance(names, dict) or not names:
        return "names is a list of the classes, or numbers them from 0"
    numbered: dict[int, str] = {}
    for key, name in names.items():
        if not (isinstance(key, str) and key.isdecimal()):
            return f"names numbers the classes from 0, and {key!r} is no such number"
        if not isinstance(name, str) or not name.strip():
            return f"class {key} of names has no name"
        if name.strip() in numbered.values():
            return f"names names {name.strip()!r} twice"
        numbered[int(key)] = name.strip()
    return dict(sorted(numbered.items()))


def _base(path: Path, stated: object) -> Path:
    folder = path.parent / str(stated).replace("\\", "/") if stated else path.parent
    return folder if folder.is_dir() else path.parent


def _listed(path: Path, base: Path) -> Iterator[Path]:
    """Yield the images that a list file names, one a line, from the file's folder or the data set's."""
    for number, line in enumerate(_text(path).splitlines(), 1):
        name = line.strip().replace("\\", "/")
        if not name:
            continue
        places = [path.parent / name, base / name]
        image = next((place for place in places if place.is_file()), None)
        if image is None or not is_image_name(image.name):
            looked = " nor in ".join(dict.fromkeys(map(str, (path.parent, base))))
            raise DataFault(
                f"{path}, line {number}: there is no image {name} in {looked}.",
                remedy="correct the line, or take it out",
            )
        yield image


def _line_of(text: str, key: str) -> int:
    """Return the line on which a key of the whole file stands, counted from 1; 1 where it is not found."""
    lines = (number for number, line in enumerate(text.splitlines(), 1) if line.startswith(f"{key}:"))
    return next(lines, 1)
