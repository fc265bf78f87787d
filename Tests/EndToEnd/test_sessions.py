"""Sessions over a real socket: racing clients, a killed server, settings and cleanup while it runs."""

import json
import threading
import time

from conftest import race


def history(server, session):
    """The ids of all items, newest first."""
    body = server.request("GET", f"/v1/sessions/{session}/history", headers={"Accept": "application/x-ndjson"})[2]
    return [json.loads(line)["id"] for line in body.splitlines()]


def test_50_racing_appenders_leave_the_newest_20(server):
    server.request("PUT", "/v1/sessions/s", {})
    seen = []

    def append(number):
        removed = 0
        for count in range(4):
            status, _, body = server.request(
                "POST", "/v1/sessions/s/history", {"id": f"{number}-{count}", "data": {"take": count}})
            assert status == 201
            removed += json.loads(body)["removed"]
            seen.append(server.json("GET", "/v1/sessions/s")["history_count"])
        return removed

    assert sum(race(50, append)) == 180
    assert max(seen) == 20
    left = history(server, "s")
    assert len(left) == len(set(left)) == 20
    # The order of commits: the items left from each client are its last ones, newest first.
    for number in {item.split("-")[0] for item in left}:
        counts = [int(item.split("-")[1]) for item in left if item.split("-")[0] == number]
        assert counts == list(range(3, 3 - len(counts), -1))
    assert left == server.query("SELECT id FROM history_items ORDER BY item_ref DESC")
    session = server.json("GET", "/v1/sessions/s")
    assert (session["history_count"], session["history_size_bytes"]) == (20, 20 * len('{"take":0}'))
    # An id that was removed gives a new item; one that exists is answered as it is stored.
    assert server.request("POST", "/v1/sessions/s/history", {"id": left[0], "data": 1})[0] == 200
    assert history(server, "s") == left


def test_debounce_allows_one_of_100_racing_calls(server):
    server.request("PUT", "/v1/sessions/s", {})

    def click(_):
        status, _, body = server.request("POST", "/v1/sessions/s/debounce/generate", {"delay_seconds": 4})
        assert status == 200
        return json.loads(body)

    answers = race(100, click)
    assert [answer["allowed"] for answer in answers].count(True) == 1
    assert all(0 < answer["retry_after_seconds"] <= 4 for answer in answers if not answer["allowed"])
    assert len({answer["last_allowed_at"] for answer in answers}) == 1
    time.sleep(click(0)["retry_after_seconds"] + 0.01)
    assert click(0)["allowed"] and not click(0)["allowed"]


def test_racing_patches_lose_no_update(server):
    server.request("PUT", "/v1/sessions/s", {"state": {"count": 0}})

    def add(_):
        done = 0
        while done < 20:
            _, headers, body = server.request("GET", "/v1/sessions/s/state")
            count = json.loads(body)["state"]["count"]
            status, _, _ = server.request(
                "PATCH", "/v1/sessions/s/state", {"set": {"count": count + 1}}, {"If-Match": headers["ETag"]})
            assert status in (200, 412)
            done += status == 200

    race(10, add)
    answer = server.json("GET", "/v1/sessions/s/state")
    assert answer == {"state": {"count": 200}, "version": 201}


def test_racing_opens_make_one_session_and_set_each_default_once(server):
    for round in range(20):
        def open(number):
            body = {"state": {"by": number}, "defaults": {"a": number, "b": None}}
            status, _, body = server.request("PUT", f"/v1/sessions/r{round}", body)
            return status, json.loads(body)["initialized_keys"]

        answers = race(8, open)
        assert sorted(status for status, _ in answers) == [200] * 7 + [201]
        assert sorted(keys for _, keys in answers if keys) == [["a", "b"]]
        state = server.json("GET", f"/v1/sessions/r{round}/state")["state"]
        assert state["a"] == state["by"] and state["b"] is None


