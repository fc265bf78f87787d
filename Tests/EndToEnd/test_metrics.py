"""Samples and metrics of the real binary: durable, right, and readable by Prometheus, sqlite3 and people."""

import random
import re
import shutil
import signal
import statistics
import subprocess
import threading
import time

import pytest


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
            # The batch under way may have been committed without its answer being read.
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
    # What callers timed is told apart.
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
    import conftest
    rules = subprocess.run(["promtool", "check", "rules", f"{conftest.ROOT}/docs/prometheus-alerts.yaml"], capture_output=True, text=True)
    assert rules.returncode == 0, rules.stderr


def test_every_metric_of_the_grafana_dashboard_exists(server):
    import json

    import conftest
    for number in range(3):
        server.request("PUT", f"/v1/cache/n/entries/{number}", b"x")
    families = set(re.findall(r"^# TYPE (\S+)", server.request("GET", "/metrics")[2].decode(), re.M))
    with open(f"{conftest.ROOT}/docs/grafana-dashboard.json") as file:
        panels = json.load(file)["panels"]
    expressions = " ".join(target["expr"] for panel in panels for target in panel.get("targets", []))
    with open(f"{conftest.ROOT}/docs/prometheus-alerts.yaml") as file:
        expressions += file.read()
    used = set(re.findall(r"\b((?:reprise|process)_[a-z_]+)", expressions))
    used = {re.sub(r"_(bucket|sum|count)$", "", name) if name.startswith("reprise_http_request_duration") else name for name in used}
    assert used and used <= families, used - families
    assert {f for f in families if f.startswith("reprise")} - used <= {"reprise_build_info"}


def test_questions_are_bounded_in_time_and_rows(server):
    status, _, body = server.request("GET", "/v1/metrics/timeseries?name=x&step_seconds=1&since=2026-01-01T00:00:00Z")
    assert status == 422 and b"step_seconds" in body
    status, _, body = server.request("GET", "/v1/metrics/timings?since=2001-01-01T00:00:00Z")
    assert status == 422 and b"since" in body
