"""What the documentation site shows of classes whose fields are declared with ``cissod_bench.declared``.

mkdocstrings reads code without running it and knows of no description inside an annotation. This extension of its
reader, griffe, takes the docstring of a ``@documented`` class from Python and leaves the bare types of the fields.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from griffe import Attribute, Class, ExprSubscript, ExprTuple, Extension


class Declared(Extension):
    """Gives classes with ``@documented`` their docstring of run time."""

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Mend a class that has been read."""
        if cls.docstring is None or "documented" not in [str(decorator.value) for decorator in cls.decorators]:
            return
        cls.docstring.value = inspect.getdoc(getattr(importlib.import_module(cls.module.path), cls.name)) or ""
        for member in cls.members.values():
            if isinstance(member, Attribute):
                member.annotation = bare(member.annotation)


def bare(annotation: Any) -> Any:
    """Return what stands first in ``Annotated[...]``, and anything else as it is."""
    annotated = isinstance(annotation, ExprSubscript) and str(annotation.left) == "Annotated"
    return annotation.slice.elements[0] if annotated and isinstance(annotation.slice, ExprTuple) else annotation
