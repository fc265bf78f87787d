"""Backups and restores with the real binary: under writes, killed in the middle, on a disk without room."""

import hashlib
import json
import os
import re
import sqlite3
import subprocess
import threading
import time

import pytest

from conftest import BINARY, Server, environment, run

NAME = r"reprise-\d{8}T\d{6}\.\d{3}Z\.db"


def fill(server, megabytes):
    connection = server.connect()
    for number in range(megabytes):
        connection.request("PUT", f"/v1/cache/large/entries/{number}", os.urandom(1 << 20), {"Reprise-TTL": "none"})
        assert connection.getresponse().read() == b""
    connection.close()


def content(path):
    """All rows that clients have put there, from a database that no server uses."""
    with sqlite3.connect(f"file:{path}?immutable=1", uri=True) as database:
        names = [name for name, in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        kept = [name for name in names if not re.match(r"sqlite_|maintenance_|task_|cache_openings|cache_activity", name)]
        return {name: sorted(map(repr, database.execute(f"SELECT * FROM {name}"))) for name in kept}


def files(folder):
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


class Writers:
    """Clients that write pairs of entries, each pair as one atomic batch, until they are stopped."""

    def __init__(self, server, count=4):
        self.server, self.acknowledged, self.stopping = server, [0] * count, threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(index,)) for index in range(count)]
        for thread in self.threads:
            thread.start()

    def write(self, index):
        connection = self.server.connect()
        while not self.stopping.is_set():
            number = self.acknowledged[index]
            operations = [
                {"op": "set", "key": f"{half}-{index}-{number}", "json": number, "ttl_seconds": None} for half in "ab"]
            try:
                connection.request(
                    "POST", "/v1/cache/pairs/batch", json.dumps({"atomic": True, "operations": operations}),
                    {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
            except Exception:
                return
            if answer.status == 200:
                self.acknowledged[index] = number + 1

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


def check_pairs(path, least):
    """The pairs are complete, without a gap, and contain at least what was acknowledged before."""
    with sqlite3.connect(f"file:{path}?immutable=1", uri=True) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        keys = {key for key, in database.execute("SELECT key FROM cache_entries WHERE key GLOB '[ab]-*'")}
    for index, acknowledged in enumerate(least):
        counts = {half: sum(key.startswith(f"{half}-{index}-") for key in keys) for half in "ab"}
        assert counts["a"] == counts["b"] >= acknowledged
        assert all(f"{half}-{index}-{number}" in keys for half in "ab" for number in range(counts["a"]))


def test_a_backup_under_writes_is_restored_elsewhere(server, tmp_path):
    fill(server, 16)
    writers = Writers(server)
    least = list(writers.acknowledged)
    made = server.json("POST", "/v1/backups")
    writers.stop()
    status, headers, body = server.request("GET", f"/v1/backups/{made['name']}")
    assert status == 200 and len(body) == made["size_bytes"]
    assert hashlib.sha256(body).hexdigest() == made["sha256"] == headers["ETag"].strip('"')
    assert files(server.folder + "/backups") == [made["name"], made["name"] + ".json"]

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "copy.db").write_bytes(body)
    check_pairs(elsewhere / "copy.db", least)
    answer = run("restore", str(elsewhere / "copy.db"), "--database", str(elsewhere / "test.db"))
    assert answer.returncode == 0, answer.stderr
    assert content(elsewhere / "test.db") == content(elsewhere / "copy.db")
    restored = Server(elsewhere)
    try:
        assert restored.json("GET", "/v1/cache/pairs/entries/a-0-0") == 0
        assert restored.request("GET", "/v1/cache/large/entries/7")[2] == server.request(
            "GET", "/v1/cache/large/entries/7")[2]
    finally:
        assert restored.stop() == 0


def test_a_kill_during_a_backup_leaves_nothing(server):
    fill(server, 48)
    folder = server.folder + "/backups"
    kept = server.json("POST", "/v1/backups")["name"]
    for round in range(4):
        writers = Writers(server)
        backup = threading.Thread(target=lambda: pytest.raises(Exception, server.request, "POST", "/v1/backups"))
        backup.start()
        while not any(name.endswith(".partial") for name in files(folder)):
            time.sleep(0.001)
        # At another moment each time: in the copy, or in the checks.
        time.sleep(0.05 * round)
        server.process.kill()
        server.process.wait()
        writers.stop()
        backup.join()
        server.start()
        names = [item["name"] for item in server.json("GET", "/v1/backups")["items"]]
        assert kept in names
        # A backup may have been completed just before; everything that is there is one.
        assert files(folder) == sorted(names + [name + ".json" for name in names])
    assert server.query("PRAGMA integrity_check") == ["ok"]
    assert re.fullmatch(NAME, server.json("POST", "/v1/backups")["name"])


def test_a_stop_ends_a_backup(server):
    fill(server, 48)
    answers = []
    backup = threading.Thread(target=lambda: answers.append(server.request("POST", "/v1/backups")[0]))
    backup.start()
    while not any(name.endswith(".partial") for name in files(server.folder + "/backups")):
        time.sleep(0.001)
    assert server.stop() == 0
    backup.join()
    assert answers in ([503], [201])
    assert not any(name.endswith(".partial") for name in files(server.folder + "/backups"))


def test_backups_are_made_by_schedule(start):
    server = start("--set", "backup_interval_seconds=60", "--set", "backup_keep=2")
    while not server.json("GET", "/v1/backups")["items"]:
        time.sleep(0.05)
    # The next one is due in a minute, also for the server that is started now.
    server.restart()
    time.sleep(2.5)
    assert len(server.json("GET", "/v1/backups")["items"]) == 1
    metrics = server.request("GET", "/metrics")[2].decode()
    assert "\nreprise_backups 1\n" in metrics and "\nreprise_backup_interval_seconds 60\n" in metrics
    made = float(re.search(r"\nreprise_backup_last_success_timestamp_seconds (\S+)\n", metrics).group(1))
    assert abs(time.time() - made) < 120


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_without_room_is_told_and_nothing_remains(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(small)]).returncode != 0:
        pytest.skip("mounting is not permitted here")
    server = None
    try:
        server = Server(tmp_path, "--set", f"backup_directory={small}/backups")
        fill(server, 8)
        assert server.request("POST", "/v1/backups")[0] == 201
        (small / "other").write_bytes(bytes(50 << 20))
        before = files(small / "backups")
        status, _, body = server.request("POST", "/v1/backups")
        problem = json.loads(body)
        assert status == 507 and problem["code"] == "storage_full"
        assert re.search(r"takes about \d+ bytes, and \d+ are free", problem["detail"])
        assert files(small / "backups") == before
        assert server.request("GET", "/health/ready")[0] == 200
        (small / "other").unlink()
        assert server.request("POST", "/v1/backups")[0] == 201
    finally:
        if server:
            server.process.kill()
            server.process.wait()
        subprocess.run(["umount", str(small)], check=True)


