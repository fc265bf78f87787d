"""Kills the server again and again in the middle of mixed writes, restarts it, and checks what it promised.

Each client has data of its own and one request under way at a time. So after a kill there are two correct states of it:
without that request, and with all of it. Docs: docs/design/faults.md.
"""

import argparse
import base64
import collections
import hashlib
import http.client
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "EndToEnd"))

from conftest import Server  # noqa: E402

# The server is killed this long after the clients have begun, at most. A part of the kills comes while it starts.
MAX_SECONDS = 1.2
START_SECONDS = 0.08

INCONSISTENCIES = {
    "figures of a generation": """
        SELECT generation_id FROM cache_generations g WHERE
            entry_count <> (SELECT count(*) FROM cache_entries e WHERE e.generation_id = g.generation_id)
            OR size_bytes <> (SELECT coalesce(sum(size_bytes), 0) FROM cache_entries e
                WHERE e.generation_id = g.generation_id)""",
    "sizes of values": """
        SELECT entry_id FROM cache_entries e WHERE size_bytes <> coalesce(
            (SELECT length(value) FROM cache_values v WHERE v.entry_id = e.entry_id),
            (SELECT sum(length(data)) FROM cache_chunks c WHERE c.blob_id = e.blob_id), 0)""",
    "marks of blobs": """
        SELECT blob_id FROM cache_blobs b
        WHERE is_attached <> EXISTS (SELECT 1 FROM cache_entries e WHERE e.blob_id = b.blob_id)""",
    "figures of sessions": """
        SELECT id FROM sessions s WHERE
            state_key_count <> (SELECT count(*) FROM session_state t WHERE t.session_ref = s.session_ref)
            OR history_count <> (SELECT count(*) FROM history_items h WHERE h.session_ref = s.session_ref)""",
    "integrity": "SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
    "foreign keys": "SELECT * FROM pragma_foreign_key_check",
}


class Lost(AssertionError):
    """Something acknowledged is gone, or something is half there."""


class Refused(Exception):
    """An answer that is neither success nor what a dying server does."""


class Client:
    """Writes until the server dies. A subclass says what it writes, and what must be there afterwards."""

    # Without it, there is nothing to write to.
    route = "/health/live"

    def __init__(self, server, number, seed):
        self.server = server
        self.number = number
        self.random = random.Random(f"{seed} {type(self).__name__} {number}")
        self.name = f"{type(self).__name__.lower()}{number}"
        self.acknowledged = 0
        self.error = None

    def run(self, stop):
        try:
            self.connection = self.server.connect()
            while not stop.is_set():
                self.step()
                self.acknowledged += 1
        except (OSError, http.client.HTTPException):
            pass
        except Exception as error:  # Raised again by the thread that checks.
            self.error = error
        finally:
            self.connection.close()

    def send(self, method, path, body=None, expected=(200, 201, 202, 204), headers=None):
        """One request; its answer, once it is there in full."""
        if isinstance(body, (dict, list)):
            body, headers = json.dumps(body), {"Content-Type": "application/json", **(headers or {})}
        self.connection.request(method, path, body=body, headers={**self.server.headers, **(headers or {})})
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status == 503:
            # Shutting down or overloaded: not acknowledged.
            raise ConnectionError(content)
        if answer.status not in expected:
            raise Refused(f"{method} {path}: {answer.status} {content[:300]}")
        return answer.status, content

    def get(self, path, expected=(200, 404)):
        status, _, content = self.server.request("GET", path, headers=self.server.headers)
        if status not in expected:
            raise Refused(f"GET {path}: {status} {content[:300]}")
        return content if status == 200 else None

    def number_of_writes(self):
        """How many writes one step acknowledges."""
        return 1

    def require(self, condition, what):
        if not condition:
            raise Lost(f"{self.name}: {what}")


