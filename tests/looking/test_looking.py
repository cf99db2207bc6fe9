"""What detectors saw: chosen images, pictures, numbers, the reasons where something is missing, and `show`."""

from __future__ import annotations

import hashlib
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from looked_at import OURS, SOFT_TEACHER, Looked, looked

from cissod_bench.catalogue import load_report
from cissod_bench.cli import main
from cissod_bench.figures.drawing import PRINT
from cissod_bench.figures.pictures import ROLES, SIGNS, DrawnBox, Picture, picture_drawing, row_drawing, thumbnail
from cissod_bench.looking.at_hand import photos_of, run_at_hand, split_at_hand
from cissod_bench.looking.choice import drawn_order, first_of_each
from cissod_bench.looking.scenes import View, chosen_images
from cissod_bench.looking.seen import Seen, Truths, look_at
from cissod_bench.looking.split_pictures import chosen_rows, split_report
from cissod_bench.records.pseudo_box_lines import PseudoBoxLine
from cissod_bench.records.run_folder import Run
from cissod_bench.rendering import page
from cissod_bench.rendering.page import render_html
from cissod_bench.reporting.tables import Report
from cissod_bench.scoring.confusions import FOUND, MISSED
from cissod_bench.splitting.manifest import read_manifest


@pytest.fixture
def place(tmp_path: Path) -> Looked:
    return looked(tmp_path)


def report(place: Looked, *runs: Run) -> Report:
    made = load_report("looking")(list(runs), [read_manifest(place.split)], places=place.places)
    assert isinstance(made, Report)
    return made


def view(place: Looked, run: Run) -> View:
    hand = run_at_hand(run, place.places)
    seen = look_at(run, {run: hand}, Truths())
    assert isinstance(seen, Seen)
    assert hand is not None
    assert hand.val is not None
    return View(run.record.method, seen, photos_of(hand, hand.val, "val"))


def test_the_page_shows_scored_images_with_what_was_found_missed_and_mistaken(place: Looked) -> None:
    runs = [place.run("ours", OURS), place.run("soft-teacher", SOFT_TEACHER)]
    made = report(place, *runs)
    (gallery,) = made.galleries
    assert len(gallery.shelves) == 3  # the image without a box is none of them
    assert {shelf.title for shelf in gallery.shelves} == {"201.png", "202.png", "203.png"}
    html = render_html([made], runs)
    for words in ("sheep: found, detected, score 0.80", "dog: wrong class, detected, score 0.70"):
        assert words in html
    assert html.count("data:image/jpeg;base64,") == 3 * 2 + 2  # two methods, and a picture a pair
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    assert "img-src data:" in html


def test_numbers_are_means_over_training_seeds(place: Looked) -> None:
    made = report(place, place.run("ours", OURS), place.run("ours", SOFT_TEACHER, seed=1))
    errors, taken, sizes = made.listings
    frame = taken.data.set_index(["column", "measure"])
    assert frame.loc[("min", "Found"), "mean"] == 50.0
    assert frame.loc[("min", "As majority"), "mean"] == 50.0
    assert frame.loc[("maj", "Found"), "n"] == 2
    assert errors.data.set_index(["column", "measure"]).loc[("maj", "AP50"), "std"] >= 0
    assert [line[-1] for line in sizes.lines] == ["2", "2", "2"]


