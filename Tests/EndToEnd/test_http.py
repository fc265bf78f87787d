"""HTTP/1 as RFC 9112 has it: what is refused, how HTTP/1.0 is answered. Over raw sockets."""

import json
import re

import pytest

HOST = b"Host: localhost\r\n"


def converse(server, sent, until_closed=True):
    """Everything that is answered until the server closes the connection."""
    with server.socket() as client:
        client.sendall(sent)
        answer = b""
        while part := client.recv(1 << 16):
            answer += part
    return answer


def problem(answer):
    """Status and problem of a complete answer, whose fields are those that every problem has."""
    head, body = answer.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    assert fields["content-type"] == "application/problem+json"
    assert fields["cache-control"] == "no-store"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", fields["date"])
    assert int(fields["content-length"]) == len(body)
    members = json.loads(body)
    assert members["request_id"] == fields["x-request-id"] and re.fullmatch("[0-9a-f]{32}", members["request_id"])
    assert members["status"] == int(lines[0].split()[1])
    return members["status"], members["code"], fields


REFUSED = [
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", 400, "malformed_request"),
    ("two Hosts", b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400, "malformed_request"),
    ("two Hosts of HTTP/1.0", b"GET / HTTP/1.0\r\n" + HOST + HOST + b"\r\n", 400, "malformed_request"),
    ("a length of 64 bits", b"PUT /v1/cache/n/entries/k HTTP/1.1\r\n" + HOST + b"Content-Length: 9223372036854775808\r\n\r\n",
     400, "malformed_request"),
    ("a length of 65 bits", b"PUT /v1/cache/n/entries/k HTTP/1.1\r\n" + HOST + b"Content-Length: 18446744073709551616\r\n\r\n",
     400, "malformed_request"),
    ("a length that is no number", b"PUT /v1/cache/n/entries/k HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\nhello",
     400, "malformed_request"),
    ("a negative length", b"PUT /v1/cache/n/entries/k HTTP/1.1\r\n" + HOST + b"Content-Length: -5\r\n\r\nhello",
     400, "malformed_request"),
    ("two lengths", b"PUT /v1/cache/n/entries/k HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
     400, "malformed_request"),
    ("a list of lengths", b"PUT /v1/cache/n/entries/k HTTP/1.1\r\n" + HOST + b"Content-Length: 5, 6\r\n\r\nhello!",
     400, "malformed_request"),
    ("a length and chunks", b"PUT /v1/cache/n/entries/k HTTP/1.1\r\n" + HOST
     + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 400, "malformed_request"),
    ("chunks and a length", b"PUT /v1/cache/n/entries/k HTTP/1.1\r\n" + HOST
     + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 400, "malformed_request"),
    ("a coding after chunked", b"PUT /v1/cache/n/entries/k HTTP/1.1\r\n" + HOST
     + b"Transfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 400, "malformed_request"),
    ("chunks of HTTP/1.0", b"PUT /v1/cache/n/entries/k HTTP/1.0\r\n" + HOST
     + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 400, "malformed_request"),
    ("a chunk's size that is no number", b"PUT /v1/cache/n/entries/k HTTP/1.1\r\n" + HOST
     + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n", 400, "malformed_request"),
    ("an unknown method", b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n", 501, "not_supported"),
    ("an unknown version", b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 505, "http_version_not_supported"),
    ("HTTP/2 without TLS", b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505, "http_version_not_supported"),
    ("too many fields", b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 300 + b"\r\n", 431, "headers_too_large"),
]


@pytest.mark.parametrize("sent, status, code", [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_cannot_be_understood_is_refused_and_ends_the_connection(server, sent, status, code):
    # What follows must not be taken for a request.
    answer = converse(server, sent + b"GET /health/live HTTP/1.1\r\n" + HOST + b"\r\n")
    found = problem(answer)
    assert found[:2] == (status, code)
    assert found[2]["connection"] == "close"
    assert server.request("GET", "/v1/cache/n/entries/k")[0] == 404


def test_a_coding_before_chunked_is_not_supported(server):
    for codings in (b"gzip, chunked", b"identity, chunked"):
        answer = converse(
            server, b"PUT /v1/cache/n/entries/k HTTP/1.1\r\n" + HOST + b"Connection: close\r\nTransfer-Encoding: "
            + codings + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        assert problem(answer)[:2] == (501, "not_supported"), answer


def test_an_unknown_expectation_fails(server):
    for method, body in ((b"GET", b""), (b"PUT", b"Content-Length: 5\r\n")):
        answer = converse(
            server, method + b" /v1/cache/n/entries/k HTTP/1.1\r\n" + HOST + b"Connection: close\r\nExpect: miracles\r\n"
            + body + b"\r\n" + (b"hello" if body else b""))
        assert problem(answer)[:2] == (417, "expectation_failed"), answer


def test_a_known_method_that_the_path_has_not_is_not_allowed(server):
    status, fields, _ = server.request("LOCK", "/v1/cache")
    assert status == 405 and fields["Allow"] == "DELETE, GET, HEAD"


@pytest.mark.parametrize("body", [
    b"1;" + b"x" * 100_000 + b"\r\na\r\n0\r\n\r\n",
    b"1;a=b\r\na\r\n" + b"1;" + b"e" * 1000 + b"\r\na\r\n" + (b"1;" + b"e" * 1000 + b"\r\na\r\n") * 99 + b"0\r\n\r\n",
], ids=["long", "many"])
def test_extensions_of_chunks_are_bounded(server, body):
    answer = converse(
        server, b"PUT /v1/cache/n/entries/k HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert problem(answer)[:2] == (400, "malformed_request")
    assert server.request("GET", "/v1/cache/n/entries/k")[0] == 404


def test_ordinary_chunks_and_extensions_are_taken(server):
    for number, body in enumerate([
        b"1;a=b\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n",
        b"400;signature=0123456789abcdef0123456789abcdef\r\n" + b"k" * 1024 + b"\r\n" + b"0\r\nTrailer: x\r\n\r\n",
    ]):
        answer = converse(
            server, b"PUT /v1/cache/n/entries/%d HTTP/1.1\r\n" % number + HOST
            + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        assert answer.startswith(b"HTTP/1.1 201"), answer


def history(server):
    """A path whose answer has no known length in HTTP/1.1: it is streamed."""
    server.request("PUT", "/v1/sessions/s", {})
    for number in range(3):
        server.request("POST", "/v1/sessions/s/history", {"data": number})
    return b"/v1/sessions/s/history"


def test_http10_gets_no_chunks_and_an_end(server):
    path = history(server)
    stream = b"Accept: application/x-ndjson\r\n"
    assert b"transfer-encoding: chunked" in converse(
        server, b"GET " + path + b" HTTP/1.1\r\n" + HOST + stream + b"Connection: close\r\n\r\n").lower()
    for asked in (b"", b"Connection: keep-alive\r\n"):
        answer = converse(server, b"GET " + path + b" HTTP/1.0\r\n" + stream + asked + b"\r\n")
        head, body = answer.split(b"\r\n\r\n", 1)
        assert head.split()[1] == b"200" and b"transfer-encoding" not in head.lower()
        assert b"Connection: close" in head
        assert [json.loads(line)["data"] for line in body.splitlines()] == [2, 1, 0]


def test_http10_keeps_a_connection_only_if_asked(server):
    answer = converse(server, b"GET /health/live HTTP/1.0\r\n\r\n" * 2)
    assert answer.count(b"HTTP/1.") == 1 and b"Connection: close" in answer
    answer = converse(
        server, b"GET /health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + b"GET /health/live HTTP/1.0\r\n\r\n")
    assert answer.count(b" 200 OK") == 2
    assert answer.count(b"Connection: keep-alive") == 1 and answer.count(b"Connection: close") == 1


def test_http10_is_not_told_to_continue(server):
    answer = converse(
        server, b"PUT /v1/cache/n/entries/k HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
    assert answer.split()[1] == b"201" and b" 100 " not in answer


@pytest.mark.parametrize("value", [b"close", b"Close", b"close, TE", b"TE, close"])
def test_the_last_answer_says_so(server, value):
    answer = converse(server, (b"GET /health/live HTTP/1.1\r\n" + HOST + b"Connection: " + value + b"\r\n\r\n") * 2)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"Connection: close" in answer


def test_answers_before_a_refusal_are_kept(server):
    answer = converse(server, b"GET /health/live HTTP/1.1\r\n" + HOST + b"\r\nGET /health/live HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200") and answer.count(b"HTTP/1.1 200") == 1
    assert b"HTTP/1.1 400" in answer