class Values(Client):
    """Stores, replaces and deletes values of its own."""

    sizes = (1, 3000)
    keys = 40

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.sure, self.pending = {}, None

    def path(self, key):
        return f"/v1/cache/{type(self).__name__}/entries/{self.name}-{key}"

    def step(self):
        key = self.random.randrange(self.keys)
        value = None if self.random.random() < 0.15 else self.random.randbytes(self.random.randint(*self.sizes))
        self.pending = (key, value)
        if value is None:
            self.send("DELETE", self.path(key))
        else:
            self.send("PUT", self.path(key), value)
        self.sure[key], self.pending = value, None

    def check(self):
        for key in range(self.keys):
            found = self.get(self.path(key))
            allowed = [self.sure.get(key)]
            if self.pending and self.pending[0] == key:
                allowed.append(self.pending[1])
            self.require(found in allowed, f"{key} has {found and len(found)} bytes that it should not have")
            self.sure[key] = found
        self.pending = None


class LargeValues(Values):
    """The same through uploads, which are written in chunks that are not synced one by one."""

    sizes = (65_537, 2_500_000)
    keys = 4

    def check(self):
        super().check()
        for key, value in self.sure.items():
            if value is not None:
                tag = self.server.request("HEAD", self.path(key), headers=self.server.headers)[1]["ETag"]
                self.require(tag == f'"{hashlib.sha256(value).hexdigest()}"', f"the tag of {key} is wrong")


class Batches(Client):
    """Sets several keys at once."""

    keys = 5
    sure = pending = 0

    def step(self):
        self.pending = self.sure + 1
        value = base64.b64encode(str(self.pending).encode()).decode()
        self.send("POST", "/v1/cache/batches/batch", {
            "atomic": True,
            "operations": [
                {"op": "set", "key": f"{self.name}-{key}", "base64": value, "content_type": "text/plain"}
                for key in range(self.keys)]})
        self.sure = self.pending

    def number_of_writes(self):
        return self.keys

    def check(self):
        found = {int(self.get(f"/v1/cache/batches/entries/{self.name}-{key}") or 0) for key in range(self.keys)}
        self.require(len(found) == 1 and found <= {self.sure, self.pending}, f"{found} for {self.sure}")
        self.sure = self.pending = found.pop()


class Counters(Client):
    """All count with one counter."""

    counts = collections.Counter()
    counting = threading.Lock()

    def step(self):
        with self.counting:
            self.counts["begun"] += 1
        self.send("POST", "/v1/cache/counters/entries/all/increment", {"ttl_seconds": None})
        with self.counting:
            self.counts["done"] += 1

    def check(self):
        with self.counting:
            if not self.counts["begun"]:
                return
            found = int(self.get("/v1/cache/counters/entries/all") or 0)
            self.require(self.counts["done"] <= found <= self.counts["begun"], f"{found} of {self.counts}")
            self.counts["done"] = self.counts["begun"] = found


class Capped(Client):
    """Fills a namespace that holds 20 entries."""

    cap = 20

    def step(self):
        if self.acknowledged == 0:
            self.send("PUT", "/v1/cache/capped", {"max_entries": self.cap})
        self.send("PUT", f"/v1/cache/capped/entries/{self.random.random()}", b"x" * 500)

    def check(self):
        namespace = self.get("/v1/cache/capped")
        if namespace:
            listed = json.loads(self.get("/v1/cache/capped/entries?limit=500"))["items"]
            self.require(len(listed) <= self.cap, f"{len(listed)} entries")
            self.require(json.loads(namespace)["entry_count"] == len(listed), "the count is not that of the list")


class Clears(Client):
    """Fills a namespace and clears it."""

    sure = 0
    pending = None

    def step(self):
        if self.sure >= 20:
            self.pending = 0
            self.send("DELETE", f"/v1/cache/{self.name}/entries")
            self.sure = 0
        else:
            self.pending = self.sure + 1
            self.send("PUT", f"/v1/cache/{self.name}/entries/{self.sure}", b"x")
            self.sure += 1

    def check(self):
        listed = self.get(f"/v1/cache/{self.name}/entries?limit=500")
        found = len(json.loads(listed)["items"]) if listed else 0
        self.require(found in (self.sure, self.pending), f"{found} entries, not {self.sure} or {self.pending}")
        self.sure = found