def test_acknowledged_changes_survive_kill_9(server):
    acknowledged, stop = {}, threading.Event()

    def write(number):
        session = f"s{number}"
        server.request("PUT", f"/v1/sessions/{session}", {"max_history_items": 10_000})
        count = 0
        while not stop.is_set():
            try:
                set = server.request("PATCH", f"/v1/sessions/{session}/state", {"set": {"count": count}})[0]
                item = server.request(
                    "POST", f"/v1/sessions/{session}/history", {"id": f"i{count}", "data": count})[0]
            except Exception:
                return
            assert (set, item) == (200, 201)
            acknowledged[session] = count
            count += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while sum(acknowledged.values()) < 500:
        time.sleep(0.01)
    server.process.kill()
    stop.set()
    for thread in threads:
        thread.join()
    server.process.wait()
    server.start()
    for session, count in acknowledged.items():
        # Requests in progress when the server was killed may have been stored too.
        assert server.json("GET", f"/v1/sessions/{session}/state")["state"]["count"] in (count, count + 1)
        left = history(server, session)
        assert left[-count - 1:] == [f"i{number}" for number in range(count, -1, -1)]
        assert len(left) in (count + 1, count + 2)
        assert server.json("GET", f"/v1/sessions/{session}")["history_count"] == len(left)
    assert server.query("PRAGMA foreign_key_check") == []


def test_use_extends_a_session_and_idleness_ends_it(server):
    for name in ("used", "idle"):
        server.request("PUT", f"/v1/sessions/{name}", {"ttl_seconds": 2, "state": {"a": 1}})
    for _ in range(5):
        time.sleep(0.5)
        assert server.request("GET", "/v1/sessions/used/state/a")[0] == 200
    status, _, body = server.request("GET", "/v1/sessions/idle/state/a")
    assert (status, json.loads(body)["code"]) == (404, "session_not_found")
    assert [item["id"] for item in server.json("GET", "/v1/sessions")["items"]] == ["used"]
    # Created again, it has nothing from the previous one.
    assert server.request("POST", "/v1/sessions", {"id": "idle"})[0] == 201
    assert server.json("GET", "/v1/sessions/idle/state") == {"state": {}, "version": 2}


def test_items_stay_in_order_while_others_come_and_go(server):
    """Pages follow each other, and a stream runs to its end, whatever is appended and removed in the meantime."""
    server.request("PUT", "/v1/sessions/s", {"max_history_items": 10_000})
    for number in range(300):
        server.request("POST", "/v1/sessions/s/history", {"id": f"i{number}", "data": "x" * 1000})
    stop = threading.Event()

    def disturb():
        number = 0
        while not stop.is_set():
            server.request("POST", "/v1/sessions/s/history", {"id": f"new{number}", "data": number})
            server.request("DELETE", f"/v1/sessions/s/history/i{number * 2 + 1}")
            number = (number + 1) % 150

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        expected = [f"i{number}" for number in range(298, -1, -2)]
        for _ in range(5):
            cursor, seen = "", []
            while cursor is not None:
                page = server.json("GET", f"/v1/sessions/s/history?limit=7{cursor and '&cursor=' + cursor}")
                seen += [item["id"] for item in page["items"]]
                cursor = page["next_cursor"]
            streamed = history(server, "s")
            for ids in (seen, streamed):
                assert len(ids) == len(set(ids))
                assert [item for item in ids if item in expected] == expected
    finally:
        stop.set()
        thread.join()


