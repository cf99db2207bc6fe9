"""What a run leaves behind in its run.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from cissod_bench.scoring.points import AP

FREE_SETTINGS = frozenset(
    {
        *("checkpoint_every", "log_every", "workers", "test_batch"),
        *("eval_every", "eval_images", "keep_checkpoints", "best_by", "tracker"),
    }
)
"""Settings that change no number of a table: how often a checkpoint or a log line is written, by how many workers
images are read, how many are scored at once, when a run is evaluated while it trains, and where it is shown. A run may
be continued with others, and runs that differ in them are repetitions."""

DEFAULT_OPERATORS = "vectorised"
"""Value of ``RunRecord.hardware["operators"]`` that reports pass over."""

PHASES = ("split", "train", "evaluations", "predict", "evaluate")
"""Keys of ``RunRecord.timings`` that are seconds."""

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
        hardware: device, cores, memory, world size; "operators", whose RoIAlign and NMS computed ("vectorised" are ours
            on a CPU; records without it had mmcv's).
        timings: seconds of each phase ("split", "train", "evaluations" while training, "predict", "evaluate") and
            iterations per second of training.
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
        best: a second number beside ``ap``, which is the last iteration's: the best evaluation while training. It was
            chosen on the images that are scored, so it is no result of its own. "column" that it was chosen by,
            "model", "iteration", "images" that were scored and "of" how many, "ap" as above, "evaluations" it was
            chosen from. Empty where there was none.
        name: what tells the run from others of its method and scale: the user's ``--name``, or the settings that differ
            from the preset; part of the folder. Older records have none, whatever their settings.
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
    best: dict[str, Any] = field(default_factory=dict)
    name: str = ""
