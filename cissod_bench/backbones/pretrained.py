"""Weights of a pretrained backbone: read safely, checked against the settings, loaded whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cissod_bench.backbones.looks import LOOKS, Kind
from cissod_bench.backbones.packaged import packaged
from cissod_bench.backbones.safe_loading import flat_tensors, load_safely
from cissod_bench.backbones.timm_weights import TimmWeights, timm_weights
from cissod_bench.backbones.weight_files import fetched, origin_of
from cissod_bench.backbones.weight_kinds import all_finite, cues, decided, is_trained
from cissod_bench.contract.frozen_layers import FROM_SCRATCH
from cissod_bench.contract.settings import Settings
from cissod_bench.errors import DataFault
from cissod_bench.records.record import RunRecord

BLOCKS = {
    18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True), 101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}  # fmt: skip
"""Depth -> blocks of the four stages, and whether they have three convolutions (a bottleneck)."""
ANOTHER_FILE = "name a file of a plain ResNet, or of a detector with one, with --set pretrained=FILE"
_PARTS = re.compile(r"(conv1|bn1|gn1|layer\d+)\.")
# Names of detectron2 -> of mmdet and torchvision.
_RENAMED = (
    (re.compile(r"(^|\.)stem\.conv1\.norm\."), r"\1bn1."),
    (re.compile(r"(^|\.)stem\.conv1\."), r"\1conv1."),
    (re.compile(r"(^|\.)res([2-5])\.(?=\d)"), lambda match: f"{match[1]}layer{int(match[2]) - 1}."),
    (re.compile(r"\.conv(\d)\.norm\."), r".bn\1."),
    (re.compile(r"\.shortcut\.norm\."), ".downsample.1."),
    (re.compile(r"\.shortcut\."), ".downsample.0."),
)


@dataclass(frozen=True)
class Weights:
    """The weights of a backbone, as a file holds them.

    Attributes:
        path: the file.
        part: what its keys have before the backbone's, e.g. "teacher.backbone."; "" where the file is a backbone.
        state: key as mmdet's ResNet has it -> float32 on the CPU.
        said: what the file holds besides weights that may tell the kind.
    """

    path: Path
    part: str
    state: dict[str, Tensor]
    said: Mapping[str, Any]

    @property
    def words(self) -> str:
        """The file and the part of it that was read."""
        return f"{self.path} ({self.part.rstrip('.')})" if self.part else str(self.path)

    @property
    def blocks(self) -> tuple[tuple[int, ...], bool]:
        """Blocks of every stage, and whether they have three convolutions."""
        numbers = [
            {int(match[1]) for name in self.state if (match := re.match(rf"layer{stage}\.(\d+)\.", name))}
            for stage in range(1, 5)
        ]
        return tuple(map(len, numbers)), "layer1.0.conv3.weight" in self.state

    @property
    def depth(self) -> int | None:
        """Of the ResNet, None for one that has no name."""
        return next((depth for depth, blocks in BLOCKS.items() if blocks == self.blocks), None)

    @property
    def base_channels(self) -> int:
        """Of the stem."""
        return len(self.state["conv1.weight"])

    @property
    def norm(self) -> str:
        """As the setting `norm` says it."""
        return "gn" if "gn1.weight" in self.state else "frozen-bn"


@dataclass(frozen=True)
class Backbone:
    """What a run knows of its pretrained backbone.

    Attributes:
        weights: what was read.
        kind: how it sees images.
        why: how that was told.
        sha256: of the file.
    """

    weights: Weights
    kind: Kind
    why: str
    sha256: str

    def record(self) -> dict[str, Any]:
        """Return what run.json says of it."""
        own = self.weights
        return {
            "file": str(own.path), "part": own.part, "sha256": self.sha256, "depth": own.depth, "kind": self.kind,
            "why": self.why,
        }  # fmt: skip


def backbone_of(settings: Settings) -> Backbone | TimmWeights | None:
    """Return the pretrained backbone of a run, which fits its settings; None for one from scratch.

    Raises:
        EnvironmentFault: the file can neither be read nor fetched, or a package is missing.
        DataFault: it is not a ResNet of the settings' depth, width and norm, was never trained, or how it sees images
            cannot be told; or it is not the network of timm.
    """
    if not settings.pretrained:
        return None
    if settings.timm_name:
        return timm_weights(settings.timm_name, settings.backbone_strides, settings.pretrained)
    weights = read_weights(settings.pretrained)
    _check_architecture(weights, settings)
    _check_keys(weights, settings)
    kind, why = _kind(weights, settings)
    with weights.path.open("rb") as stream:
        digest = sha256()
        while piece := stream.read(2**22):
            digest.update(piece)
    return Backbone(weights, kind, why, digest.hexdigest())


def tell_backbone(record: RunRecord, known: dict[str, Any], say: Callable[[str], None]) -> None:
    """Put a backbone into a run's record, with the departure that it may be, and say what it was taken for.

    Args:
        record: the run's.
        known: as `Backbone.record`; empty for a backbone from scratch.
        say: takes lines for the user.
    """
    named = str(record.settings.get("pretrained", ""))
    if known and (named.startswith("package:") or "://" in named):  # where it lies here tells nobody else anything
        known = {**known, "file": Path(known["file"]).name}
    record.backbone = known
    if not known:
        return
    if "classes" in known:
        names = f": {', '.join(known['classes'])}" if known["classes"] else ""
        say(f"Begins as the detector of {known['file']}, which knows {len(known['classes'])} of the classes{names}.")
    if known["kind"] != "caffe":
        record.departures["backbone_kind"] = ["caffe", known["kind"]]
    if known["kind"] == "timm":
        say(f"Backbone: {known['file']}, {known['words']}.")
        return
    look = LOOKS[known["kind"]].words
    say(f"Backbone: {known['file']}, ResNet-{known['depth']}, {known['kind']} ({look}), because {known['why']}.")


def read_weights(named: str) -> Weights:
    """Return the backbone's part of a file: of a classifier, a detector, a teacher and student, a checkpoint of ours.

    Args:
        named: as the setting `pretrained`.

    Raises:
        UsageFault: no package is known for the name.
        EnvironmentFault: the file can neither be read nor fetched.
        DataFault: it holds no ResNet, several, or what is not loaded for safety.
    """
    origin = origin_of(named)
    path = fetched(origin)
    content = load_safely(path, ANOTHER_FILE, again=bool(origin.address))
    tensors = {_renamed(name): value for name, value in flat_tensors(content)}
    part = _part(path, tensors)
    state = {
        name[len(part) :]: value.float()
        for name, value in tensors.items()
        if name.startswith(part) and _PARTS.match(name[len(part) :]) and not name.endswith("num_batches_tracked")
    }
    said = {key: content[key] for key in ("meta", "identity") if isinstance(content, Mapping) and key in content}
    return Weights(path, part, state, said)


def _renamed(name: str) -> str:
    for pattern, new in _RENAMED:
        name = pattern.sub(new, name)
    return name


def _part(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Return what the keys of the file's ResNet begin with; a teacher's goes before its student's."""
    marks = ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")
    candidates = [name[: -len(marks[0])] for name in tensors if name == marks[0] or name.endswith(f".{marks[0]}")]
    missing = next((mark for mark in marks[1:] if not any(part + mark in tensors for part in candidates)), marks[-1])
    candidates = [part for part in candidates if all(part + mark in tensors for mark in marks)]
    if not candidates:
        shown = ", ".join(list(tensors)[:3]) or "nothing"
        raise DataFault(
            f"{path} holds no ResNet: no key ends in {missing!r} beside {marks[0]!r}. It holds {shown}"
            f"{', ...' if len(tensors) > 3 else ''} ({len(tensors)} tensors).",
            remedy=ANOTHER_FILE,
        )
    # mmengine keeps the averaged weights as state_dict and the others as ema_state_dict.
    rank = {part: ("student" in part, part.startswith("ema_state_dict.")) for part in candidates}
    best = [part for part in candidates if rank[part] == min(rank.values())]
    if len(best) > 1:
        parts = ", ".join(part.rstrip(".") or "one without a prefix" for part in best)
        raise DataFault(
            f"{path} holds {len(best)} ResNets ({parts}).",
            remedy="save the one you want in a file of its own: torch.save of its state_dict(), then "
            "--set pretrained=FILE",
        )
    return best[0]


