"""Pseudo labels of a few images of a generation: which are kept, in whatever pieces they come, and what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cissod_bench.errors import DataFault
from cissod_bench.files.hashing import mix
from cissod_bench.records.pseudo_box_lines import PseudoBoxLine, read_pseudo_boxes
from cissod_bench.records.run_folder import PSEUDO_BOXES
from cissod_bench.training.judging import Looks
from cissod_bench.training.kept_looks import KEPT, KeptLooks

CLASSES = ("dog", "sheep")


def looks(*of_images: tuple[int, int]) -> Looks:
    """Looks at images, (id, number of pseudo labels)."""
    numbers = [number for _, number in of_images]
    total = sum(numbers)
    corner = np.arange(2 * total, dtype=np.float32).reshape(total, 2)
    return Looks(
        images=np.array([image for image, _ in of_images], np.int64),
        ends=np.cumsum(numbers, dtype=np.int64),
        boxes=np.concatenate([corner, corner + 10], axis=1),
        labels=np.arange(total) % 2,
        scores=np.full(total, 0.5, np.float32),
    )


def kept(*pieces: Looks) -> list[PseudoBoxLine]:
    keeper = KeptLooks()
    for piece in pieces:
        keeper.take(piece)
    return keeper.lines(3, 30, CLASSES)


def test_the_images_with_the_lowest_mixed_ids_are_kept_in_whatever_pieces_they_come() -> None:
    every = [(image, image % 3) for image in range(100, 140)]
    whole = kept(looks(*every))
    assert len(whole) == KEPT
    codes = mix(np.arange(100, 140))
    assert [line.image for line in whole] == (100 + np.argsort(codes)[:KEPT]).tolist()
    single = kept(*(looks(one) for one in reversed(every)))
    assert [(line.image, len(line.boxes)) for line in single] == [(line.image, len(line.boxes)) for line in whole]


def test_of_several_looks_at_an_image_the_one_with_most_pseudo_labels_stays() -> None:
    for pieces in ([looks((7, 1)), looks((7, 3))], [looks((7, 3)), looks((7, 1))], [looks((7, 3), (7, 1))]):
        (line,) = kept(*pieces)
        assert len(line.boxes) == 3


def test_a_line_holds_boxes_as_x_y_width_height_with_names_of_classes() -> None:
    (line,) = kept(looks((7, 2)))
    assert line.boxes == [(0.0, 1.0, 10.0, 10.0), (2.0, 3.0, 10.0, 10.0)]
    assert (line.classes, line.scores) == (["dog", "sheep"], [0.5, 0.5])
    assert (line.generation, line.iteration, line.image) == (3, 30, 7)


def test_an_image_without_a_pseudo_label_has_a_line_too() -> None:
    (line,) = kept(looks((7, 0)))
    assert line.boxes == []


def test_what_a_checkpoint_holds_goes_on_as_if_nothing_had_been() -> None:
    first, second = looks(*((image, 2) for image in range(20))), looks(*((image, 1) for image in range(20, 40)))
    keeper, other = KeptLooks(), KeptLooks()
    keeper.take(first)
    other.load(keeper.state())
    other.take(second)
    assert other.lines(3, 30, CLASSES) == kept(first, second)


def test_lines_are_read_as_they_were_written_and_broken_ones_named(tmp_path: Path) -> None:
    lines = kept(looks((7, 2), (8, 0)))
    path = tmp_path / PSEUDO_BOXES
    path.write_bytes(b"".join(line.written() for line in lines))
    assert read_pseudo_boxes(tmp_path) == lines
    assert read_pseudo_boxes(tmp_path / "none") == []
    path.write_bytes(lines[0].written() + b'{"generation": 1')
    with pytest.raises(DataFault, match="line 2"):
        read_pseudo_boxes(tmp_path)
    broken = PseudoBoxLine(generation=1, iteration=1, image=7, boxes=[], classes=["dog"], scores=[])
    path.write_bytes(broken.written())
    with pytest.raises(DataFault, match="differ in number"):
        read_pseudo_boxes(tmp_path)
