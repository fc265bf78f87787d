"""Resident memory while COUNT concurrent clients (default 64) store, fetch, or do both with values of 8 MiB.

And while four clients send a batch of 16 MiB at the same time, with one value that is a list of 8 million zeros.
"""

import asyncio
import os

from server import Server

COUNT = int(os.environ.get("COUNT", "64"))
SIZE = 8 << 20
VALUE = os.urandom(SIZE)


async def exchange(server, head, body):
    """One request on a new connection; status and number of bytes of the answer."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(head.encode() + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    for start in range(0, len(body), 1 << 16):
        writer.write(body[start:start + (1 << 16)])
        await writer.drain()
    answer = await reader.readuntil(b"\r\n\r\n")
    count = 0
    while chunk := await reader.read(1 << 16):
        count += len(chunk)
    writer.close()
    return int(answer.split()[1]), count


async def put(server, index):
    status, _ = await exchange(server, f"PUT /v1/cache/large/entries/{index} HTTP/1.1\r\nContent-Length: {SIZE}", VALUE)
    assert status in (201, 204), status


async def get(server, index):
    status, count = await exchange(server, f"GET /v1/cache/large/entries/{index} HTTP/1.1", b"")
    assert (status, count) == (200, SIZE), (status, count)


async def main():
    with Server() as server:
        await asyncio.sleep(1)
        idle = server.resident_megabytes()
        print(f"idle: {idle:.0f} MB\n\n| load | peak RSS (MB) | over idle (MB) |\n| --- | ---: | ---: |")
        worst = 0
        for name, works in ((f"{COUNT} PUTs", [put]), (f"{COUNT} GETs", [get]), (f"{COUNT} PUTs and {COUNT} GETs", [put, get])):
            peak = idle
            task = asyncio.gather(*[work(server, index) for index in range(COUNT) for work in works])
            while not task.done():
                peak = max(peak, server.resident_megabytes())
                await asyncio.sleep(0.02)
            await task
            worst = max(worst, peak - idle)
            print(f"| {name} of 8 MiB | {peak:.0f} | {peak - idle:.0f} |")
        zeros = b'{"operations": [{"op": "set", "key": "k", "json": [' + b",".join([b"0"] * (SIZE - 100)) + b"]}]}"
        head = f"POST /v1/cache/large/batch HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(zeros)}"
        peak = server.resident_megabytes()
        task = asyncio.gather(*[exchange(server, head, zeros) for _ in range(4)])
        while not task.done():
            peak = max(peak, server.resident_megabytes())
            await asyncio.sleep(0.02)
        statuses = sorted(status for status, _ in await task)
        print(f"| 4 batches of 8 million zeros, answered {', '.join(map(str, statuses))} | {peak:.0f} | {peak - idle:.0f} |")
        if worst >= 128:
            raise SystemExit(f"grew by {worst:.0f} MB, above the threshold of 128")


asyncio.run(main())
