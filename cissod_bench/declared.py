"""What a user may set: a field of a dataclass states its type, bounds, document and default, once.

    lr: Annotated[float, Meta(ge=1e-12, le=1e3, description="learning rate")] = 0.01

From this line come how a text is read (``--set lr=0.1``), the range, the words of a fault, listings and the class's
docstring. The bounds of a tuple stand at its numbers, the description at the tuple itself.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from typing import Annotated, Any, Literal, TypeVar, Union

import msgspec

C = TypeVar("C", bound=type)

_NOUNS = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declared:
    """A field that a user may set.

    Attributes:
        name: of the field.
        document: what it sets, without a full stop.
        default: its value where nobody sets it.
        kind: int, float, bool or str: the type of its value or, of a tuple, of each number.
        choices: the values that there are; empty where it is not one of a few.
        count: how many numbers a tuple has, 0 for any number of them; None for what is no tuple.
        optional: whether None is a value.
        item: annotated type of the value or of each number, with its bounds.
        bounds: "ge", "gt", "le", "lt" -> number, those that it has.
    """

    name: str
    document: str
    default: Any
    kind: type
    choices: tuple[Any, ...]
    count: int | None
    optional: bool
    item: Any
    bounds: dict[str, float]

    @property
    def range(self) -> str:
        """Which values it takes, after "must be": "in [0, 1]", "at least 1", "one of sgd, adamw", "true or false"."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        if self.bounds.keys() == {"ge", "le"}:
            return f"in [{_digits(self.bounds['ge'])}, {_digits(self.bounds['le'])}]"
        words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
        limits = [f"{word} {_digits(self.bounds[key])}" for key, word in words.items() if key in self.bounds]
        return " and ".join(limits) or _NOUNS[self.kind]

    def parsed(self, text: str) -> Any:
        """Return a text as a value of the field's type; its range is not looked at.

        Raises:
            ValueError: it is none; the message goes on after "must be".
        """
        if self.count is None:
            return self._parsed_item(text)
        words = [word for word in text.strip("()[]").split(",") if word.strip()]
        if self.count and len(words) != self.count:
            raise ValueError(f"{self.count} numbers separated by commas")
        return tuple(self._parsed_item(word.strip()) for word in words)

    def _parsed_item(self, text: str) -> Any:
        known = _TRUTHS if self.kind is bool else {str(choice): choice for choice in self.choices}
        if known:
            word = text.lower() if self.kind is bool else text
            if word not in known:
                raise ValueError(self.range)
            return known[word]
        try:  # not msgspec's reading of texts, which takes neither "180_000" nor ".5"
            return self.kind(text)
        except ValueError:
            raise ValueError(_NOUNS[self.kind]) from None

    def misfits(self, value: Any) -> list[Any]:
        """Return the value in a list if it is out of its range, of a tuple the numbers that are; [] if all is well."""
        if value is None and self.optional:
            return []
        return [number for number in ((value,) if self.count is None else value) if not _fits(number, self.item)]


def _fits(value: Any, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    return True


def _digits(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def declared(kind: type) -> dict[str, Declared]:
    """Return name -> declaration of every field of a dataclass, in their order."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: _declared(field, hints[field.name]) for field in dataclasses.fields(kind)}


def _declared(field: dataclasses.Field[Any], hint: Any) -> Declared:
    """Return what a field's annotation states."""
    whole, metas = _opened(hint)
    optional = typing.get_origin(whole) in (Union, types.UnionType)
    item, count = _item(next(part for part in typing.get_args(whole) if part is not type(None)) if optional else hint)
    kind, metas_of_item = _opened(item)
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    limits = [(key, getattr(meta, key)) for meta in metas_of_item for key in ("ge", "gt", "le", "lt")]
    return Declared(
        name=field.name,
        document=next((meta.description for meta in metas if meta.description), ""),
        default=field.default,
        kind=type(choices[0]) if choices else kind,
        choices=choices,
        count=count,
        optional=optional,
        item=item,
        bounds={key: limit for key, limit in limits if limit is not None},
    )


def _item(hint: Any) -> tuple[Any, int | None]:
    """Return the type of a tuple's numbers and how many it has, see `Declared.count`; what is no tuple is its own."""
    kind, _ = _opened(hint)
    if typing.get_origin(kind) is not tuple:
        return hint, None
    items = typing.get_args(kind)
    return items[0], 0 if Ellipsis in items else len(items)


def _opened(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return an annotated type and what it is annotated with."""
    return (hint.__origin__, hint.__metadata__) if typing.get_origin(hint) is Annotated else (hint, ())


def documented(kind: C) -> C:
    """Add what the fields of a dataclass state to its docstring, as "Attributes:"; a class decorator."""
    lines = [f"    {field.name}: {sentence(field)}. By default {field.default!r}." for field in declared(kind).values()]
    kind.__doc__ = "\n".join([inspect.cleandoc(kind.__doc__ or ""), "", "Attributes:", *lines, ""])
    return kind


def sentence(field: Declared) -> str:
    """Return a field's document and range: "momentum of SGD; in [0, 1]"; any text will do where it is one."""
    return field.document if field.kind is str and not field.choices else f"{field.document}; {field.range}"