def test_a_lower_cap_and_a_shorter_interval_hold_at_once(server):
    server.request("PUT", "/v1/sessions/s", {})
    for number in range(20):
        server.request("POST", "/v1/sessions/s/history", {"id": f"i{number}", "data": number})
    server.json("PATCH", "/v1/config", {"max_history_items": 5})
    for is_dry_run in (True, True, False):
        run = server.json("POST", "/v1/maintenance/cleanup", {"tasks": ["history_caps"], "dry_run": is_dry_run})
        # Ten numbers with one digit, five with two.
        assert [(task["removed"], task["freed_bytes"]) for task in run["tasks"]] == [(15, 20)]
    assert history(server, "s") == [f"i{number}" for number in range(19, 14, -1)]
    # The sweeper waits for ten minutes, until the interval is set to a second.
    server.json("PATCH", "/v1/config", {"max_history_items": 2, "memory_cleanup_interval": 1})
    deadline = time.time() + 15
    while len(history(server, "s")) > 2:
        assert time.time() < deadline
        time.sleep(0.1)
    runs = server.json("GET", "/v1/maintenance/runs?limit=500")["items"]
    triggers = {run["trigger"] for run in runs if run["task"] == "history_caps" and run["removed"]}
    assert triggers == {"demand", "interval"}
    server.restart()
    settings = {item["name"]: item for item in server.json("GET", "/v1/config")["settings"]}
    assert (settings["max_history_items"]["value"], settings["max_history_items"]["source"]) == (2, "runtime")
    assert server.request("DELETE", "/v1/config/max_history_items")[0] in (200, 204)
    assert server.json("GET", "/v1/config/max_history_items")["value"] == 20


def test_an_acknowledged_touch_survives_kill_9(server):
    server.request("PUT", "/v1/sessions/s", {"ttl_seconds": 3600})
    time.sleep(0.1)
    touched = server.json("POST", "/v1/sessions/s/touch")
    server.process.kill()
    server.process.wait()
    server.start()
    kept = server.query("SELECT last_active_at_ms FROM sessions")
    assert touched["last_active_at"] == server.query(
        f"SELECT strftime('%Y-%m-%dT%H:%M:%f', {kept[0]} / 1000.0, 'unixepoch')")[0] + "Z"


USES = [
    ("GET", "", None), ("PUT", "", {}), ("POST", "/touch", {}), ("GET", "/state", None), ("GET", "/state/a", None),
    ("PATCH", "/state", {"set": {"a": 2}}), ("PUT", "/state/b", {}), ("DELETE", "/state/b", None),
    ("POST", "/history", {"id": "new", "data": 1}), ("GET", "/history", None), ("GET", "/history/i", None),
    ("PATCH", "/history/i", {"rating": 5}), ("DELETE", "/history/i", None), ("DELETE", "/history", None),
    ("POST", "/optimize", {}), ("POST", "/debounce/d", {}),
]


def test_every_use_extends_a_session_and_none_meets_an_expired_one(server):
    def fill(name, **more):
        server.request("PUT", f"/v1/sessions/{name}", {"state": {"a": 1, "b": 1}, **more})
        server.request("POST", f"/v1/sessions/{name}/history", {"id": "i", "data": {}})

    for number, (method, path, body) in enumerate(USES):
        fill(f"s{number}")
        before = server.json("GET", "/v1/sessions?limit=1")["items"][0]
        assert before["id"] == f"s{number}"
        time.sleep(0.005)
        status = server.request(method, f"/v1/sessions/s{number}{path}", body)[0]
        assert status in (200, 201, 204), (method, path)
        # Listing sessions does not count as activity.
        after = server.json("GET", "/v1/sessions?limit=1")["items"][0]
        assert after["id"] == f"s{number}"
        assert after["last_active_at"] > before["last_active_at"], (method, path)
        assert after["expires_at"] > before["expires_at"], (method, path)
    fill("gone", ttl_seconds=0.5)
    time.sleep(0.6)
    for method, path, body in USES:
        if (method, path) != ("PUT", ""):
            status, _, answer = server.request(method, f"/v1/sessions/gone{path}", body)
            assert (status, json.loads(answer)["code"]) == (404, "session_not_found"), (method, path)


def test_pages_hold_50_items_unless_told(server):
    server.request("PUT", "/v1/sessions/s", {"max_history_items": 100})
    for number in range(60):
        server.request("PUT", f"/v1/sessions/s{number}", {})
        server.request("POST", "/v1/sessions/s/history", {"data": number})
        server.request("PUT", f"/v1/cache/n/entries/k{number}", b"v")
    for path in ("/v1/sessions", "/v1/sessions/s/history", "/v1/history", "/v1/cache/n/entries"):
        page = server.json("GET", path)
        assert len(page["items"]) == 50
        assert len(server.json("GET", f"{path}?limit=500")["items"]) >= 60
        rest = server.json("GET", f"{path}?cursor={page['next_cursor']}")
        assert len(rest["items"]) >= 10 and rest["next_cursor"] is None
        assert server.request("GET", f"{path}?limit=501")[0] == 422