def _check_architecture(weights: Weights, settings: Settings) -> None:
    """Refuse a ResNet of another depth, width or norm than the settings ask for, or one of no known depth."""
    if weights.state["conv1.weight"].dim() != 4 or weights.depth is None:
        blocks, _ = weights.blocks
        raise DataFault(
            f"{weights.words} is no ResNet of 18, 34, 50, 101 or 152 layers: its stages have "
            f"{', '.join(map(str, blocks))} blocks.",
            remedy=ANOTHER_FILE,
        )
    wanted = {"depth": settings.depth, "base_channels": settings.base_channels, "norm": settings.norm}
    held = {name: getattr(weights, name) for name in wanted}
    wrong = [name for name in wanted if wanted[name] != held[name]]
    if wrong:
        said = [", ".join(f"{name}={table[name]}" for name in wrong) for table in (held, wanted)]
        changes = " ".join(f"--set {name}={held[name]}" for name in wrong)
        raise DataFault(
            f"{weights.words} is a ResNet-{weights.depth} with {said[0]}; the settings ask for {said[1]}.",
            remedy=ANOTHER_FILE if weights.depth == 152 else f"{changes}, or {ANOTHER_FILE}",
        )


def shapes_of(depth: int, base_channels: int, norm: str) -> dict[str, tuple[int, ...]]:
    """Return the keys of a plain ResNet, as torchvision and mmdet name them, and the shapes of their tensors.

    Args:
        depth: one of `BLOCKS`.
        base_channels: of the stem.
        norm: "frozen-bn" or "gn".
    """
    numbers, bottleneck = BLOCKS[depth]
    name, last = "gn" if norm == "gn" else "bn", 4 if bottleneck else 1
    kinds = ("weight", "bias") if norm == "gn" else ("weight", "bias", "running_mean", "running_var")
    found: dict[str, tuple[int, ...]] = {}

    def layer(conv: str, norm_name: str, out: int, into: int, side: int) -> None:
        found[f"{conv}.weight"] = (out, into, side, side)
        found.update({f"{norm_name}.{kind}": (out,) for kind in kinds})

    layer("conv1", f"{name}1", base_channels, 3, 7)
    into = base_channels
    for stage, blocks in enumerate(numbers):
        width = base_channels * 2**stage
        for block in range(blocks):
            at, out = f"layer{stage + 1}.{block}.", width * last
            sides = ((width, 1), (width, 3), (out, 1)) if bottleneck else ((width, 3), (width, 3))
            if block == 0 and (stage or bottleneck):
                layer(f"{at}downsample.0", f"{at}downsample.1", out, into, 1)
            for place, (wide, side) in enumerate(sides, start=1):
                layer(f"{at}conv{place}", f"{at}{name}{place}", wide, into, side)
                into = wide
    return found


