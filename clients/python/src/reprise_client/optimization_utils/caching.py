"""Cached functions with metrics, and `CacheManager`.

In a Streamlit script results are kept by `st.cache_data` and `st.cache_resource`; elsewhere by
this process, with the same meaning: each call gets its own copy of data, and the same object of a
resource.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import pickle
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, Union, cast

from .. import limits
from . import context
from .timing import outcome_of, perf_monitor

F = TypeVar("F", bound=Callable[..., Any])
TTL = Union[float, timedelta, str, None]

_IMMUTABLE = (str, bytes, int, float, complex, bool, type(None))


def streamlit_cache_data_with_metrics(
    ttl: TTL = 300, show_spinner: bool = True
) -> Callable[[F], F]:
    """Caches what a function returns, for `ttl` seconds, and records the time of each call and
    whether it was a hit.

    A call is known by the content of its arguments; parameters whose name begins with `_` do not
    count, as in Streamlit. In the metrics its name is that of the function, followed by a digest
    of the arguments if there are any. `ttl` can be a `timedelta`, text such as `"30m"`, or None
    for ever. The function gets a method `clear()`.
    """
    seconds = _seconds(ttl)

    def decorate(function: F) -> F:
        return _cached(
            function, _name(function), _Results(seconds, copies=True),
            lambda st: st.cache_data(ttl=ttl, show_spinner=show_spinner))

    return decorate


def streamlit_cache_resource_with_metrics() -> Callable[[F], F]:
    """Keeps what a function returns, the same object for everybody and for ever, such as a model
    or a connection, and records the time of each call and whether it was a hit.

    In the metrics its name is `resource_` and that of the function, with a digest as in
    `streamlit_cache_data_with_metrics`. The function gets a method `clear()`.
    """

    def decorate(function: F) -> F:
        return _cached(
            function, f"resource_{_name(function)}", _Results(math.inf, copies=False),
            lambda st: st.cache_resource())

    return decorate


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _cached(
    function: F, name: str, results: _Results, in_streamlit: Callable[[Any], Any]
) -> F:
    """The function with a cache before it; `in_streamlit` gives the decorator of Streamlit."""
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{_name(function)} is a coroutine function, whose results cannot be "
                        "kept here; see AsyncClient.cache")
    calls = threading.local()
    key_of = _key_maker(function)
    made: dict[str, Any] = {}

    # It stands for the function in every way, so that Streamlit keeps one cache for both.
    @functools.wraps(function)
    def compute(*args: Any, **kwargs: Any) -> Any:
        calls.computed[-1] = True
        return function(*args, **kwargs)

    def cached_by_streamlit(st: Any) -> Any:
        cached = made.get("cached")
        if cached is None:
            cached = made.setdefault("cached", in_streamlit(st)(compute))
        return cached

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        st = context.streamlit()
        key: str | None = None
        try:
            key = key_of(args, kwargs)
        except TypeError:
            # Streamlit says what it cannot hash, or that the arguments do not fit.
            if st is None:
                raise
        if not hasattr(calls, "computed"):
            calls.computed = []
        stack = calls.computed
        stack.append(False)
        outcome = "ok"
        started = time.perf_counter()
        try:
            if st is not None:
                value = cached_by_streamlit(st)(*args, **kwargs)
            else:
                assert key is not None
                value = results.get(key, lambda: compute(*args, **kwargs))
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            seconds = time.perf_counter() - started
            was_computed = stack.pop()
            short = (key or "")[:8]
            perf_monitor.record(
                f"{name}_{short}" if short and (args or kwargs) else name, seconds,
                sample_name=name, outcome=outcome, cache="miss" if was_computed else "hit",
                labels={"arguments": short} if short and (args or kwargs) else None)
        return value

    def clear() -> None:
        """Forgets all results."""
        results.clear()
        st = context.streamlit()
        if st is not None:
            cached_by_streamlit(st).clear()

    wrapper.clear = clear  # type: ignore[attr-defined]
    return cast(F, wrapper)


def _key_maker(function: Callable[..., Any]) -> Callable[[Any, Any], str]:
    """What makes a digest of the content of arguments. It raises `TypeError` for what has no
    content, and for arguments that the function does not take."""
    try:
        signature: inspect.Signature | None = inspect.signature(function)
    except (TypeError, ValueError):  # Some functions of C tell nothing about themselves.
        signature = None

    def key_of(args: Any, kwargs: Any) -> str:
        from ..keys import digest

        if signature is None:
            return digest((args, kwargs))
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return digest({name: value for name, value in bound.arguments.items()
                       if not name.startswith("_")})

    return key_of


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(
    r"(\d+(?:\.\d+)?)\s*(seconds?|sec|s|minutes?|min|m|hours?|h|days?|d)(?![a-z])\s*",
    re.IGNORECASE)


def _seconds(ttl: TTL) -> float:
    """A lifetime in seconds; infinite for None."""
    if ttl is None:
        return math.inf
    if isinstance(ttl, timedelta):
        return ttl.total_seconds()
    if isinstance(ttl, str):
        pieces = _DURATION.findall(ttl)
        if not pieces or _DURATION.sub("", ttl).strip():
            raise ValueError(f"ttl {ttl!r} is not a duration such as '90s', '30m' or '1h30m'")
        return sum(float(number) * _UNITS[unit[0].lower()] for number, unit in pieces)
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise TypeError("ttl is a number of seconds, a timedelta, text such as '30m', or None, "
                        f"not {ttl!r:.100}")
    return ttl


class _Results:
    """Results of one function in this process, computed once however many threads ask."""

    _clock = staticmethod(time.monotonic)

    def __init__(self, seconds: float, *, copies: bool) -> None:
        self._seconds = seconds
        self._copies = copies
        #: Key: when it expires, its pickle (or None), the value itself otherwise.
        self._results: OrderedDict[str, tuple[float, bytes | None, Any]] = OrderedDict()
        self._renew_locks()

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[str, threading.RLock] = {}  # type: ignore[valid-type,unused-ignore]
        self._process = os.getpid()

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        if self._process != os.getpid():
            self._renew_locks()
        found = self._find(key)
        if found is None:
            with self._lock:
                flight = self._flights.setdefault(key, threading.RLock())
            with flight:
                found = self._find(key)
                if found is None:
                    try:
                        value = compute()
                        self._keep(key, value)
                    finally:
                        with self._lock:
                            self._flights.pop(key, None)
                    return value
        pickled = found[1]
        return found[2] if pickled is None else pickle.loads(pickled)

    def _find(self, key: str) -> tuple[float, bytes | None, Any] | None:
        with self._lock:
            found = self._results.get(key)
            if found is None:
                return None
            if found[0] <= self._clock():
                del self._results[key]
                return None
            self._results.move_to_end(key)
            return found

    def _keep(self, key: str, value: Any) -> None:
        pickled = None
        if self._copies and not isinstance(value, _IMMUTABLE):
            try:
                pickled = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
            except Exception:  # What cannot be copied is shared.
                pickled = None
        with self._lock:
            self._results[key] = (self._clock() + self._seconds, pickled,
                                  value if pickled is None else None)
            while len(self._results) > limits.MAX_LOCAL_RESULTS:
                self._results.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._results.clear()


class CacheManager:
    """Cached results of three functions that the app registers:

        @CacheManager.register("model_info")
        def model_info():
            return {"facebook/musicgen-small": {"params": "300M"}}

        CacheManager.cache_model_info()     # computed at most once in 30 minutes

    `register` can be called again, as in every rerun of a Streamlit script; the latest counts.
    """

    _seconds = {"model_info": 1800, "device_detection": 300, "ui_presets": 600}
    _functions: dict[str, Callable[[], Any]] = {}

    @staticmethod
    def register(name: str, function: Callable[[], Any] | None = None) -> Any:
        """Registers the function behind `cache_<name>`: `model_info`, `device_detection` or
        `ui_presets`. With one argument it is a decorator. Returns the function as it is."""
        name = name.removeprefix("cache_")
        if name not in CacheManager._seconds:
            raise ValueError(f"{name!r} is none of {', '.join(CacheManager._seconds)}")

        def register(function: F) -> F:
            seconds = CacheManager._seconds[name]
            CacheManager._functions[name] = _cached(
                function, f"cache_{name}", _Results(seconds, copies=True),
                lambda st: st.cache_data(ttl=seconds, show_spinner=False))
            return function

        return register if function is None else register(function)

    @staticmethod
    def cache_model_info() -> Any:
        """What the app registered as `model_info`, for 30 minutes."""
        return CacheManager._result("model_info")

    @staticmethod
    def cache_device_detection() -> Any:
        """What the app registered as `device_detection`, for 5 minutes."""
        return CacheManager._result("device_detection")

    @staticmethod
    def cache_ui_presets() -> Any:
        """What the app registered as `ui_presets`, for 10 minutes."""
        return CacheManager._result("ui_presets")

    @staticmethod
    def _result(name: str) -> Any:
        function = CacheManager._functions.get(name)
        if function is None:
            raise LookupError(
                f"CacheManager.cache_{name}() has nothing to call: register your function with "
                f'@CacheManager.register("{name}") before it')
        return function()
