"""Small XML files as trees of elements, read with expat; nothing is expanded, fetched or nested without end.

A document type is refused, and with it every entity that a file could declare: expansions that fill the memory, and
references to other files, are not possible.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from cissod_bench.errors import DataFault

MOST_BYTES = 1 << 20
MOST_LEVELS = 32

_AGAIN = "unpack the archive it comes from again"


@dataclass(slots=True)
class Element:
    """One element.

    Attributes:
        tag: its name.
        text: the characters directly in it, without blanks around them.
        children: the elements directly in it, in their order.
        line: of the file, counted from 1, on which it begins.
    """

    tag: str
    text: str = ""
    children: list[Element] = field(default_factory=list)
    line: int = 1

    def all(self, tag: str) -> list[Element]:
        """Return the children of that name."""
        return [child for child in self.children if child.tag == tag]

    def text_of(self, *path: str) -> str | None:
        """Return the text at a path of names below this element; None where there is no such element."""
        element = self
        for tag in path:
            below = element.all(tag)
            if not below:
                return None
            element = below[0]
        return element.text


def read_xml(path: Path) -> Element:
    """Return the root element of an XML file.

    Raises:
        DataFault: it cannot be read, is no XML or cut off, declares a document type, is larger than ``MOST_BYTES`` or
            nests deeper than ``MOST_LEVELS``.
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise DataFault(f"{path} cannot be read: {error.strerror}.", remedy=_AGAIN) from None
    if len(content) > MOST_BYTES:
        raise DataFault(f"{path} is larger than {MOST_BYTES:,} bytes; no annotation is.", remedy=_AGAIN)
    return _Reader(path).read(content)


class _Reader:
    """Collects the elements that expat tells of one file."""

    def __init__(self, path: Path) -> None:
        self._path, self._root = path, Element("")
        self._open = [self._root]
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._document_type
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text

    def read(self, content: bytes) -> Element:
        try:
            self._parser.Parse(content, True)
        except expat.ExpatError as error:
            raise self._fault(f"this is no XML ({expat.ErrorString(error.code)})") from None
        except (LookupError, ValueError) as error:  # an encoding that Python does not know
            raise self._fault(f"this is no XML ({error})") from None
        return self._root.children[0]

    def _fault(self, rule: str) -> DataFault:
        return DataFault(f"{self._path}, line {self._parser.CurrentLineNumber}: {rule}.", remedy=_AGAIN)

    def _document_type(self, *declared: object) -> None:
        raise self._fault("a document type is declared; annotations have none, and it could declare entities")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) > MOST_LEVELS:
            raise self._fault(f"elements nest deeper than {MOST_LEVELS} levels")
        element = Element(tag, line=self._parser.CurrentLineNumber)
        self._open[-1].children.append(element)
        self._open.append(element)

    def _end(self, tag: str) -> None:
        element = self._open.pop()
        element.text = element.text.strip()

    def _text(self, text: str) -> None:
        self._open[-1].text += text