# The commands


@pytest.fixture
def stopped(server):
    """A stopped server with a backup, and what was written after it."""
    server.request("PUT", "/v1/cache/n/entries/key", b"before", {"Reprise-TTL": "none"})
    server.backup = server.json("POST", "/v1/backups")
    server.request("PUT", "/v1/cache/n/entries/key", b"after", {"Reprise-TTL": "none"})
    assert server.stop() == 0
    return server


def value(server):
    server.start()
    answer = server.request("GET", "/v1/cache/n/entries/key")[2]
    assert server.stop() == 0
    return answer


def test_a_restore_keeps_what_was_there(stopped):
    name = stopped.backup["name"]
    refused = run("restore", name, "--database", stopped.database)
    assert refused.returncode == 1 and "--force" in refused.stderr and value(stopped) == b"after"
    answer = run("restore", name, "--force", "--database", stopped.database)
    assert answer.returncode == 0 and stopped.backup["sha256"] in answer.stdout
    kept = re.search(r"is (\S+\.replaced-\S+);", answer.stdout).group(1)
    assert os.stat(stopped.database).st_mode & 0o777 == 0o600
    assert value(stopped) == b"before"
    # And back.
    answer = run("restore", kept, "--force", "--database", stopped.database)
    assert answer.returncode == 0, answer.stderr
    assert value(stopped) == b"after"


