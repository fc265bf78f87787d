"""The process: starting, stopping, being killed, wrong configuration."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest

from conftest import BINARY, Server, environment, run


def test_acknowledged_writes_survive_kill_9(server):
    acknowledged, lock, stop = {}, threading.Lock(), threading.Event()

    def write(number):
        connection = server.connect()
        for count in range(100_000):
            if stop.is_set():
                return
            key, value = f"{number}-{count}", os.urandom(200_000 if count % 20 == 0 else 100)
            try:
                connection.request("PUT", f"/v1/cache/n/entries/{key}", body=value)
                answer = connection.getresponse()
                answer.read()
            except (OSError, Exception):
                return
            if answer.status == 201:
                with lock:
                    acknowledged[key] = value

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while len(acknowledged) < 1000:
        time.sleep(0.01)
    server.process.kill()
    stop.set()
    for thread in threads:
        thread.join()
    server.process.wait()
    server.start()
    connection = server.connect()
    for key, value in acknowledged.items():
        connection.request("GET", f"/v1/cache/n/entries/{key}")
        assert connection.getresponse().read() == value
    assert server.query("PRAGMA integrity_check") == ["ok"]
    assert server.query("PRAGMA foreign_key_check") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_under_way_finish_at_shutdown(server, number):
    value = os.urandom(1 << 20)
    server.request("PUT", "/v1/cache/n/entries/large", value)
    server.request("GET", "/v1/cache/n/entries/large")
    upload = server.socket()
    upload.sendall(b"PUT /v1/cache/n/entries/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n" + b"u" * 100_000)
    download = server.socket()
    download.sendall(b"GET /v1/cache/n/entries/large HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = download.recv(1000)
    time.sleep(0.2)
    server.process.send_signal(number)
    time.sleep(0.3)
    with pytest.raises(OSError):
        server.socket()
    assert server.process.poll() is None
    upload.sendall(b"u" * 200_000)
    assert upload.recv(1000).startswith(b"HTTP/1.1 201")
    while part := download.recv(1 << 16):
        received += part
    assert received.split(b"\r\n\r\n", 1)[1] == value
    assert server.process.wait(timeout=20) == 0
    assert "database closed" in server.log
    assert not os.path.exists(server.database + "-wal") or os.path.getsize(server.database + "-wal") == 0
    server.start()
    assert server.request("GET", "/v1/cache/n/entries/slow")[2] == b"u" * 300_000
    # Counted in memory before, written at shutdown.
    assert server.json("GET", "/v1/cache/n/entries/large/metadata")["hit_count"] >= 1


def test_a_stuck_request_does_not_hold_up_the_shutdown(start):
    server = start("--set", "shutdown_timeout_seconds=0.5")
    stuck = server.socket()
    stuck.sendall(b"PUT /v1/cache/n/entries/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
    time.sleep(0.2)
    assert server.stop(seconds=10) == 0
    assert "database closed" in server.log


def test_a_second_server_on_the_same_file_is_refused(server):
    second = run("serve", "--port", "0", "--database", server.database)
    assert second.returncode == 1
    assert f"process {server.process.pid}" in second.stderr
    assert server.request("GET", "/health/ready")[0] == 200


def test_a_taken_port_is_named(server, tmp_path):
    second = run("serve", "--port", str(server.port), "--database", str(tmp_path / "other.db"))
    assert second.returncode == 1
    assert str(server.port) in second.stderr


@pytest.mark.parametrize("arguments, variables, named", [
    (["--port", "70000"], {}, "port"),
    (["--set", "nothing=1"], {}, "nothing"),
    ([], {"REPRISE_CACHE_TTL_SECONDS": "soon"}, "REPRISE_CACHE_TTL_SECONDS"),
    (["--config", "/does/not/exist"], {}, "/does/not/exist"),
    (["--durability", "some"], {}, "durability"),
])
def test_wrong_configuration_names_its_place(tmp_path, arguments, variables, named):
    result = run("serve", "--database", str(tmp_path / "t.db"), *arguments, **variables)
    assert result.returncode == 78
    assert named in result.stderr


def test_unusable_databases_are_refused_with_a_reason(tmp_path):
    (tmp_path / "text.db").write_text("This is no database, but a longer text than a header needs to be. " * 30)
    other = str(tmp_path / "other.db")
    subprocess.run(["sqlite3", other, "CREATE TABLE t (a)"], check=True)
    for path, reason in [(str(tmp_path / "text.db"), "not an SQLite database"), (other, "another program"), (str(tmp_path), "")]:
        result = run("serve", "--port", "0", "--database", path)
        assert result.returncode == 1
        assert path in result.stderr and reason in result.stderr


def test_settings_come_from_flag_environment_file_default(tmp_path):
    yaml, js = tmp_path / "c.yaml", tmp_path / "c.json"
    yaml.write_text("# settings\nport: 0\ncache_ttl_seconds: 11\nlog_level: error\nmax_entry_bytes: 1000\n")
    js.write_text(json.dumps({"port": 0, "cache_ttl_seconds": 11, "log_level": "error", "max_entry_bytes": 1000}))
    for path in (yaml, js):
        process = subprocess.Popen(
            [BINARY, "serve", "--config", str(path), "--database", str(tmp_path / "t.db"), "--log-level", "notice"],
            env=environment(REPRISE_MAX_ENTRY_BYTES="2000", REPRISE_LOG_LEVEL="debug"), stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True)
        try:
            server = object.__new__(Server)
            server.host, server.port = process.stdout.readline().split("//")[1].strip().split(":")
            found = {s["name"]: (s["value"], s["source"]) for s in server.json("GET", "/v1/config")["settings"]}
            assert found["log_level"] == ("notice", "flag")
            assert found["max_entry_bytes"] == (2000, "environment")
            assert found["cache_ttl_seconds"] == (11, "file")
            assert found["memory_cleanup_interval"] == (600, "default")
        finally:
            process.terminate()
            assert process.wait(timeout=20) == 0


def test_settings_changed_at_run_time_survive_a_restart(server):
    server.request("PATCH", "/v1/config", {"cache_ttl_seconds": 7, "log_level": "debug"})
    server.request("GET", "/v1/cache/n/entries/k", headers={"X-Request-Id": "seen-in-the-log"})
    server.restart()
    assert server.json("GET", "/v1/config/cache_ttl_seconds")["value"] == 7
    assert "request_id=seen-in-the-log" in server.log
    assert server.request("DELETE", "/v1/config/cache_ttl_seconds")[0] == 204
    server.restart()
    assert server.json("GET", "/v1/config/cache_ttl_seconds")["source"] == "default"


def test_logs_are_json_when_asked(start):
    server = start("--set", "log_format=json", "--log-level", "debug")
    server.request("GET", "/v1/cache/n/entries/k", headers={"X-Request-Id": "abc"})
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.splitlines()]
    request = next(line for line in lines if line.get("request_id") == "abc")
    assert (request["level"], request["status"], request["method"]) == ("debug", "404", "GET")
    assert all({"time", "level", "message"} <= line.keys() for line in lines)


def test_the_commands_explain_themselves(server):
    assert run("--version").stdout.count(".") == 2
    for command in ([], ["serve"], ["migrate"], ["sql"], ["doctor"], ["health"]):
        result = run(*command, "--help")
        assert result.returncode == 0 and "USAGE" in result.stdout
    assert run("nonsense").returncode == 64
    assert run("health", "--port", str(server.port)).returncode == 0
    assert run("health", "--port", "1").returncode == 1


def test_migrate_brings_a_file_up_to_date(tmp_path):
    for _ in range(2):
        result = run("migrate", "--database", str(tmp_path / "deep" / "er" / "t.db"))
        assert result.returncode == 0 and "schema version" in result.stdout


def modes(folder):
    """The mode of everything in a folder, by name; its own is under the empty name."""
    paths = {"": folder, **{name: folder / name for name in os.listdir(folder)}}
    return {name: stat.S_IMODE(os.stat(path).st_mode) for name, path in paths.items()}


@pytest.fixture
def started(tmp_path):
    """Starts the binary on `folder/test.db` with a umask, writes an entry, and returns the modes while it runs."""

    def started(folder, mask):
        process = subprocess.Popen(
            [BINARY, "serve", "--port", "0", "--database", str(folder / "test.db")], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=environment(), umask=mask)
        try:
            port = int(re.search(r":(\d+)\n", process.stdout.readline()).group(1))
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(
                    b"PUT /v1/cache/n/entries/key HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nvalue")
                assert connection.recv(1000).startswith(b"HTTP/1.1 20")
            return modes(folder)
        finally:
            process.terminate()
            process.wait(timeout=20)

    return started


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277])
def test_new_files_are_their_owners_whatever_the_umask(tmp_path, started, mask):
    names = ["test.db", "test.db-wal", "test.db-shm", "test.db.lock", "test.db.reserve"]
    assert started(tmp_path / "new" / "data", mask) == {"": 0o700, **{name: 0o600 for name in names}}
    assert modes(tmp_path / "new")[""] == 0o700


def test_modes_that_the_operator_chose_stay(tmp_path, started):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o750)
    started(folder, 0o077)
    (folder / "test.db").chmod(0o640)
    # The log is created again at each start, with the mode of the database.
    assert started(folder, 0o077) == {
        "": 0o750, "test.db": 0o640, "test.db-wal": 0o640, "test.db-shm": 0o640, "test.db.lock": 0o600,
        "test.db.reserve": 0o600}
