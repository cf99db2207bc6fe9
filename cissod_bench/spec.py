"""The benchmark's contracts: what a task, a draw, a method and a result are. Standard library only.

A file in ``splits/`` with a top-level ``TASK = Task(...)`` is a sub-task; a file in ``baselines/`` or ``method/`` with
a top-level ``METHOD = Method(...)`` is a row of the tables. The file's name is its name on the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from cissod_bench.annotations import Annotations
    from cissod_bench.split import Split
    from cissod_bench.training.parts import Parts
    from cissod_bench.training.settings import Settings

AP: TypeAlias = float | None
"""Average precision in points, 0-100; None where a class or group has no ground-truth box (never -1, never 0)."""

FREE_SETTINGS = frozenset({"checkpoint_every", "log_every", "workers", "test_batch"})
"""Settings that change no number: how often a checkpoint or a log line is written, by how many workers images are read
and how many are scored at once. A run may be continued with others, and runs that differ in them are repetitions."""

Cover: TypeAlias = Literal["uniform", "useful"]

Naming: TypeAlias = Literal["file_name", "coco_url", "objects365"]
"""How an image record names its file below its image folder: "file_name" as it stands; "coco_url" by the last two parts
of the URL, as LVIS does ("train2017/000000000009.jpg"); "objects365" by ``file_name`` without "images/v1/" or
"images/v2/", which are folders of the annotators and not of the release."""

Exif: TypeAlias = Literal["apply", "ignore", "auto", "sizes"]
"""Whether images are turned as their EXIF orientation says: "apply", "ignore", or "auto": decided for each image folder
by what the stated sizes of the labelled, scored and some unlabelled images fit, and refused where they do not tell.
"sizes" refuses nothing: each image as its stated size fits, and turned where both ways do."""


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """How a split is drawn (Sec. 4.1 of the paper); every field is an option of ``make-splits``.

    Attributes:
        split_seed: the draw's seed, >= 0. The same seed gives the same bytes.
        cover: how D_s is selected. "uniform" takes every visited image until all minority classes have enough boxes;
            "useful" skips an image that holds no class still short of them.
        labelled_percent: share of the images with a majority box that enters D_m, in (0, 100]; without a minority, the
            share of the images with a box that enters D_l.
        min_instances: boxes every minority class has in D_s at least, >= 1; without a minority, every class in D_l.
        minority: names of the minority classes; None takes the task's own.
        dm_minority: "drop" leaves the minority boxes of D_m out, "ignore" keeps them as ignore regions (iscrowd 1).
        unlabelled_percent: share of the images outside D_l that enters D_u, in (0, 100]; the others are in no part.
    """

    split_seed: int = 0
    cover: Cover | None = None
    labelled_percent: float = 10.0
    min_instances: int = 10
    minority: tuple[str, ...] | None = None
    dm_minority: Literal["drop", "ignore"] = "drop"
    unlabelled_percent: float = 100.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """A sub-task: which boxes may be seen in training and which classes are scored apart.

    Attributes:
        title: as the paper prints it ("MS-COCO split 1"); a literal in the file, because listings read it unimported.
        source: where it is defined ("Sec. 4.1, scenario 1").
        inputs: role -> annotation file below the data root; "train" is drawn from, "val" is scored, any other is the
            draw's. A file that is missing there is looked for with ".gz" behind its name.
        images: role -> image folder below the data root. An image record of role R may name its own role in "root".
        groups: score columns after "all", left to right: ("maj", "min") or ("f", "c", "r").
        draw: draws the split from the parsed inputs; all randomness comes from ``options.split_seed``.
        iterations: length of training in the paper (Sec. 4.2).
        metric: "coco", or "lvis" for federated rules.
        max_dets: scored detections an image.
        score_floor: detections at or below this score are not kept.
        repeat_threshold: t of repeat factor sampling for this task (methods' D_l resampling).
        crs_gamma: gamma of Eq. 10 for this task (Sec. 4.2: 0.5 on MS-COCO, 0.05 elsewhere).
        minority: the task's minority classes by name; empty where groups come from counts.
        cover: the task's rule for D_s; None where the task has none to choose.
        frequency_bounds: where groups come from counts, the images in D_l up to which a class is rare and up to which
            it is common (Sec. 4.3).
        naming: how the image records name their files.
        swapped: files whose annotated width and height are exchanged, unless the image itself shows that they are not.
        exif: whether images are turned as their EXIF orientation says; for all roles, or role -> value ("auto" for the
            others).
        absent: files that the annotations name and the release lacks.
        draw_defaults: values of DrawOptions that differ from its defaults, e.g. {"labelled_percent": 5.0}.
        prepare: writes ``inputs`` and ``images`` below the folder it is given; only for tasks that need no download.
        official: role -> where the file officially comes from, for the message when it is missing.
        name: filled in by the catalogue from the file's name.
        file: the TOML file that describes it, as the user named it; "" for a task of the catalogue.
    """

    title: str
    source: str
    inputs: Mapping[str, str]
    images: Mapping[str, str]
    groups: tuple[str, ...]
    draw: Callable[[Task, Mapping[str, Annotations], DrawOptions], Split]
    iterations: int
    metric: Literal["coco", "lvis"] = "coco"
    max_dets: int = 100
    score_floor: float = 0.05
    repeat_threshold: float = 0.1
    crs_gamma: float = 0.5
    minority: tuple[str, ...] = ()
    cover: Cover | None = "uniform"
    frequency_bounds: tuple[int, int] = (10, 100)
    naming: Naming = "file_name"
    swapped: tuple[str, ...] = ()
    exif: Exif | Mapping[str, Exif] = "auto"
    absent: tuple[str, ...] = ()
    draw_defaults: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None
    official: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    file: str = ""

    @property
    def named(self) -> str:
        """What a command calls it: its file, or its name in the catalogue."""
        return self.file or self.name

    @property
    def is_toy(self) -> bool:
        """Whether the task draws its own images, so that it needs no data root."""
        return self.prepare is not None


USES_UNLABELLED = frozenset({"semi", "promoted"})
"""Values of `Method.images` with which a teacher labels D_u."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the paper's Tables 1-3.

    Attributes:
        title: as the paper prints it ("Soft Teacher"); a literal in the file.
        source: the section or paper that defines it; a literal in the file.
        citation: authors, title, venue, year.
        parts: makes the fresh parts of one run from the run's facts (see ``training/parts.py``).
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
        labelled_classes: a tuple an image of D_l, in source order: the sorted channels of its non-ignored boxes.
        labelled_boxes: the non-ignored boxes of D_l a class, shape (n,).
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


RunStatus: TypeAlias = Literal["running", "interrupted", "failed", "done"]


@dataclass(kw_only=True)
class RunRecord:
    """run.json: everything needed to trust, repeat or reject one score.

    Attributes:
        schema: version of this record's layout; older ones keep loading.
        task, method, variant, preset, profile, split_seed, seed: what was run (variant "" for the method as it stands).
        split_sha256: hash over the three data files of the split.
        status: "running", "interrupted", "failed" or "done".
        engine: scorer and version, e.g. "hotcoco 1.3.0".
        ap: "teacher" and "student" -> {"all", group...} in points or None.
        per_class: "teacher" and "student" -> class name -> AP.
        groups: group -> class names, as scored.
        settings: every resolved setting.
        departures: setting -> [the paper's value, the value used].
        versions: package -> version.
        hardware: device, cores, memory, world size.
        timings: seconds of each phase ("split", "train", "predict", "evaluate") and iterations per second.
        command: the command line that started the run.
        created: UTC time of the first start, ISO 8601.
        data: images in D_l and D_u.
        skipped: counts of skipped things: "iterations" with a non-finite loss, "images" that could not be read (left
            out before the training or replaced in it), "draws" of them that another image replaced.
        title: the task's, for reports on a task that is not in the catalogue.
        backbone: the pretrained one's file, its hash, its depth, how it sees images ("kind") and how that was told
            ("why"); empty for one from scratch.
        exif: role of an image folder -> "apply" or "ignore", what was decided where the task says "auto", or "none"
            where no image that was looked at bears an orientation; else what the task says.
    """

    schema: int = 1
    task: str
    method: str
    variant: str = ""
    preset: str
    profile: str
    split_seed: int
    seed: int
    split_sha256: str
    status: RunStatus
    engine: str = ""
    ap: dict[str, dict[str, AP]] = field(default_factory=dict)
    per_class: dict[str, dict[str, AP]] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    departures: dict[str, list[Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    created: str = ""
    data: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    title: str = ""
    backbone: dict[str, Any] = field(default_factory=dict)
    exif: dict[str, str] = field(default_factory=dict)