def test_the_log_of_the_old_database_is_not_applied_to_the_new_one(server):
    server.request("PUT", "/v1/cache/n/entries/key", b"before", {"Reprise-TTL": "none"})
    name = server.json("POST", "/v1/backups")["name"]
    for number in range(200):
        server.request("PUT", f"/v1/cache/n/entries/{number}", os.urandom(1000), {"Reprise-TTL": "none"})
    server.request("PUT", "/v1/cache/n/entries/key", b"after", {"Reprise-TTL": "none"})
    server.process.kill()
    server.process.wait()
    assert os.path.getsize(server.database + "-wal") > 0
    answer = run("restore", name, "--force", "--database", server.database)
    assert answer.returncode == 0, answer.stderr
    kept = re.search(r"is (\S+\.replaced-\S+);", answer.stdout).group(1)
    assert not os.path.exists(server.database + "-wal")
    # The old one has all of its log.
    with sqlite3.connect(f"file:{kept}?immutable=1", uri=True) as old:
        assert old.execute("SELECT count(*) FROM cache_entries").fetchall() == [(201,)]
    assert value(server) == b"before"


def test_a_kill_during_a_restore_leaves_the_old_or_the_new_database(server):
    fill(server, 24)
    server.request("PUT", "/v1/cache/n/entries/key", b"before", {"Reprise-TTL": "none"})
    name = server.json("POST", "/v1/backups")["name"]
    server.request("PUT", "/v1/cache/n/entries/key", b"after", {"Reprise-TTL": "none"})
    assert server.stop() == 0
    seen = set()
    began = time.monotonic()
    assert run("restore", name, "--force", "--database", server.database).returncode == 0
    took = time.monotonic() - began
    for round in range(12):
        restore = subprocess.Popen(
            [BINARY, "restore", name, "--force", "--database", server.database], env=environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(took * (round + 1) / 12)
        restore.kill()
        restore.wait()
        seen.add(value(server))
        assert server.start() is None and server.query("PRAGMA integrity_check") == ["ok"]
        server.request("PUT", "/v1/cache/n/entries/key", b"after", {"Reprise-TTL": "none"})
        assert server.stop() == 0
    assert seen <= {b"before", b"after"}
    assert run("restore", name, "--force", "--database", server.database).returncode == 0
    assert value(server) == b"before"
    assert not os.path.exists(server.database + ".restore-partial")


def test_what_cannot_be_restored_is_refused_and_changes_nothing(stopped, tmp_path):
    backup = os.path.join(stopped.folder, "backups", stopped.backup["name"])
    original = open(backup, "rb").read()
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE t (a)")
    newer = tmp_path / "newer.db"
    newer.write_bytes(original)
    with sqlite3.connect(newer) as database:
        database.execute("INSERT INTO schema_migrations VALUES (9999, 'later', 'x', 0)")
    flipped = bytearray(original)
    flipped[len(original) // 2] ^= 1
    (tmp_path / "notes.txt").write_text("not a database\n" * 1000)
    (tmp_path / "short.db").write_bytes(original[: len(original) // 2])
    before = open(stopped.database, "rb").read()
    for file, reason in [
        (tmp_path / "other.db", "not a database of Reprise"), (newer, "migration 9999"),
        (tmp_path / "notes.txt", "not a database"), (tmp_path / "short.db", "cannot be restored"),
        ("nothing.db", "there is no backup"), (stopped.database, "the database itself"),
    ]:
        answer = run("restore", str(file), "--force", "--database", stopped.database)
        assert answer.returncode == 1 and reason in answer.stderr, (file, answer.stderr)
    open(backup, "wb").write(flipped)
    answer = run("restore", stopped.backup["name"], "--force", "--database", stopped.database)
    assert answer.returncode == 1 and "SHA-256" in answer.stderr
    assert open(stopped.database, "rb").read() == before
    assert not [name for name in files(stopped.folder) if "replaced" in name or "partial" in name]


def test_a_stopped_database_is_backed_up_from_its_file(stopped, tmp_path):
    output = tmp_path / "copy.db"
    answer = run("backup", "--output", str(output), "--database", stopped.database)
    assert answer.returncode == 0, answer.stderr
    name, digest = re.search(rf"made ({NAME}): .* SHA-256 ([0-9a-f]{{64}})", answer.stdout).groups()
    assert hashlib.sha256(output.read_bytes()).hexdigest() == digest and output.stat().st_mode & 0o777 == 0o600
    assert content(output) == content(stopped.database)
    listed = run("backup", "list", "--database", stopped.database)
    assert [line.split()[0] for line in listed.stdout.splitlines()[2:4]] == [name, stopped.backup["name"]]
    items = json.loads(run("backup", "list", "--json", "--database", stopped.database).stdout)["items"]
    assert items[1] == stopped.backup and items[0]["sha256"] == digest
    # It can be verified wherever it is taken.
    restored = run("restore", str(output), "--database", str(tmp_path / "restored.db"))
    assert restored.returncode == 0 and "doctor --deep" not in restored.stdout + restored.stderr
    # Nothing is overwritten, and no backup is made in vain.
    for existing in (str(output), str(tmp_path / "restored.db")):
        again = run("backup", "--output", existing, "--database", stopped.database)
        assert again.returncode == 1 and "exists" in again.stderr and "emove" not in again.stderr
    assert len(json.loads(run("backup", "list", "--json", "--database", stopped.database).stdout)["items"]) == 2
    missing = run("backup", "--database", str(tmp_path / "nothing.db"))
    assert missing.returncode == 1 and "there is no database" in missing.stderr
    assert not (tmp_path / "nothing.db.lock").exists()


def test_a_running_server_is_asked(server, tmp_path):
    server.request("PUT", "/v1/cache/n/entries/key", b"value", {"Reprise-TTL": "none"})
    url = f"http://{server.host}:{server.port}"
    output = tmp_path / "copy.db"
    answer = run("backup", "--output", str(output), "--url", url)
    assert answer.returncode == 0, answer.stderr
    name, digest = re.search(rf"made ({NAME}): .* SHA-256 ([0-9a-f]{{64}})", answer.stdout).groups()
    assert hashlib.sha256(output.read_bytes()).hexdigest() == digest
    assert [item["name"] for item in server.json("GET", "/v1/backups")["items"]] == [name]
    assert name in run("backup", "list", "--url", url).stdout
    # Found by its lock; only the port has to be known.
    answer = run("backup", "--database", server.database, "--port", str(server.port))
    assert answer.returncode == 0, answer.stderr
    assert len(json.loads(run("backup", "list", "--json", "--url", url).stdout)["items"]) == 2
    assert not os.path.exists(str(output) + ".partial")


def test_what_the_log_holds_after_a_kill_is_in_a_backup_of_the_file(server):
    server.request("PUT", "/v1/cache/n/entries/key", b"value", {"Reprise-TTL": "none"})
    server.process.kill()
    server.process.wait()
    assert run("backup", "--database", server.database).returncode == 0
    name = [name for name in files(server.folder + "/backups") if name.endswith(".db")][0]
    with sqlite3.connect(f"file:{server.folder}/backups/{name}?immutable=1", uri=True) as copy:
        assert copy.execute("SELECT key FROM cache_entries").fetchall() == [("key",)]


def test_a_restore_beside_a_running_server_is_refused(server):
    name = server.json("POST", "/v1/backups")["name"]
    answer = run("restore", name, "--force", "--database", server.database)
    assert answer.returncode == 1 and f"process {server.process.pid}" in answer.stderr


def test_a_lost_database_is_restored(stopped):
    os.remove(stopped.database)
    # Its log would be applied to whatever file has its name.
    with open(stopped.database + "-wal", "wb") as log:
        log.write(b"y" * 8192)
    assert stopped.backup["name"] in run("backup", "list", "--database", stopped.database).stdout
    assert run("backup", "--database", stopped.database).returncode == 1
    answer = run("restore", stopped.backup["name"], "--database", stopped.database)
    assert answer.returncode == 0, answer.stderr
    assert [name for name in files(stopped.folder) if name.endswith("-wal") and ".replaced-" in name]
    assert value(stopped) == b"before"


def test_a_damaged_database_is_replaced_and_all_of_it_kept(stopped):
    with open(stopped.database, "r+b") as database:
        database.write(b"x" * 4096)
    with open(stopped.database + "-wal", "wb") as log:
        log.write(b"y" * 8192)
    answer = run("restore", stopped.backup["name"], "--force", "--database", stopped.database)
    assert answer.returncode == 0, answer.stderr
    kept = [name for name in files(stopped.folder) if ".replaced-" in name]
    assert [name.endswith("-wal") for name in kept] == [False, True]
    assert value(stopped) == b"before"


def test_a_restore_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "text").write_text("no database, but long enough to be one. " * 200)
    for source in ("missing", "text"):
        target = tmp_path / f"{source}.db"
        refused = run("restore", str(tmp_path / source), "--database", str(target))
        assert refused.returncode == 1, refused.stderr
        assert not target.exists()


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_no_database(tmp_path, kind):
    path = tmp_path / "odd"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    for command in (["restore", "x", "--force"], ["doctor"], ["serve", "--port", "0"], ["token", "list"]):
        refused = run(*command, "--database", str(path))
        assert refused.returncode in (1, 2), (command, refused.stderr)
        assert "a folder or a device" in refused.stdout + refused.stderr, (command, refused.stderr)


def test_a_list_that_cannot_be_made_is_no_empty_list(stopped, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    answer = run("backup", "list", "--database", stopped.database, "--set", f"backup_directory={file}")
    assert answer.returncode == 1 and f"{file}: Not a directory" in answer.stderr
    answer = run("backup", "list", "--database", str(tmp_path / "elsewhere" / "typo.db"))
    assert answer.returncode == 1 and "there is no database at" in answer.stderr
    empty = run("backup", "list", "--database", stopped.database, "--set", f"backup_directory={tmp_path}/none")
    assert empty.returncode == 0 and f"there are no backups in {tmp_path}/none" in empty.stdout


def test_a_file_in_the_folder_is_named_even_if_it_is_not_listed(stopped, tmp_path):
    name = stopped.backup["name"]
    facts = os.path.join(stopped.folder, "backups", name + ".json")
    with open(facts, "w") as file:
        file.write("{bad")
    answer = run("restore", name, "--force", "--database", stopped.database)
    assert answer.returncode == 1 and ".json, which has the hash of the backup, is damaged" in answer.stderr
    os.remove(facts)
    assert run("restore", name, "--force", "--database", stopped.database).returncode == 0
    assert value(stopped) == b"before"


def test_commands_say_that_the_server_is_elsewhere(server):
    for command in (["backup"], ["backup", "list"], ["token", "list"]):
        answer = run(*command, "--database", server.database, "--port", "1")
        assert answer.returncode == 1 and "give this command its --port" in answer.stderr, answer.stderr


def test_a_backup_without_its_hash_is_told(server, tmp_path):
    server.request("PUT", "/v1/cache/n/entries/key", b"value")
    made = server.json("POST", "/v1/backups", {})
    assert server.stop() == 0
    source = os.path.join(server.folder, "backups", made["name"])
    known = run("restore", source, "--database", str(tmp_path / "known.db"))
    assert known.returncode == 0 and "doctor --deep" not in known.stdout + known.stderr
    with open(source + ".json", "w") as file:
        file.write("{bad")
    damaged = run("restore", source, "--database", str(tmp_path / "damaged.db"))
    assert damaged.returncode == 1 and ".json" in damaged.stderr and not (tmp_path / "damaged.db").exists()
    os.remove(source + ".json")
    unknown = run("restore", source, "--database", str(tmp_path / "unknown.db"))
    assert unknown.returncode == 0 and "doctor --deep" in unknown.stdout + unknown.stderr
    with open(source + "-journal", "w") as file:
        file.write("x" * 600)
    assert "-journal" in run("restore", source, "--database", str(tmp_path / "hot.db")).stderr
