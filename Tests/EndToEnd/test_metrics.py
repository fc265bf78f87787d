"""Samples and metrics of the real binary: durable, right, and readable by Prometheus, sqlite3 and people."""

import json
import random
import re
import shutil
import signal
import statistics
import subprocess
import threading
import time

import pytest

from conftest import ROOT


def timing(name, seconds, **more):
    return {"kind": "timing", "name": name, "duration_seconds": seconds, **more}


def test_acknowledged_samples_survive_a_kill(server):
    """Recorders race each other and the roll-up; every batch that was acknowledged counts once afterwards."""
    acknowledged = [0] * 6

    def record(task):
        while True:
            try:
                body = {"samples": [timing(f"t{task}", 0.1)] * 20}
                if server.json("POST", "/v1/samples", body).get("accepted") != 20:
                    return
                acknowledged[task] += 20
                if task == 0:
                    server.json("POST", "/v1/maintenance/cleanup", {"tasks": ["sample_rollup"]})
            except OSError:
                return

    threads = [threading.Thread(target=record, args=(task,)) for task in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    server.stop(signal.SIGKILL)
    for thread in threads:
        thread.join()
    server.start()
    for attempt in range(2):
        items = {i["name"]: i["count"] for i in server.json("GET", "/v1/metrics/timings")["items"]}
        for task in range(6):
            # The batch in progress may have been committed without its answer being read.
            assert items[f"t{task}"] - acknowledged[task] in (0, 20)
        server.json("POST", "/v1/maintenance/cleanup", {"tasks": ["sample_rollup"]})
    assert sum(acknowledged) > 100


@pytest.mark.parametrize("shape", ["constant", "uniform", "lognormal", "bimodal", "pareto"])
def test_percentiles_are_right(server, shape):
    source = random.Random(9)
    draw = {"constant": lambda: 0.25, "uniform": lambda: source.uniform(0, 10), "lognormal": lambda: source.lognormvariate(-1, 1),
            "bimodal": lambda: source.gauss(0.01, 0.001) if source.random() < 0.7 else source.gauss(2, 0.1),
            "pareto": lambda: 0.01 * source.paretovariate(1.2)}[shape]
    values = sorted(abs(draw()) for _ in range(4000))
    shuffled = source.sample(values, len(values))
    for start in range(0, len(values), 500):
        server.json("POST", "/v1/samples", {"samples": [timing(shape, v) for v in shuffled[start:start + 500]]})
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    exact = {"p50_seconds": cuts[49], "p90_seconds": cuts[89], "p95_seconds": cuts[94], "p99_seconds": cuts[98]}
    item = server.json("GET", "/v1/metrics/timings")["items"][0]
    for name, value in exact.items():
        assert item[name] == pytest.approx(value, rel=1e-9)
    # As anybody with sqlite3 sees them, once rolled up.
    server.json("POST", "/v1/maintenance/cleanup", {"tasks": ["sample_rollup"]})
    row = server.query("SELECT count, p50_seconds, p90_seconds, p95_seconds, p99_seconds FROM operation_stats")[0].split("|")
    assert int(row[0]) == 4000
    for value, expected in zip(row[1:], exact.values()):
        assert float(value) == pytest.approx(expected, rel=0.01)


def test_the_service_samples_itself(server):
    for _ in range(50):
        server.request("GET", "/v1/cache/n/entries/k")
    memory = server.json("GET", "/v1/metrics/memory")["items"]
    assert [item["name"] for item in memory] == ["reprise"]
    with open(f"/proc/{server.process.pid}/status") as status:
        resident = int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) * 1024
    assert memory[0]["rss_bytes"]["latest"] == pytest.approx(resident, rel=0.3)
    deadline = time.monotonic() + 20
    name = "GET /v1/cache/{namespace}/entries/{key}"
    while time.monotonic() < deadline:
        items = {i["name"]: i for i in server.json("GET", "/v1/metrics/timings?source=service")["items"]}
        if name in items:
            break
        time.sleep(0.5)
    assert items[name]["count"] == 50
    assert 0 < items[name]["p50_seconds"] < 0.1
    # What callers timed is separate.
    assert server.json("GET", "/v1/metrics/timings")["items"] == []


