"""`LazyLoader`: loads something heavy when it is first needed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from .timing import outcome_of, perf_monitor


class LazyLoader:
    """Calls a function once, whichever thread needs its result first.

    `cache_key` names it in the metrics (`lazy_load_<cache_key>`); by default it is the function's
    name. An exception passes on and is not remembered: the next `load` tries again.
    """

    def __init__(self, loader_func: Callable[..., Any], cache_key: str | None = None) -> None:
        self.loader_func = loader_func
        self.cache_key = cache_key or getattr(loader_func, "__name__",
                                              type(loader_func).__name__)
        self._loaded: tuple[Any] | None = None
        self._renew_lock()

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()
        self._process = os.getpid()

    def _own_lock(self) -> Any:
        if self._process != os.getpid():
            # The parent may have forked while one of its threads was loading.
            self._renew_lock()
        return self._lock

    def load(self, *args: Any, **kwargs: Any) -> Any:
        """The result; the arguments are those of the call that loads it, and ignored later."""
        loaded = self._loaded
        if loaded is not None:
            return loaded[0]
        with self._own_lock():
            loaded = self._loaded
            if loaded is None:
                started = time.perf_counter()
                outcome = "ok"
                try:
                    loaded = (self.loader_func(*args, **kwargs),)
                except BaseException as error:
                    outcome = outcome_of(error)
                    raise
                finally:
                    perf_monitor.record(f"lazy_load_{self.cache_key}",
                                        time.perf_counter() - started, outcome=outcome)
                self._loaded = loaded
            return loaded[0]

    def is_loaded(self) -> bool:
        """Whether the next `load` returns at once."""
        return self._loaded is not None

    def reset(self) -> None:
        """Forgets the result, so that the next `load` loads anew. Waits if one is loading."""
        with self._own_lock():
            self._loaded = None