def test_which_images_are_shown_depends_on_no_result(place: Looked) -> None:
    (one, other) = (view(place, place.run(*pair)) for pair in (("ours", OURS), ("soft-teacher", [])))
    assert chosen_images(one, 2) == chosen_images(other, 2)
    names = sorted(("202.png", "203.png"), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert [one.names[row] for row in chosen_images(one, 2)] == names


def test_a_pair_shows_what_one_found_and_the_other_did_not(place: Looked) -> None:
    made = report(place, place.run("ours", OURS), place.run("soft-teacher", SOFT_TEACHER))
    ours, theirs = made.figures[-2:]
    assert ours.title.startswith("Found by Ours")
    assert "1 in all" in ours.caption
    assert "sheep: dog to Soft Teacher" in ours.svg
    assert "sheep: dog to Ours" in theirs.svg
    assert set(ours.drawing.files("png")) == {f"pair_mine_mini-default_split0_ours{place}.png" for place in PRINT}  # type: ignore[union-attr]


def test_what_is_missing_is_said_with_its_reason(place: Looked) -> None:
    kept, other = place.run("ours", None), place.run("soft-teacher", SOFT_TEACHER, split_sha256="ef" * 32)
    notes = " ".join(report(place, kept, other).notes)
    assert "1 of 2 runs, which keep no predictions" in notes
    assert "split that is not at hand" in notes
    (place.data / "val.json").unlink()
    assert "validation file val.json is not at hand" in " ".join(report(place, place.run("ours", OURS)).notes)


def test_without_images_there_are_numbers_and_no_pictures(place: Looked) -> None:
    shutil.rmtree(place.data / "images")
    made = report(place, place.run("ours", OURS))
    assert len(made.listings) == 3
    assert made.galleries == ()
    assert any(note.startswith("My task: no pictures.") for note in made.notes)


def test_one_image_that_is_missing_is_said_in_its_place(place: Looked) -> None:
    run = place.run("ours", OURS)
    (place.data / "images/203.png").unlink()
    html = render_html([report(place, run)], [run])
    assert "203.png: the image cannot be read" in html


def test_by_lviss_rules_there_are_no_types_of_errors(tmp_path: Path) -> None:
    place = looked(tmp_path, metric="lvis")
    assert "federated rules" in " ".join(report(place, place.run("ours", OURS)).notes)


def test_ap_against_boxes_names_every_class_with_its_boxes(place: Looked) -> None:
    made = report(place, place.run("ours", None))
    assert [figure.title for figure in made.figures] == ["AP against boxes in D_l: My task"]
    assert "Ours (n = 1), sheep: AP 20.0, 2 boxes in D_l" in made.figures[0].svg
    alone = load_report("looking")([place.run("ours", None)])
    assert "make-splits --task mine --split-seed 0" in " ".join(alone.notes)


def test_files_of_two_draws_with_one_seed_have_names_of_their_own(place: Looked) -> None:
    runs = [place.run("ours", OURS), place.run("soft-teacher", SOFT_TEACHER)]
    alone = [figure.stem for figure in report(place, *runs).figures]
    assert alone == [
        *("scatter_mine_mini-default_split0", "confusion_mine_mini-default_split0"),
        *("pair_mine_mini-default_split0_ours", "pair_mine_mini-default_split0_soft-teacher"),
    ]
    other = Run(place.split, replace(runs[0].record, split_sha256="cd" * 32))
    draw = runs[0].record.split_sha256[:8]
    stems = [figure.stem for figure in report(place, *runs, other).figures]
    assert len(stems) == len(alone)
    assert all(draw in stem for stem in stems)


def test_pictures_stop_where_the_page_would_be_too_large(place: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    run = place.run("ours", OURS)
    monkeypatch.setattr(page, "MOST_PICTURE_BYTES", 1)
    html = render_html([report(place, run)], [run])
    assert html.count("data:image/jpeg") == 1
    assert "2 pictures are left out" in html


def test_a_split_is_shown_before_training_with_boxes_of_every_class(place: Looked) -> None:
    made = split_report(split_at_hand(place.split, place.places))
    assert [gallery.title for gallery in made.galleries] == [
        "Labelled images (D_l)", "Unlabelled images (D_u)", "Scored images",
    ]  # fmt: skip
    assert made.notes == ()
    html = render_html([made], [], "My task")
    assert "sheep: minority, annotated" in html
    assert "<h2>Runs</h2>" not in html
    (place.split / "hidden.json").unlink()
    made = split_report(split_at_hand(place.split, place.places))
    assert [note.split(":")[0] for note in made.notes] == ["Unlabelled images (D_u)"]


def test_boxes_that_nobody_gave_are_said_to_be_unknown(tmp_path: Path) -> None:
    place = looked(tmp_path, hidden_boxes="unknown")
    made = split_report(split_at_hand(place.split, place.places))
    assert made.notes == ("Unlabelled images (D_u): not shown. Their boxes are not known.",)


def test_the_class_with_fewest_boxes_is_shown_first(place: Looked) -> None:
    hand = split_at_hand(place.split, place.places)
    photos = photos_of(hand, place.split / "labelled.json", "train")
    assert [photos.name(row) for row in chosen_rows(photos, 1)] == ["1.png"]  # one dog, two sheep
    assert len(chosen_rows(photos, 9)) == 3


def test_show_writes_a_page_of_a_split_and_of_a_run(place: Looked) -> None:
    run = place.run("ours", OURS)
    for what, name in ((str(place.split), "show_mine_split0"), (str(run.folder), "show_ours_mine_split0_seed0")):
        called = CliRunner().invoke(main, ["show", what, *place.options])
        assert called.exit_code == 0, called.output
        assert "data:image/jpeg" in (place.work / f"reports/{name}.html").read_text(encoding="utf-8")


def test_show_refuses_a_run_that_has_no_scores(place: Looked) -> None:
    run = place.run("ours", None, status="running", ap={})
    called = CliRunner().invoke(main, ["show", str(run.folder), *place.options])
    assert "has no scores yet" in str(called.exception)


def test_rows_are_taken_from_each_list_in_turn_and_none_twice() -> None:
    assert first_of_each([[1, 2, 3], [1, 4], []], 4) == [1, 4, 2, 3]
    assert first_of_each([[1, 2], [3]], 2) == [1, 3]
    assert sorted(drawn_order(range(4), ["a", "b", "c", "c"])) == [0, 1, 2, 3]


def drawn(*boxes: DrawnBox, title: str = "t") -> str:
    pixels = np.zeros((48, 64, 3), np.uint8)
    return picture_drawing(Picture(title, 64, 48, lambda: pixels, boxes)).page()


def test_annotated_boxes_are_dashed_beside_detections_and_solid_alone() -> None:
    assert "stroke-dasharray" in drawn(DrawnBox((1, 1, 9, 9), MISSED, "dog"))
    assert "stroke-dasharray" not in drawn(DrawnBox((1, 1, 9, 9), FOUND, "dog", 0.9))
    assert "stroke-dasharray" not in drawn(DrawnBox((1, 1, 9, 9), ROLES[1], "dog"))


def test_labels_give_way_to_each_other_and_boxes_end_with_their_image() -> None:
    page = drawn(DrawnBox((1, 1, 90, 90), FOUND, "dog", 0.9), DrawnBox((2, 2, 9, 9), FOUND, "cat", 0.8))
    root = ElementTree.fromstring(page)
    *_, upper, lower = (float(text.attrib["y"]) for text in root.iter("{http://www.w3.org/2000/svg}text"))
    assert abs(upper - lower) > 8
    wide = float(root.attrib["viewBox"].split()[2])
    lines = [
        path.attrib["d"] for path in root.iter("{http://www.w3.org/2000/svg}path") if "stroke:" in path.get("style", "")
    ]
    assert max(float(x) for line in lines for x in re.findall(r"[ML]([\d.]+) ", line)) <= wide + 0.01


def test_names_of_classes_cannot_break_the_page() -> None:
    page = drawn(DrawnBox((1, 1, 9, 9), FOUND, "<script>$x^2$", 0.9), title="a & b")
    texts = [element.text for element in ElementTree.fromstring(page).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["a & b", f"{SIGNS[FOUND].sign} <script>$x^2$ .90"]


def test_a_photograph_in_the_page_is_a_jpeg_of_a_thumbnails_size() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 900, 3), np.uint8)
    assert thumbnail(noise).shape == (213, 320, 3)
    assert thumbnail(noise[:10, :10]).shape == (10, 10, 3)
    made = Picture("t", 900, 600, lambda: noise, ())
    assert picture_drawing(made).page().count("data:image/jpeg;base64,") == 1
    assert "image/png" not in picture_drawing(made).page()
    assert set(row_drawing("r", [made] * 3, "row").files("png")) == {"row.png", "row_column.png"}


def pseudo(image: int, generation: int, *labels: tuple[str, tuple[float, float, float, float]]) -> bytes:
    names, boxes = [name for name, _ in labels], [box for _, box in labels]
    line = PseudoBoxLine(
        generation=generation, iteration=10 * generation, image=image, boxes=boxes, classes=names,
        scores=[0.9] * len(labels),
    )  # fmt: skip
    return line.written()


def test_pseudo_labels_stand_beside_hidden_boxes_generation_by_generation(place: Looked) -> None:
    run = place.run("ours", OURS)
    on_sheep = (10.0, 10.0, 30.0, 30.0)
    lines = [
        pseudo(101, 1),
        pseudo(102, 1, ("dog", on_sheep)),
        pseudo(102, 2, ("sheep", on_sheep), ("sheep", on_sheep)),
    ]
    (run.folder / "pseudo_boxes.jsonl").write_bytes(b"".join(lines))
    made = report(place, run)
    gallery = made.galleries[1]
    assert gallery.title == "Pseudo labels: Ours, My task"
    assert [shelf.title for shelf in gallery.shelves] == ["102.png", "101.png"]  # in the most generations first
    html = render_html([made], [run])
    for words in ("Generation 1: 1 wrong class", "Generation 2: 1 found, 1 false", "Generation 1: 1 missed"):
        assert words in html


def test_where_hidden_boxes_are_not_known_pseudo_labels_are_shown_unjudged(place: Looked) -> None:
    run = place.run("ours", OURS)
    (run.folder / "pseudo_boxes.jsonl").write_bytes(pseudo(102, 1, ("dog", (1.0, 1.0, 9.0, 9.0))))
    (place.split / "hidden.json").unlink()
    gallery = report(place, run).galleries[1]
    assert "the hidden boxes are not known" in gallery.caption
    assert "dog: pseudo label, detected" in gallery.shelves[0].drawings[0].page()


def test_a_run_that_kept_no_pseudo_labels_says_so(place: Looked) -> None:
    run = place.run("ours", OURS)
    (run.folder / "pseudo_labels.jsonl").write_text("", encoding="utf-8")
    assert "kept no pseudo labels to show" in " ".join(report(place, run).notes)
    (run.folder / "pseudo_boxes.jsonl").write_bytes(pseudo(999, 1))
    assert "none of the images" in " ".join(report(place, run).notes)