def test_changed_settings_are_in_force_at_once(server):
    answer = server.json("PATCH", "/v1/config", {"session_ttl_seconds": 77, "debounce_delay": 33.5})
    assert answer == server.json("GET", "/v1/config")
    setting = {item["name"]: item for item in answer["settings"]}["debounce_delay"]
    assert setting.pop("description")
    assert setting == {
        "name": "debounce_delay", "value": 33.5, "default": 0.5, "source": "runtime", "unit": "seconds", "mutable": True}
    assert server.json("GET", "/v1/config/debounce_delay").items() >= setting.items()
    assert server.json("POST", "/v1/sessions", {"id": "s"})["ttl_seconds"] == 77
    assert server.json("POST", "/v1/sessions/s/debounce/d", {})["allowed"]
    refused = server.json("POST", "/v1/sessions/s/debounce/d", {})
    assert not refused["allowed"] and 30 < refused["retry_after_seconds"] <= 33.5


def test_a_templates_tag_changes_with_what_it_leaves_to_the_settings(server):
    server.request("PUT", "/v1/session-templates/open", {"defaults": {"a": 1}})
    server.request("PUT", "/v1/session-templates/closed", {"defaults": {}, "ttl_seconds": 5, "max_history_items": 5})
    tags = {name: server.request("GET", f"/v1/session-templates/{name}")[1]["ETag"] for name in ("open", "closed")}
    server.json("PATCH", "/v1/config", {"session_ttl_seconds": 77})
    answers = {
        name: server.request("GET", f"/v1/session-templates/{name}", headers={"If-None-Match": tag})
        for name, tag in tags.items()}
    assert {name: answer[0] for name, answer in answers.items()} == {"open": 200, "closed": 304}
    assert json.loads(answers["open"][2])["ttl_seconds"] == 77
    path = "/v1/session-templates/open"
    assert server.request("DELETE", path, headers={"If-Match": tags["open"]})[0] == 412
    assert server.request("DELETE", path, headers={"If-Match": answers["open"][1]["ETag"]})[0] == 204


def test_one_of_racing_changes_meets_the_condition_they_share(server):
    """Settings have one entity tag, so that changes decided on the same settings do not undo each other."""
    for round in range(5):
        tag = server.request("GET", "/v1/config")[1]["ETag"]

        def change(number):
            body = json.dumps({"cache_ttl_seconds": 1000 * (round + 1) + number})
            headers = {"Content-Type": "application/json", "If-Match": tag}
            return server.request("PATCH", "/v1/config", body, headers)[0]

        assert sorted(race(20, change)) == [200] + [412] * 19
    assert server.request("DELETE", "/v1/config/cache_ttl_seconds")[0] == 204
    assert server.request("DELETE", "/v1/config/cache_ttl_seconds")[0] == 404


def test_a_cleanup_names_what_it_did(server):
    tasks = ["cache_expiry", "cache_caps", "blob_orphans", "session_expiry", "history_caps", "state_temporaries",
             "debounce_marks", "sample_retention", "sample_rollup", "space"]
    for is_dry_run in (True, False):
        run = server.json("POST", "/v1/maintenance/cleanup", {"dry_run": is_dry_run})
        assert run["dry_run"] is is_dry_run
        assert sorted(task["task"] for task in run["tasks"]) == sorted(tasks)
        assert all({"removed", "freed_bytes", "duration_seconds"} <= task.keys() for task in run["tasks"])
        assert not any(task.get("error") for task in run["tasks"])
    status, _, body = server.request("POST", "/v1/maintenance/cleanup", {"dryrun": True})
    assert (status, json.loads(body)["errors"][0]["field"]) == (422, "dryrun")
