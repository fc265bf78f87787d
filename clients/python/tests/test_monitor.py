"""What the monitor measures, and what becomes of samples while the service is away."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reprise_client import AsyncClient, Client, Monitor, limits
from reprise_client import monitor as monitor_module
from reprise_client import samples as samples_module
from reprise_client.memory import approximate_bytes

#: More than any test needs, so that nothing depends on how busy the machine is.
PATIENCE = 60.0


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def samples(client: Client, **filters: Any) -> list[dict[str, Any]]:
    """Stored samples in the order in which they were recorded."""
    return list(client.items(client.get_samples, limit=500, **filters))[::-1]


def hold(service: Any) -> None:
    """Stops the service, and waits until it has stopped."""
    service.hold()
    stat = f"/proc/{service.process.pid}/stat"
    until(lambda: open(stat).read().rpartition(")")[2].split()[0] == "T")


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def quick(url: str, **options: Any) -> Client:
    """A client whose circuit does not stay open for long."""
    from reprise_client.http.policy import Breaker

    return Client(url, breaker=Breaker(seconds=0.05, max_seconds=0.1), **options)


def is_balanced(monitor: Monitor) -> bool:
    figures = monitor.statistics()
    return figures["recorded"] == sum(
        figures[name] for name in ("sent", "dropped", "failed", "disabled", "queued"))


@pytest.fixture
def monitor(client: Client) -> Iterator[Monitor]:
    with client.monitor() as monitor:
        yield monitor


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MONITOR_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(limits, "MAX_MONITOR_RETRY_SECONDS", 0.2)


# What is measured.


def test_a_block_is_timed(client, monitor, name):
    with monitor.measure(name, variant="optimized", labels={"model": "small"},
                         session_id="tab-1") as measurement:
        measurement.cache = "hit"
        time.sleep(0.01)
    assert measurement.seconds >= 0.01 and measurement.outcome == "ok"
    assert monitor.flush(PATIENCE)
    (sample,) = samples(client, name=name)
    assert sample["duration_seconds"] == pytest.approx(measurement.seconds, abs=1e-6)
    assert {key: sample[key] for key in ("kind", "outcome", "cache", "variant", "session_id",
                                         "labels")} == {
        "kind": "timing", "outcome": "ok", "cache": "hit", "variant": "optimized",
        "session_id": "tab-1", "labels": {"model": "small"}}


def test_an_exception_is_an_error_and_passes_on(client, monitor, name):
    with pytest.raises(KeyError, match="gone"), monitor.measure(name):
        raise KeyError("gone")
    with pytest.raises(KeyboardInterrupt), monitor.measure(name):
        raise KeyboardInterrupt
    assert monitor.flush(PATIENCE)
    assert [sample["outcome"] for sample in samples(client, name=name)] == ["error", "error"]


def test_a_rerun_of_streamlit_and_a_closed_generator_are_no_errors(monitor):
    class ScriptControlException(BaseException):
        pass

    class RerunException(ScriptControlException):
        pass

    for error in (RerunException(), GeneratorExit()):
        measurement = monitor.measure("rerun")
        with pytest.raises(type(error)), measurement:
            raise error
        assert measurement.outcome == "ok"


def test_functions_keep_what_they_are_and_are_timed_by_call(client, monitor, name):
    @monitor.measure(name, cache="miss")
    def double(value: int, *, fail: bool = False) -> int:
        """Doubles."""
        if fail:
            raise ValueError("no")
        return value * 2

    assert double.__name__ == "double" and double.__doc__ == "Doubles."
    assert double(4) == 8
    with pytest.raises(ValueError):
        double(4, fail=True)
    assert monitor.flush(PATIENCE)
    assert [(s["outcome"], s["cache"]) for s in samples(client, name=name)] == [
        ("ok", "miss"), ("error", "miss")]


def test_recursive_calls_are_timed_each(client, monitor, name):
    @monitor.measure(name)
    def count(depth: int) -> int:
        return 0 if depth == 0 else 1 + count(depth - 1)

    assert count(3) == 3
    assert monitor.flush(PATIENCE)
    seconds = [s["duration_seconds"] for s in samples(client, name=name)]
    assert len(seconds) == 4 and seconds == sorted(seconds)


def test_generators_are_timed_to_their_end(client, monitor, name):
    @monitor.measure(name)
    def steps():
        received = yield 1
        yield received
        return "end"

    def whole():
        return (yield from steps())

    generator = whole()
    assert next(generator) == 1
    assert monitor.statistics()["recorded"] == 0
    assert generator.send("sent") == "sent"
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "end"
    assert monitor.statistics()["recorded"] == 1


async def test_coroutines_blocks_and_generators_of_asyncio(shared_service, client, name):
    async with AsyncClient(shared_service.url, timeout=10) as async_client:
        monitor = async_client.monitor()

        @monitor.measure(name)
        async def work(seconds: float) -> str:
            await asyncio.sleep(seconds)
            return "done"

        @monitor.measure(name + "-items")
        async def items():
            yield 1
            yield 2

        assert asyncio.iscoroutinefunction(work)
        assert await asyncio.gather(work(0.02), work(0)) == ["done", "done"]
        assert [item async for item in items()] == [1, 2]
        with pytest.raises(RuntimeError):
            async with monitor.measure(name + "-block"):
                raise RuntimeError
        task = asyncio.create_task(work(3600))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(monitor.flush, PATIENCE)
        monitor.close()
    found = samples(client, name=name)
    assert Counter(s["outcome"] for s in found) == {"ok": 2, "error": 1}
    # The coroutine was awaited within the measured time, and not merely made.
    assert max(s["duration_seconds"] for s in found) >= 0.02
    assert len(samples(client, name=name + "-items")) == 1
    assert samples(client, name=name + "-block")[0]["outcome"] == "error"


def test_timings_gauges_and_defaults_of_the_monitor(client, name):
    with client.monitor(session_id="tab-7", variant="original",
                        labels={"host": "a", "app": "x"}) as monitor:
        monitor.timing(name, 1.5, outcome="error", cache="miss")
        monitor.timing(name, 2, variant="optimized", session_id="tab-8",
                       labels={"host": "b", "retries": 3})
        monitor.gauge(name, 12, unit="jobs")
        monitor.gauge(name + "-level", -0.25)
        assert monitor.flush(PATIENCE)
        assert monitor.statistics()["sent"] == 4
    first, second = samples(client, name=name, kind="timing")
    assert (first["duration_seconds"], first["outcome"], first["cache"], first["variant"],
            first["session_id"]) == (1.5, "error", "miss", "original", "tab-7")
    assert (second["variant"], second["session_id"]) == ("optimized", "tab-8")
    assert second["labels"] == {"host": "b", "app": "x", "retries": "3"}
    values = samples(client, session_id="tab-7", kind="gauge")
    assert [(s["value"], s["unit"]) for s in values] == [(12, "jobs"), (-0.25, None)]


def test_memory_of_this_process_without_psutil(client, monitor, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    memory = monitor.memory(name)
    assert monitor.flush(PATIENCE)
    (sample,) = samples(client, name=name)
    assert (sample["rss_bytes"], sample["vms_bytes"]) == memory[:2]
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    assert memory.rss_bytes == pytest.approx(int(status["VmRSS"].split()[0]) * 1024, rel=0.2)
    assert memory.vms_bytes == pytest.approx(int(status["VmSize"].split()[0]) * 1024, rel=0.2)
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert memory.percent == pytest.approx(100 * memory.rss_bytes / total, rel=0.02)


def test_where_memory_cannot_be_told_it_says_so_once(monitor, monkeypatch, caplog):
    monkeypatch.setattr(monitor_module, "process_memory", lambda: None)
    assert monitor.memory() is None and monitor.memory() is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "psutil" in caplog.text
    assert monitor.statistics()["recorded"] == 0


def test_the_size_of_a_session_state(client, name):
    with client.monitor(session_id=name) as monitor:
        state = {"history": ["x" * 1000] * 3, "waves": bytearray(50_000), "tempo": 120}
        size = monitor.session_size(state)
        assert size.keys == 3 and 51_000 < size.size_bytes < 60_000
        assert monitor.flush(PATIENCE)
    assert {s["name"]: (s["value"], s["unit"]) for s in samples(client, session_id=name)} == {
        "session_state_keys": (3, "keys"),
        "session_state_bytes": (size.size_bytes, "bytes")}


def test_the_size_of_a_session_is_recorded_under_its_id(client, monitor, name):
    with client.session(name) as session:
        session["tempo"] = 120
        session["wave"] = "x" * 5000
        size = monitor.session_size(session)
    assert size.keys == 2 and size.size_bytes > 5000
    assert monitor.flush(PATIENCE)
    assert len(samples(client, session_id=name)) == 2


def test_a_state_that_cannot_be_read_has_no_size(monitor):
    assert monitor.session_size(None) is None
    assert monitor.statistics()["recorded"] == 0


def test_sizes_count_what_is_contained_once():
    numpy = pytest.importorskip("numpy")
    cycle: list[Any] = [1]
    cycle.append(cycle)
    assert approximate_bytes(cycle) < 1000
    array = numpy.zeros(100_000)
    assert 800_000 <= approximate_bytes({"a": array, "b": array}) < 810_000

    class Track:
        def __init__(self) -> None:
            self.samples = b"\0" * 70_000

    assert 70_000 <= approximate_bytes([Track()]) < 75_000


def test_periodic_memory_samples(client, monitor, name):
    assert monitor.statistics()["recorded"] == 0
    monitor.every(0.02, name)
    until(lambda: monitor.statistics()["recorded"] >= 3)
    monitor.every(None)
    recorded = monitor.statistics()["recorded"]
    assert monitor.flush(PATIENCE)
    assert len(samples(client, name=name)) >= recorded
    with pytest.raises(ValueError):
        monitor.every(0)


# The queue and the thread.


def test_nothing_is_started_before_the_first_sample(client):
    before = set(threading.enumerate())
    monitor = client.monitor()
    monitor.measure("nothing")
    assert not set(threading.enumerate()) - before
    monitor.gauge("something", 1)
    (started,) = set(threading.enumerate()) - before
    assert started.name == "reprise-samples" and started.daemon
    assert monitor.close(PATIENCE)
    until(lambda: not started.is_alive())
    # It can be used again.
    monitor.gauge("something", 2)
    assert monitor.close(PATIENCE)
    assert monitor.statistics()["sent"] == 2


def test_the_thread_ends_when_there_is_nothing_to_do(client, monkeypatch):
    monkeypatch.setattr(limits, "MONITOR_IDLE_SECONDS", 0.05)
    monitor = client.monitor(flush_seconds=0.01)
    for round_ in (1, 2):
        monitor.gauge("something", round_)
        until(lambda sent=round_: monitor.statistics()["sent"] == sent)
        until(lambda: monitor._thread is None)


def test_samples_are_sent_without_being_asked(client, name):
    monitor = client.monitor(flush_seconds=0.05)
    monitor.gauge(name, 1)
    until(lambda: samples(client, name=name))
    # A full batch does not wait for its time.
    patient = client.monitor(flush_seconds=3600)
    for value in range(limits.MAX_SAMPLES_PER_REQUEST):
        patient.gauge(name, value)
    until(lambda: len(samples(client, name=name)) == 1 + limits.MAX_SAMPLES_PER_REQUEST)
    patient.close()
    monitor.close()


def test_batches_are_bounded(client, name, monkeypatch):
    calls: list[int] = []
    answer = client._answer
    monkeypatch.setattr(client, "_answer", lambda request, timeout: (
        calls.append((request.body or b"").count(b'"kind"')), answer(request, timeout))[1])
    monitor = client.monitor(flush_seconds=3600)
    with monitor._sending:
        for value in range(1201):
            monitor.gauge(name, value)
    assert monitor.flush(PATIENCE)
    monitor.close()
    calls = [count for count in calls if count]
    assert sum(calls) == 1201 and max(calls) <= 500 and len(calls) <= 4
    assert [s["value"] for s in samples(client, name=name)] == list(range(1201))


def test_many_threads(client, monitor, name):
    def work(thread: int) -> None:
        for _ in range(300):
            with monitor.measure(name, labels={"thread": str(thread)}):
                pass

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert monitor.flush(PATIENCE)
    assert monitor.statistics() == {
        "recorded": 2400, "sent": 2400, "dropped": 0, "failed": 0, "disabled": 0, "queued": 0,
        "last_error": ""}
    assert Counter(s["labels"]["thread"] for s in samples(client, name=name)) == {
        str(i): 300 for i in range(8)}


def test_the_oldest_beyond_the_bound_go_and_are_counted(client, name):
    monitor = client.monitor(max_queued=10, flush_seconds=3600)
    with monitor._sending:  # The thread cannot send.
        monitor.gauge(name, -1)
        for value in range(1000):
            monitor.gauge(name, value)
        figures = monitor.statistics()
        assert figures["recorded"] == 1001
        assert 10 <= figures["queued"] <= 20
        assert figures["dropped"] == 1001 - figures["queued"]
    assert monitor.flush(PATIENCE)
    figures = monitor.statistics()
    assert figures["sent"] + figures["dropped"] == 1001
    values = [s["value"] for s in samples(client, name=name)]
    assert len(values) == figures["sent"]
    assert values[-10:] == list(range(990, 1000))
    monitor.close()


def test_a_sample_recorded_while_the_lock_is_held_does_not_deadlock(monitor):
    # A finalizer or signal handler may run at any instruction of this very thread.
    with monitor._lock:
        monitor.gauge("from a finalizer", 1)
    assert monitor.flush(PATIENCE)


# What the service refuses.


@pytest.mark.parametrize("wrong", [
    ("timing", "", 1.0), ("timing", "x" * 129, 1.0), ("timing", "line\nbreak", 1.0),
    ("timing", 7, 1.0), ("timing", "x", -1.0), ("timing", "x", float("nan")),
    ("timing", "x", float("inf")), ("timing", "x", "slow"), ("timing", "x", None),
    ("timing", "x", 4e7), ("timing", "\ud800", 1.0), ("gauge", "x", 2e15),
    ("gauge", "x", 10**400),
])
def test_an_invalid_sample_is_left_out_and_the_others_arrive(client, name, wrong):
    kind, sample_name, value = wrong
    monitor = client.monitor(flush_seconds=3600)
    monitor.gauge(name, 1)
    getattr(monitor, kind)(sample_name, value)
    monitor.gauge(name, 2)
    assert monitor.flush(PATIENCE)
    figures = monitor.statistics()
    assert (figures["sent"], figures["failed"]) == (2, 1) and figures["last_error"]
    assert [s["value"] for s in samples(client, name=name)] == [1, 2]
    monitor.close()


@pytest.mark.parametrize("options", [
    {"outcome": "late"}, {"cache": "warm"}, {"variant": ""}, {"session_id": "a b"},
    {"session_id": ".."}, {"session_id": 5}, {"labels": ["a"]}, {"labels": 5},
    {"labels": {"a": None}}, {"labels": {"": "b"}}, {"labels": {"a": "b" * 257}},
    {"labels": {str(i): "" for i in range(9)}},
])
def test_invalid_options_are_left_out_as_well(client, name, options):
    monitor = client.monitor(flush_seconds=3600)
    monitor.timing(name, 1, **options)
    monitor.timing(name, 2, labels={"a": ""})
    assert monitor.flush(PATIENCE)
    assert (monitor.statistics()["sent"], monitor.statistics()["failed"]) == (1, 1)
    assert [s["duration_seconds"] for s in samples(client, name=name)] == [2]
    monitor.close()


def test_what_is_valid_at_its_bounds_is_taken(client, monitor, name):
    monitor.timing("ü" * 128, 0, variant="v" * 128, session_id=name,
                   labels={"l" * 64 if i == 0 else str(i): "\U0001f3b5" * 256 for i in range(8)})
    monitor.timing("x", 31_536_000, session_id=name)
    monitor.timing("x", 1e-9, session_id=name)
    monitor.gauge("x", 10**15, unit="u" * 32, session_id=name)
    monitor.gauge("x", True, session_id=name)
    assert monitor.flush(PATIENCE)
    assert monitor.statistics()["failed"] == 0
    assert len(samples(client, session_id=name)) == 5


def test_without_the_check_here_the_service_finds_the_wrong_ones(client, name, monkeypatch):
    monkeypatch.setattr(samples_module, "_number", lambda value, *_: value)
    monitor = client.monitor(flush_seconds=3600)
    for value in range(40):
        monitor.gauge(name, "wrong" if value in (0, 17, 39) else value)
    assert monitor.flush(PATIENCE)
    assert (monitor.statistics()["sent"], monitor.statistics()["failed"]) == (37, 3)
    assert [s["value"] for s in samples(client, name=name)] == [
        value for value in range(40) if value not in (0, 17, 39)]
    monitor.close()


def test_a_refusal_that_names_no_sample_is_narrowed_down(client, name, monkeypatch):
    monkeypatch.setattr(samples_module, "_number", lambda value, *_: value)
    read = monitor_module._read

    def without_names(response: Any) -> Any:
        answer = read(response)
        answer.body.pop("errors", None)
        return answer

    monkeypatch.setattr(monitor_module, "_read", without_names)
    monitor = client.monitor(flush_seconds=3600)
    for value in range(20):
        monitor.gauge(name, "wrong" if value in (3, 4) else value)
    assert monitor.flush(PATIENCE)
    assert (monitor.statistics()["sent"], monitor.statistics()["failed"]) == (18, 2)
    assert len(samples(client, name=name)) == 18
    monitor.close()


def test_a_clock_that_is_ahead_is_corrected(client, name):
    monitor = client.monitor(flush_seconds=3600)
    monitor._wall = lambda: time.time() + 86_400  # type: ignore[method-assign,assignment]
    before = time.time()
    for value in range(3):
        monitor.gauge(name, value)
    assert monitor.flush(PATIENCE)
    assert monitor.statistics()["sent"] == 3
    after = time.time()
    for sample in samples(client, name=name):
        assert before - 2 <= seconds_of(sample) <= after + 2
    monitor.close()


def seconds_of(sample: dict[str, Any]) -> float:
    from datetime import datetime

    return datetime.fromisoformat(sample["recorded_at"].replace("Z", "+00:00")).timestamp()


# Time, forks, ends, and the service away.


def test_a_sample_carries_the_instant_at_which_it_was_measured(client, name):
    monitor = client.monitor(flush_seconds=3600)
    monitor._wall = lambda: 1_790_000_000.25  # type: ignore[method-assign,assignment]
    monitor.gauge(name, 1)
    del monitor._wall
    assert monitor.flush(PATIENCE)
    (sample,) = samples(client, name=name, since="2026-01-01T00:00:00Z")
    assert sample["recorded_at"] == "2026-09-21T14:13:20.250Z"
    monitor.close()


def test_a_forked_child_sends_its_own_samples_and_no_others(client, name):
    monitor = client.monitor(flush_seconds=3600)
    for value in range(20):
        monitor.gauge(name, value)
    reader, writer = os.pipe()
    with monitor._lock, monitor._sending:  # Held in the child as well, by nobody.
        child = os.fork()
        if child == 0:
            status = 1
            try:
                signal.alarm(int(PATIENCE))
                figures = monitor.statistics()
                fresh = (figures["recorded"], figures["queued"], monitor._thread) == (0, 0, None)
                for value in range(100, 107):
                    monitor.gauge(name, value)
                has_thread = monitor._thread.is_alive()
                sent = monitor.flush(PATIENCE) and monitor.statistics()["sent"]
                os.write(writer, f"{fresh} {has_thread} {sent}".encode())
                status = 0
            finally:
                os._exit(status)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        assert file.read() == "True True 7"
    assert status == 0
    monitor.gauge(name, 20)
    assert monitor.flush(PATIENCE)
    assert monitor.statistics()["sent"] == 21
    assert sorted(s["value"] for s in samples(client, name=name)) == [
        *range(21), *range(100, 107)]
    monitor.close()


PROGRAM = """
    import logging, multiprocessing, sys
    from reprise_client import Client

    logging.basicConfig(level=logging.WARNING)
    client = Client(sys.argv[1], timeout=10)
    monitor = client.monitor(flush_seconds=3600)

    def work(value):
        monitor.gauge(sys.argv[2], value)

    if __name__ == "__main__":
        if len(sys.argv) > 3:
            process = multiprocessing.get_context(sys.argv[3]).Process(target=work, args=(2,))
            process.start()
            process.join()
        work(1)
