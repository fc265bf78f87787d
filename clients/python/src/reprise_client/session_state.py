"""What changed in a session's state, and what a change means. Decisions only; no I/O.

How changes are found: a value that can be changed in place, a list or a dict, is encoded as JSON
when it is first read; at the next save it is encoded again and the two texts are compared. What is
never read costs nothing, and so do numbers and texts, which cannot change in place. The order of a
dict's keys belongs to the value, because the service keeps it: reordering is a change.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import limits
from .errors import RepriseError

_encode = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False
).encode

#: What a key that is absent has in place of its JSON.


class StateConflict(RepriseError):
    """A session's state was changed by somebody else since it was read, and nothing was saved."""


# What can be stored.


def checked_key(key: object) -> str:
    """The key of a state, if it is one: 1 to 512 bytes of UTF-8 without control characters."""
    if not isinstance(key, str):
        raise TypeError(f"the key of a session's state is text, not {type(key).__name__}")
    try:
        size = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError(f"the key {key!r} is not valid Unicode: it has half a surrogate pair")\
            from None
    if not 1 <= size <= limits.MAX_STATE_KEY_BYTES:
        raise ValueError(
            f"the key of a session's state has 1 to {limits.MAX_STATE_KEY_BYTES} bytes, "
            f"not {size}: {key[:60]!r}"
        )
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in key):
        raise ValueError(f"the key {key!r} contains a control character")
    return key


def encoded(value: Any) -> bytes:
    """A value as compact JSON, for comparison. Raises what `json` raises."""
    return _encode(value).encode("utf-8", "surrogatepass")


def is_encodable(value: Any) -> bool:
    """Whether a value that was read can be written as JSON again."""
    try:
        encoded(value)
    except ValueError:
        return False
    return True


def checked_json(value: Any, place: str) -> bytes:
    """A value as compact JSON, if it comes back from the service as the same value.

    `place` names it in errors: `TypeError` for what JSON lacks or would turn into something else,
    such as a tuple, a date or a NumPy number; `ValueError` for NaN, what is nested too deeply, a
    list that contains itself, and what is larger than the service takes.
    """
    _check(value, place, limits.MAX_JSON_LEVELS)
    text = _encode(value)
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(
            f"{place} contains half a surrogate pair, which is not valid Unicode; "
            "replace it: text.encode('utf-8', 'replace').decode()"
        ) from None
    if len(data) > limits.MAX_STATE_VALUE_BYTES:
        raise ValueError(
            f"{place} has {len(data):,} bytes as JSON; a session takes values of at most "
            f"{limits.MAX_STATE_VALUE_BYTES:,}. Keep large values in the cache, "
            "client.cache(...), and their key in the session"
        )
    return data


def _check(value: Any, place: str, levels: int) -> None:
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return
    if kind is float:
        if not math.isfinite(value):
            raise ValueError(f"{place} is {value}, which JSON lacks; store None or a text instead")
        return
    if levels == 0:
        raise ValueError(
            f"{place[:200]} is nested deeper than {limits.MAX_JSON_LEVELS} levels, "
            "or contains itself"
        )
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(
                    f"{place} has the key {key!r}, {_named(key)}; the keys of a JSON object are "
                    f"text: use {str(key)!r}"
                )
            _check_item(item, place, key, levels - 1)
    elif kind is list:
        for index, item in enumerate(value):
            _check_item(item, place, index, levels - 1)
    else:
        raise TypeError(f"{place} is {_named(value)}, which would not come back as it is; "
                        f"{_advice(value)}")


def _check_item(item: Any, place: str, key: object, levels: int) -> None:
    # The path is put together only where it is needed, because most values are right.
    kind = type(item)
    if kind is str or kind is int or kind is bool or item is None:
        return
    _check(item, f"{place}[{key!r}]", levels)


