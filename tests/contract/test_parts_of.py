"""A method makes its parts from the facts of a run, and what it does wrong there is told of the method."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cissod_bench.contract.method import Method, parts_of
from cissod_bench.contract.parts import Parts
from cissod_bench.errors import UsageFault

FACTS: Any = SimpleNamespace(classes=("a", "b"), settings=SimpleNamespace(theta=0.9))


class Takes(Parts):
    def __init__(self) -> None:
        super().__init__(2, 0.9)


def method(parts: Any) -> Method:
    return Method(title="T", source="a test", citation="nobody", parts=parts, name="mine")


def test_the_parts_are_those_that_the_method_makes() -> None:
    assert isinstance(parts_of(method(lambda facts: Parts(len(facts.classes), facts.settings.theta)), FACTS), Parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda facts: None, "Got NoneType."),
        (lambda facts: Parts, "Got type."),
        (5, "'int' object is not callable."),
        (Takes, "takes 1 positional argument but 2 were given."),
    ],
)
def test_what_makes_no_parts_is_told_of_the_method(parts: Any, message: str) -> None:
    with pytest.raises(UsageFault, match=r"The method 'mine': parts must make an object of Parts") as fault:
        parts_of(method(parts), FACTS)
    assert fault.value.message.endswith(message)


def test_an_error_within_stays_what_it_is() -> None:
    def parts(facts: Any) -> Parts:
        return Parts(len(facts), 0.9)

    with pytest.raises(TypeError, match="has no len"):
        parts_of(method(parts), FACTS)
