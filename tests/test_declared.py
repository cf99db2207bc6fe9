"""A field that a user may set is declared once: reading, range, words and documentation come from its annotation."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from cissod_bench.contract.presets import MINI
from cissod_bench.contract.settings import SETTINGS, Settings
from cissod_bench.declared import declared, documented, sentence
from cissod_bench.splitting.options import DRAW_OPTIONS, DrawOptions

Share = Annotated[float, Meta(ge=0, le=1)]


@documented
@dataclass(frozen=True, kw_only=True)
class Example:
    """An example."""

    share: Annotated[Share, Meta(description="a share")] = 0.5
    above: Annotated[float, Meta(gt=0, le=100, description="a percentage")] = 10.0
    steps: Annotated[int, Meta(ge=1, description="steps")] = 7
    pair: Annotated[tuple[Share, Share], Meta(description="two")] = (0.0, 1.0)
    many: Annotated[tuple[Annotated[int, Meta(ge=2)], ...], Meta(description="many")] = (2, 3)
    choice: Annotated[Literal["b", "a"], Meta(description="one of two")] = "b"
    size: Annotated[Literal[18, 50], Meta(description="one of two numbers")] = 50
    perhaps: Annotated[Literal["x"] | None, Meta(description="or nothing")] = None
    flag: Annotated[bool, Meta(description="yes or no")] = True
    names: Annotated[tuple[str, ...] | None, Meta(description="names")] = None
    text: Annotated[str, Meta(description="words")] = ""


FIELDS = declared(Example)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("share", "1", 1.0),
        ("share", ".5", 0.5),
        ("share", "1e-3", 1e-3),
        ("share", "7", 7.0),  # out of its range, which is not looked at
        ("steps", "180_000", 180_000),
        ("pair", "(0.1, 0.2)", (0.1, 0.2)),
        ("many", "[2,3,4]", (2, 3, 4)),
        ("many", "5", (5,)),
        ("choice", "a", "a"),
        ("size", "18", 18),
        ("flag", "TRUE", True),
        ("flag", "0", False),
        ("text", "", ""),
        ("text", "a=b", "a=b"),
    ],
)
def test_a_text_is_read_as_the_fields_type(name: str, text: str, value: Any) -> None:
    read = FIELDS[name].parsed(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("share", "much", "a number"),
        ("steps", "1.5", "an integer"),
        ("pair", "1", "2 numbers separated by commas"),
        ("pair", "1,much", "a number"),
        ("choice", "c", "one of b, a"),
        ("size", "34", "one of 18, 50"),
        ("flag", "maybe", "true or false"),
    ],
)
def test_a_text_of_another_type_is_refused_with_the_rule(name: str, text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rf"^{rule}$"):
        FIELDS[name].parsed(text)


def test_ranges_in_words() -> None:
    assert {name: field.range for name, field in FIELDS.items()} == {
        "share": "in [0, 1]",
        "above": "above 0 and at most 100",
        "steps": "at least 1",
        "pair": "in [0, 1]",
        "many": "at least 2",
        "choice": "one of b, a",
        "size": "one of 18, 50",
        "perhaps": "one of x",
        "flag": "true or false",
        "names": "a text",
        "text": "a text",
    }


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("share", 1, []),
        ("share", 1.1, [1.1]),
        ("share", float("inf"), [float("inf")]),
        ("above", 0.0, [0.0]),
        ("steps", 0, [0]),
        ("steps", 2.5, [2.5]),
        ("pair", (0.0, 2.0), [2.0]),
        ("many", (), []),
        ("many", (1, 0, 3), [1, 0]),
        ("choice", "c", ["c"]),
        ("perhaps", None, []),
        ("perhaps", "y", ["y"]),
        ("share", None, [None]),
        ("names", ("ant",), []),
        ("names", None, []),
        ("flag", 1, [1]),
    ],
)
def test_what_is_out_of_its_range_is_named(name: str, value: Any, wrong: list[Any]) -> None:
    assert FIELDS[name].misfits(value) == wrong


def test_a_number_that_is_none_is_out_of_every_range() -> None:
    for name in ("share", "above"):
        assert len(FIELDS[name].misfits(float("nan"))) == 1


def test_the_docstring_names_every_field_with_its_range() -> None:
    lines = (Example.__doc__ or "").splitlines()
    assert lines[:3] == ["An example.", "", "Attributes:"]
    assert lines[3:6] == [
        "    share: a share; in [0, 1]. By default 0.5.",
        "    above: a percentage; above 0 and at most 100. By default 10.0.",
        "    steps: steps; at least 1. By default 7.",
    ]
    assert sentence(FIELDS["text"]) == "words"


@pytest.mark.parametrize("fields", [SETTINGS, DRAW_OPTIONS], ids=["settings", "options of a draw"])
def test_every_field_has_a_document_and_a_default_that_fits(fields: Any) -> None:
    for field in fields.values():
        assert field.document
        assert not field.document.endswith(".")
        assert field.misfits(field.default) == ([0] if field.name == "iterations" else [])  # 0: the task's own


@pytest.mark.parametrize("value", [MINI, DrawOptions(split_seed=3)], ids=["settings", "options of a draw"])
def test_what_is_declared_is_frozen_and_is_compared_copied_and_sent_by_value(value: Any) -> None:
    for other in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value), replace(value)):
        assert other == value
        assert hash(other) == hash(value)
    with pytest.raises(FrozenInstanceError):
        value.theta = 0.1
    with pytest.raises(TypeError):
        Settings(1000)  # type: ignore[misc]
