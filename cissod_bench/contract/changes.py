"""What ``--set key=value`` changes, and which settings go together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cissod_bench.contract.frozen_layers import check_frozen_layers
from cissod_bench.contract.settings import SETTINGS, Settings
from cissod_bench.errors import UsageFault, unknown_name

_LISTING = "cissod-bench presets mini"


def with_changes(settings: Settings, changes: Sequence[str]) -> Settings:
    """Return settings with ``key=value`` changes.

    Raises:
        UsageFault: not of that form, no such setting (with near matches), a value of another type or out of its range,
            or two that do not go together.
    """
    for change in changes:
        key, equals, text = change.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise UsageFault(f"--set needs key=value. Got {change!r} instead.", remedy=_LISTING)
        if key not in SETTINGS:
            raise unknown_name("setting", key, SETTINGS, remedy=_LISTING)
        try:
            value = SETTINGS[key].parsed(text.strip())
        except ValueError as rule:
            raise _fault(key, str(rule), text) from None
        settings = replace(settings, **{key: value})
    return checked(settings)


def checked(settings: Settings) -> Settings:
    """Return the settings.

    Raises:
        UsageFault: a value is out of its range, or two do not go together; the message says the rule.
    """
    for name, setting in SETTINGS.items():
        if wrong := setting.misfits(getattr(settings, name)):
            raise _fault(name, setting.range, wrong[0])
    for check in _RULES:
        check(settings)
    return settings


def _fault(name: str, rule: str, value: object) -> UsageFault:
    return UsageFault(f"Setting {name!r} must be {rule}. Got {value!r} instead.", remedy=_usual(name))


def _usual(name: str) -> str:
    """Return how a setting gets the value that it has in the preset full."""
    value = 180_000 if name == "iterations" else SETTINGS[name].default
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"--set {name}={text} is the preset full's; cissod-bench presets lists all settings"


def _check_generations(settings: Settings) -> None:
    """Refuse generations without an iteration."""
    if settings.generations > settings.iterations:
        raise UsageFault(
            f"Setting 'generations' must be at most 'iterations' ({settings.iterations}). "
            f"Got {settings.generations} instead.",
            remedy=f"--set generations={settings.iterations} or fewer",
        )


def _check_short_side(settings: Settings) -> None:
    """Refuse an empty range of short sides."""
    low, high = settings.short_side
    if low > high:
        raise _fault("short_side", "(low, high) with low <= high", settings.short_side)


def _check_strides(settings: Settings) -> None:
    """Refuse strides that are not the levels of an FPN on a backbone with strides 4, 8, 16 and 32."""
    strides = settings.strides
    doubled = tuple(strides[0] * 2**place for place in range(len(strides))) if strides else ()
    if len(strides) < 4 or strides != doubled or strides[0] not in (4, 8):
        raise _fault("strides", "four or more rising numbers, 4 or 8 and each twice the one before", strides)


def _check_base_channels(settings: Settings) -> None:
    """Refuse channels that group norm cannot cut into its groups."""
    if settings.norm == "gn" and settings.base_channels % 8:
        raise _fault("base_channels", "a multiple of 8 for group norm", settings.base_channels)


def _check_pretrained_part(settings: Settings) -> None:
    """Refuse to take a detector where no weights are named."""
    if settings.pretrained_part == "detector" and not settings.pretrained:
        raise UsageFault(
            "Setting 'pretrained_part' is 'detector', and 'pretrained' names no file of one.",
            remedy="--set pretrained=FILE names a checkpoint of mmdet's Faster R-CNN",
        )


_RULES: tuple[Callable[[Settings], None], ...] = (
    _check_generations,
    _check_short_side,
    _check_strides,
    _check_base_channels,
    _check_pretrained_part,
    check_frozen_layers,
)