"""


@pytest.fixture
def program(tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return lambda *arguments: subprocess.run(
        [sys.executable, "-B", str(path), *arguments], capture_output=True, text=True,
        timeout=PATIENCE, check=True)


def test_the_end_of_the_process_sends_what_waits(client, shared_service, name, program):
    assert program(shared_service.url, name).stderr == ""
    assert [s["value"] for s in samples(client, name=name)] == [1]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_end_of_a_worker_sends_what_waits(client, shared_service, name, program, method):
    program(shared_service.url, name, method)
    assert [s["value"] for s in samples(client, name=name)] == [2, 1]


@pytest.mark.parametrize("was_there", [False, True])
def test_the_end_waits_only_for_a_service_that_was_there(client, monkeypatch, was_there):
    from reprise_client import ConnectFailed

    monitor = client.monitor(flush_seconds=3600)
    attempts = []
    if was_there:
        monitor.gauge("before", 1)
        assert monitor.flush(PATIENCE)

    def is_away(*_: Any) -> Any:
        attempts.append(1)
        assert len(attempts) < 5, "it does not give up"
        raise ConnectFailed("nobody there")

    # Only the end of the process sends.
    monkeypatch.setattr(monitor, "_thread", threading.current_thread())
    monkeypatch.setattr(client, "_answer", is_away)
    monkeypatch.setattr(monitor_module, "_monitors", {monitor})
    monkeypatch.setattr(limits, "MONITOR_EXIT_SECONDS", 3600.0)
    monitor.gauge("at the end", 1)
    if was_there:
        with pytest.raises(AssertionError, match="give up"):
            monitor_module._exiting()
    else:
        monitor_module._exiting()
        assert attempts == [1]
    monitor._reset()


def test_a_process_without_a_service_ends_quietly(program):
    assert "before the process ended" not in program(
        f"http://127.0.0.1:{unused_port()}", "x").stderr


def test_the_service_is_gone_and_comes_back(service, name, caplog):
    client = quick(service.url, timeout=10)
    monitor = client.monitor(flush_seconds=0.02, max_queued=100)
    monitor.gauge(name, 0)
    until(lambda: monitor.statistics()["sent"] == 1)
    service.kill()
    before = time.time()
    with caplog.at_level(logging.INFO, "reprise_client"):
        for value in range(1, 501):
            monitor.gauge(name, value)
        after = time.time()
        until(lambda: monitor.statistics()["last_error"])
        figures = monitor.statistics()
        assert figures["sent"] == 1 and 100 <= figures["queued"] <= 200
        assert figures["dropped"] == 500 - figures["queued"]
        assert not monitor.flush(0.2)
        service.start()
        until(lambda: monitor.statistics()["queued"] == 0)
    monitor.gauge(name, 501)
    assert monitor.flush(PATIENCE) and is_balanced(monitor)
    figures = monitor.statistics()
    found = samples(client, name=name)
    assert len(found) == figures["sent"] == 502 - figures["dropped"]
    assert [s["value"] for s in found[-101:]] == list(range(401, 502))
    # Those sent later carry the time at which they were measured.
    assert all(before - 0.01 <= seconds_of(s) <= after + 0.01 for s in found[1:-1])
    # One line when it went, one when it was back.
    lines = [r.getMessage() for r in caplog.records if r.name == "reprise_client"]
    assert len(lines) == 2 and "does not take samples" in lines[0] and "again" in lines[1]
    monitor.close()


def test_while_the_service_hangs_nobody_waits(service, name, monkeypatch):
    monkeypatch.setattr(limits, "MONITOR_CALL_SECONDS", 0.1)
    client = quick(service.url)
    monitor = client.monitor(flush_seconds=0.01, max_queued=50)
    hold(service)
    slowest = 0.0
    for value in range(2000):
        start = time.thread_time()
        with monitor.measure(name):
            pass
        slowest = max(slowest, time.thread_time() - start)
    # Time of this thread, so that it does not matter who else runs.
    assert slowest < 0.05
    until(lambda: "time was over" in monitor.statistics()["last_error"]
          or "did not answer" in monitor.statistics()["last_error"])
    assert not monitor.flush(0.2)
    assert monitor.statistics()["sent"] == 0 and is_balanced(monitor)
    service.go_on()
    assert monitor.flush(PATIENCE)
    figures = monitor.statistics()
    assert figures["queued"] == 0 and figures["sent"] + figures["dropped"] == 2000
    monitor.close()


def test_each_sample_counts_once_however_often_it_is_sent(service, name, monkeypatch):
    from reprise_client.http.flow import Call
    from reprise_client.http.message import Request

    monkeypatch.setattr(limits, "MONITOR_CALL_SECONDS", 0.1)
    client = quick(service.url, timeout=10)
    body = b'{"kind": "gauge", "name": "probe", "value": 1}'
    for _ in range(2):
        client._run(Call(Request("POST", "/v1/samples", {
            "Content-Type": "application/json", "Idempotency-Key": name}, body), lambda r: r))
    if len(samples(client, name="probe")) > 1:
        pytest.skip("this service does not know Idempotency-Key")
    monitor = client.monitor(flush_seconds=0.01)
    for round_ in range(2):
        hold(service)
        attempts = client.statistics()["attempts"]
        for value in range(30):
            monitor.gauge(name, 100 * round_ + value)
        # The held service gets the same samples several times.
        until(lambda seen=attempts: client.statistics()["attempts"] >= seen + 4)
        service.go_on()
        assert monitor.flush(PATIENCE)
    assert sorted(s["value"] for s in samples(client, name=name)) == [*range(30),
                                                                      *range(100, 130)]
    monitor.close()


def test_a_batch_keeps_its_key_until_it_is_answered(client, name, monkeypatch):
    keys = []
    answer = client._answer

    def fails_twice(request: Any, timeout: Any) -> Any:
        from reprise_client import TimedOut

        keys.append(request.headers["Idempotency-Key"])
        if len(keys) < 3:
            raise TimedOut("nobody answered")
        return answer(request, timeout)

    monkeypatch.setattr(client, "_answer", fails_twice)
    monitor = client.monitor(flush_seconds=3600)
    monitor.gauge(name, 1)
    assert monitor.flush(PATIENCE)
    monitor.gauge(name, 2)
    assert monitor.flush(PATIENCE)
    assert keys[0] == keys[1] == keys[2] != keys[3] and len(keys) == 4
    monitor.close()


def test_what_is_too_old_is_given_up_and_counted(name):
    client = quick(f"http://127.0.0.1:{unused_port()}", timeout=0.5)
    monitor = client.monitor(flush_seconds=3600)
    monitor._wall = lambda: time.time() - 7200  # type: ignore[method-assign,assignment]
    monitor.gauge(name, 1)
    monitor._wall = time.time  # type: ignore[method-assign,assignment]
    monitor.gauge(name, 2)
    monitor.flush(1)
    # Young samples of the same batch keep it.
    assert monitor.statistics()["queued"] == 2
    monitor._wall = lambda: time.time() + 7200  # type: ignore[method-assign,assignment]
    until(lambda: monitor.flush(1))
    assert monitor.statistics()["dropped"] == 2 and is_balanced(monitor)
    monitor.close(0)


def test_monitoring_that_is_switched_off_is_respected(service, name, monkeypatch):
    client = Client(service.url, timeout=10)
    calls = []
    answer = client._answer
    monkeypatch.setattr(client, "_answer", lambda request, timeout: (
        calls.append(request.target), answer(request, timeout))[1])
    client.change_settings(enable_monitoring=False)
    monitor = client.monitor(flush_seconds=3600)
    clock = [1000.0]
    monitor._clock = lambda: clock[0]  # type: ignore[method-assign,assignment]
    for value in range(3):
        monitor.gauge(name, value)
    assert monitor.flush(PATIENCE)
    figures = monitor.statistics()
    assert (figures["recorded"], figures["disabled"], figures["sent"]) == (3, 3, 0)
    client.change_settings(enable_monitoring=True)
    sent = calls.count("/v1/samples")
    monitor.gauge(name, 3)
    assert monitor.flush(PATIENCE) and calls.count("/v1/samples") == sent
    assert monitor.statistics()["disabled"] == 4
    clock[0] += limits.MONITOR_DISABLED_SECONDS
    monitor.gauge(name, 4)
    assert monitor.flush(PATIENCE)
    assert [s["value"] for s in samples(client, name=name)] == [4] and is_balanced(monitor)
    monitor.close()


def test_a_token_that_may_not_write_loses_nothing_but_time(service, name):
    admin = Client(service.url, timeout=10)
    owner = Client(service.url, timeout=10,
                   token=admin.create_token(name="admin", scopes=["admin"])["token"])
    reader = Client(service.url, timeout=10,
                    token=owner.create_token(name="r", scopes=["read"])["token"])
    monitor = reader.monitor(flush_seconds=3600)
    monitor.gauge(name, 1)
    assert not monitor.flush(0.5)
    assert "403" in monitor.statistics()["last_error"] and is_balanced(monitor)
    assert monitor.statistics()["queued"] == 1
    monitor.close(0)


def test_wrong_arguments_of_the_monitor_itself_are_told(client):
    with pytest.raises(ValueError, match="flush_seconds"):
        client.monitor(flush_seconds=0)
    with pytest.raises(ValueError, match="max_queued"):
        client.monitor(max_queued=0)


def test_the_cost_of_measuring(client, capsys):
    """Prints it; the bound is one that only a blocking call would break."""
    monitor = client.monitor(flush_seconds=3600, max_queued=100_000)
    with monitor._sending:
        count = 20_000
        start = time.thread_time()
        for _ in range(count):
            with monitor.measure("cost"):
                pass
        microseconds = (time.thread_time() - start) / count * 1e6
    with capsys.disabled():
        print(f" [measure: {microseconds:.1f} µs]", end="")
    assert microseconds < 1000
    monitor._reset()


def test_signals_are_safe(client, name):
    monitor = client.monitor(flush_seconds=0.01)
    previous = signal.signal(signal.SIGALRM, lambda *_: monitor.gauge(name, 1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        for _ in range(5000):
            monitor.gauge(name, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert monitor.flush(PATIENCE) and is_balanced(monitor)
    assert len(samples(client, name=name)) == monitor.statistics()["sent"]
    monitor.close()


def test_a_client_that_is_closed_ends_its_monitors(shared_service):
    before = set(threading.enumerate())
    with Client(shared_service.url, timeout=10) as client:
        monitor = client.monitor()
        monitor.gauge("something", 1)
        (started,) = set(threading.enumerate()) - before
    until(lambda: not started.is_alive())
    assert monitor.statistics()["sent"] == 1
