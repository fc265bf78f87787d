"""The asyncio transport: as the blocking one, with tasks that are cancelled and loops that end."""

from __future__ import annotations

import asyncio
import gc
import io
import ssl
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from bad_server import (
    OK,
    BadServer,
    Visit,
    always,
    answer,
    in_order,
    once,
    open_descriptors,
    problem,
    refusing_port,
    wait_until,
)
from conftest import Service, tls
from test_transport import DATA, LINES, Unseekable, bodies

from reprise_client import (
    AsyncClient,
    ConnectFailed,
    ConnectionLost,
    InvalidRequest,
    TimedOut,
    limits,
)

PATIENT = 60.0


async def until(condition: Any, what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what)


def free_places(client: AsyncClient) -> int:
    return client._pool._pool()._free


async def test_a_connection_is_kept() -> None:
    with BadServer(always(OK)) as server:
        async with AsyncClient(server.url, timeout=PATIENT) as client:
            for _ in range(30):
                await client.get_entry("a", "b")
                await client.put_entry("a", "b", b"x" * 100_000)
                await client.head_entry("a", "b")
            assert server.accepted == 1 and len(server.requests) == 90
        await asyncio.to_thread(server.wait_until_left)


@pytest.mark.parametrize("closing", [
    answer(Connection="close"), b"HTTP/1.0 200 OK\r\nETag: \"1\"\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"trailing garbage"])
async def test_a_connection_that_cannot_be_kept(closing: bytes) -> None:
    with BadServer(always(closing)) as server:
        async with AsyncClient(server.url, timeout=PATIENT) as client:
            for _ in range(3):
                assert (await client.get_entry("a", "b")).body == b"{}"
            assert server.accepted == 3
            await asyncio.to_thread(server.wait_until_left)


async def test_idle_connections_that_the_service_closed() -> None:
    with BadServer(once(OK)) as server:
        async with AsyncClient(server.url, timeout=PATIENT, retries=0) as client:
            for count in range(1, 6):
                assert (await client.get_entry("a", "b")).body == b"{}"
                assert server.accepted == count
                await asyncio.to_thread(server.wait_until_left)
            assert client.statistics()["failures"] == 0


async def test_an_idle_connection_that_breaks_when_it_is_used() -> None:
    def behave(visit: Visit) -> None:
        visit.read_request()
        visit.write(OK)
        visit.read_request()
        visit.reset()

    with BadServer(in_order(behave, always(OK))) as server:
        async with AsyncClient(server.url, timeout=PATIENT, retries=0) as client:
            await client.get_entry("a", "b")
            assert (await client.get_entry("a", "b")).body == b"{}"
            assert server.accepted == 2


async def test_a_large_answer_leaves_the_connection_listening() -> None:
    """Reading pauses while a large answer arrives; the end of the idle connection is seen."""
    large = answer(b"x" * (limits.CHUNK_BYTES * 40), kind="application/octet-stream")
    with BadServer(once(large)) as server:
        async with AsyncClient(server.url, timeout=PATIENT, retries=0) as client:
            for _ in range(3):
                assert len((await client.get_entry("a", "b")).body) == limits.CHUNK_BYTES * 40
                idle = client._pool._pool().idle
                await asyncio.to_thread(server.wait_until_left)
                for _ in range(1000):
                    if not idle or not idle[-1].is_alive:
                        break
                    await asyncio.sleep(0.01)
                assert not idle or not idle[-1].is_alive
                assert (await client.request("POST", "/v1/x", json={})).status == 200
                await asyncio.to_thread(server.wait_until_left)


async def test_tasks_share_a_limited_pool() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def behave(visit: Visit) -> None:
        nonlocal now, most
        while visit.read_request() is not None:
            with lock:
                now += 1
                most = max(most, now)
            visit.pause(0.002)
            with lock:
                now -= 1
            visit.write(OK)

    with BadServer(behave) as server:
        async with AsyncClient(server.url, timeout=PATIENT, max_connections=3) as client:
            await asyncio.gather(*(client.get_entry("a", "b") for _ in range(200)))
            assert len(server.requests) == 200
            assert server.accepted <= 3 and 1 <= most <= 3 and free_places(client) == 3


async def test_all_connections_in_use() -> None:
    with BadServer(lambda visit: visit.hang()) as server:
        async with AsyncClient(server.url, timeout=0.3, retries=0, max_connections=1) as client:
            held = asyncio.create_task(client.get_entry("a", "b", timeout=PATIENT))
            await until(lambda: server.accepted == 1, "the connection was taken")
            with pytest.raises(TimedOut, match="all 1 connections were in use") as late:
                await client.get_entry("a", "b")
            assert not late.value.sent and client.is_available
            held.cancel()
            with pytest.raises(asyncio.CancelledError):
                await held
            assert free_places(client) == 1
            await asyncio.to_thread(server.wait_until_left)


async def test_cancellation_at_any_moment() -> None:
    """A cancelled call ends at once, and leaves its connection, its place and its part in the
    breaker, whether it waits for a place, a connection or an answer."""

    def behave(visit: Visit) -> None:
        while visit.read_request() is not None:
            visit.pause(0.003)
            visit.write(OK)

    with BadServer(behave) as server:
        async with AsyncClient(server.url, timeout=PATIENT, max_connections=2) as client:
            for step in range(60):
                tasks = [asyncio.create_task(client.get_entry("a", "b")) for _ in range(6)]
                for _ in range(step % 12):
                    await asyncio.sleep(0)
                if step % 3 == 0:
                    await asyncio.sleep(0.001 * (step % 7))
                for task in tasks[::2]:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                for index, result in enumerate(results):
                    if index % 2:
                        assert not isinstance(result, BaseException)
                    elif isinstance(result, BaseException):
                        assert isinstance(result, asyncio.CancelledError)
            assert free_places(client) == 2 and client.is_available
            assert not client._pool._pool()._waiting
        await asyncio.to_thread(server.wait_until_left)


async def test_a_timeout_of_the_app() -> None:
    with BadServer(lambda visit: visit.hang()) as server:
        async with AsyncClient(server.url, timeout=PATIENT) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.get_entry("a", "b"), 0.1)
            assert client.is_available and client.statistics()["failures"] == 0
            await asyncio.to_thread(server.wait_until_left)


async def test_errors_leave_no_descriptor() -> None:
    def cut(visit: Visit) -> None:
        visit.read_request()
        visit.write(OK[:40])

    with BadServer(cut) as server:
        async with AsyncClient(server.url, timeout=PATIENT, retries=0) as client:
            before = open_descriptors()
            for _ in range(100):
                with pytest.raises(ConnectionLost):
                    await client.get_entry("a", "b")
                client._policy.breaker.succeeded()
            await asyncio.to_thread(server.wait_until_left)
            await asyncio.sleep(0)
            assert open_descriptors() <= before + 3
            assert free_places(client) == limits.MAX_CONNECTIONS
    with refusing_port() as port:
        async with AsyncClient(f"http://127.0.0.1:{port}", retries=0) as client:
            with pytest.raises(ConnectFailed, match="cannot reach http://127"):
                await client.get_entry("a", "b")


async def test_streams() -> None:
    with BadServer(always(answer(LINES))) as server:
        async with AsyncClient(server.url, timeout=PATIENT) as client:
            for _ in range(3):
                assert len([item async for item in client.stream_history("s")]) == 1000
            assert server.accepted == 1


async def test_a_stream_that_is_left_early() -> None:
    def endless(visit: Visit) -> None:
        visit.read_request()
        visit.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not visit.server.closing.is_set():
            visit.write(b"b\r\n{\"id\":\"1\"}\n\r\n")

    with BadServer(endless) as server:
        async with AsyncClient(server.url, timeout=PATIENT, max_connections=2) as client:
            for _ in range(6):
                async for item in client.stream_history("s"):
                    assert item["id"] == "1"
                    break
            for _ in range(1000):
                if free_places(client) == 2:
                    break
                await asyncio.sleep(0.01)
            assert free_places(client) == 2
            await asyncio.to_thread(server.wait_until_left)


async def test_a_reader_that_is_slower_than_the_service() -> None:
    """What waits in memory is bounded: the service is slowed down."""
    sent = 0

    def endless(visit: Visit) -> None:
        nonlocal sent
        visit.read_request()
        visit.write(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not visit.server.closing.is_set():
            visit.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent += 65536

    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            time.sleep(0.05)
            return len(data)

    with BadServer(endless) as server:
        async with AsyncClient(server.url, retries=0) as client:
            with pytest.raises(TimedOut):
                await client.download_entry("a", "b", Slow(), timeout=1.0)
        assert sent < 100_000_000


@pytest.mark.parametrize(("body", "known"), [(b, k) for _, b, k in bodies()],
                         ids=[n for n, *_ in bodies()])
async def test_bodies_and_progress(
    shared_service: Service, name: str, body: Any, known: bool
) -> None:
    told: list[tuple[int, int | None]] = []
    threads: set[int] = set()

    def progress(sent: int, total: int | None) -> None:
        told.append((sent, total))
        threads.add(threading.get_ident())

    async with AsyncClient(shared_service.url, timeout=PATIENT) as client:
        await client.put_entry(name, "k", body, on_progress=progress)
        stored = (await client.get_entry(name, "k")).body
    assert stored == (DATA[:64] if len(stored) == 64 else b"" if not stored else DATA)
    if stored:
        assert told[-1] == (len(stored), len(stored) if known else None)
        assert threads == {threading.get_ident()}, "it is called in the event loop's thread"


async def test_a_file_is_sent_again_after_a_failure(name: str) -> None:
    file = io.BytesIO(b"skipped" + DATA)
    file.seek(7)

    def cut(visit: Visit) -> None:
        visit._more()

    with BadServer(in_order(cut, cut, always(answer(b"", 201)))) as server:
        async with AsyncClient(server.url, timeout=PATIENT) as client:
            assert (await client.put_entry(name, "k", file)).created
            assert server.requests[-1].endswith(b"\r\n\r\n" + DATA)
            with pytest.raises(TypeError, match="consists of bytes"):
                await client.put_entry(name, "k", ["text"])  # type: ignore[list-item]
    with BadServer(cut) as server:
        async with AsyncClient(server.url, timeout=PATIENT) as client:
            with pytest.raises(ConnectionLost):
                await client.put_entry(name, "k", Unseekable(DATA))  # type: ignore[arg-type]
            assert client.statistics()["attempts"] == 1


@pytest.mark.parametrize("body", ["bytes", "file", "iterable"])
async def test_an_answer_before_the_upload_is_read(body: str) -> None:
    def refuse(visit: Visit) -> None:
        while b"\r\n\r\n" not in visit._rest:
            visit._more()
        visit.write(problem(413, "payload_too_large"))
        visit.server.closing.wait(60)

    data = b"x" * 30_000_000
    value: Any = {"bytes": data, "file": io.BytesIO(data),
                  "iterable": (data[:500_000] for _ in range(60))}[body]
    with BadServer(refuse) as server:
        async with AsyncClient(server.url, timeout=PATIENT, retries=0) as client:
            began = time.monotonic()
            with pytest.raises(InvalidRequest) as refused:
                await client.put_entry("a", "b", value, timeout=PATIENT)
            assert refused.value.status == 413 and time.monotonic() - began < PATIENT / 2
            assert not client._pool._pool().idle


async def test_tls(certificate: Path) -> None:
    ca_file = str(certificate / "certificate.pem")
    with BadServer(always(OK), tls=tls(certificate)) as server:
        url = f"https://localhost:{server.port}"
        async with AsyncClient(url, ca_file=ca_file, timeout=PATIENT) as client:
            for _ in range(3):
                assert (await client.get_entry("a", "b")).body == b"{}"
            await client.put_entry("a", "b", DATA * 3)
            assert server.requests[-1].endswith(DATA) and server.accepted == 1
        own = ssl.create_default_context(cafile=ca_file)
        async with AsyncClient(url, ssl_context=own, timeout=PATIENT) as client:
            assert (await client.get_entry("a", "b")).body == b"{}"
        for wrong in (AsyncClient(server.url, ca_file=ca_file, retries=0, timeout=PATIENT),
                      AsyncClient(url, retries=0, timeout=PATIENT)):
            async with wrong as client:
                with pytest.raises(ConnectFailed, match="certificate was refused"):
                    await client.get_entry("a", "b")
        async with AsyncClient(url, ca_file="/does/not/exist.pem", retries=0) as client:
            with pytest.raises(ConnectFailed, match=r"ca_file='/does/not/exist.pem' cannot be"):
                await client.get_entry("a", "b")
        await asyncio.to_thread(server.wait_until_left)


async def test_a_unix_domain_socket(tmp_path: Path) -> None:
    path = tmp_path / "a socket"
    with BadServer(always(OK), path=str(path)):
        async with AsyncClient(f"unix:{path}", timeout=PATIENT) as client:
            assert (await client.get_entry("a", "b")).body == b"{}"
    async with AsyncClient(f"unix:{tmp_path}/absent", retries=0) as client:
        with pytest.raises(ConnectFailed, match="absent: No such file"):
            await client.get_entry("a", "b")


def test_one_client_in_several_event_loops() -> None:
    """One after the other, and at the same time in threads; none is kept alive."""
    loops: list[weakref.ref[Any]] = []
    with BadServer(always(OK)) as server:
        client = AsyncClient(server.url, timeout=PATIENT)

        async def use(close: bool) -> None:
            loops.append(weakref.ref(asyncio.get_running_loop()))
            for _ in range(3):
                assert (await client.get_entry("a", "b")).body == b"{}"
            if close:
                await client.close()

        for number in range(6):
            asyncio.run(use(number % 2 == 0))
        assert server.accepted == 6
        threads = [threading.Thread(target=asyncio.run, args=(use(True),)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENT)
        assert server.accepted == 11
        asyncio.run(use(True))
        assert len(client._pool._pools) == 1
        gc.collect()
        assert sum(loop() is not None for loop in loops) <= 1
        server.wait_until_left()
