"""How much memory this process and its values take."""

from __future__ import annotations

import inspect
import os
import sys
from collections import deque
from typing import Any, NamedTuple

from . import limits


class ProcessMemory(NamedTuple):
    """The memory of this process: resident and virtual bytes, and the resident part of all of the
    machine's memory in percent."""

    rss_bytes: int
    vms_bytes: int
    percent: float


def process_memory() -> ProcessMemory | None:
    """The memory of this process; None if neither `/proc` nor psutil tells."""
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = file.read().split()
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        rss = int(pages[1]) * page_bytes
        return ProcessMemory(rss, int(pages[0]) * page_bytes,
                             100 * rss / (os.sysconf("SC_PHYS_PAGES") * page_bytes))
    except (OSError, ValueError, IndexError, AttributeError, ZeroDivisionError):
        pass
    try:
        import psutil  # type: ignore[import-untyped,import-not-found,unused-ignore]

        process = psutil.Process()
        memory = process.memory_info()
        return ProcessMemory(memory.rss, memory.vms, process.memory_percent())
    except Exception:
        return None


class SessionSize(NamedTuple):
    """The number of keys of a session's state, and about how many bytes their values take."""

    keys: int
    size_bytes: int


def approximate_bytes(value: Any, max_objects: int = limits.MAX_SIZED_OBJECTS) -> int:
    """About how many bytes a value takes in memory, with what it contains.

    Arrays and dataframes count with their data. What is beyond `max_objects` does not count.
    """
    seen: set[int] = set()
    waiting = [value]
    size = 0
    while waiting and len(seen) < max_objects:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        try:
            size += _own_bytes(item)
            kind = type(item)
            if issubclass(kind, dict):
                waiting.extend(item.keys())
                waiting.extend(item.values())
            elif issubclass(kind, (list, tuple, set, frozenset, deque)):
                waiting.extend(item)
            elif kind.__module__ != "builtins" and not isinstance(item, type):
                fields = getattr(item, "__dict__", None)
                if type(fields) is dict and not inspect.ismodule(item):
                    waiting.append(fields)
        except Exception:  # An object of the app, or a container that changes meanwhile.
            continue
    return size


def _own_bytes(item: Any) -> int:
    size = sys.getsizeof(item, 64)
    root = type(item).__module__.partition(".")[0]
    if root in ("numpy", "torch"):
        size = max(size, int(getattr(item, "nbytes", 0)))
    elif root == "pandas" and hasattr(item, "memory_usage"):
        usage = item.memory_usage()
        size = max(size, int(getattr(usage, "sum", lambda: usage)()))
    elif root == "PIL" and hasattr(item, "getbands"):
        size += item.width * item.height * len(item.getbands())
    return size