def _check_keys(weights: Weights, settings: Settings) -> None:
    """Refuse a backbone with a key too few, too many, or of another shape."""
    wanted, held = shapes_of(settings.depth, settings.base_channels, settings.norm), weights.state
    missing = [name for name in wanted if name not in held]
    misfit = [
        f"{name} is {tuple(held[name].shape)} and not {shape}"
        for name, shape in wanted.items()
        if name in held and tuple(held[name].shape) != shape
    ]
    unknown = [name for name in held if name not in wanted]
    if missing or misfit or unknown:
        said = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for names, what in ((missing, "missing"), (misfit, "of another shape"), (unknown, "too many"))
            if names
        ]
        raise DataFault(
            f"{weights.words} is not the plain ResNet-{settings.depth} of the settings; of its weights are "
            f"{', '.join(said)}.",
            remedy=ANOTHER_FILE,
        )


def _kind(weights: Weights, settings: Settings) -> tuple[Kind, str]:
    """Return how the backbone sees images, and how that was told."""
    state, asked = weights.state, settings.pretrained_kind
    if not all_finite(state):
        raise DataFault(f"{weights.words} holds weights that are not finite.", remedy=ANOTHER_FILE)
    if not is_trained(state):
        raise DataFault(
            f"{weights.words} was never trained: its norms scale by 1 and shift by 0, as those of a new network do.",
            remedy=f"{ANOTHER_FILE}; or train from scratch, no layer frozen: {FROM_SCRATCH}",
        )
    if asked == "auto" and (known := packaged(settings.pretrained)) is not None:
        return known.kind, f"its package says so ({known.distribution})"
    found = cues(state, settings.pretrained if "://" in settings.pretrained else weights.path.name, weights.said)
    kind, why = decided(found)
    if asked != "auto":
        return asked, f"pretrained_kind says so{f', although {why}' if kind not in (None, asked) else ''}"
    if kind is not None and (kind == "scratch") == (settings.norm == "gn"):
        return kind, why
    kinds = [name for name in LOOKS if (name == "scratch") == (settings.norm == "gn")]
    raise DataFault(
        f"How the backbone {weights.words} sees images cannot be told: {why}. Weights loaded the wrong way are merely "
        "worse, and nobody notices.",
        remedy="say it: " + ", or ".join(f"--set pretrained_kind={name} ({LOOKS[name].words})" for name in kinds),
    )


def load_backbone(model: nn.Module, weights: Weights) -> None:
    """Put weights into a backbone, all of them.

    Args:
        model: mmdet's ResNet.
        weights: as `read_weights` returns them.

    Raises:
        DataFault: a key of the model is missing, or there is one that it has not, or a shape does not fit.
    """
    counters = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    try:
        model.load_state_dict({**weights.state, **counters})
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise DataFault(
            f"{weights.words} does not fit the backbone: {' '.join(lines)[:400]}", remedy=ANOTHER_FILE
        ) from error
