"""The client of Reprise: cached results, sessions, history and samples that outlive a process.

Importing this opens nothing: no thread, no socket, no file. `Client` and what hangs on it is
imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .cache import AsyncCache, Cache
    from .client import AsyncClient, Client
    from .errors import (
        CircuitOpen,
        Conflict,
        ConnectFailed,
        ConnectionLost,
        Forbidden,
        InvalidRequest,
        InvalidResponse,
        NotFound,
        PreconditionFailed,
        ProblemError,
        RepriseError,
        ServerError,
        StorageFull,
        TimedOut,
        TooManyRequests,
        TransportError,
        Unauthenticated,
        Unavailable,
    )
    from .monitor import Monitor
    from .session import AsyncSession, Session, StateConflict

_HOMES = {
    "cache": ("AsyncCache", "Cache"),
    "client": ("AsyncClient", "Client"),
    "errors": (
        "CircuitOpen", "Conflict", "ConnectFailed", "ConnectionLost", "Forbidden",
        "InvalidRequest", "InvalidResponse", "NotFound", "PreconditionFailed", "ProblemError",
        "RepriseError", "ServerError", "StorageFull", "TimedOut", "TooManyRequests",
        "TransportError", "Unauthenticated", "Unavailable",
    ),
    "monitor": ("Monitor",),
    "session": ("AsyncSession", "Session", "StateConflict"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

#: Written out, because type checkers only take names from a list that they can read.
__all__ = [
    "AsyncCache", "AsyncClient", "AsyncSession", "Cache", "CircuitOpen", "Client", "Conflict",
    "ConnectFailed", "ConnectionLost", "Forbidden", "InvalidRequest", "InvalidResponse",
    "Monitor", "NotFound", "PreconditionFailed", "ProblemError", "RepriseError", "ServerError",
    "Session", "StateConflict", "StorageFull", "TimedOut", "TooManyRequests", "TransportError",
    "Unauthenticated", "Unavailable", "__version__",
]


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