def parsed(text):
    """Samples by name and labels."""
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line and line[0] != "#"}


def test_prometheus_reads_the_metrics(server):
    for number in range(30):
        server.request("PUT", f"/v1/cache/n/entries/{number}", b"x" * 100)
    for number in range(40):
        server.request("GET", f"/v1/cache/n/entries/{number}")
    server.json("PUT", "/v1/sessions/s", {"state": {"a": "b"}})
    server.request("GET", "/nothing/here")
    server.request("PUT", '/v1/cache/we%22ird/entries/x')
    status, headers, body = server.request("GET", "/metrics")
    assert status == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    metrics = parsed(body.decode())
    entry = 'route="/v1/cache/{namespace}/entries/{key}"'
    assert metrics[f'reprise_http_requests_total{{{entry},method="PUT",status="2xx"}}'] == 30
    assert metrics[f'reprise_http_requests_total{{{entry},method="GET",status="4xx"}}'] == 10
    assert metrics[f'reprise_http_request_duration_seconds_count{{{entry},method="GET"}}'] == 40
    assert metrics[f'reprise_http_request_duration_seconds_bucket{{{entry},method="GET",le="+Inf"}}'] == 40
    assert metrics['reprise_http_requests_total{route="unmatched",method="other",status="4xx"}'] == 1
    assert metrics['reprise_cache_lookups_total{namespace="n",result="hit",reason=""}'] == 30
    assert metrics['reprise_cache_lookups_total{namespace="n",result="miss",reason="absent"}'] == 10
    assert metrics['reprise_cache_entries{namespace="n"}'] == 30
    assert metrics['reprise_cache_size_bytes{namespace="n"}'] == 3000
    assert metrics["reprise_sessions"] == 1
    assert metrics["reprise_writer_writes_total"] >= 31 >= 1
    assert 1 <= metrics["reprise_writer_commits_total"] <= metrics["reprise_writer_writes_total"]
    assert metrics["process_resident_memory_bytes"] > 1e6
    assert metrics["reprise_http_requests_in_flight"] == 1
    assert metrics['reprise_maintenance_runs_total{task="cache_expiry"}'] >= 1


def test_promtool_has_nothing_to_object(server):
    if not shutil.which("promtool"):
        pytest.skip("needs promtool, from Debian's package prometheus")
    server.request("GET", "/v1/cache/n/entries/k")
    check = subprocess.run(["promtool", "check", "metrics"], input=server.request("GET", "/metrics")[2], capture_output=True)
    assert (check.returncode, check.stdout + check.stderr) == (0, b"")
    rules = subprocess.run(["promtool", "check", "rules", f"{ROOT}/docs/prometheus-alerts.yaml"], capture_output=True, text=True)
    assert rules.returncode == 0, rules.stderr


