"""Is METHOD sound? What it says of itself, the paper's numbers it names, and its variants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from cissod_bench.catalogue import list_methods, list_tasks, load_task
from cissod_bench.contract.method import USES_UNLABELLED, Method
from cissod_bench.exam.outcome import Broken, broken_if_raised
from cissod_bench.scoring.points import AP

MOST_FIELDS = 2  # of a variant, as in Tables 4-5


def check_declaration(method: Method, build: Callable[[str], object]) -> str:
    """Return how much a sound declaration declares.

    Args:
        method: as found by its name.
        build: makes the parts of a variant; "" is the method as it stands.

    Raises:
        Broken: the first rule that does not hold.
    """
    for fault in faults(method):
        raise Broken(fault)
    for variant in ("", *method.variants):
        with broken_if_raised(f"variant {variant!r} cannot be built" if variant else "the parts cannot be built"):
            build(variant)
    cells = sum(len(columns) for columns in method.reported.values())
    return (
        f"{method.title}; {len(method.variants)} variants, {cells} numbers of the paper on {len(method.reported)} tasks"
    )


def faults(method: Method) -> Iterator[str]:
    """Yield what is wrong with a declaration, without building anything."""
    for name in ("title", "source", "citation", "summary"):
        value = getattr(method, name)
        if not isinstance(value, str) or not (value.strip() or name == "summary"):
            yield f"{name} must say something. Got {value!r}"
    listed = list_methods().get(method.name)
    literal = "must be a literal in the file: listings read it unimported"
    for name in ("title", "source"):
        if listed is not None and getattr(listed, name) not in (getattr(method, name), listed.module):
            yield f"{name} {literal}"
    if listed is not None and listed.literals and listed.literals.get("summary", "") != method.summary:
        yield f"summary {literal}"
    if method.images not in (*USES_UNLABELLED, "labelled", "oracle"):
        yield f"images must be 'semi', 'promoted', 'labelled' or 'oracle'. Got {method.images!r}"
    if method.competitor and method.images == "oracle":
        yield "competitor must be False for a method that sees the hidden boxes"
    yield from _wrong_numbers("reported", method.reported)
    for number, words in enumerate(method.departures):
        if not isinstance(words, str) or not words.strip():
            yield f"departures[{number}] must be a sentence. Got {words!r}"
    for variant, fields in method.variants.items():
        if not 1 <= len(fields) <= MOST_FIELDS:
            yield f"variant {variant!r} must change one or two fields. It changes {len(fields)}: {', '.join(fields)}"
    for variant, reported in method.reported_variants.items():
        if variant not in method.variants:
            yield f"reported_variants names {variant!r}, which is no variant"
        yield from _wrong_numbers(f"reported_variants[{variant!r}]", reported)


def _wrong_numbers(place: str, reported: Mapping[str, Mapping[str, AP]]) -> Iterator[str]:
    """Yield what is wrong with numbers of the paper: a task or column that does not exist, points outside [0, 100]."""
    known = list_tasks()
    for task, columns in reported.items():
        if task not in known:
            yield f"{place} names the task {task!r}, which does not exist: {', '.join(known)}"
            continue
        there = ("all", *load_task(task).groups)
        for column, points in columns.items():
            if column not in there:
                yield f"{place}[{task!r}] names the column {column!r}; the task has {', '.join(there)}"
            elif points is not None and not 0 <= points <= 100:
                yield f"{place}[{task!r}][{column!r}] must be points in [0, 100]. Got {points!r}"
