"""`Client` and `AsyncClient`: the operations, over a pool of connections."""

from __future__ import annotations

import asyncio
import io
import os
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, TypeVar

from . import limits
from .errors import RepriseError, TransportError
from .http.address import Address
from .http.aio import AsyncPool, AsyncStreamedResponse
from .http.flow import Call, Flow
from .http.message import Headers, Progress, Request, Response
from .http.policy import Breaker, Policy, Send
from .http.sync import Pool, StreamedResponse
from .models import HistoryItem, Page
from .operations import ABSENT, Operations, segment
from .transfers import EntryFile, download, download_async, json_lines, json_lines_async

if TYPE_CHECKING:
    from .cache import AsyncCache, Cache
    from .cache import Lifetime as CacheLifetime
    from .codecs import Codec
    from .monitor import Monitor
    from .session import AsyncSession, Session
    from .session import Lifetime as SessionLifetime
    from .session_state import Merge

T = TypeVar("T")

#: Where the service is if nothing else is said.
DEFAULT_URL = "http://127.0.0.1:8080"


class _Configured(Operations):
    """What both clients have in common."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = limits.CALL_SECONDS,
        retries: int = limits.RETRIES,
        max_connections: int = limits.MAX_CONNECTIONS,
        ca_file: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        """`url` and `token` are those of `REPRISE_URL` and `REPRISE_TOKEN` if they are not given.

        `timeout` is in seconds, for a call with all that it repeats. Nothing is opened before the
        first call.
        """
        if not timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {timeout}")
        if not 1 <= max_connections <= limits.MAX_POOL_CONNECTIONS:
            raise ValueError(
                f"max_connections must be from 1 to {limits.MAX_POOL_CONNECTIONS}, "
                f"not {max_connections}"
            )
        url = url or os.environ.get("REPRISE_URL") or DEFAULT_URL
        token = token or os.environ.get("REPRISE_TOKEN") or None
        self._address = Address(url, token=token, ca_file=ca_file, ssl_context=ssl_context)
        self.timeout = timeout
        self._monitors: weakref.WeakSet[Monitor] = weakref.WeakSet()
        self._policy = Policy(retries=retries, breaker=breaker)
        self._open_pool(max_connections)

    def _open_pool(self, size: int) -> None:
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Where the service is, without the token."""
        return self._address.url

    @property
    def is_available(self) -> bool:
        """False while calls fail at once, because those before them were not answered."""
        return not self._policy.breaker.is_open

    def statistics(self) -> dict[str, Any]:
        """What the calls of this client came to."""
        counted = self._policy.statistics
        breaker = self._policy.breaker
        return {
            "calls": counted.calls,
            "attempts": counted.attempts,
            "retries": counted.retries,
            "failures": counted.failures,
            "problems": counted.problems,
            "last_error": counted.last_error,
            "circuit": "open" if breaker.is_open else "closed",
            "circuit_opened": breaker.opened_count,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


class Client(_Configured):
    """A client that blocks. Safe to share between threads, and after `fork`.

    Every operation of the service is a method; `cache`, `session` and `monitor` give what apps
    use from day to day.
    """

    _is_blocking = True

    def _open_pool(self, size: int) -> None:
        self._pool = Pool(self._address, size)

    def _run(self, flow: Call[T] | Flow[T]) -> T:
        if isinstance(flow, Call):
            return flow.parse(self._answer(flow.request, flow.timeout))
        result: Any = None
        error: BaseException | None = None
        while True:
            try:
                call = flow.send(result) if error is None else flow.throw(error)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            result = error = None
            try:
                result = call.parse(self._answer(call.request, call.timeout))
            except RepriseError as failure:
                error = failure

    def _answer(self, request: Request, timeout: float | None) -> Response:
        exchange = self._policy.exchange(request, self.timeout if timeout is None else timeout)
        outcome: Response | TransportError | None = None
        send = self._pool.send
        step = next(exchange)
        while True:
            try:
                if isinstance(step, Send):
                    outcome = send(step.request, step.deadline)
                else:
                    time.sleep(step.seconds)
                    outcome = None
            except TransportError as error:
                outcome = error
            except BaseException:
                exchange.close()
                raise
            try:
                step = exchange.send(outcome)
            except StopIteration as end:
                response: Response = end.value
                if request.streamed and response.status >= 300:
                    raise response.unexpected() from None
                return response

    # What apps use.

    def cache(
        self,
        namespace: str,
        *,
        ttl: CacheLifetime = ABSENT,
        tags: Sequence[str] = (),
        codec: Codec | None = None,
        pickle_secret: bytes | str | None = None,
        strict: bool = False,
        timeout: float | None = None,
        local_seconds: float = 0.0,
        local_bytes: int | None = None,
        serve_stale_seconds: float = 0.0,
    ) -> Cache:
        """A namespace of the cache; see `Cache`."""
        from .cache import Cache

        return Cache(
            self, namespace, ttl=ttl, tags=tags, codec=codec, pickle_secret=pickle_secret,
            strict=strict, timeout=timeout, local_seconds=local_seconds, local_bytes=local_bytes,
            serve_stale_seconds=serve_stale_seconds,
        )

    def session(
        self,
        session_id: str | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
        template: str | None = None,
        ttl: SessionLifetime = ABSENT,
        max_history_items: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        strict: bool = False,
        history: bool = True,
        if_match: bool = False,
        merge: Merge | None = None,
        timeout: float | None = None,
    ) -> Session:
        """A session as a mapping; see `Session`."""
        from .session import Session

        return Session(
            self, session_id, defaults=defaults, template=template, ttl=ttl,
            max_history_items=max_history_items, metadata=metadata, strict=strict,
            history=history, if_match=if_match, merge=merge, timeout=timeout,
        )

    def monitor(
        self,
        *,
        session_id: str | None = None,
        variant: str | None = None,
        labels: Mapping[str, str] | None = None,
        flush_seconds: float = limits.MONITOR_FLUSH_SECONDS,
        max_queued: int = limits.MAX_QUEUED_SAMPLES,
    ) -> Monitor:
        """What measures, and sends samples in the background; see `Monitor`."""
        from .monitor import Monitor

        monitor = Monitor(
            self, session_id=session_id, variant=variant, labels=labels,
            flush_seconds=flush_seconds, max_queued=max_queued,
        )
        self._monitors.add(monitor)
        return monitor

    # Large values, lists.

    def open_entry(
        self, namespace: str, key: str, *, buffer_bytes: int = limits.CHUNK_BYTES
    ) -> io.BufferedReader:
        """A value as a file that can be seeked, read by ranges as it is needed."""
        path = f"/v1/cache/{segment(namespace)}/entries/{segment(key)}"
        return io.BufferedReader(EntryFile(self, path), buffer_bytes)

    def download_entry(
        self, namespace: str, key: str, file: IO[bytes], *,
        on_progress: Progress | None = None, timeout: float = limits.LONG_CALL_SECONDS,
    ) -> Headers:
        """Writes a value to a file that is open for writing; its header fields."""
        path = f"/v1/cache/{segment(namespace)}/entries/{segment(key)}"
        return download(self, path, file, on_progress=on_progress, timeout=timeout)

    def download_backup(
        self, name: str, file: IO[bytes], *,
        on_progress: Progress | None = None, timeout: float = limits.LONG_CALL_SECONDS,
    ) -> Headers:
        """Writes a backup to a file that is open for writing; its header fields."""
        path = f"/v1/backups/{segment(name)}"
        return download(self, path, file, on_progress=on_progress, timeout=timeout)

    def stream_history(
        self, session_id: str, *, timeout: float = limits.LONG_CALL_SECONDS
    ) -> Iterator[HistoryItem]:
        """All items of a history, the newest first, as they arrive."""
        request = Request("GET", f"/v1/sessions/{segment(session_id)}/history",
                          {"Accept": "application/x-ndjson"}, streamed=True)
        response = self._answer(request, timeout)
        assert isinstance(response, StreamedResponse)
        with response:
            yield from json_lines(iter(response))

    def pages(
        self, listing: Callable[..., Page[T]], *arguments: Any, **options: Any
    ) -> Iterator[Page[T]]:
        """All pages of a list: `client.pages(client.list_entries, "scores", limit=500)`."""
        while True:
            page = listing(*arguments, **options)
            yield page
            if page.next_cursor is None:
                return
            options["cursor"] = page.next_cursor

    def items(
        self, listing: Callable[..., Page[T]], *arguments: Any, **options: Any
    ) -> Iterator[T]:
        """All items of a list, page by page."""
        for page in self.pages(listing, *arguments, **options):
            yield from page.items

    def close(self) -> None:
        """Sends what its monitors have measured, and closes idle connections. The client can be
        used again."""
        for monitor in list(self._monitors):
            monitor.close(limits.MONITOR_EXIT_SECONDS)
        self._pool.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Configured):
    """The same for asyncio: every method returns a coroutine."""

    _is_awaiting = True

    def _blocking(self, max_connections: int) -> Client:
        """A client that blocks, for threads in the background: with the same address, and with
        the same circuit breaker, so that they learn from each other."""
        client = Client.__new__(Client)
        client._address = self._address
        client._policy = self._policy
        client._monitors = weakref.WeakSet()
        client.timeout = self.timeout
        client._pool = Pool(self._address, max_connections)
        return client

    def _open_pool(self, size: int) -> None:
        self._pool = AsyncPool(self._address, size)

    def _run(self, flow: Call[T] | Flow[T]) -> Coroutine[Any, Any, T]:
        if isinstance(flow, Call):
            return self._call(flow)
        return self._drive(flow)

    async def _call(self, call: Call[T]) -> T:
        return call.parse(await self._answer(call.request, call.timeout))

    async def _drive(self, flow: Flow[T]) -> T:
        result: Any = None
        error: BaseException | None = None
        while True:
            try:
                call = flow.send(result) if error is None else flow.throw(error)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            result = error = None
            try:
                result = await self._call(call)
            except RepriseError as failure:
                error = failure
            except BaseException:
                flow.close()
                raise

    async def _answer(self, request: Request, timeout: float | None) -> Response:
        exchange = self._policy.exchange(request, self.timeout if timeout is None else timeout)
        outcome: Response | TransportError | None = None
        step = next(exchange)
        while True:
            try:
                if isinstance(step, Send):
                    outcome = await self._pool.send(step.request, step.deadline)
                else:
                    await asyncio.sleep(step.seconds)
                    outcome = None
            except TransportError as error:
                outcome = error
            except BaseException:
                exchange.close()
                raise
            try:
                step = exchange.send(outcome)
            except StopIteration as end:
                response: Response = end.value
                if request.streamed and response.status >= 300:
                    raise response.unexpected() from None
                return response

    def cache(
        self,
        namespace: str,
        *,
        ttl: CacheLifetime = ABSENT,
        tags: Sequence[str] = (),
        codec: Codec | None = None,
        pickle_secret: bytes | str | None = None,
        strict: bool = False,
        timeout: float | None = None,
        local_seconds: float = 0.0,
        local_bytes: int | None = None,
        serve_stale_seconds: float = 0.0,
    ) -> AsyncCache:
        """A namespace of the cache; see `AsyncCache`."""
        from .cache import AsyncCache

        return AsyncCache(
            self, namespace, ttl=ttl, tags=tags, codec=codec, pickle_secret=pickle_secret,
            strict=strict, timeout=timeout, local_seconds=local_seconds, local_bytes=local_bytes,
            serve_stale_seconds=serve_stale_seconds,
        )

    def session(
        self,
        session_id: str | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
        template: str | None = None,
        ttl: SessionLifetime = ABSENT,
        max_history_items: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        strict: bool = False,
        history: bool = True,
        if_match: bool = False,
        merge: Merge | None = None,
        timeout: float | None = None,
    ) -> AsyncSession:
        """A session as a mapping; see `AsyncSession`."""
        from .session import AsyncSession

        return AsyncSession(
            self, session_id, defaults=defaults, template=template, ttl=ttl,
            max_history_items=max_history_items, metadata=metadata, strict=strict,
            history=history, if_match=if_match, merge=merge, timeout=timeout,
        )

    def monitor(
        self,
        *,
        session_id: str | None = None,
        variant: str | None = None,
        labels: Mapping[str, str] | None = None,
        flush_seconds: float = limits.MONITOR_FLUSH_SECONDS,
        max_queued: int = limits.MAX_QUEUED_SAMPLES,
    ) -> Monitor:
        """What measures, and sends samples from a thread of its own; see `Monitor`."""
        from .monitor import Monitor

        monitor = Monitor(
            self, session_id=session_id, variant=variant, labels=labels,
            flush_seconds=flush_seconds, max_queued=max_queued,
        )
        self._monitors.add(monitor)
        return monitor

    async def download_entry(
        self, namespace: str, key: str, file: IO[bytes], *,
        on_progress: Progress | None = None, timeout: float = limits.LONG_CALL_SECONDS,
    ) -> Headers:
        """Writes a value to a file that is open for writing; its header fields."""
        path = f"/v1/cache/{segment(namespace)}/entries/{segment(key)}"
        return await download_async(self, path, file, on_progress=on_progress, timeout=timeout)

    async def download_backup(
        self, name: str, file: IO[bytes], *,
        on_progress: Progress | None = None, timeout: float = limits.LONG_CALL_SECONDS,
    ) -> Headers:
        """Writes a backup to a file that is open for writing; its header fields."""
        path = f"/v1/backups/{segment(name)}"
        return await download_async(self, path, file, on_progress=on_progress, timeout=timeout)

    async def stream_history(
        self, session_id: str, *, timeout: float = limits.LONG_CALL_SECONDS
    ) -> AsyncIterator[HistoryItem]:
        """All items of a history, the newest first, as they arrive."""
        request = Request("GET", f"/v1/sessions/{segment(session_id)}/history",
                          {"Accept": "application/x-ndjson"}, streamed=True)
        response = await self._answer(request, timeout)
        assert isinstance(response, AsyncStreamedResponse)
        async with response:
            async for item in json_lines_async(response.__aiter__()):
                yield item

    async def pages(
        self, listing: Callable[..., Coroutine[Any, Any, Page[T]]], *arguments: Any, **options: Any
    ) -> AsyncIterator[Page[T]]:
        """All pages of a list: `client.pages(client.list_entries, "scores", limit=500)`."""
        while True:
            page = await listing(*arguments, **options)
            yield page
            if page.next_cursor is None:
                return
            options["cursor"] = page.next_cursor

    async def items(
        self, listing: Callable[..., Coroutine[Any, Any, Page[T]]], *arguments: Any, **options: Any
    ) -> AsyncIterator[T]:
        """All items of a list, page by page."""
        async for page in self.pages(listing, *arguments, **options):
            for item in page.items:
                yield item

    async def close(self) -> None:
        """Sends what its monitors have measured, and closes idle connections of this event loop.
        The client can be used again."""
        for monitor in list(self._monitors):
            await asyncio.to_thread(monitor.close, limits.MONITOR_EXIT_SECONDS)
        await self._pool.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
