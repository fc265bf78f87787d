"""Clients that take more than they need: what each attack costs in memory, and how long other clients wait meanwhile.

One server over HTTP and HTTPS, one attack after the other: COUNT connections each (default 4300, more than the server
accepts), for SECONDS (default 20). Meanwhile another client stores and fetches a value, with a new connection each
time. Fails above 256 MiB, or if the memory does not come back.
"""

import asyncio
import os
import resource
import ssl
import struct
import subprocess
import tempfile
import time

from server import Server

COUNT = int(os.environ.get("COUNT", "4300"))
SECONDS = float(os.environ.get("SECONDS", "20"))
LIMIT_MEGABYTES = 256
VALUE = os.urandom(8 << 20)


class Attack:
    """Connections that are opened again whenever the server closes them."""

    name = ""
    secure = False

    def __init__(self, host, port, secure_port):
        self.host, self.port = host, secure_port if self.secure else port
        self.closed = 0

    async def connect(self):
        return await asyncio.open_connection(self.host, self.port, limit=1 << 14)

    async def behave(self, reader, writer):
        """What a client does until the server ends it."""
        await reader.read(1)

    async def client(self, number):
        await asyncio.sleep(number / COUNT * 3)
        while True:
            writer = None
            try:
                reader, writer = await self.connect()
                await self.behave(reader, writer)
            except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
                pass
            finally:
                if writer:
                    writer.transport.abort()
            self.closed += 1
            await asyncio.sleep(0.5)


class Idle(Attack):
    name = "idle connections"


