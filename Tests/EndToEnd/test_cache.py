"""The cache over a real socket: a real file, racing clients, memory, disconnected clients."""

import hashlib
import io
import math
import os
import re
import struct
import threading
import time
import wave

from conftest import race

KIB, MIB = 1 << 10, 1 << 20


def make_wav(seconds=12):
    """A sine wave of 440 Hz in CD quality: 176,400 bytes per second."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        samples = (int(20_000 * math.sin(2 * math.pi * 440 * i / 44_100)) for i in range(44_100 * seconds))
        file.writeframes(b"".join(struct.pack("<hh", sample, sample) for sample in samples))
    return buffer.getvalue()


def test_a_real_wav_is_stored_fetched_sought_listed_expired_and_survives(server):
    wav = make_wav()
    assert 2_000_000 < len(wav) < 2_300_000
    path = "/v1/cache/songs/entries/take%2F1.wav"
    status, headers, _ = server.request(
        "PUT", path, wav, {"Content-Type": "audio/wav", "Reprise-TTL": "3600", "Reprise-Compute-Seconds": "41.7"})
    assert status == 201
    assert headers["ETag"] == f'"{hashlib.sha256(wav).hexdigest()}"'
    status, headers, body = server.request("GET", path)
    assert (status, body, headers["Content-Type"]) == (200, wav, "audio/wav")
    with wave.open(io.BytesIO(body)) as file:
        assert file.getnframes() == 44_100 * 12
    status, headers, part = server.request("GET", path, headers={"Range": "bytes=1000000-1176399"})
    assert (status, part) == (206, wav[1_000_000:1_176_400])
    assert headers["Content-Range"] == f"bytes 1000000-1176399/{len(wav)}"
    items = server.json("GET", "/v1/cache/songs/entries?prefix=take")["items"]
    assert [(item["key"], item["size_bytes"], item["compute_seconds"]) for item in items] == [("take/1.wav", len(wav), 41.7)]
    server.request("PUT", "/v1/cache/songs/entries/short", wav, {"Reprise-TTL": "0.3"})
    server.restart()
    assert server.request("GET", path)[2] == wav
    time.sleep(0.3)
    assert b'"reason":"expired"' in server.request("GET", "/v1/cache/songs/entries/short")[2]
    # The sweep removes the expired value's bytes from the file.
    deadline = time.time() + 10
    while server.query("SELECT count(*) FROM cache_blobs") != ["1"] and time.time() < deadline:
        time.sleep(0.1)
    assert server.query("SELECT count(*) FROM cache_blobs") == ["1"]


def test_add_succeeds_for_one_of_100_racing_clients(server):
    answers = race(100, lambda i: server.request("PUT", "/v1/cache/n/entries/k", f"{i}", {"If-None-Match": "*"})[0])
    assert sorted(answers) == [201] + [412] * 99


def test_100_times_100_racing_increments_sum_to_10_000(server):
    def count(_):
        connection = server.connect()
        for _ in range(100):
            connection.request("POST", "/v1/cache/n/entries/k/increment")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200

    race(100, count)
    assert server.request("GET", "/v1/cache/n/entries/k")[2] == b"10000"


def test_a_replaced_value_is_never_seen_half(server):
    values = [bytes([letter]) * size for letter, size in ((65, 100), (66, 60 * KIB), (67, 300 * KIB), (68, MIB))]
    server.request("PUT", "/v1/cache/n/entries/k", values[0])
    stop = threading.Event()

    def write(number):
        connection = server.connect()
        while not stop.is_set():
            connection.request("PUT", "/v1/cache/n/entries/k", values[number])
            connection.getresponse().read()

    def read(_):
        connection, seen = server.connect(), set()
        for _ in range(150):
            connection.request("GET", "/v1/cache/n/entries/k")
            answer = connection.getresponse()
            body = answer.read()
            assert answer.headers["ETag"] == f'"{hashlib.sha256(body).hexdigest()}"'
            assert body in values
            seen.add(len(body))
        return seen

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    try:
        seen = set().union(*race(4, read))
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert len(seen) > 1


def test_an_expired_entry_is_never_served(server):
    """Writers store entries that live 50 ms; no reader gets one later than its own clock says it may."""
    stop = threading.Event()

    def write(number):
        connection = server.connect()
        while not stop.is_set():
            # Expires at most 50 ms after the answer to the PUT arrived.
            connection.request("PUT", f"/v1/cache/n/entries/{number}", b"v", {"Reprise-TTL": "0.05"})
            connection.getresponse().read()

    def read(number):
        connection, hits = server.connect(), 0
        for _ in range(400):
            asked = time.time()
            connection.request("GET", f"/v1/cache/n/entries/{number % 4}")
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                hits += 1
                assert answer.headers["Reprise-Expires-At"] >= time.strftime(
                    "%Y-%m-%dT%H:%M:%S", time.gmtime(asked)) + f".{int(asked % 1 * 1000):03d}Z"
        return hits

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    hits = sum(race(8, read))
    stop.set()
    for writer in writers:
        writer.join()
    assert hits > 0
    time.sleep(0.06)
    for number in range(4):
        assert server.request("GET", f"/v1/cache/n/entries/{number}")[0] == 404


def test_a_client_that_vanishes_leaves_nothing(server):
    server.request("PUT", "/v1/cache/n/entries/other", b"v")
    for framing, first in (("Content-Length: 1000000", b""), ("Transfer-Encoding: chunked", b"40000\r\n")):
        client = server.socket()
        client.sendall(f"PUT /v1/cache/n/entries/k HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode() + first + b"x" * 200_000)
        time.sleep(0.3)
        assert int(server.query("SELECT count(*) FROM cache_chunks")[0]) > 0
        client.close()
    deadline = time.time() + 10
    while server.query("SELECT count(*) FROM cache_chunks") != ["0"] and time.time() < deadline:
        time.sleep(0.1)
    assert server.query("SELECT count(*) FROM cache_chunks UNION ALL SELECT count(*) FROM cache_blobs") == ["0", "0"]
    assert server.request("GET", "/v1/cache/n/entries/k")[0] == 404
    assert " error " not in server.log


def test_memory_does_not_grow_with_large_values(server):
    time.sleep(0.5)
    idle = server.resident_megabytes()
    assert idle < 40
    value = os.urandom(8 * MIB)
    peak, stop = [idle], threading.Event()

    def watch():
        while not stop.is_set():
            peak.append(server.resident_megabytes())
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    put = lambda i: server.request("PUT", f"/v1/cache/n/entries/{i}", value)[0]
    get = lambda i: server.request("GET", f"/v1/cache/n/entries/{i}")[2] == value
    try:
        assert set(race(64, put)) == {201}
        assert all(race(64, get))
        both = race(128, lambda i: put(i // 2) == 204 if i % 2 else get(i // 2))
        assert all(both)
    finally:
        stop.set()
        watcher.join()
    assert max(peak) - idle < 128


def test_clearing_answers_before_the_rows_go(server):
    for start in range(0, 200_000, 1000):
        operations = [{"op": "set", "key": f"k{i}", "json": i} for i in range(start, start + 1000)]
        server.request("POST", "/v1/cache/many/batch", {"operations": operations})
    assert server.json("DELETE", "/v1/cache/many/entries") == {"removed": 200_000, "freed_bytes": 1_088_890}
    # Gone for readers, but the rows still exist: the clear did not depend on their number.
    assert int(server.query("SELECT count(*) FROM cache_entries")[0]) > 100_000
    assert server.json("GET", "/v1/cache/many")["entry_count"] == 0
    assert server.request("GET", "/v1/cache/many/entries/k7")[0] == 404
    deadline = time.time() + 60
    while server.query("SELECT count(*) FROM cache_generations WHERE cleared_at_ms IS NOT NULL") != ["0"]:
        assert server.request("PUT", "/v1/cache/other/entries/k", b"v")[0] in (201, 204)
        assert server.request("GET", "/v1/cache/other/entries/k")[0] == 200
        assert time.time() < deadline
    assert server.query("SELECT count(*) FROM cache_entries") == ["1"]


def test_what_is_no_http_gets_a_problem(server):
    for sent, status in [
        (b"\x16\x03\x01\r\n\r\n", b"501"), (b"GET / TELNET\r\n\r\n", b"400"), (b"GET / HTTP/1.1\r\nBad Header\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", b"431"),
        (b"PUT /v1/cache/n/entries/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", b"400"),
    ]:
        client = server.socket()
        client.sendall(sent)
        answer = b""
        while part := client.recv(1 << 16):
            answer += part
        assert answer.startswith(b"HTTP/1.1 " + status), answer
        assert b"application/problem+json" in answer
        assert re.search(rb"X-Request-Id: [0-9a-f]{32}\r\n", answer), answer


def test_continue_is_sent_for_what_will_be_taken(server):
    client = server.socket()
    client.sendall(b"PUT /v1/cache/n/entries/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.sendall(b"hello")
    assert client.recv(1000).startswith(b"HTTP/1.1 201")
    client = server.socket()
    client.sendall(b"PUT /v1/cache/n/entries/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 413")


def test_pipelined_requests_are_answered_in_order(server):
    client = server.socket()
    client.sendall(b"".join(
        f"PUT /v1/cache/n/entries/{i} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n{i % 10}"
        f"GET /v1/cache/n/entries/{i} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for i in range(50)))
    answers = client.makefile("rb")
    for i in range(50):
        for expected in (b"201", b"200"):
            assert answers.readline().split()[1] == expected
            length = 0
            while (line := answers.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            body = answers.read(length)
            if expected == b"200":
                assert body == str(i % 10).encode()