def test_alerts_fire_when_they_should_and_only_then(tmp_path):
    """Plays an hour of an unhealthy instance and of a healthy one through the rules."""
    if not shutil.which("promtool"):
        pytest.skip("needs promtool, from Debian's package prometheus")
    series = {
        'up{instance="well",job="reprise"}': "1x20 0 1x40",
        'up{instance="sick",job="reprise"}': "0x60",
        # Under load, but healthy.
        'reprise_http_requests_total{instance="well",status="2xx"}': "0+600000x60",
        'reprise_http_requests_total{instance="well",status="5xx"}': "0+600x60",
        'reprise_cleanup_lag_seconds{instance="well",area="cache"}': "60x60",
        'reprise_maintenance_failures_total{instance="well",task="space"}': "0x30 1x30",
        'reprise_database_wal_size_bytes{instance="well"}': "67108864x60",
        'reprise_writer_queued_writes{instance="well"}': "2000x60",
        'reprise_store_readable{instance="well"}': "1x20 0 1x40",
        'reprise_storage_full{instance="well"}': "0x20 1 0x40",
        'reprise_backup_interval_seconds{instance="well"}': "86400x60",
        'reprise_backup_last_success_timestamp_seconds{instance="well"}': "0x60",
        'reprise_backup_failures_total{instance="well"}': "0x60",
        'reprise_backup_interval_seconds{instance="none"}': "0x60",
        'reprise_backup_last_success_timestamp_seconds{instance="none"}': "0x60",
        'reprise_writer_commit_duration_seconds_bucket{instance="well",le="0.01"}': "0+1000x60",
        'reprise_writer_commit_duration_seconds_bucket{instance="well",le="+Inf"}': "0+1001x60",
        'reprise_findings{instance="well",severity="critical"}': "0x20 1x2 0x38",
        'reprise_findings{instance="well",severity="warning"}': "3x60",
        # One request per minute, of which every tenth fails.
        'reprise_http_requests_total{instance="sick",status="2xx"}': "0+9x60",
        'reprise_http_requests_total{instance="sick",status="5xx"}': "0+1x60",
        'reprise_cleanup_lag_seconds{instance="sick",area="sessions"}': "0+60x60",
        'reprise_maintenance_failures_total{instance="sick",task="space"}': "0+1x60",
        'reprise_database_wal_size_bytes{instance="sick"}': "300000000x60",
        'reprise_writer_queued_writes{instance="sick"}': "5000x60",
        'reprise_findings{instance="sick",severity="critical"}': "1x60",
        'reprise_store_readable{instance="sick"}': "0x60",
        'reprise_storage_full{instance="sick"}': "1x60",
        'reprise_backup_interval_seconds{instance="sick"}': "600x60",
        'reprise_backup_last_success_timestamp_seconds{instance="sick"}': "0x60",
        'reprise_backup_failures_total{instance="sick"}': "0+1x60",
        'reprise_writer_commit_duration_seconds_bucket{instance="sick",le="0.01"}': "0+900x60",
        'reprise_writer_commit_duration_seconds_bucket{instance="sick",le="1"}': "0+1000x60",
        'reprise_writer_commit_duration_seconds_bucket{instance="sick",le="+Inf"}': "0+1000x60",
    }
    rules = f"{ROOT}/docs/prometheus-alerts.yaml"
    with open(rules) as file:
        names = sorted(re.findall(r"alert: (\w+)", file.read()))

    def at(time, expected):
        query = 'count by (alertname, instance) (ALERTS{alertstate="firing"})'
        return {"expr": query, "eval_time": time, "exp_samples": expected}

    firing = [{"labels": f'{{alertname="{name}",instance="sick"}}', "value": 1} for name in names]
    test = {
        "rule_files": [rules], "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m", "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [at("0m", []), at("50m", firing)]}]}
    (tmp_path / "test.yaml").write_text(json.dumps(test))  # JSON is YAML
    done = subprocess.run(["promtool", "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def metrics_of(server):
    return parsed(server.request("GET", "/metrics")[2].decode())


def test_figures_agree_with_what_racing_clients_did(server):
    """Each client counts its requests; scrapes in between see no counter go back."""
    namespaces, done, lookups = 120, threading.Event(), {}

    def work(task):
        source, counts = random.Random(task), {"hit": 0, "miss": 0}
        connection = server.connect()
        for _ in range(300):
            namespace = source.randrange(namespaces)
            path = f"/v1/cache/n{namespace}/entries/k{task}"
            if source.random() < 0.2:
                connection.request("PUT", path, b"x" * 100)
            else:
                connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            if answer.status in (200, 404):
                counts["hit" if answer.status == 200 else "miss"] += 1
        lookups[task] = counts

    for number in range(namespaces):
        server.request("PUT", f"/v1/cache/n{number}/entries/first", b"x")
    scrapes = []

    def scrape():
        while not done.is_set():
            scrapes.append(metrics_of(server))

    watcher = threading.Thread(target=scrape)
    watcher.start()
    threads = [threading.Thread(target=work, args=(task,)) for task in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    metrics = metrics_of(server)
    assert len(scrapes) > 3
    for before, after in zip(scrapes, [*scrapes[1:], metrics]):
        counters = [name for name in before if re.search(r"(_total|_bucket|_count)($|\{)", name)]
        assert [name for name in counters if after[name] < before[name]] == []

    def total(family, *labels):
        return sum(v for n, v in metrics.items() if n.startswith(family + "{") and all(label in n for label in labels))

    assert total("reprise_cache_lookups_total", 'result="hit"') == sum(c["hit"] for c in lookups.values())
    assert total("reprise_cache_lookups_total", 'result="miss"') == sum(c["miss"] for c in lookups.values())
    items = server.json("GET", "/v1/cache?limit=500")["items"]
    assert len(items) == namespaces
    assert total("reprise_cache_entries") == sum(item["entry_count"] for item in items)
    assert total("reprise_cache_size_bytes") == sum(item["size_bytes"] for item in items)
    assert sum(name.startswith("reprise_cache_entries{") for name in metrics) == 101
    assert metrics['reprise_cache_entries{namespace="__other__"}'] >= 20
    entry = "/v1/cache/{namespace}/entries/{key}"
    assert total("reprise_http_requests_total", entry) == namespaces + 6 * 300


def test_counters_begin_anew_with_the_process(server):
    """Not slightly below where they were, which Prometheus would take for a restart and count again."""
    server.request("PUT", "/v1/cache/n/entries/k", b"x")
    for _ in range(20):
        server.request("GET", "/v1/cache/n/entries/k")
    hits = 'reprise_cache_lookups_total{namespace="n",result="hit",reason=""}'
    assert metrics_of(server)[hits] == 20
    time.sleep(1.5)
    assert metrics_of(server)[hits] == 20
    server.stop(signal.SIGKILL)
    server.start()
    assert metrics_of(server)[hits] == 0
    server.request("GET", "/v1/cache/n/entries/k")
    assert metrics_of(server)[hits] == 1
    # The namespace's own statistics continue.
    assert server.json("GET", "/v1/cache/n")["hits"] == 21


def test_a_client_that_breaks_off_is_no_server_error(server):
    for number in range(5):
        with server.socket() as broken:
            head = f"PUT /v1/cache/n/entries/{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
            broken.sendall(head.encode() + b"short")
            time.sleep(0.05)
    deadline = time.monotonic() + 10
    answered = {}
    while time.monotonic() < deadline and sum(answered.values()) < 5:
        time.sleep(0.05)
        metrics = metrics_of(server)
        answered = {n: v for n, v in metrics.items() if n.startswith("reprise_http_requests_total") and "PUT" in n}
    route = "/v1/cache/{namespace}/entries/{key}"
    assert answered == {f'reprise_http_requests_total{{route="{route}",method="PUT",status="4xx"}}': 5}


def test_questions_are_bounded_in_time_and_rows(server):
    status, _, body = server.request("GET", "/v1/metrics/timeseries?name=x&step_seconds=1&since=2026-01-01T00:00:00Z")
    assert status == 422 and b"step_seconds" in body
    status, _, body = server.request("GET", "/v1/metrics/timings?since=2001-01-01T00:00:00Z")
    assert status == 422 and b"since" in body


def cleanup(server, task):
    server.json("POST", "/v1/maintenance/cleanup", {"tasks": [task]})


def timings(server, name, since, until=None):
    """The answer about one operation between instants given in seconds from now."""
    def instant(seconds):
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))

    until = "" if until is None else f"&until={instant(until)}"
    return server.json("GET", f"/v1/metrics/timings?name={name}&since={instant(since)}{until}")


def record(server, name, durations, **more):
    samples = [{"kind": "timing", "name": name, "duration_seconds": value, **more} for value in durations]
    assert server.json("POST", "/v1/samples", {"samples": samples}) == {"accepted": len(samples)}


@pytest.mark.parametrize("is_rolled_up", [False, True])
def test_percentiles_in_sql_are_those_of_the_api(server, is_rolled_up):
    shapes = {"one": [7.5], "two": [1, 3], "gap": [1, 2, 3, 4, 100], "steps": [1, 1, 10, 10], "many": range(1, 102)}
    for name, durations in shapes.items():
        record(server, name, durations)
    if is_rolled_up:
        cleanup(server, "sample_rollup")
    for view in ("operation_stats", "operation_stats_hourly"):
        if view == "operation_stats_hourly" and time.gmtime().tm_min == 0:
            continue  # The samples may lie in two hours.
        for name in shapes:
            item = timings(server, name, -3600)["items"][0]
            row = server.json("POST", "/v1/sql", {
                "query": f"SELECT p50_seconds, p90_seconds, p95_seconds, p99_seconds FROM {view} WHERE name = ?",
                "params": [name]})["rows"][0]
            expected = [item[f"p{p}_seconds"] for p in (50, 90, 95, 99)]
            assert row == pytest.approx(expected, rel=0.01), (view, name)


def test_many_variants_of_many_names_leave_none_out(server):
    for variant in "wxyz":
        samples = [{"kind": "timing", "name": f"n{number}", "duration_seconds": 1, "variant": variant}
                   for number in range(600)]
        assert server.json("POST", "/v1/samples", {"samples": samples})["accepted"] == 600
    for variant, seconds in (("old", 2), ("new", 1)):
        record(server, "hot", [seconds] * 20, variant=variant)
    for is_rolled_up in (False, True):
        if is_rolled_up:
            cleanup(server, "sample_rollup")
        items = server.json("GET", "/v1/metrics/comparison?baseline=old&candidate=new")["items"]
        assert [(item["name"], item["baseline"]["count"], item["verdict"]) for item in items] == [("hot", 20, "faster")]
        groups = server.json("GET", "/v1/metrics/timings?group_by=variant")["items"]
        assert len(groups) == 4 * 600 + 2


def test_a_retention_that_was_shorter_hides_nothing(server):
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 7200))
    record(server, "early", [1, 2], recorded_at=stamp)
    record(server, "late", [1, 2])
    server.json("PATCH", "/v1/config", {"sample_retention_seconds": 60})
    cleanup(server, "sample_retention")
    assert server.request("DELETE", "/v1/config/sample_retention_seconds")[0] == 204
    assert server.json("GET", "/v1/samples?name=early")["items"] == []
    found = timings(server, "early", -3 * 3600)
    assert found["resolution"] == "minute" and [item["count"] for item in found["items"]] == [2]
    assert timings(server, "late", -30)["resolution"] == "raw"


def test_roll_ups_stay_for_the_whole_retention(server):
    """The last roll-up of six hours that overlaps the retention is kept whole."""
    cutoff = int(time.time()) - 90 * 86400
    end = cutoff - cutoff % 21600 + 21600
    recorded = min(cutoff + 3600, (cutoff + end) // 2)
    record(server, "old", [1], recorded_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(recorded)))
    cleanup(server, "sample_retention")
    found = timings(server, "old", -100 * 86400)
    assert found["resolution"] == "six_hours" and [item["count"] for item in found["items"]] == [1]
    server.json("PATCH", "/v1/config", {"sample_rollup_retention_seconds": 80 * 86400})
    cleanup(server, "sample_retention")
    assert timings(server, "old", -100 * 86400)["items"] == []