class Heads(Attack):
    name = "heads, a byte a second"

    async def behave(self, reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: ")
        while not reader.at_eof():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(1)


class LargeHeads(Attack):
    name = "heads of 31 KiB that never end"

    async def behave(self, reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 31_000)
        await reader.read(1)


class Bodies(Attack):
    name = "uploads, a byte a second"
    path = "/v1/cache/attack/entries/k"
    type = "application/octet-stream"

    async def behave(self, reader, writer):
        writer.write(f"PUT {self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {self.type}\r\n"
                     f"Content-Length: 8000000\r\n\r\n".encode())
        while not reader.at_eof():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(1)


class JSONBodies(Bodies):
    name = "JSON bodies, a byte a second"
    path = "/v1/sessions/s/state"
    type = "application/json"


class HeldBodies(Attack):
    name = "JSON bodies of 60 KiB, all but the last byte"

    async def behave(self, reader, writer):
        writer.write(b"PUT /v1/sessions/s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                     b"Content-Length: 60000\r\n\r\n" + b" " * 59_999)
        await reader.read(1)


class Readers(Attack):
    name = "readers of 8 MiB that stop"

    async def behave(self, reader, writer):
        writer.write(b"GET /v1/cache/large/entries/k HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.read(1)
        while not reader.at_eof():
            await asyncio.sleep(1)


class Handshakes(Attack):
    name = "TLS handshakes that never begin"
    secure = True


class Secure(Attack):
    secure = True
    protocols = ["http/1.1"]

    async def connect(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(self.protocols)
        return await asyncio.open_connection(self.host, self.port, ssl=context, limit=1 << 14)


class SecureIdle(Secure):
    name = "idle connections with TLS"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def request_head(method, path):
    """HPACK, all of it literal and not indexed."""
    fields = [(":method", method), (":scheme", "https"), (":path", path), (":authority", "localhost")]
    return b"".join(
        bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields)


class HTTP2(Secure):
    protocols = ["h2"]

    async def behave(self, reader, writer):
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        await self.streams(reader, writer)

    async def streams(self, reader, writer):
        raise NotImplementedError


class Resets(HTTP2):
    name = "HTTP/2, streams opened and reset"

    async def streams(self, reader, writer):
        stream = 1
        while not reader.at_eof() and stream < 1 << 30:
            batch = b""
            for _ in range(50):
                batch += frame(1, 5, stream, request_head("GET", "/v1/cache")) + frame(3, 0, stream, b"\0\0\0\x08")
                stream += 2
            writer.write(batch)
            await writer.drain()
            await asyncio.sleep(0.01)


class Streams(HTTP2):
    name = "HTTP/2, 100 uploads on each that stop"

    async def streams(self, reader, writer):
        for stream in range(1, 201, 2):
            writer.write(frame(1, 4, stream, request_head("PUT", f"/v1/cache/attack/entries/{stream}")))
            writer.write(frame(0, 0, stream, b"x" * 600))
        await writer.drain()
        while await reader.read(1 << 14):
            pass


async def probe(server, seconds, figures):
    """Stores and fetches a small value again and again, each time with a new connection."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for request in (b"PUT /v1/cache/probe/entries/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
                        b"GET /v1/cache/probe/entries/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):
            began = time.perf_counter()
            try:
                reader, writer = await asyncio.open_connection(server.host, server.port)
                writer.write(request)
                answer = await reader.read()
                writer.close()
                ok = answer.split(b" ", 2)[1:2] in ([b"200"], [b"201"], [b"204"])
            except OSError:
                ok = False
            figures.append((time.perf_counter() - began, ok))
        await asyncio.sleep(0.02)


def loaded_probe(server, seconds):
    """The probe in a process of its own, so that it does not wait for the attackers."""
    import multiprocessing
    queue = multiprocessing.Queue()

    def work():
        figures = []
        asyncio.run(probe(server, seconds, figures))
        queue.put(figures)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process, queue


async def run(attack, server):
    clients = [asyncio.create_task(attack.client(number)) for number in range(COUNT)]
    await asyncio.sleep(4)
    process, queue = loaded_probe(server, SECONDS)
    peak = 0
    while queue.empty():
        peak = max(peak, server.resident_megabytes())
        await asyncio.sleep(0.1)
    figures = queue.get()
    process.join()
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    return peak, figures


def row(name, peak, after, figures, closed):
    times = sorted(seconds for seconds, _ in figures)
    failed = sum(not ok for _, ok in figures)
    p50, p99 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
    print(f"| {name} | {peak:.0f} | {after:.0f} | {len(times)} | {failed} | {p50 * 1000:.1f} | {p99 * 1000:.1f} "
          f"| {times[-1] * 1000:.0f} | {closed} |", flush=True)


async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "2", "-subj", "/CN=t", "-out", certificate, "-keyout", key], check=True, capture_output=True)
        flags = [f"tls_certificate_file={certificate}", f"tls_key_file={key}", "tls_port=0"]
        with Server(None, *[part for flag in flags for part in ("--set", flag)]) as server:
            secure_port = int(server.process.stdout.readline().rsplit(":", 1)[1])
            connection = server.connect()
            connection.request("PUT", "/v1/cache/large/entries/k", body=VALUE)
            connection.getresponse().read()
            figures = []
            await probe(server, 3, figures)
            print("| attack | peak RSS (MB) | afterwards | other clients' requests | failed | p50 (ms) | p99 (ms) "
                  "| slowest (ms) | connections ended |")
            print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
            row("none", server.resident_megabytes(), server.resident_megabytes(), figures, 0)
            failures = []
            chosen = os.environ.get("ATTACKS", "").split(",")
            for kind in (Idle, Heads, LargeHeads, Bodies, JSONBodies, HeldBodies, Readers, Handshakes, SecureIdle,
                         Resets, Streams):
                if chosen != [""] and kind.__name__ not in chosen:
                    continue
                attack = kind(server.host, server.port, secure_port)
                peak, figures = await run(attack, server)
                await asyncio.sleep(5)
                after = server.resident_megabytes()
                row(f"{COUNT} {attack.name}", peak, after, figures, attack.closed)
                if peak > LIMIT_MEGABYTES:
                    failures.append(f"{attack.name}: {peak:.0f} MB")
        if failures:
            raise SystemExit("above " + str(LIMIT_MEGABYTES) + " MB: " + "; ".join(failures))


asyncio.run(main())
