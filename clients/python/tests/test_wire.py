"""Bytes to answers, however they are cut into pieces, and what is no answer."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from reprise_client import InvalidResponse
from reprise_client.http.wire import ResponseReader
from reprise_client.limits import MAX_HEAD_BYTES


class Read(NamedTuple):
    status: int
    body: bytes
    complete: bool
    keep_alive: bool
    fields: dict[str, str]


def read(*pieces: bytes, head: bool = False, end: bool = False) -> Read:
    reader = ResponseReader()
    reader.begin(head_request=head)
    for piece in pieces:
        reader.feed(piece)
    if end:
        reader.feed_end()
    return Read(reader.status, b"".join(reader.chunks), reader.complete, reader.keep_alive,
                reader.headers.all())


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Y: a\r\nx-y: b\r\n\r\nhello"
CHUNKED = (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
           b"3;name=value\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: dropped\r\n\r\n")
INTERIM = (b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\n"
           b"Link: </x>\r\n\r\n" + PLAIN)
NO_CONTENT = b"HTTP/1.1 204 No Content\r\nETag: \"1\"\r\n\r\n"
WHOLE = [PLAIN, CHUNKED, INTERIM, NO_CONTENT,
         b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
         b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
         b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
         b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi"]


@pytest.mark.parametrize("answer", WHOLE)
def test_cut_at_every_byte(answer: bytes) -> None:
    whole = read(answer)
    assert whole.complete and whole.keep_alive
    for index in range(len(answer) + 1):
        assert read(answer[:index], answer[index:]) == whole if index < len(answer) else True
    assert read(*(answer[i:i + 1] for i in range(len(answer)))) == whole
    for index in range(len(answer)):
        assert not read(answer[:index]).complete


def test_what_is_read() -> None:
    assert read(PLAIN) == Read(200, b"hello", True, True,
                               {"content-length": "5", "x-y": "a, b"})
    assert read(CHUNKED) == Read(201, b"hello", True, True, {"transfer-encoding": "chunked"})
    assert read(INTERIM) == read(PLAIN)
    assert read(NO_CONTENT) == Read(204, b"", True, True, {"etag": '"1"'})


@pytest.mark.parametrize("fields", [
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n"])
def test_after_head_there_is_no_body(fields: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n"
    assert read(answer, head=True)[:4] == (200, b"", True, True)
    reader = ResponseReader()
    for _ in range(3):
        reader.begin(head_request=True)
        reader.feed(answer)
        assert reader.complete
        reader.begin(head_request=False)
        reader.feed(PLAIN)
        assert reader.complete and b"".join(reader.chunks) == b"hello"


def test_a_body_after_head_ends_the_connection() -> None:
    assert read(PLAIN, head=True)[:4] == (200, b"", True, False)


def test_a_body_until_the_connection_ends() -> None:
    for version in (b"1.0", b"1.1"):
        answer = b"HTTP/" + version + b" 200 OK\r\n\r\nsome"
        assert read(answer, b"thing")[:4] == (200, b"something", False, False)
        assert read(answer, b"thing", end=True)[:4] == (200, b"something", True, False)
    assert read(b"HTTP/1.1 200 OK\r\n\r\n", end=True).complete


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED])
def test_an_end_in_the_middle_completes_nothing(answer: bytes) -> None:
    for index in range(len(answer)):
        reader = ResponseReader()
        reader.feed(answer[:index])
        assert not reader.feed_end() and not reader.complete


def test_a_connection_that_is_closed_after_the_answer_is_not_kept() -> None:
    closing = PLAIN.replace(b"X-Y: a", b"Connection: close")
    assert read(closing).complete and not read(closing).keep_alive
    old = PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert read(old).complete and not read(old).keep_alive


@pytest.mark.parametrize("rest", [b"x", b"\0\0\0", PLAIN, b"HTTP/1.1 500 No\r\n"])
def test_what_follows_an_answer_is_not_taken_for_the_next(rest: bytes) -> None:
    together = read(PLAIN + rest)
    assert together[:4] == (200, b"hello", True, False)
    with pytest.raises(InvalidResponse, match="more than one answer"):
        read(PLAIN, rest)


@pytest.mark.parametrize("answer", [
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x16\x03\x01\x02\x00",
    b"220 smtp.example.com ESMTP\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
])
def test_what_is_not_http(answer: bytes) -> None:
    with pytest.raises(InvalidResponse):
        read(answer)
    with pytest.raises(InvalidResponse):
        read(*(answer[i:i + 1] for i in range(len(answer))))


def test_a_head_without_end() -> None:
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\n")
    fed = 0
    with pytest.raises(InvalidResponse, match="head has more than"):
        while fed < 10 * MAX_HEAD_BYTES:
            reader.feed(b"X-Field: %d\r\n" % fed)
            fed += 16
    assert fed <= MAX_HEAD_BYTES + 1024


def test_interim_answers_without_end() -> None:
    reader = ResponseReader()
    with pytest.raises(InvalidResponse, match="head has more than"):
        for _ in range(MAX_HEAD_BYTES):
            reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n")


def test_trailers_without_end_take_no_memory() -> None:
    reader = ResponseReader()
    reader.feed(CHUNKED[: CHUNKED.index(b"Trailer")])
    for number in range(10_000):
        reader.feed(b"X-%d: y\r\n" % number)
    assert not reader.complete and len(reader.headers.all()) == 1
    reader.feed(b"\r\n")
    assert reader.complete


def test_the_parser_serves_many_answers() -> None:
    reader = ResponseReader()
    for answer in WHOLE * 3:
        reader.begin(head_request=False)
        reader.feed(answer)
        assert reader.complete
        if reader.status in (204, 304):
            assert not reader.chunks


names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).filter(
    lambda n: n not in ("content-length", "transfer-encoding", "connection", "upgrade"))
values = st.binary(max_size=30).map(
    lambda b: bytes(c for c in b if c > 32 and c != 127))


@seed(1)
@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(st.tuples(names, values), max_size=8), st.binary(max_size=200), st.booleans(),
       st.lists(st.integers(0, 400), max_size=6))
def test_any_answer_is_read_as_it_was_written(
    fields: list[tuple[str, bytes]], body: bytes, chunked: bool, cuts: list[int]
) -> None:
    head = b"HTTP/1.1 200 OK\r\n"
    expected: dict[str, str] = {}
    for name, value in fields:
        head += name.encode() + b": " + value + b"\r\n"
        text = value.decode("latin-1")
        expected[name] = f"{expected[name]}, {text}" if name in expected else text
    if chunked:
        middle = len(body) // 2
        pieces = [piece for piece in (body[:middle], body[middle:]) if piece]
        written = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(
            b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        expected["transfer-encoding"] = "chunked"
    else:
        written = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        expected["content-length"] = str(len(body))
    places = sorted({cut for cut in cuts if 0 < cut < len(written)})
    split = [written[a:b] for a, b in zip([0, *places], [*places, len(written)])]
    assert read(*split) == Read(200, body, True, True, expected)


@seed(2)
@settings(max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=300), st.integers(0, 120))
def test_garbage_raises_one_error_only(garbage: bytes, index: int) -> None:
    reader = ResponseReader()
    try:
        reader.feed(CHUNKED[:index] + garbage)
        reader.feed(garbage or b"x")
        reader.feed_end()
    except InvalidResponse:
        pass