class Sessions(Client):
    """Changes two keys at once, and appends to a history that holds 20 items."""

    cap = 20
    sure = pending = items = pending_items = 0

    def step(self):
        path = f"/v1/sessions/{self.name}"
        if self.sure == 0:
            self.send("PUT", path, {"max_history_items": self.cap, "ttl_seconds": None})
        self.pending = self.sure + 1
        self.send("PATCH", f"{path}/state", {"set": {"a": self.pending, "b": self.pending}})
        self.sure = self.pending
        self.pending_items = self.items + 1
        self.send("POST", f"{path}/history", {"id": f"i{self.pending_items}", "data": {"n": self.pending_items}})
        self.items = self.pending_items

    def number_of_writes(self):
        return 2

    def check(self):
        text = self.get(f"/v1/sessions/{self.name}/state")
        if text is None:
            self.require(self.sure == 0, "the session is gone")
            return
        state = json.loads(text)["state"]
        self.require(state.get("a") == state.get("b"), f"half a patch: {state}")
        found = state.get("a", 0)
        self.require(found in (self.sure, self.pending), f"{found}, not {self.sure} or {self.pending}")
        self.sure = self.pending = found
        listed = json.loads(self.get(f"/v1/sessions/{self.name}/history?limit=500"))["items"]
        last = listed[0]["data"]["n"] if listed else 0
        self.require(last in (self.items, self.pending_items), f"item {last}, not {self.items}")
        expected = [f"i{number}" for number in range(last, max(0, last - self.cap), -1)]
        self.require([item["id"] for item in listed] == expected, "not exactly the newest items")
        session = json.loads(self.get(f"/v1/sessions/{self.name}"))
        self.require(session["history_count"] == len(listed), "the count is not that of the items")
        self.items = self.pending_items = last


class Samples(Client):
    """Records samples, all of a request or none."""

    together = 50
    sure = pending = 0

    def step(self):
        self.pending = self.sure + self.together
        self.send("POST", "/v1/samples", {
            "samples": [
                {"kind": "timing", "name": self.name, "duration_seconds": self.random.random()}
                for _ in range(self.together)]})
        self.sure = self.pending

    def number_of_writes(self):
        return self.together

    def check(self):
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 6 * 3600))
        items = json.loads(self.get(f"/v1/metrics/timings?name={self.name}&since={since}"))["items"]
        found = items[0]["count"] if items else 0
        self.require(found in (self.sure, self.pending), f"{found} samples, not {self.sure} or {self.pending}")
        self.sure = self.pending = found


class Settings(Client):
    """Changes two settings at once."""

    sure = None
    pending = None

    def step(self):
        self.pending = 1 + self.random.randrange(1000)
        self.send("PATCH", "/v1/config", {"debounce_delay": self.pending, "memory_cleanup_interval": self.pending})
        self.sure = self.pending

    def check(self):
        names = ("debounce_delay", "memory_cleanup_interval")
        found = [json.loads(self.get(f"/v1/config/{name}"))["value"] for name in names]
        if self.sure is None and found[0] != self.pending:
            return
        self.require(found[0] == found[1] and found[0] in (self.sure, self.pending), f"{found}, not {self.sure}")
        self.sure = found[0]


class Tokens(Client):
    """Creates and revokes tokens. One that was shown must open the door, one that was revoked must not."""

    kept = 5
    route = "/v1/tokens"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.tokens, self.revoked, self.revoking = [], [], None

    def step(self):
        if len(self.tokens) > self.kept:
            self.revoking = self.tokens[0]
            self.send("DELETE", f"/v1/tokens/{self.revoking['id']}")
            self.revoked = [self.tokens.pop(0)]
            self.revoking = None
        else:
            answer = self.send("POST", "/v1/tokens", {"name": self.name, "scopes": ["read"]})[1]
            self.tokens.append(json.loads(answer))

    def status(self, token):
        """Of a request with a token."""
        headers = {"Authorization": f"Bearer {token['token']}"}
        return self.server.request("GET", "/v1/tokens/self", headers=headers)[0]

    def check(self):
        for token in self.tokens:
            allowed = (200, 401) if token is self.revoking else (200,)
            self.require(self.status(token) in allowed, f"the token {token['id']} is gone")
        for token in self.revoked:
            self.require(self.status(token) == 401, f"the revoked token {token['id']} is valid")
        if self.revoking and self.status(self.revoking) == 401:
            self.tokens.remove(self.revoking)
        self.revoking = None


