"""Samples as the service takes them, checked before they are sent: a request with one that is
invalid stores none."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from . import limits
from .operations import encode_json

#: Kind, name, seconds since 1970, session, labels, and what was measured: of a timing its seconds,
#: outcome, cache and variant; of a gauge its value and unit; the three figures of memory.
Sample = tuple[Any, ...]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SESSION_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~:-]{1,128}")


class InvalidSample(ValueError):
    """The service would refuse this sample."""


def _text(value: Any, what: str, longest: int, shortest: int = 1) -> str:
    if not isinstance(value, str):
        raise InvalidSample(f"{what} must be text, not {type(value).__name__}")
    if not shortest <= len(value) <= longest or _CONTROL.search(value):
        raise InvalidSample(f"{what} must have {shortest} to {longest} characters and no control "
                       f"characters, unlike {value!r:.100}")
    return value


def _number(value: Any, what: str, lowest: float, highest: float) -> int | float:
    try:
        number = int(value) if isinstance(value, int) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidSample(f"{what} must be a number, not {value!r:.100}") from None
    if not lowest <= number <= highest:
        raise InvalidSample(f"{what} must be from {lowest:g} to {highest:g}, not {value!r:.100}")
    return number


def _checked_labels(labels: Any) -> dict[str, str]:
    if not isinstance(labels, Mapping):
        raise InvalidSample(f"labels must be a mapping of texts, not {type(labels).__name__}")
    if len(labels) > limits.MAX_SAMPLE_LABELS:
        raise InvalidSample(f"a sample has at most {limits.MAX_SAMPLE_LABELS} labels, "
                       f"not {len(labels)}")
    checked = {}
    for name, value in labels.items():
        if isinstance(value, (bool, int, float)):
            value = str(value)
        checked[_text(name, "the name of a label", limits.MAX_LABEL_NAME_CHARACTERS)] = _text(
            value, f"the label {name!r}", limits.MAX_LABEL_VALUE_CHARACTERS, 0)
    return checked


def as_json(sample: Sample, clock_offset: float) -> bytes:
    """A sample as the service takes it. Raises `InvalidSample`."""
    kind, name, at, session_id, labels = sample[:5]
    instant = datetime.fromtimestamp(at + clock_offset, timezone.utc)
    fields: dict[str, Any] = {
        "kind": kind,
        "name": _text(name, "the name of a sample", limits.MAX_SAMPLE_NAME_CHARACTERS),
        "recorded_at": instant.strftime("%Y-%m-%dT%H:%M:%S.")
        + f"{instant.microsecond // 1000:03}Z",
    }
    if session_id is not None:
        if not isinstance(session_id, str) or not _SESSION_NAME.fullmatch(session_id):
            raise InvalidSample("session_id must have 1 to 128 characters of "
                                f"A-Z a-z 0-9 . _ ~ : -, unlike {session_id!r:.100}")
        fields["session_id"] = session_id
    if labels:
        fields["labels"] = _checked_labels(labels)
    if kind == "timing":
        seconds, outcome, cache, variant = sample[5:]
        fields["duration_seconds"] = _number(seconds, "seconds", 0, limits.MAX_TIMING_SECONDS)
        if outcome not in ("ok", "error", None):
            raise InvalidSample(f"outcome must be 'ok' or 'error', not {outcome!r:.100}")
        if cache not in ("hit", "miss", None):
            raise InvalidSample(f"cache must be 'hit', 'miss' or None, not {cache!r:.100}")
        if outcome == "error":
            fields["outcome"] = outcome
        if cache is not None:
            fields["cache"] = cache
        if variant is not None:
            fields["variant"] = _text(variant, "variant", limits.MAX_SAMPLE_NAME_CHARACTERS)
    elif kind == "gauge":
        value, unit = sample[5:]
        fields["value"] = _number(value, "value", -limits.MAX_GAUGE_VALUE,
                                  limits.MAX_GAUGE_VALUE)
        if unit is not None:
            fields["unit"] = _text(unit, "unit", limits.MAX_SAMPLE_UNIT_CHARACTERS)
    else:
        rss, vms, percent = sample[5:]
        fields["rss_bytes"] = _number(rss, "rss_bytes", 0, limits.MAX_MEMORY_BYTES)
        fields["vms_bytes"] = _number(vms, "vms_bytes", 0, limits.MAX_MEMORY_BYTES)
        fields["percent"] = min(100.0, _number(percent, "percent", 0, math.inf))
    return encode_json(fields)
