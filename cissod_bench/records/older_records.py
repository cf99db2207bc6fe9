"""What settings of older records mean today: fields that came later, values that have another name now.

Records keep loading and keep their meaning. Who adds a setting whose default is not what all runs did before, or
renames a value, says so here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from cissod_bench.contract.settings import FULL
from cissod_bench.records.record import RunRecord

# Setting -> what every run did before there was such a setting.
LACKING: Mapping[str, Any] = MappingProxyType(
    {
        **{"teacher_proposals": "test", "pretrained_kind": "auto", "backbone": "resnet", "shared_boxes": False},
        **{"eval_every": 0, "eval_images": 0, "keep_checkpoints": 0, "best_by": "all", "tracker": "none"},
        **{"pretrained_part": "backbone"},
    }
)
# Setting -> its value as older records call it -> as it is called now. "full" was mmdet's views.
# amp was whether GPUs compute in half precision.
RENAMED: Mapping[str, Mapping[Any, str]] = MappingProxyType(
    {"strong_views": {"full": "mmdet"}, "amp": {True: "fp16", False: "off"}}
)


def _renamed(settings: Mapping[str, Any], names: Mapping[str, Mapping[Any, Any]]) -> dict[str, Any]:
    """Return settings with other names for some of their values; what is no text or truth has none."""
    return {
        name: names[name].get(value, value) if name in names and isinstance(value, str | bool) else value
        for name, value in settings.items()
    }


def brought_up_to_date(record: RunRecord) -> RunRecord:
    """Return a record in the words of today: its settings, and its departures where those settings are concerned.

    A record that does not state its settings stays as it is.
    """
    if not RENAMED.keys() <= record.settings.keys():
        return record
    settings, paper = {**LACKING, **_renamed(record.settings, RENAMED)}, json.loads(json.dumps(asdict(FULL)))
    if record.settings["amp"] is True and record.hardware.get("type") == "cpu":
        settings["amp"] = "off"  # it was for GPUs alone
    departures = dict(record.departures)
    for name in {**RENAMED, **LACKING}:  # a set's order changes from process to process, and files of reports with it
        departures.pop(name, None)
        if settings[name] != paper[name]:
            departures[name] = [paper[name], settings[name]]
    return replace(record, settings=settings, departures=departures)


def as_first_written(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a program from before the changes above would have written them.

    A checkpoint knows its settings by their hash: with this one, runs that began before continue.
    """
    names = {name: {now: before for before, now in pairs.items()} for name, pairs in RENAMED.items()}
    older = _renamed(settings, names)
    return {name: value for name, value in older.items() if name not in LACKING or value != LACKING[name]}
