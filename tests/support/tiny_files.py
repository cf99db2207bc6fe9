"""The task file of the tiny data set that the fixtures draw."""

from __future__ import annotations

TINY_TASK = """
title = "Tiny shapes"
minority = ["heart", "arrow"]
labelled_percent = 20
min_instances = 3
iterations = 20

[train]
annotations = "tiny/annotations/train.json"
images = "tiny/images/train"

[val]
annotations = "tiny/annotations/val.json"
images = "tiny/images/val"
"""