def _named(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _advice(value: object) -> str:
    """What to store instead."""
    module = type(value).__module__.partition(".")[0]
    if isinstance(value, (tuple, set, frozenset)):
        return "store a list: list(value)"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "keep bytes in the cache, client.cache(...), and their key here"
    if hasattr(value, "isoformat"):
        return "store value.isoformat()"
    if hasattr(value, "tolist") and module == "numpy":
        return "store value.item()" if getattr(value, "ndim", 1) == 0 else "store value.tolist()"
    if module == "pandas" and hasattr(value, "to_dict"):
        return "store value.to_dict(), or keep it in the cache: client.cache(...)"
    if hasattr(value, "model_dump"):
        return "store value.model_dump(mode='json')"
    if hasattr(value, "__dataclass_fields__"):
        return "store dataclasses.asdict(value)"
    for kind, text in ((dict, "dict(value)"), (list, "list(value)")):
        if isinstance(value, kind):
            return f"store {text}"
    if hasattr(value, "value") and hasattr(value, "name"):
        return "store value.value"
    for base in (bool, int, float, str):
        if isinstance(value, base):
            return f"store {base.__name__}(value)"
    return "store what JSON has: text, numbers, True, False, None, lists and dicts"


def merge_patch(target: Any, patch: Any) -> Any:
    """A new value: `patch` merged into `target`, as RFC 7396 says. Neither is changed."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


# Patches.


class StatePatch:
    """Changes of a state, in the order in which the service applies them: deletions by key and
    by prefix, then values, then values for keys that are absent."""

    __slots__ = ("defaults", "delete", "keep", "prefixes", "set")

    def __init__(
        self,
        *,
        set: Mapping[str, bytes] | None = None,
        delete: Iterable[str] = (),
        prefixes: Iterable[str] = (),
        keep: Iterable[str] = (),
        defaults: Mapping[str, bytes] | None = None,
    ) -> None:
        self.set = dict(set or {})
        self.delete = dict.fromkeys(delete)
        self.prefixes = tuple(dict.fromkeys(prefixes))
        self.keep = tuple(keep)
        self.defaults = dict(defaults or {})

    def __bool__(self) -> bool:
        return bool(self.set or self.delete or self.prefixes or self.defaults)

    def body(self) -> bytes:
        """The patch as JSON. The values are not encoded again."""
        fields = []
        if self.set:
            fields.append(b'"set":' + joined(self.set))
        if self.defaults:
            fields.append(b'"set_default":' + joined(self.defaults))
        for name, keys in (
            ("delete", list(self.delete)), ("delete_prefixes", list(self.prefixes)),
            ("keep", list(self.keep)),
        ):
            if keys:
                fields.append(b'"%s":%s' % (name.encode(), encoded(keys)))
        return b"{" + b",".join(fields) + b"}"

    def deletes(self, key: str) -> bool:
        """Whether it removes this key before it sets anything."""
        return key in self.delete or (
            bool(self.prefixes) and key.startswith(self.prefixes) and key not in self.keep
        )

    def apply(self, values: dict[str, Any]) -> None:
        """Does to a local copy what the service does."""
        if self.delete or self.prefixes:
            for key in [key for key in values if self.deletes(key)]:
                del values[key]
        for key, data in self.set.items():
            values[key] = json.loads(data)
        for key, data in self.defaults.items():
            if key not in values:
                values[key] = json.loads(data)

    def then(self, later: StatePatch) -> StatePatch | None:
        """One patch with the effect of both, one after the other; None if there is none."""
        if self.keep or later.keep:
            return None
        if later.prefixes and len(self.prefixes) + len(later.prefixes) > limits.MAX_PATCH_PREFIXES:
            return None
        kept = {key: data for key, data in self.set.items() if not later.deletes(key)}
        kept.update(later.set)
        defaults = {key: data for key, data in self.defaults.items() if not later.deletes(key)}
        for key, data in later.defaults.items():
            defaults.setdefault(key, data)
        return StatePatch(
            set=kept,
            delete=[*self.delete, *later.delete],
            prefixes=[*self.prefixes, *later.prefixes],
            defaults={key: data for key, data in defaults.items() if key not in kept},
        )


def joined(values: Mapping[str, bytes]) -> bytes:
    """A JSON object of values that are JSON already."""
    return b"{" + b",".join(
        encoded(key) + b":" + data for key, data in values.items()
    ) + b"}"


# What changed.


class TrackedState:
    """A session's values, and what they were when they were read or last saved."""

    __slots__ = ("_before", "_defaults", "_prefixes", "values")

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        #: For each key that was touched: its JSON as the service has it, None if it has none.
        self._before: dict[str, bytes | None] = {}
        #: Keys that were set only because they were absent, with the JSON they were set to.
        self._defaults: dict[str, bytes] = {}
        self._prefixes: list[tuple[str, frozenset[str]]] = []

    def _touch(self, key: str) -> None:
        if key not in self._before:
            values = self.values
            try:
                self._before[key] = encoded(values[key]) if key in values else None
            except ValueError:
                # A number that was too long for Python was read as infinity, which JSON lacks.
                self._before[key] = b"null"

    def get(self, key: str) -> Any:
        """The value itself, so that what is done to it is seen by the next save."""
        value = self.values[key]
        if isinstance(value, (dict, list)):
            self._touch(key)
        return value

    def set(self, key: str, value: Any) -> None:
        checked_json(value, place_of(checked_key(key)))
        self._touch(key)
        self._defaults.pop(key, None)
        self.values[key] = value

    def set_default(self, key: str, value: Any) -> bool:
        """Sets a key that is absent; at the service as well only if it still is there."""
        data = checked_json(value, place_of(checked_key(key)))
        if key in self.values:
            return False
        self._touch(key)
        # A copy, because defaults are often a constant of the app.
        self.values[key] = json.loads(data)
        if self._before[key] is None:
            self._defaults[key] = data
        return True

    def delete(self, key: str) -> None:
        if key not in self.values:
            raise KeyError(key)
        self._touch(key)
        self._defaults.pop(key, None)
        del self.values[key]

    def delete_prefix(self, prefix: str, keep: Iterable[str] = ()) -> list[str]:
        """Deletes by prefix here, and at the service what others have added meanwhile."""
        kept = frozenset(keep)
        removed = [key for key in self.values if key.startswith(prefix) and key not in kept]
        for key in removed:
            self.delete(key)
        self._prefixes.append((prefix, kept))
        return removed

    def patch(self) -> StatePatch:
        """What has changed. Raises `TypeError` or `ValueError` for what cannot be stored."""
        values = self.values
        setting: dict[str, bytes] = {}
        defaults: dict[str, bytes] = {}
        delete = []
        for key, before in list(self._before.items()):
            if key not in values:
                if before is not None:
                    delete.append(key)
                continue
            value = values[key]
            # What a prefix deletes at the service has to be set there again.
            is_wiped = any(key.startswith(prefix) and key not in kept
                           for prefix, kept in self._prefixes)
            try:
                if not is_wiped and before is not None and encoded(value) == before:
                    continue
            except (TypeError, ValueError, RecursionError):
                pass  # The check below says it in the app's terms.
            data = checked_json(value, place_of(key))
            if self._defaults.get(key) == data:
                defaults[key] = data
            else:
                setting[key] = data
        if len(values) > limits.MAX_STATE_KEYS:
            raise ValueError(
                f"the session's state has {len(values):,} keys; the service takes "
                f"{limits.MAX_STATE_KEYS:,}. Put values that belong together into one dict"
            )
        keep: set[str] = set()
        for prefix, kept in self._prefixes:
            keep.update(key for key in kept if key.startswith(prefix))
        return StatePatch(
            set=setting, delete=delete, defaults=defaults, keep=sorted(keep),
            prefixes=[prefix for prefix, _ in self._prefixes],
        )

    def has_changes(self, max_bytes: int) -> bool:
        """Whether something has changed, as far as that costs little: values that may have
        changed in place are compared up to `max_bytes` of JSON in all."""
        if self._prefixes:
            return True
        for key, before in list(self._before.items()):
            if (before is None) != (key not in self.values):
                return True
            if before is None:
                continue
            max_bytes -= len(before)
            if max_bytes >= 0 and encoded(self.values[key]) != before:
                return True
        return False

    def saved(self, patch: StatePatch) -> None:
        """What `patch` holds is now what the service has, or will have."""
        for key in patch.delete:
            self._before[key] = None
        for part in (patch.set, patch.defaults):
            self._before.update(part)
        for key in patch.defaults:
            self._defaults.pop(key, None)
        del self._prefixes[:]
        # Only what can change in place has to be watched on.
        values = self.values
        for key, before in list(self._before.items()):
            value = values.get(key)
            if before is None:
                if key not in values:
                    del self._before[key]
            elif not isinstance(value, (dict, list)) and key in values \
                    and encoded(value) == before:
                del self._before[key]

    def forget(self, keys: Iterable[str]) -> None:
        """Drops keys that the service has removed already."""
        for key in keys:
            self.values.pop(key, None)
            self._before.pop(key, None)
            self._defaults.pop(key, None)

    def base(self) -> dict[str, Any]:
        """The state as it was read or last saved, as a copy."""
        untouched = {key: value for key, value in self.values.items() if key not in self._before}
        copy: dict[str, Any] = json.loads(encoded(untouched))
        for key, before in self._before.items():
            if before is not None:
                copy[key] = json.loads(before)
        return copy

    def discard(self) -> None:
        """Puts back what was read or last saved."""
        values = {key: value for key, value in self.values.items() if key not in self._before}
        for key, before in self._before.items():
            if before is not None:
                values[key] = json.loads(before)
        self.values = values
        self._before.clear()
        self._defaults.clear()
        del self._prefixes[:]


def place_of(key: str) -> str:
    """How errors name the value of a key."""
    return f"state[{key!r}]"


def difference(theirs: Mapping[str, Any], wanted: Mapping[str, Any]) -> StatePatch:
    """The patch that makes one state the other."""
    setting = {}
    for key, value in wanted.items():
        data = checked_json(value, place_of(checked_key(key)))
        if key not in theirs or encoded(theirs[key]) != data:
            setting[key] = data
    return StatePatch(set=setting, delete=[key for key in theirs if key not in wanted])


# History.

HistoryEntry = dict[str, Any]


class HistoryChange:
    """One change of a history that is to be sent: `append`, `patch`, `remove` or `clear`; or
    `end`, the removal of the whole session."""

    __slots__ = ("body", "item", "item_id", "kind")

    def __init__(
        self,
        kind: str,
        item_id: str = "",
        body: bytes | None = None,
        item: HistoryEntry | None = None,
    ) -> None:
        self.kind = kind
        self.item_id = item_id
        self.body = body
        self.item = item

    @property
    def size(self) -> int:
        return len(self.body or b"") + 200

    def apply(self, items: list[HistoryEntry]) -> None:
        """Does it to a local copy, whose newest item is the first. Items are not changed in
        place, because other copies may hold them too."""
        if self.kind == "append":
            assert self.item is not None
            if all(item["id"] != self.item_id for item in items):
                items.insert(0, self.item)
        elif self.kind in ("clear", "end"):
            del items[:]
        else:
            for index, item in enumerate(items):
                if item["id"] == self.item_id:
                    if self.kind == "remove":
                        del items[index]
                    else:
                        data = merge_patch(item["data"], json.loads(self.body or b"{}"))
                        items[index] = {**item, "data": data}
                    return


Merge = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], dict[str, Any]]
