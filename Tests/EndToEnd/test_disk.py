"""A full disk: what is refused, what still works, and that the service recovers by itself."""

import os
import re
import signal
import subprocess
import time

import pytest

from conftest import Server, run

MEGABYTE = 1024 * 1024


def mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


class Disk:
    """A small file system that other files can fill up."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.ballast = os.path.join(self.folder, "ballast")

    def free(self):
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def fill(self):
        """Leaves nothing."""
        with open(self.ballast, "ab", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 65536)
            except OSError:
                pass
            try:
                while True:
                    file.write(b"x" * 512)
            except OSError:
                pass

    def give_back(self):
        os.remove(self.ballast)


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "tmpfs":
        mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder))
    else:
        image = tmp_path / "image"
        image.write_bytes(b"")
        os.truncate(image, 32 * MEGABYTE)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image)], check=True)
        mount("-o", "loop", str(image), str(folder))
    yield Disk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


class OffDisk(Server):
    """A server whose log is not on the full disk."""

    def __init__(self, disk, log_path, *flags):
        self.folder, self.flags, self.variables = disk.folder, flags, {}
        self.database = os.path.join(disk.folder, "test.db")
        self.log_path = str(log_path)
        self.start()


@pytest.fixture
def server(disk, tmp_path):
    server = OffDisk(disk, tmp_path / "log")
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait()


def put(server, key, size=50_000, namespace="n"):
    return server.request("PUT", f"/v1/cache/{namespace}/entries/{key}", bytes([len(key)]) * size,
                          {"Reprise-TTL": "none"})[0]


def fill_with_entries(server, size=50_000, namespace="n"):
    """Writes until the disk is full; the keys that were acknowledged."""
    stored = []
    for number in range(2000):
        status = put(server, f"k{number}", size, namespace)
        if status != 201:
            assert status == 507
            return stored
        stored.append(f"k{number}")
    raise AssertionError("the disk is never full")


def fill_up(server, disk):
    """Others take the rest of the disk, and what the log gives back when the server needs it."""
    for number in range(200):
        disk.fill()
        if put(server, f"more{number}") == 507:
            disk.fill()
            return
    raise AssertionError("the disk is never full")


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def accepts_writes(server):
    return server.request("GET", "/health/ready")[0] == 200 and put(server, "again", 1000) in (201, 204)


def check_file(server):
    assert server.query("PRAGMA integrity_check; PRAGMA foreign_key_check") == ["ok"]


def test_nothing_acknowledged_is_lost_and_the_condition_is_told(server):
    stored = fill_with_entries(server)
    assert len(stored) > 50
    status, _, body = server.request("GET", "/health/ready")
    assert status == 503 and b'"storage_full"' in body and b"delete" in body
    assert server.request("GET", "/health/live")[0] == 200
    for key in stored:
        assert server.request("GET", f"/v1/cache/n/entries/{key}")[0] == 200
    metrics = server.request("GET", "/metrics")[2].decode()
    assert "\nreprise_storage_full 1" in metrics
    assert int(re.search(r"\nreprise_storage_refused_writes_total (\d+)", metrics)[1]) >= 1
    assert server.request("PUT", "/v1/sessions/s", b"{}", {"Content-Type": "application/json"})[0] == 507
    check_file(server)


def test_the_log_does_not_grow_with_refusals(server):
    fill_with_entries(server)
    lines = len(server.log.splitlines())
    for number in range(300):
        assert put(server, f"more{number}") == 507
    assert len(server.log.splitlines()) <= lines + 1
    assert server.log.count("the disk is full") == 1


@pytest.mark.parametrize("how", ["each", "clear", "prefix", "namespace", "batch", "sweep"])
def test_removing_works_on_a_disk_that_others_have_filled(server, disk, how):
    """Our own data and others' fill the disk to the last byte; removing ours makes room."""
    for number in range(3):
        server.request("PUT", f"/v1/sessions/s{number}", b'{"state": {"a": 1}}', {"Content-Type": "application/json"})
    for number in range(160):
        lifetime = "3600" if how != "sweep" else "8"
        status = server.request(
            "PUT", f"/v1/cache/n/entries/k{number}", os.urandom(50_000), {"Reprise-TTL": lifetime})[0]
        assert status == 201
    fill_up(server, disk)
    assert server.request("GET", "/health/ready")[0] == 503
    if how == "each":
        for number in range(160):
            assert server.request("DELETE", f"/v1/cache/n/entries/k{number}")[0] == 204
        assert server.request("DELETE", "/v1/sessions/s0")[0] == 204
    elif how == "batch":
        operations = [{"op": "delete", "key": f"k{number}"} for number in range(160)]
        answer = server.request("POST", "/v1/cache/n/batch", {"operations": operations})
        assert answer[0] == 200
    elif how == "namespace":
        assert server.request("DELETE", "/v1/cache/n")[0] == 204
    elif how == "sweep":
        pass
    else:
        query = {"clear": "", "prefix": "?prefix=k"}[how]
        assert server.request("DELETE", f"/v1/cache/n/entries{query}")[0] == 200
    wait_until(lambda: server.request("GET", "/health/ready")[0] == 200, 30)
    assert put(server, "again", 1000) == 201
    # Its own rows and those of sessions are still right, and the space is really free.
    assert server.request("GET", "/v1/sessions/s1")[0] == 200
    assert disk.free() > 2 * MEGABYTE
    check_file(server)


