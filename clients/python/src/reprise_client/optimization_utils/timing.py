"""`PerformanceMonitor`: timers by name, and the memory of the process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from .. import limits
from . import context
from .configuration import PERFORMANCE_CONFIG

log = logging.getLogger("reprise_client")


class PerformanceMonitor:
    """Times operations between `start_timer` and `end_timer`, and keeps the latest time of each.

    Threads that time an operation of the same name do not disturb each other. While the setting
    `enable_monitoring` is true, times also go to the service, in the background.
    """

    def __init__(self) -> None:
        # Single operations of dicts, which need no lock: a forked child could find it held.
        self._started: dict[tuple[int, str], float] = {}
        self._seconds: dict[str, float] = {}

    @property
    def metrics(self) -> dict[str, float]:
        """The latest time of each operation, in seconds."""
        return self._seconds.copy()

    def start_timer(self, operation_name: str) -> None:
        """Starts a timer, anew if it runs already."""
        key = (threading.get_ident(), operation_name)
        self._started.pop(key, None)
        self._started[key] = time.perf_counter()
        _bound(self._started, limits.MAX_TIMERS)

    def end_timer(self, operation_name: str) -> float:
        """Ends a timer; its seconds, or 0.0 if it was not started.

        The timer of another thread ends if this one started none, because each rerun of a
        Streamlit script has its own thread.
        """
        now = time.perf_counter()
        started = self._started.pop((threading.get_ident(), operation_name), None)
        if started is None:
            others = [(started, key) for key, started in self._started.copy().items()
                      if key[1] == operation_name]
            if others:
                started = self._started.pop(max(others)[1], None)
        if started is None:
            return 0.0
        seconds = now - started
        self.record(operation_name, seconds)
        return seconds

    def record(
        self, operation_name: str, seconds: float, *, sample_name: str | None = None,
        outcome: str = "ok", cache: str | None = None, labels: Mapping[str, str] | None = None,
    ) -> None:
        """Keeps the time of an operation that was measured otherwise.

        `sample_name` is its name at the service, where names that carry arguments would be too
        many; by default the same. The rest is as in `Monitor.timing`.
        """
        self._seconds[operation_name] = seconds
        _bound(self._seconds, limits.MAX_TIMERS)
        log.debug("%s took %.6f s%s", operation_name, seconds, f" ({cache})" if cache else "")
        # Asks the service only to find out whether monitoring is on again.
        if PERFORMANCE_CONFIG.known("enable_monitoring") or PERFORMANCE_CONFIG[
                "enable_monitoring"]:
            monitor = context.current_monitor()
            if monitor is not None:
                name = str(sample_name or operation_name)[: limits.MAX_SAMPLE_NAME_CHARACTERS]
                monitor.timing(name, seconds, outcome=outcome, cache=cache, labels=labels)

    def get_memory_usage(self) -> dict[str, float]:
        """The memory of this process: `rss_mb` and `vms_mb` in MiB, `percent` of the machine's.
        All 0.0 if it cannot be told, as without psutil on a system without `/proc`."""
        from ..memory import process_memory

        memory = process_memory()
        if memory is None:
            return {"rss_mb": 0.0, "vms_mb": 0.0, "percent": 0.0}
        return {"rss_mb": memory.rss_bytes / 2**20, "vms_mb": memory.vms_bytes / 2**20,
                "percent": memory.percent}

    def get_metrics(self) -> dict[str, Any]:
        """`timing`: the seconds of the latest time by operation; `memory`: as
        `get_memory_usage`."""
        return {"timing": self.metrics, "memory": self.get_memory_usage()}


def outcome_of(error: BaseException) -> str:
    """`ok` or `error`: Streamlit's way to stop or rerun a script is no error."""
    from ..monitor import is_failure

    return "error" if is_failure(type(error)) else "ok"


def _bound(values: dict[Any, float], size: int) -> None:
    """Removes the oldest keys beyond `size`."""
    while len(values) > size:
        try:
            values.pop(next(iter(values)), None)
        except (StopIteration, RuntimeError):  # Another thread changed it at this moment.
            return


#: The one that everything here records to.
perf_monitor = PerformanceMonitor()
