"""reprise doctor: on healthy and damaged files, beside a server, and when nothing is as it should be."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess

import pytest

from conftest import certificate, run

# What depends on the machine, not on the database.
OF_THE_MACHINE = {"sqlite_wal_reset_defect", "descriptor_limit_low", "disk_nearly_full"}


def doctor(database, *flags):
    """The exit code, and the findings that do not depend on the machine by their codes."""
    done = run("doctor", "--json", "--port", "0", "--database", str(database), *flags)
    assert done.stderr == "", done.stderr
    diagnosis = json.loads(done.stdout)
    codes = {"ok": 0, "warning": 1, "critical": 2}
    assert done.returncode == codes[diagnosis["status"]]
    found = {}
    for finding in diagnosis["findings"]:
        assert finding["title"] and finding["detail"] and finding["remedy"]
        assert all(isinstance(value, (int, float)) for value in finding["evidence"].values())
        if finding["code"] not in OF_THE_MACHINE:
            found[finding["code"]] = finding
    return done.returncode, found


@pytest.fixture
def filled(server):
    """The path of a database that was stopped, with small and large values in it."""
    for number in range(50):
        server.request("PUT", f"/v1/cache/scores/entries/{number}", b"score %04d " % number * 20,
                       headers={"Reprise-TTL": "none"})
    for number in range(3):
        value = b"".join(b"song %d, sample %06d. " % (number, place) for place in range(20_000))
        server.request("PUT", f"/v1/cache/songs/entries/{number}", value, headers={"Reprise-TTL": "none"})
    server.json("PUT", "/v1/sessions/tab-7", {"state": {"a": 1, "temp_b": "x"}})
    for number in range(5):
        server.json("POST", "/v1/sessions/tab-7/history", {"data": number})
    assert server.stop() == 0
    for name in os.listdir(server.folder):
        os.chmod(os.path.join(server.folder, name), 0o600)
    return server.database


def contents(folder):
    found = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = file.read()
    return found


def damage(database, old, new):
    """Overwrites the only place of some bytes in the file."""
    with open(database, "r+b") as file:
        place = file.read().index(old)
        file.seek(place)
        file.write(new)


def test_a_healthy_database_is_healthy_and_not_touched(filled):
    before = contents(os.path.dirname(filled))
    assert doctor(filled) == (0, {})
    assert doctor(filled, "--deep") == (0, {})
    assert contents(os.path.dirname(filled)) == before


def test_it_speaks_to_people(filled):
    os.chmod(filled, 0o644)
    done = run("doctor", "--deep", "--port", "0", "--database", filled)
    assert done.returncode == 1
    assert f"\nwarning  Other users of this machine may read the database [files_readable_by_others]\n" in done.stdout
    assert f"\n  > chmod 600 {filled}\n" in done.stdout
    assert "\nwarning: 1 warning" in done.stdout
    assert "\x1b" not in done.stdout and done.stderr == ""
    assert all(len(line) <= 100 or " " not in line.strip() or filled in line for line in done.stdout.splitlines())
    subprocess.run(["chmod", "600", filled], check=True)
    assert "healthy" in run("doctor", "--port", "0", "--database", filled).stdout


def test_an_altered_value_is_found(filled):
    damage(filled, b"song 1, sample 010000", b"SONG")
    assert doctor(filled) == (0, {})
    code, found = doctor(filled, "--deep")
    assert code == 2 and list(found) == ["values_damaged"]
    assert "songs/1." in found["values_damaged"]["detail"]
    assert found["values_damaged"]["evidence"]["checked_values"] == 53
    assert found["values_damaged"]["evidence"]["damaged_values"] == 1


@pytest.mark.parametrize("page", [1, 2, 5, 9, 20])
def test_a_damaged_page_is_a_finding_and_no_crash(filled, page):
    with open(filled, "r+b") as file:
        file.seek((page - 1) * 4096 + (100 if page == 1 else 0))
        file.write(os.urandom(512))
    code, found = doctor(filled, "--deep")
    assert code == 2
    assert {"database_damaged", "values_damaged", "database_unreadable"} & set(found)


def test_a_truncated_file_is_damaged(filled):
    with open(filled, "r+b") as file:
        file.truncate(os.path.getsize(filled) // 2)
    code, found = doctor(filled, "--deep")
    assert code == 2 and "database_damaged" in found


def test_changes_by_other_programs_are_found(filled):
    connection = sqlite3.connect(filled)
    connection.execute("DROP INDEX samples_recorded")
    connection.execute("UPDATE cache_generations SET entry_count = entry_count + 7 WHERE entry_count = 50")
    connection.commit()
    connection.close()
    code, found = doctor(filled, "--deep")
    assert code == 1 and set(found) == {"index_missing", "counters_wrong"}
    # The remedies work as written.
    for finding in found.values():
        command = finding["remedy"][finding["remedy"].index("sqlite3 "):]
        command = command[:command.rindex('"') + 1]
        subprocess.run(command, shell=True, check=True)
    os.chmod(filled, 0o600)
    assert doctor(filled, "--deep") == (0, {})


def test_what_is_no_database_is_said(tmp_path):
    (tmp_path / "text.db").write_text("This is no database, but a longer text than a header needs to be. " * 30)
    (tmp_path / "empty.db").write_text("")
    subprocess.run(["sqlite3", tmp_path / "other.db", "CREATE TABLE t (a)"], check=True)
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    for name, code, status in [
        ("text.db", "not_a_database", 2), ("empty.db", "database_missing", 1), ("other.db", "database_foreign", 2),
        ("nothing.db", "database_missing", 1), ("no/such/folder.db", "database_missing", 1), ("", "not_a_database", 2),
    ]:
        exit_code, found = doctor(tmp_path / name)
        assert (exit_code, list(found)) == (status, [code]), name
    assert not (tmp_path / "nothing.db").exists() and not (tmp_path / "no").exists()


def test_other_versions_are_said(filled):
    connection = sqlite3.connect(filled)
    connection.execute("INSERT INTO schema_migrations VALUES (9999, 'later', 'x', 1)")
    connection.commit()
    connection.close()
    code, found = doctor(filled)
    assert code == 2 and list(found) == ["schema_newer"]


def test_wrong_settings_are_a_finding(tmp_path):
    code, found = doctor(tmp_path / "t.db", "--set", "cache_ttl_seconds=soon")
    assert code == 2 and list(found) == ["settings_invalid"]
    assert "cache_ttl_seconds" in found["settings_invalid"]["detail"]


def test_a_port_in_use_is_a_finding(filled):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("doctor", "--json", "--database", filled, "--port", str(taken.getsockname()[1]))
        assert done.returncode == 2
        assert "cannot_listen" in {finding["code"] for finding in json.loads(done.stdout)["findings"]}
    assert "cannot_listen" in doctor(filled, "--host", "192.0.2.1")[1]


def test_the_port_and_the_certificate_of_https_are_checked(filled, tmp_path):
    names = certificate(tmp_path)

    def found(**settings):
        flags = [flag for name, value in settings.items() for flag in ("--set", f"{name}={value}")]
        return doctor(filled, *flags)[1]

    files = {"tls_certificate_file": names[0], "tls_key_file": names[1]}
    assert found(**files) == {}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert port in found(tls_port=port, **files)["cannot_listen"]["title"]
    assert list(found(tls_port=1)) == ["settings_invalid"]
    assert "none.pem" in found(**{**files, "tls_certificate_file": tmp_path / "none.pem"})["settings_invalid"]["detail"]


def test_what_keeps_a_server_from_the_network_or_from_backups(filled, tmp_path):
    def found(**settings):
        flags = [flag for name, value in settings.items() for flag in ("--set", f"{name}={value}")]
        return set(doctor(filled, *flags)[1])

    assert found(host="0.0.0.0") == {"no_first_token"}
    assert found(host="0.0.0.0", authentication="none") == {"open_to_network"}
    file = tmp_path / "a file"
    file.write_text("")
    assert found(backup_directory=file) == {"backup_folder_not_writable"}
    assert run("token", "create", "ada", "--scope", "admin", "--database", filled).returncode == 0
    assert found(host="0.0.0.0") == set()


def test_a_log_that_a_killed_server_left_is_read(server, tmp_path):
    server.request("PUT", "/v1/cache/n/entries/k", b"in the log")
    server.stop(signal.SIGKILL)
    assert os.path.getsize(server.database + "-wal") > 0
    for name in os.listdir(server.folder):
        os.chmod(os.path.join(server.folder, name), 0o600)
    before = contents(server.folder)
    assert doctor(server.database, "--deep")[0] == 0
    after = contents(server.folder)
    assert {name: after[name] for name in ("test.db", "test.db-wal")} == {
        name: before[name] for name in ("test.db", "test.db-wal")}
    server.start()
    assert server.request("GET", "/v1/cache/n/entries/k")[2] == b"in the log"


def test_it_checks_the_file_beside_a_server_and_asks_it(server):
    value = os.urandom(300_000)
    server.request("PUT", "/v1/cache/n/entries/k", value)
    server.json("PATCH", "/v1/config", {"enable_monitoring": False})

    def found(*flags):
        done = run("doctor", "--json", "--database", server.database, *flags)
        return {finding["code"]: finding["severity"] for finding in json.loads(done.stdout)["findings"]}

    for flags in ([], ["--deep"]):
        codes = found("--port", str(server.port), *flags)
        # Only the server knows its run-time settings.
        assert "monitoring_disabled" in codes
        assert not {"cannot_listen", "values_damaged", "server_not_asked"} & set(codes)
    codes = found("--port", "1", "--deep")
    assert codes["server_not_asked"] == "info" and "monitoring_disabled" not in codes
    assert "monitoring_disabled" in found("--url", f"http://127.0.0.1:{server.port}")
    assert found("--url", "http://127.0.0.1:1") == {"server_not_asked": "critical"}
    assert server.request("GET", "/v1/cache/n/entries/k")[2] == value


def test_a_missing_database_with_a_copy_elsewhere(filled, tmp_path_factory):
    """A copy without its log is examined like any other file."""
    copy = tmp_path_factory.mktemp("copy") / "copy.db"
    shutil.copy(filled, copy)
    copy.chmod(0o400)
    copy.parent.chmod(0o500)
    try:
        code, found = doctor(copy, "--deep")
        # As root, everything can be written.
        assert set(found) <= {"file_read_only", "folder_not_writable"}
    finally:
        copy.parent.chmod(0o700)
