"""The session's state: defaults, memory, and reruns."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from .. import limits
from . import context
from .configuration import PERFORMANCE_CONFIG

F = TypeVar("F", bound=Callable[..., Any])


class OptimizedSessionState:
    """Defaults and values of the session's state."""

    def __init__(self) -> None:
        self._initialized: OrderedDict[str, set[str]] = OrderedDict()

    def initialize_defaults(self, defaults: Mapping[str, Any]) -> None:
        """Sets what is not there yet. Each session gets a copy of its own of a default that can
        be changed, such as a list."""
        state = context.session_state()
        for key, value in defaults.items():
            if key not in state:
                state[key] = _copied(value)
                self._initialized.setdefault(context.session_key(), set()).add(key)
        while len(self._initialized) > limits.MAX_INITIALIZED_SESSIONS:
            self._initialized.popitem(last=False)

    def safe_get(self, key: str, default: Any = None) -> Any:
        """A value, or `default` if there is none."""
        return context.session_state().get(key, default)

    def safe_set(self, key: str, value: Any) -> None:
        """Sets a value."""
        context.session_state()[key] = value

    def get_initialized_keys(self) -> set[str]:
        """The keys of this session that `initialize_defaults` set."""
        return set(self._initialized.get(context.session_key(), ()))


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # Such as a model or a connection: it is shared.
        return value


#: The one that apps use.
session_manager = OptimizedSessionState()

_LARGE_OBJECTS = ("large_audio_data", "cached_waveforms", "temp_analysis_results")
_TEMPORARY_PREFIXES = ("temp_", "cache_")
_KEPT = frozenset({"temp_current_generation"})
#: Objects that `get_memory_stats` names.
_NAMED_OBJECTS = 10


class MemoryManager:
    """Frees memory that the session's state holds, and tells how much there is."""

    @staticmethod
    def cleanup_large_objects() -> int:
        """Removes `large_audio_data`, `cached_waveforms` and `temp_analysis_results`; how many of
        them there were."""
        return sum(_removed(key) for key in _LARGE_OBJECTS)

    @staticmethod
    def optimize_session_state() -> None:
        """Cuts `history`, the newest first, to its first `max_history_items` (20 by default), and
        removes all keys that begin with `temp_` or `cache_` but `temp_current_generation`."""
        state = context.session_state()
        history = state.get("history")
        if history is not None and hasattr(history, "__len__"):
            longest = PERFORMANCE_CONFIG["max_history_items"]
            if len(history) > longest:
                try:
                    state["history"] = history[:longest]
                except TypeError:
                    state["history"] = list(history)[:longest]
        for key in list(state):
            if (isinstance(key, str) and key.startswith(_TEMPORARY_PREFIXES)
                    and key not in _KEPT):
                _removed(key)

    @staticmethod
    def get_memory_stats() -> dict[str, Any]:
        """Figures of this process and machine.

        `session_state_keys`; `gc_collections` and `gc_collected` of Python's garbage collector;
        `largest_objects`: the ten largest values of the session's state, about how many bytes
        each; `system_memory_mb` and `system_memory_percent`: what is in use of the machine's
        memory, 0.0 if that cannot be told.
        """
        from ..memory import approximate_bytes

        state = context.session_state()
        sizes: dict[str, int] = {}
        for key in list(state):
            try:
                sizes[str(key)] = approximate_bytes(state[key])
            except KeyError:  # Removed meanwhile.
                continue
        largest = sorted(sizes.items(), key=lambda item: item[1], reverse=True)[:_NAMED_OBJECTS]
        generations = gc.get_stats()
        used_mb, percent = _system_memory()
        return {
            "session_state_keys": len(state),
            "gc_collections": sum(generation["collections"] for generation in generations),
            "gc_collected": sum(generation["collected"] for generation in generations),
            "largest_objects": dict(largest),
            "system_memory_mb": used_mb,
            "system_memory_percent": percent,
        }


def _removed(key: str) -> bool:
    state = context.session_state()
    try:
        del state[key]
    except KeyError:
        return False
    return True


def _system_memory() -> tuple[float, float]:
    """What is in use of the machine's memory, in MiB and percent."""
    try:
        with open("/proc/meminfo", "rb") as file:
            lines = dict(line.split(b":", 1) for line in file)
        total = int(lines[b"MemTotal"].split()[0])
        used = total - int(lines[b"MemAvailable"].split()[0])
        return used / 1024, 100 * used / total
    except (OSError, ValueError, KeyError, IndexError, ZeroDivisionError):
        pass
    try:
        import psutil  # type: ignore[import-untyped,import-not-found,unused-ignore]

        memory = psutil.virtual_memory()
        return memory.used / 2**20, memory.percent
    except Exception:
        return 0.0, 0.0


# Reruns.

#: Where the state keeps the time of the last rerun.
_LAST_RERUN = "last_rerun"
_wall: Callable[[], float] = time.time
_debounce_lock = threading.Lock()


def _renew_lock() -> None:
    global _debounce_lock
    _debounce_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def debounce_rerun(delay: float = 1.0) -> bool:
    """Whether a rerun may happen now: True for the first call of a session, and for the next one
    `delay` seconds after the last that was True.

    It is decided in this process. `Session.debounce` decides across replicas.
    """
    state = context.session_state()
    with _debounce_lock:
        now = _wall()
        last = state.get(_LAST_RERUN)
        # A clock that was set back must not block reruns.
        if isinstance(last, (int, float)) and last <= now < last + delay:
            return False
        state[_LAST_RERUN] = now
        return True


def minimize_reruns(func: F) -> F:
    """Makes a function do nothing and return None when `debounce_rerun()` says no."""
    if inspect.iscoroutinefunction(func):
        @functools.wraps(func)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return await func(*args, **kwargs) if debounce_rerun() else None
        return cast(F, awaited)

    @functools.wraps(func)
    def called(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs) if debounce_rerun() else None
    return cast(F, called)
