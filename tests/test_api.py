"""``import cissod_bench``: light, typed, as its page says, and doing what the commands do."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from split_folders import data_bytes, folder

import cissod_bench
from cissod_bench import api
from cissod_bench.errors import DataFault, UsageFault

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
FUNCTIONS = ("draw_split", "load_split", "score", "train", "predict", "report")
Call = Callable[..., Any]


def test_the_import_loads_neither_torch_nor_anything_else_that_is_heavy() -> None:
    code = """
import sys
import cissod_bench
before = set(sys.modules)
names = dir(cissod_bench)
cissod_bench.draw_split, cissod_bench.load_split, cissod_bench.score, cissod_bench.train, cissod_bench.predict
heavy = {"torch", "mmdet", "mmcv", "mmengine", "pandas", "matplotlib", "cv2", "hotcoco", "rich"}
print(sorted(heavy & set(sys.modules)), "numpy" in before, "click" in before, {"draw_split", "gbr"} <= set(names))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[] False False True", done.stderr


def test_what_is_offered_is_what_type_checkers_see() -> None:
    tree = ast.parse((ROOT / "cissod_bench" / "__init__.py").read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    names = {alias.name for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    names |= {
        node.target.id for node in typed.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    offered = {*FUNCTIONS, *cissod_bench._TYPES, *api.FORMULAS}
    assert names == {*offered, "ModuleType"}
    assert set(cissod_bench._FORMULAS) == set(api.FORMULAS)
    assert offered <= set(dir(cissod_bench))
    assert all(getattr(cissod_bench, name) is getattr(api, name) for name in (*FUNCTIONS, *cissod_bench._TYPES))
    with pytest.raises(AttributeError, match="has no attribute 'draw_splits'"):
        cissod_bench.draw_splits  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_typed_documented_and_on_the_page(name: str) -> None:
    function = getattr(cissod_bench, name)
    signature = inspect.signature(function)
    assert all(one.annotation is not one.empty for one in signature.parameters.values())
    assert signature.return_annotation is not signature.empty
    documented = function.__doc__ or ""
    assert "Raises:" in documented
    if name != "load_split":  # its one argument is its name
        assert all(f" {one}: " in documented for one in signature.parameters)
    assert f"| `{name}(" in PAGE


def test_the_calls_on_the_page_fit_the_functions() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    called = set()
    for node in ast.walk(ast.parse(code)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and ast.unparse(node.func.value) == "cissod_bench"
        ):
            words = {str(word.arg): word.value for word in node.keywords}
            inspect.signature(getattr(cissod_bench, node.func.attr)).bind(*node.args, **words)
            called.add(node.func.attr)
    assert called == {"draw_split", "train", "predict", "report"}


def test_a_split_is_that_of_make_splits_and_is_loaded_again(split: Call, tiny_coco: Path, tmp_path: Path) -> None:
    split("--split-seed", 3)
    places = {"data_root": str(tiny_coco), "work_dir": tmp_path / "other"}
    drawn = cissod_bench.draw_split(tiny_coco / "tiny.toml", split_seed=3, **places)  # type: ignore[arg-type]
    assert data_bytes(drawn.folder) == data_bytes(folder(tmp_path, 3))
    assert (drawn.groups["min"], drawn.sha256) == (["heart", "arrow"], drawn.manifest.split_sha256)
    loaded = cissod_bench.load_split(str(drawn.folder))
    assert loaded == drawn
    shown = loaded.content("labelled")
    assert len(shown["images"]) == drawn.manifest.counts["labelled"]
    assert loaded.content("unlabelled")["annotations"] == []
    assert len(loaded.content("hidden")["annotations"]) == drawn.manifest.boxes.hidden
    other = cissod_bench.draw_split(tiny_coco / "tiny.toml", split_seed=4, labelled_percent=40.0, **places)  # type: ignore[arg-type]
    assert other.manifest.labelled_percent == 40.0
    with pytest.raises(UsageFault, match="no option of a draw 'percent'"):
        cissod_bench.draw_split(tiny_coco / "tiny.toml", percent=3, **places)  # type: ignore[arg-type]
    (drawn.folder / "labelled.json").write_text("{}")
    with pytest.raises(DataFault, match="has been changed"):
        cissod_bench.load_split(drawn.folder)


def test_files_to_score_may_be_named_as_text(tmp_path: Path) -> None:
    image, box = {"id": 1, "width": 640, "height": 480}, {"image_id": 1, "category_id": 1, "bbox": [10, 40, 100, 80]}
    truth = {"images": [image], "categories": [{"id": 1, "name": "car"}], "annotations": [{"id": 1, **box}]}
    (tmp_path / "val.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps([{**box, "score": 0.9}]))
    scores = cissod_bench.score(str(tmp_path / "val.json"), str(tmp_path / "found.json"), groups={})
    assert scores.all == pytest.approx(100)
    with pytest.raises(DataFault, match=r"none\.json"):
        cissod_bench.score(str(tmp_path / "none.json"), [], groups={})


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5])
def test_a_seed_out_of_its_range_is_refused_before_anything_is_drawn(seed: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="seed is a whole number"):
        cissod_bench.train("toy", seed=seed, work_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threshold", [1.5, -0.1, float("nan"), "per-class"])
def test_a_threshold_that_is_no_score_is_refused(threshold: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="threshold is a score"):
        cissod_bench.predict(tmp_path, tmp_path, tmp_path, threshold=threshold)


def test_formulas_are_the_modules_of_the_methods() -> None:
    assert cissod_bench.gbr.__name__ == "cissod_bench.catalogue.method.gbr"
    assert callable(cissod_bench.gbt.weight_thresholds)
    assert callable(cissod_bench.crs.image_rates)
    with pytest.raises(UsageFault, match="no module of formulas 'gbx'"):
        api.formulas("gbx")