class Backups(Client):
    """Makes backups. Each is there with the bytes it was announced with, or was removed by a later one."""

    route = "/v1/backups"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.latest = None

    def step(self):
        status, answer = self.send("POST", "/v1/backups", {}, expected=(201, 409))
        if status == 201:
            self.latest = json.loads(answer)
        time.sleep(0.1)

    def check(self):
        listed = json.loads(self.get("/v1/backups?limit=500"))["items"]
        if self.latest:
            self.require(self.latest["name"] in [backup["name"] for backup in listed], "the latest backup is gone")
        for backup in listed[:2]:
            content = self.get(f"/v1/backups/{backup['name']}") or b""
            self.require(hashlib.sha256(content).hexdigest() == backup["sha256"], f"{backup['name']} is not complete")


class Upkeep(Client):
    """Runs the background tasks, which nobody must notice."""

    def step(self):
        self.send("POST", "/v1/maintenance/cleanup", {})
        time.sleep(0.05)

    def number_of_writes(self):
        return 0

    def check(self):
        pass


CLIENTS = [Values, Values, LargeValues, LargeValues, Batches, Counters, Counters, Capped, Clears, Sessions, Sessions,
           Samples, Settings, Tokens, Backups, Upkeep]


def check_rows(server):
    for name, query in INCONSISTENCIES.items():
        found = server.query(query)
        if found:
            raise Lost(f"{name}: {found[:5]}")


def kill(server):
    server.process.kill()
    server.process.wait()


def kill_while_starting(server, delay):
    """Starts the server and kills it before it listens, or just after."""
    server.spawn()
    time.sleep(delay)
    kill(server)


def run(folder, rounds, seed, report=lambda text: None):
    """Runs that many rounds.

    Returns how many writes were acknowledged. Raises Lost when one of them is gone.
    """
    numbers = random.Random(seed)
    Counters.counts.clear()
    server = Server(folder)
    server.headers = {}
    known = [make for make in CLIENTS if server.request("GET", make.route)[0] != 404]
    if Tokens in known:
        # From the first token on, every request needs one.
        token = server.json("POST", "/v1/tokens", {"name": "all", "scopes": ["admin"]})["token"]
        server.headers = {"Authorization": f"Bearer {token}"}
    clients = [make(server, number, seed) for number, make in enumerate(known)]
    writes = 0
    try:
        for round in range(1, rounds + 1):
            stop = threading.Event()
            threads = [threading.Thread(target=client.run, args=(stop,)) for client in clients]
            for thread in threads:
                thread.start()
            time.sleep(numbers.uniform(0.05, MAX_SECONDS))
            kill(server)
            stop.set()
            for thread in threads:
                thread.join()
            for client in clients:
                if client.error:
                    raise client.error
            if numbers.random() < 0.3:
                kill_while_starting(server, numbers.uniform(0, START_SECONDS))
            server.start()
            check_rows(server)
            for client in clients:
                client.check()
            writes = sum(client.acknowledged * client.number_of_writes() for client in clients)
            report(f"round {round}: {writes} writes acknowledged, none lost")
        assert server.stop(signal.SIGTERM) == 0
    finally:
        if server.process.poll() is None:
            kill(server)
    return writes


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1, help="what the clients write and when the server is killed")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reprise-faults-") as folder:
        try:
            writes = run(folder, options.rounds, options.seed, lambda text: print(text, flush=True))
        except Lost as error:
            print(f"LOST: {error}", file=sys.stderr)
            return 1
    print(f"rounds: {options.rounds}, acknowledged: {writes}, lost: 0, {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
