"""A split on disk in a few lines of text: what was drawn, and what is to be known of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cissod_bench.controls import shown_name

if TYPE_CHECKING:
    from cissod_bench.split_folders.ensure import SplitOnDisk
    from cissod_bench.splitting.manifest import Manifest


def summary(drawn: SplitOnDisk, *, dry_run: bool = False, every_class: bool = False) -> str:
    """Return what was drawn as a few lines of text, with a line per class if asked for."""
    from cissod_bench.split_folders.counts import count_lines, loss_lines, percent_lines, short_line

    manifest = drawn.manifest
    counts, boxes = manifest.counts, manifest.boxes
    new = "imported" if manifest.imported else "drawn" if manifest.was_drawn else "your parts, nothing drawn"
    hidden = f"{boxes.hidden:>11,}" if manifest.hidden_known else f"{'unknown':>11}"
    how = "not written" if dry_run else new if drawn.fresh else "already there, hashes verified"
    named = [name for name in counts if name not in ("labelled", "unlabelled") and counts[name]]
    parts = f"  ({' + '.join(f'{name} {counts[name]:,}' for name in named)})" if named else ""
    lines = [
        f"{manifest.task}, split seed {manifest.split_seed}: {drawn.folder} ({how})",
        f"  D_l  {counts['labelled']:>11,} images  {boxes.labelled:>11,} boxes{parts}",
        f"  D_u  {counts['unlabelled']:>11,} images  {hidden} hidden boxes",
    ]
    lines += [f"  {line}" for line in count_lines(manifest, every_class=every_class)]
    lines += [f"  {line}" for line in loss_lines(manifest)]
    lines.append(f"  {short_line(manifest)}")
    lines.append(f"  imbalance in D_l {_ratio(manifest)}")
    lines += _other_options(drawn)
    lines += [f"  {line}" for line in percent_lines(manifest)]
    lines += _policy(manifest)
    lines += normalised_lines(manifest)
    lines += [
        f"  in no part: {count:,} image{'s' * (count != 1)} {reason}" for reason, count in manifest.left_out.items()
    ]
    lines.append(f"  sha256 {manifest.split_sha256 or '- (nothing written)'}")
    lines.append(f"  {drawn.seconds:.1f} s, peak memory {peak_memory() / 1e6:,.0f} MB")
    return "\n".join(lines)


def _other_options(drawn: SplitOnDisk) -> list[str]:
    """Return a line on options of a split found there that are not the task's own, if there are any."""
    if drawn.manifest.imported:
        return [] if drawn.fresh else ["  imported, drawn by others; --force draws one in its place"]
    told = [
        f"{name} {', '.join(map(shown_name, there)) if isinstance(there, list) else there}"
        for name, (there, _) in drawn.differing.items()
    ]
    return [f"  drawn with {', '.join(told)}; --force draws it again with the task's own"] if told else []


def _ratio(manifest: Manifest) -> str:
    boxes = {name: counts.boxes for name, counts in manifest.per_class.items() if counts.boxes}
    if not boxes:
        return "- (no class has a box)"
    most, least = max(boxes, key=boxes.__getitem__), min(boxes, key=boxes.__getitem__)
    without = len(manifest.per_class) - len(boxes)
    none = f"; classes without a box: {without}" if without else ""
    ends = ", ".join(f"{shown_name(name)} {boxes[name]:,}" for name in (most, least))
    return f"{manifest.imbalance:,} : 1 ({ends}{none})"


_POLICY = {
    "degenerate": "without area, dropped",
    "outside": "outside their image, dropped",
    "clipped": "clipped to their image",
    "crowd": "crowd regions, not counted",
}


def odd_boxes(manifest: Manifest) -> list[str]:
    """Return how many boxes there are of each odd kind, and what became of them."""
    return [f"{count:,} {_POLICY.get(rule, rule)}" for rule, count in manifest.box_policy.items() if count]


def _policy(manifest: Manifest) -> list[str]:
    """Return a line on odd boxes, if there are any."""
    told = odd_boxes(manifest)
    if manifest.boxes.ignored:
        told.append(f"{manifest.boxes.ignored:,} of the minority kept in D_m as ignore regions")
    return [f"  boxes: {'; '.join(told)}"] if told else []


def normalised_lines(manifest: Manifest) -> list[str]:
    """Return a line on each kind of record that was read as it is meant, not as it is written."""
    from cissod_bench.annotations.lenient import WORDS

    return [
        f"  normalised in {role}: {count:,} {WORDS.get(kind, kind)}"
        for role, kinds in manifest.normalised.items()
        for kind, count in kinds.items()
    ]


def peak_memory() -> int:
    """Return the most memory this process has held, bytes; 0 where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
