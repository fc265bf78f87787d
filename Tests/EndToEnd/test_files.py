"""Files that go wrong, before and under the running server: each is told, with what to do about it."""

import hashlib
import http.client
import os
import re
import shutil
import sqlite3
import subprocess

import pytest

from conftest import Server, run


def mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


def refused(database, *flags):
    """What the server says when it cannot start."""
    done = run("serve", "--port", "0", "--database", str(database), *flags)
    assert done.returncode != 0
    assert "Fatal" not in done.stderr and "listening" not in done.stdout
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", [":memory:", "file:test.db", "file:test.db?mode=memory"])
def test_what_sqlite_would_not_take_for_a_path(name):
    code, message = refused(name)
    assert code == 78
    assert name in message and "must be the path of a file" in message


def test_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("x")
    code, message = refused(tmp_path / "file" / "data" / "test.db")
    assert code == 1 and "cannot create the folder" in message and "--database" in message


def test_a_folder_in_place_of_the_file(tmp_path):
    code, message = refused(tmp_path)
    assert code == 1 and str(tmp_path) in message


@pytest.mark.parametrize("content", [b"hello, world\n" * 1000, b"x"])
def test_not_a_database(tmp_path, content):
    path = tmp_path / "test.db"
    path.write_bytes(content)
    code, message = refused(path)
    assert code == 1 and "not an SQLite database" in message and "--database" in message
    assert path.read_bytes() == content


def test_another_programs_database(tmp_path):
    with sqlite3.connect(tmp_path / "test.db") as other:
        other.execute("CREATE TABLE t (x)")
    code, message = refused(tmp_path / "test.db")
    assert code == 1 and "belongs to another program" in message


def test_a_newer_schema(tmp_path):
    server = Server(tmp_path)
    server.stop()
    with sqlite3.connect(server.database) as database:
        database.execute("INSERT INTO schema_migrations VALUES (1000, 'future', 'x', 0)")
    code, message = refused(server.database)
    assert code == 1 and "migration 1000 (future)" in message and "Run the version" in message


def test_a_bad_setting(tmp_path):
    code, message = refused(tmp_path / "test.db", "--set", "max_entry_bytes=0")
    assert code == 78 and "max_entry_bytes" in message


def test_a_database_that_another_program_has_locked(tmp_path):
    server = Server(tmp_path)
    server.stop()
    other = sqlite3.connect(server.database, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    code, message = refused(server.database)
    assert code == 1 and "Another program has it locked" in message
    other.close()


def test_a_file_that_cannot_be_written(tmp_path):
    folder = tmp_path / "mounted"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder))
    try:
        server = Server(folder)
        server.stop()
        os.remove(server.log_path)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        code, message = refused(server.database)
        assert code == 1 and "must be writable" in message
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_the_same_file_under_another_mount(server, tmp_path):
    alias = tmp_path / "alias"
    alias.mkdir()
    (alias / "other.db").write_bytes(b"")
    mount("--bind", server.database, str(alias / "other.db"))
    try:
        code, message = refused(alias / "other.db")
        assert code == 1 and "under another name" in message
        assert server.request("PUT", "/v1/cache/n/entries/k", b"v")[0] == 201
    finally:
        subprocess.run(["umount", "-l", str(alias / "other.db")], check=True)


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("how", ["removed", "replaced", "renamed"])
def test_a_file_that_goes_under_the_running_server(server, how, suffix):
    assert server.request("PUT", "/v1/cache/n/entries/k", b"v")[0] == 201
    path = server.database + suffix
    kept = path + ".kept"
    os.link(path, kept)
    if how == "removed":
        os.remove(path)
    elif how == "renamed":
        os.rename(path, path + ".moved")
    else:
        shutil.copy(path, path + ".new")
        os.rename(path + ".new", path)
    for _ in range(3):
        status, _, body = server.request("PUT", "/v1/cache/n/entries/l", b"v")
        assert status == 503 and b'"database_replaced"' in body
    status, _, body = server.request("GET", "/health/ready")
    assert status == 503 and b'"database_replaced"' in body and b"Put the file" in body
    assert server.request("GET", "/v1/cache/n/entries/k")[2] == b"v"
    assert server.log.count("writes are refused") == 1
    found = server.json("GET", "/v1/diagnostics")
    assert found["status"] == "critical" and found["findings"][0]["code"] == "database_replaced"
    if how == "removed" and not suffix:
        told = run("doctor", "--port", str(server.port), "--database", server.database)
        assert told.returncode == 2 and "Put " in told.stdout
    # The remedy.
    os.rename(kept, path)
    if how == "renamed":
        os.remove(path + ".moved")
    assert server.request("GET", "/health/ready")[0] == 200
    assert server.request("PUT", "/v1/cache/n/entries/l", b"w")[0] == 201
    server.restart()
    assert server.request("GET", "/v1/cache/n/entries/l")[2] == b"w"


def damage(server, value):
    """Alters bytes of a stored value in the file."""
    server.stop()
    with open(server.database, "r+b") as file:
        content = file.read()
        place = content.rindex(value[-200:])
        file.seek(place + 100)
        file.write(bytes([content[place + 100] ^ 1]))
    server.start()


@pytest.mark.parametrize("size", [1000, 50_000, 1_000_000])
def test_a_damaged_value_is_not_served(server, size):
    value = os.urandom(size)
    for key in ("good", "bad"):
        assert server.request("PUT", f"/v1/cache/n/entries/{key}", value if key == "bad" else b"v")[0] == 201
    damage(server, value)
    for _ in range(2):
        try:
            status, _, body = server.request("GET", "/v1/cache/n/entries/bad")
            assert status == 503 and b'"database_damaged"' in body
        except http.client.IncompleteRead as cut:
            assert size > 65536 and len(cut.partial) < size
    if size <= 65536:
        operations = [{"op": "get", "key": "bad"}, {"op": "get", "key": "good"}]
        results = server.json("POST", "/v1/cache/n/batch", {"operations": operations})["results"]
        assert [result["status"] for result in results] == [503, 200]
    assert server.request("GET", "/v1/cache/n/entries/good")[2] == b"v"
    metrics = server.request("GET", "/metrics")[2].decode()
    assert int(re.search(r"\nreprise_cache_damaged_reads_total (\d+)", metrics)[1]) >= 2
    assert server.log.count("a stored value is damaged") == 1
    # The remedy.
    assert server.request("PUT", "/v1/cache/n/entries/bad", value)[0] == 204
    status, headers, body = server.request("GET", "/v1/cache/n/entries/bad")
    assert status == 200 and headers["ETag"] == f'"{hashlib.sha256(value).hexdigest()}"' and body == value


def test_values_that_are_right_stay_right(server):
    """Each read of each size, more often than a check is repeated."""
    values = {size: os.urandom(size) for size in (0, 1, 4096, 4097, 65536, 65537, 200_000)}
    for size, value in values.items():
        assert server.request("PUT", f"/v1/cache/n/entries/{size}", value)[0] == 201
    for _ in range(20):
        for size, value in values.items():
            assert server.request("GET", f"/v1/cache/n/entries/{size}")[2] == value
            if size:
                part = server.request("GET", f"/v1/cache/n/entries/{size}", headers={"Range": f"bytes={size // 2}-"})
                assert part[0] == 206 and part[2] == value[size // 2:]
