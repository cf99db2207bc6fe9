"""Classes of several labelled sources, joined by name: which part names which class, and what is missing where."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from cissod_bench.annotations.label_content import Content, Labelled

_NEAR = 0.75  # "hrose" and "horse" are .8 alike


@dataclass(frozen=True, kw_only=True)
class ClassReport:
    """Which classes the parts of a data set name and show.

    Attributes:
        numbers: name of every class of any part -> the number it has in all of them.
        objects: part -> name of a class that it names -> objects of it, ignore regions not counted.
    """

    numbers: Mapping[str, int]
    objects: Mapping[str, Mapping[str, int]]

    @property
    def missing(self) -> dict[str, tuple[str, ...]]:
        """Part -> classes that another part names and this one does not; parts that name all are not there."""
        lacking = {
            part: tuple(name for name in self.numbers if name not in held) for part, held in self.objects.items()
        }
        return {part: names for part, names in lacking.items() if names}

    @property
    def unlike(self) -> tuple[tuple[str, str], ...]:
        """Pairs of names that differ in capitals, blanks, "_" or "-" only: most likely one class."""
        plain: dict[str, str] = {}
        pairs = []
        for name in self.numbers:
            key = "".join(letter for letter in name.casefold() if letter not in " _-")
            pairs += [(plain[key], name)] if key in plain else []
            plain.setdefault(key, name)
        return tuple(pairs)

    def near(self, name: str) -> str:
        """Return another class whose name is nearly the same, so that one of them may be misspelt; "" for none."""
        for pair in self.unlike:
            if name in pair:
                return pair[pair[0] == name]
        near = get_close_matches(name, [other for other in self.numbers if other != name], n=1, cutoff=_NEAR)
        return near[0] if near else ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should look at, a sentence each."""
        told = [
            f"{part} does not name {', '.join(map(repr, names))}, which {self._holders(names)} name"
            f"{'s' if len(self.objects) == 2 else ''}."
            for part, names in self.missing.items()
        ]
        told += [f"{first!r} and {second!r} are two classes; is one meant?" for first, second in self.unlike]
        return tuple(told)

    def _holders(self, names: tuple[str, ...]) -> str:
        holders = [part for part, held in self.objects.items() if any(name in held for name in names)]
        return " and ".join(holders)


def plain_name(name: str) -> str:
    """Return a class's name as names are compared: no blanks around it, and a letter with its accent as one character.

    Systems write "Ö" as one character or as two (Unicode's NFC and NFD), which look the same.
    """
    return unicodedata.normalize("NFC", name.strip())


def join_classes(parts: Mapping[str, Labelled]) -> tuple[dict[str, Content], ClassReport]:
    """Return the content of each part with the same categories in all, joined by name, and what was found.

    The first part's classes keep their numbers. Classes that only others name are numbered on from there. Names are
    compared as ``plain_name`` has them.

    Args:
        parts: name of a part -> what was read, at least one.
    """
    first = next(iter(parts.values())).content["categories"]
    numbers = {
        plain_name(record["name"]): int(record["id"]) for record in sorted(first, key=lambda record: record["id"])
    }
    objects: dict[str, dict[str, int]] = {}
    for part, labelled in parts.items():
        for name in map(plain_name, labelled.classes):
            numbers.setdefault(name, 1 + max(numbers.values(), default=0))
        objects[part] = _objects(labelled.content)
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    contents = {part: _renumbered(labelled.content, numbers, categories) for part, labelled in parts.items()}
    return contents, ClassReport(numbers=numbers, objects=objects)


def _objects(content: Content) -> dict[str, int]:
    names = {record["id"]: plain_name(record["name"]) for record in content["categories"]}
    counts = Counter(names[box["category_id"]] for box in content["annotations"] if not box.get("iscrowd"))
    return {name: counts[name] for name in names.values()}


def _renumbered(content: Content, numbers: Mapping[str, int], categories: list[dict[str, object]]) -> Content:
    """Return a content whose boxes have the numbers of the joined classes; records of classes keep their other keys."""
    number_of = {record["id"]: numbers[plain_name(record["name"])] for record in content["categories"]}
    more = {numbers[plain_name(record["name"])]: record for record in content["categories"]}
    return {
        **content,
        "annotations": [{**box, "category_id": number_of[box["category_id"]]} for box in content["annotations"]],
        "categories": [{**more.get(int(str(record["id"])), {}), **record} for record in categories],
    }
