"""What a sub-task is.

A file in ``splits/`` with a top-level ``TASK = Task(...)`` is a sub-task; the file's name is its name on the command
line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cissod_bench.annotations.naming import Naming
from cissod_bench.files.orientation import Exif

if TYPE_CHECKING:
    from cissod_bench.annotations.reading import Annotations
    from cissod_bench.splitting.options import Cover, DrawOptions
    from cissod_bench.splitting.split import Split


@dataclass(frozen=True)
class Conversion:
    """How data of another format becomes the annotation files of a task.

    Attributes:
        sources: "annotations", "images" and perhaps more -> file or folder below the data root, as the data is there.
        write: writes ``inputs`` and ``images`` of the task, given the data root and the folder where to; what is there
            already stays. It may return what the user should know of what it wrote, a sentence each. It raises
            ``DataFault`` where the data breaks a rule.
        absent: given the data root, returns a line for all that is missing of the sources; None takes their paths.
    """

    sources: Mapping[str, str]
    write: Callable[[Path, Path], Sequence[str] | None]
    absent: Callable[[Path], Sequence[str]] | None = None

    def missing(self, data_root: Path) -> tuple[str, ...]:
        """Return a line for all that is missing of the sources."""
        if self.absent is not None:
            return tuple(self.absent(data_root))
        return tuple(str(data_root / place) for place in self.sources.values() if not (data_root / place).exists())


@dataclass(frozen=True, kw_only=True)
class Task:
    """A sub-task: which boxes may be seen in training and which classes are scored apart.

    Attributes:
        title: as the paper prints it ("MS-COCO split 1"); a literal in the file, because listings read it unimported.
        source: where it is defined ("Sec. 4.1, scenario 1").
        inputs: role -> annotation file below the data root; "train" is drawn from, "val" is scored, any other is the
            draw's. A file that is missing there is looked for with ".gz" behind its name.
        images: role -> image folder below the data root. An image record of role R may name its own role in "root".
        groups: score columns after "all", left to right: ("maj", "min"), ("f", "c", "r") or ("classes",).
        draw: draws the split from the parsed inputs; all randomness comes from ``options.split_seed``.
        iterations: length of training in the paper (Sec. 4.2).
        metric: "coco", or "lvis" for federated rules.
        max_dets: scored detections per image.
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
        crowd_ignored: whether regions with iscrowd 1 are no background in training; the paper's code trains on them.
        absent: files that the annotations name and the release lacks.
        draw_defaults: values of DrawOptions that differ from its defaults, e.g. {"labelled_percent": 5.0}.
        prepare: writes ``inputs`` and ``images`` below the folder it is given; only for tasks that need no download.
        conversion: makes ``inputs`` and ``images`` below the work folder of data in another format.
        preset: scale of a run where none is named; "" is ``mini`` for a task that draws its images, ``photo``
            for one that a user's file describes, and ``full`` else.
        official: role -> where the file officially comes from, for the message when it is missing.
        name: filled in by the catalogue from the file's name.
        file: the TOML or Python file that describes it, as the user named it; "" for a task of the catalogue.
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
    crowd_ignored: bool = False
    absent: tuple[str, ...] = ()
    draw_defaults: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None
    conversion: Conversion | None = None
    preset: str = ""
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

    @property
    def lies_in_work(self) -> bool:
        """Whether its annotation files are written below the work folder: drawn, or made of data of another format."""
        return self.is_toy or self.conversion is not None

    @property
    def usual_preset(self) -> str:
        """The scale of a run where none is named."""
        return self.preset or ("mini" if self.is_toy else "photo" if self.file else "full")
