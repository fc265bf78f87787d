"""Large values: to files, as files that can be seeked, as streams, and lists page by page."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_server import BadServer, Visit, always, answer, in_order, once, problem
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from conftest import Service
from reprise_client import (
    AsyncClient,
    Client,
    ConnectionLost,
    InvalidResponse,
    NotFound,
    PreconditionFailed,
    TimedOut,
    limits,
)
from reprise_client.transfers import json_lines, json_lines_async

DATA = os.urandom(3_000_001)
PATIENT = 60.0


def test_download(client: Client, name: str, tmp_path: Path) -> None:
    client.put_entry(name, "k", DATA, content_type="audio/wav")
    told: list[tuple[int, int | None]] = []
    path = tmp_path / "file"
    with open(path, "wb") as file:
        fields = client.download_entry(
            name, "k", file, on_progress=lambda sent, total: told.append((sent, total)))
    assert path.read_bytes() == DATA and fields["content-type"] == "audio/wav"
    assert told[-1] == (len(DATA), len(DATA)) and len(told) > 3
    with pytest.raises(NotFound):
        client.download_entry(name, "absent", io.BytesIO())


async def test_download_async(shared_service: Service, name: str) -> None:
    async with AsyncClient(shared_service.url, timeout=PATIENT) as client:
        await client.put_entry(name, "k", DATA)
        target = io.BytesIO()
        told: list[int] = []
        await client.download_entry(
            name, "k", target, on_progress=lambda sent, _: told.append(sent))
        assert target.getvalue() == DATA and told[-1] == len(DATA)
        with pytest.raises(NotFound):
            await client.download_entry(name, "absent", io.BytesIO())


def ranges(visit: Visit, *, cut_after: int) -> None:
    """Answers ranges of DATA, and breaks off after so many bytes of each answer."""
    while (request := visit.read_request()) is not None:
        first = 0
        status = b"200 OK"
        if b"Range: bytes=" in request:
            first = int(request.split(b"Range: bytes=")[1].split(b"-")[0])
            assert b'If-Match: "1"' in request
            status = b"206 Partial"
        rest = DATA[first:]
        visit.write(b"HTTP/1.1 %b\r\nETag: \"1\"\r\nContent-Length: %d\r\n\r\n"
                    % (status, len(rest)))
        if len(rest) > cut_after:
            visit.write(rest[:cut_after])
            return
        visit.write(rest)


@pytest.mark.parametrize("cut_after", [0, 1, len(DATA) // 2, len(DATA) - 1])
async def test_a_download_goes_on_where_it_was(cut_after: int) -> None:
    def cut(visit: Visit) -> None:
        ranges(visit, cut_after=cut_after)

    def whole(visit: Visit) -> None:
        ranges(visit, cut_after=len(DATA))

    with BadServer(in_order(cut, cut, whole)) as server:
        with Client(server.url, timeout=PATIENT) as client:
            target = io.BytesIO()
            client.download_entry("a", "b", target)
            assert target.getvalue() == DATA
    with BadServer(in_order(cut, cut, whole)) as server:
        async with AsyncClient(server.url, timeout=PATIENT) as waiting:
            target = io.BytesIO()
            await waiting.download_entry("a", "b", target)
            assert target.getvalue() == DATA


async def test_a_download_that_breaks_too_often() -> None:
    def cut(visit: Visit) -> None:
        ranges(visit, cut_after=10)

    with BadServer(cut) as server:
        with Client(server.url) as client, pytest.raises(ConnectionLost):
            client.download_entry("a", "b", io.BytesIO())
        assert len(server.requests) == limits.RETRIES + 1
        async with AsyncClient(server.url) as waiting:
            with pytest.raises(ConnectionLost):
                await waiting.download_entry("a", "b", io.BytesIO())


async def test_a_value_that_is_replaced_during_a_download() -> None:
    def cut(visit: Visit) -> None:
        ranges(visit, cut_after=10)

    replaced = always(problem(412, "etag_mismatch"))
    ignored = always(answer(DATA))
    for second, error in ((replaced, PreconditionFailed), (ignored, InvalidResponse)):
        with BadServer(in_order(cut, second)) as server:
            with Client(server.url) as client, pytest.raises(error):
                client.download_entry("a", "b", io.BytesIO())
        with BadServer(in_order(cut, second)) as server:
            async with AsyncClient(server.url) as waiting:
                with pytest.raises(error):
                    await waiting.download_entry("a", "b", io.BytesIO())


async def test_a_download_has_one_budget() -> None:
    """Going on after a break does not begin the time anew."""
    times = []

    def slow(visit: Visit) -> None:
        times.append(visit.read_request())
        visit.write(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 100\r\n\r\nx")
        visit.pause(0.5)

    with BadServer(slow) as server:
        with Client(server.url) as client, pytest.raises(TimedOut):
            client.download_entry("a", "b", io.BytesIO(), timeout=0.25)
        async with AsyncClient(server.url) as waiting:
            with pytest.raises(TimedOut):
                await waiting.download_entry("a", "b", io.BytesIO(), timeout=0.25)
        assert len(times) == 2
    with BadServer(in_order(once(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 9\r\n\r\nx"),
                            lambda visit: visit.hang())) as server:
        with Client(server.url) as client, pytest.raises(TimedOut):
            client.download_entry("a", "b", io.BytesIO(), timeout=0.5)


# Values as files.


def test_a_value_as_a_file(client: Client, name: str) -> None:
    client.put_entry(name, "k", DATA)
    with client.open_entry(name, "k", buffer_bytes=65_536) as file:
        assert file.read(10) == DATA[:10]
        assert file.seek(-5, os.SEEK_END) == len(DATA) - 5 and file.read() == DATA[-5:]
        assert file.read(1) == b""
        file.seek(1_000_000)
        assert file.read(200_000) == DATA[1_000_000:1_200_000] and file.tell() == 1_200_000
        file.seek(0)
        assert file.read() == DATA
        assert file.readable() and file.seekable() and not file.writable()
        assert file.raw.size == len(DATA)  # type: ignore[attr-defined]
        with pytest.raises((ValueError, OSError)):
            file.seek(-1)
        with pytest.raises(ValueError):
            file.raw.seek(0, 9)


def test_only_what_is_read_is_sent(client: Client, name: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(20):
            archive.writestr(f"{number}.bin", os.urandom(100_000))
    client.put_entry(name, "zip", packed.getvalue())
    before = client.statistics()["attempts"]
    with client.open_entry(name, "zip", buffer_bytes=4096) as file, \
            zipfile.ZipFile(file) as archive:
        assert len(archive.namelist()) == 20
    assert client.statistics()["attempts"] - before < 10


def test_a_value_that_is_replaced_while_it_is_read(client: Client, name: str) -> None:
    client.put_entry(name, "k", DATA)
    with client.open_entry(name, "k", buffer_bytes=1024) as file:
        assert file.read(10) == DATA[:10]
        client.put_entry(name, "k", DATA[::-1])
        file.seek(100_000)
        with pytest.raises(OSError, match="was replaced while it was read"):
            file.read(10)
        client.delete_entry(name, "k")
        with pytest.raises(OSError):
            file.read(10)
    with pytest.raises(NotFound):
        client.open_entry(name, "k")


def test_an_empty_value_as_a_file(client: Client, name: str) -> None:
    client.put_entry(name, "k", b"")
    with client.open_entry(name, "k") as file:
        assert file.read() == b""


@pytest.mark.parametrize("data", [
    b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"])
def test_what_cannot_be_a_file(data: bytes) -> None:
    with BadServer(always(data)) as server, Client(server.url, timeout=PATIENT) as client, \
            pytest.raises(InvalidResponse, match="not a value"):
        client.open_entry("a", "b")


def test_a_range_that_is_not_the_one_asked_for() -> None:
    with BadServer(always(answer(b"x" * 50))) as server, \
            Client(server.url, timeout=PATIENT) as client:
        file = client.open_entry("a", "b")
        with pytest.raises(OSError, match="not the range"):
            file.read(10)


# Streams and lists.


async def test_history_as_a_stream(shared_service: Service, client: Client, name: str) -> None:
    client.create_session(id=name, max_history_items=200)
    for number in range(120):
        client.append_history(name, {"n": number, "text": "ü" * 300})
    numbers = [item["data"]["n"] for item in client.stream_history(name)]
    assert numbers == list(range(119, -1, -1))
    async with AsyncClient(shared_service.url, timeout=PATIENT) as waiting:
        assert [i["data"]["n"] async for i in waiting.stream_history(name)] == numbers
        pages = [p async for p in waiting.pages(waiting.list_history, name, limit=50)]
        assert [len(page.items) for page in pages] == [50, 50, 20]
        items = [i["data"]["n"] async for i in waiting.items(waiting.list_history, name, limit=7)]
        assert items == numbers
    assert [len(p.items) for p in client.pages(client.list_history, name, limit=50)] == [50, 50, 20]
    assert [i["data"]["n"] for i in client.items(client.list_history, name, limit=7)] == numbers
    with pytest.raises(NotFound):
        next(client.stream_history("absent"))


def test_a_stream_that_breaks_off() -> None:
    cut = answer(b'{"id":"1"}\n{"id":"2"}\n').replace(b"Length: 22", b"Length: 99")
    with BadServer(once(cut)) as server, Client(server.url, timeout=PATIENT) as client:
        stream = client.stream_history("s")
        assert next(stream)["id"] == "1" and next(stream)["id"] == "2"
        with pytest.raises(ConnectionLost):
            next(stream)
        server.wait_until_left()
        assert client._pool._free.qsize() == limits.MAX_CONNECTIONS


@seed(3)
@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(st.one_of(st.integers(), st.text(max_size=20), st.none()), max_size=20),
       st.lists(st.integers(0, 500), max_size=10), st.booleans())
def test_lines_however_they_are_cut(values: list[Any], cuts: list[int], ended: bool) -> None:
    written = b"\n".join(json.dumps(value).encode() for value in values) + b"\n" * ended
    places = sorted({cut for cut in cuts if 0 < cut < len(written)})
    pieces = [written[a:b] for a, b in zip([0, *places], [*places, len(written)])]
    assert list(json_lines(iter(pieces))) == values


async def test_lines_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in (b"{", b"\xff", b"[" * 200_000):
        with pytest.raises(InvalidResponse, match="a line of the answer is not JSON"):
            list(json_lines(iter([b"1\n", line, b"\n"])))
    monkeypatch.setattr(limits, "MAX_BODY_BYTES", 1000)

    def endless() -> Iterator[bytes]:
        while True:
            yield b"1" * 100

    async def endless_async() -> AsyncIterator[bytes]:
        while True:
            yield b"1" * 100

    with pytest.raises(InvalidResponse, match="more than 1000 bytes"):
        list(json_lines(endless()))
    with pytest.raises(InvalidResponse, match="more than 1000 bytes"):
        [value async for value in json_lines_async(endless_async())]
