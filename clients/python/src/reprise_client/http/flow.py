"""Operations that are written once, for the blocking and the asyncio client.

A flow is a generator that yields calls and gets their results. `@operation` makes one a method:
on an object with a blocking runner it returns the result, on one with an asyncio runner a
coroutine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from .message import Request, Response

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Call(Generic[T_co]):
    """A request, and how to read its answer."""

    __slots__ = ("parse", "request", "timeout")

    def __init__(
        self,
        request: Request,
        parse: Callable[[Response], T_co],
        timeout: float | None = None,
    ) -> None:
        self.request = request
        self.parse = parse
        #: Seconds; None for the client's.
        self.timeout = timeout


Flow = Generator[Call[Any], Any, T]


class Blocking(Protocol):
    """What runs flows and returns their results."""

    _is_blocking: bool

    def _run(self, flow: Call[T] | Flow[T]) -> T: ...


class Awaiting(Protocol):
    """What runs flows and returns coroutines."""

    _is_awaiting: bool

    def _run(self, flow: Call[T] | Flow[T]) -> Coroutine[Any, Any, T]: ...


class operation(Generic[P, T]):  # noqa: N801 - used as a decorator
    """A method that is written as a flow, or that makes one call."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[T] | Flow[T]]) -> None:
        self._build = build

        @functools.wraps(build)
        def method(instance: Any, *arguments: P.args, **options: P.kwargs) -> Any:
            return instance._run(build(instance, *arguments, **options))

        self._method = method
        self.__doc__ = build.__doc__
        self.__name__ = build.__name__
        self.__wrapped__ = build

    @overload
    def __get__(self, instance: None, owner: type) -> operation[P, T]: ...
    @overload
    def __get__(self, instance: Blocking, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, instance: Awaiting, owner: type
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        return MethodType(self._method, instance)

    def flow(self, instance: Any, *arguments: P.args, **options: P.kwargs) -> Call[T] | Flow[T]:
        """The flow itself, to be run as a part of another."""
        return self._build(instance, *arguments, **options)


def part(flow: Call[T] | Flow[T]) -> Flow[T]:
    """Runs one flow inside another: `value = yield from part(...)`."""
    if isinstance(flow, Call):
        return (yield flow)  # type: ignore[no-any-return]
    return (yield from flow)
