"""What a method states of itself, and what it may know about a run.

A file in ``baselines/`` or ``method/`` with a top-level ``METHOD = Method(...)`` is a row of the tables. The file's
name is its name on the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cissod_bench.errors import UsageFault
from cissod_bench.scoring.points import AP
from cissod_bench.splitting.task import Task

if TYPE_CHECKING:
    from cissod_bench.contract.parts import Parts
    from cissod_bench.contract.settings import Settings

USES_UNLABELLED = frozenset({"semi", "promoted"})
"""Values of `Method.images` with which a teacher labels D_u."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the paper's Tables 1-3.

    Attributes:
        title: as the paper prints it ("Soft Teacher"); a literal in the file.
        source: the section or paper that defines it; a literal in the file.
        summary: what it does that Soft Teacher does not, in half a sentence; a literal in the file.
        citation: authors, title, venue, year.
        parts: makes the fresh parts of one run from the run's facts (see ``contract/parts.py``).
        reported: task name -> score columns printed in the paper, points, e.g. {"coco-split1": {"all": 23.6}}.
        variants: variant name -> the fields of the method's settings it changes (two at most, see Tables 4-5).
        reported_variants: variant name -> what `reported` is for the method as it stands (Tables 4-5).
        images: what it trains on. "semi": D_l with boxes and D_u without; "promoted": likewise, and images of D_u may
            join D_l with their pseudo labels (`Parts.promoted`); "labelled": D_l only; "oracle": D_l and D_u with the
            hidden boxes of D_u, an upper bound and never a competitor.
        competitor: False for the reference rows, which reports set apart.
        departures: where the method as it stands is not as in its own source, a sentence each; literals in the file.
        name: filled in by the catalogue from the file's name.
    """

    title: str
    source: str
    citation: str
    parts: Callable[[RunFacts], Parts]
    reported: Mapping[str, Mapping[str, AP]] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reported_variants: Mapping[str, Mapping[str, Mapping[str, AP]]] = field(default_factory=dict)
    images: Literal["semi", "promoted", "labelled", "oracle"] = "semi"
    competitor: bool = True
    departures: tuple[str, ...] = ()
    summary: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a method may know about a run when it builds its parts.

    Attributes:
        task: the sub-task.
        variant: fields changed by ``--variant``; empty for the method as it stands.
        profile: "default", "paper" or "official" (where a constant comes from).
        classes: names of the n foreground classes in channel order.
        groups: group -> names of its classes, for what a method logs.
        settings: the run's, e.g. theta, the initial threshold and lambda_u.
        iterations: T, the optimiser steps of the whole run.
        generations: N_t, the parts training is cut into (Sec. 4.2: 10).
        labelled_classes: one tuple per image of D_l, in source order: the sorted channels of its non-ignored boxes.
        labelled_boxes: the non-ignored boxes of D_l per class, shape (n,).
        num_unlabelled: N_u, the images of D_u.
        seed: the training seed.
    """

    task: Task
    variant: Mapping[str, Any]
    profile: str
    classes: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    settings: Settings
    iterations: int
    generations: int
    labelled_classes: tuple[tuple[int, ...], ...]
    labelled_boxes: tuple[int, ...]
    num_unlabelled: int
    seed: int


def parts_of(method: Method, facts: RunFacts) -> Parts:
    """Return the parts that a method makes for a run.

    Raises:
        UsageFault: ``Method.parts`` cannot be called with the facts of a run, or makes something else.
    """
    from cissod_bench.contract.parts import Parts  # with torch, which listings of methods do without

    rule = f"The method {method.name!r}: parts must make an object of Parts from the facts of a run."
    remedy = "name a subclass of Parts whose __init__ takes the facts; CONTRIBUTING.md shows a whole method in 40 lines"
    try:
        made = method.parts(facts)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:  # raised within, with its line
            raise
        raise UsageFault(f"{rule} {error}.", remedy=remedy) from error
    if not isinstance(made, Parts):
        raise UsageFault(f"{rule} Got {type(made).__name__}.", remedy=remedy)
    return made