def test_the_remedy_works_after_the_cache_has_filled_the_disk(server):
    stored = fill_with_entries(server)
    assert server.request("DELETE", "/v1/cache/n/entries")[0] == 200
    wait_until(lambda: accepts_writes(server))
    assert len(fill_with_entries(server)) > len(stored) * 0.9
    check_file(server)


def test_large_values_can_be_deleted_on_a_full_disk(server, disk):
    for number in range(3):
        assert put(server, f"large{number}", 3 * MEGABYTE) == 201
    fill_up(server, disk)
    for number in range(3):
        assert server.request("DELETE", f"/v1/cache/n/entries/large{number}")[0] == 204
    wait_until(lambda: accepts_writes(server))
    check_file(server)


def test_it_recovers_when_space_returns(server, disk):
    assert put(server, "k", 1000) == 201
    fill_up(server, disk)
    assert server.request("GET", "/v1/cache/n/entries/k")[0] == 200
    disk.give_back()
    wait_until(lambda: accepts_writes(server))
    assert "there is space on the disk again" in server.log
    assert os.stat(server.database + ".reserve").st_blocks * 512 >= 8 * MEGABYTE


def test_it_starts_on_a_full_disk_and_can_be_cleared_there(server, disk):
    for number in range(160):
        assert put(server, f"k{number}") == 201
    for number, end in enumerate((signal.SIGTERM, signal.SIGKILL)):
        disk.fill()
        server.stop(end)
        # What the end gave back.
        disk.fill()
        server.start()
        assert server.request("GET", "/v1/cache/n/entries/k7")[0] == 200
        assert server.request("DELETE", f"/v1/cache/n/entries/k{number}")[0] == 204
        assert server.request("GET", f"/v1/cache/n/entries/k{number}")[0] == 404
    assert server.request("DELETE", "/v1/cache/n/entries")[0] == 200
    wait_until(lambda: accepts_writes(server), 30)
    check_file(server)


def test_maintenance_on_demand_works_on_a_full_disk(server, disk):
    for number in range(100):
        assert put(server, f"k{number}") == 201
    fill_up(server, disk)
    runs = server.json("POST", "/v1/maintenance/cleanup", {})["tasks"]
    assert [run for run in runs if run.get("error")] == []


def test_a_disk_that_is_too_small_is_told(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder))
    try:
        done = run("serve", "--port", "0", "--database", str(folder / "test.db"))
        assert done.returncode == 1
        assert "too full" in done.stderr and "10 MiB" in done.stderr
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
