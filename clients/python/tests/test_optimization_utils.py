"""The drop-in module: the guide's names, with the service there, hanging and gone."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from reprise_client import Client, Monitor, limits
from reprise_client import optimization_utils as utils
from reprise_client.http.policy import Breaker
from reprise_client.optimization_utils import (
    PERFORMANCE_CONFIG,
    CacheManager,
    LazyLoader,
    MemoryManager,
    OptimizedSessionState,
    PerformanceMonitor,
    configure,
    debounce_rerun,
    get_performance_config,
    minimize_reruns,
    perf_monitor,
    render_performance_dashboard,
    session_manager,
    streamlit_cache_data_with_metrics,
    streamlit_cache_resource_with_metrics,
)
from reprise_client.optimization_utils import caching, context, state
from reprise_client.optimization_utils.configuration import PerformanceSettings

PATIENCE = 60.0
DEFAULTS = {"cache_ttl_seconds": 300, "max_history_items": 20, "memory_cleanup_interval": 600,
            "enable_monitoring": True, "debounce_delay": 0.5}


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def hold(service: Any) -> None:
    service.hold()
    stat = f"/proc/{service.process.pid}/stat"
    until(lambda: open(stat).read().rpartition(")")[2].split()[0] == "T")


def quick(url: str, **options: Any) -> Client:
    """A client whose circuit does not stay open for long."""
    return Client(url, breaker=Breaker(seconds=0.02, max_seconds=0.05), **options)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts with a state of its own, and no service unless it says which."""
    monkeypatch.setenv("REPRISE_URL", "http://127.0.0.1:1")
    configure(session_state={})
    perf_monitor._seconds.clear()
    perf_monitor._started.clear()
    CacheManager._functions.clear()
    yield
    configure()
    context._local_state.clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of `PERFORMANCE_CONFIG`."""
    clock = Clock()
    monkeypatch.setattr(PERFORMANCE_CONFIG, "_now", clock)
    PERFORMANCE_CONFIG.forget()
    return clock


@pytest.fixture
def monitored(client: Client) -> Monitor:
    """The module with the shared service; flush to see what was recorded."""
    monitor = client.monitor(flush_seconds=3600)
    configure(client=client, monitor=monitor, session_state={})
    return monitor


def timings(client: Client, monitor: Monitor, name: str) -> list[dict[str, Any]]:
    assert monitor.flush(PATIENCE)
    return client.get_samples(name=name, limit=500).items[::-1]


# Importing.


def test_it_has_every_name_of_the_guides_module():
    assert set(utils.__all__) - {"configure"} == {
        "PerformanceMonitor", "LazyLoader", "OptimizedSessionState", "CacheManager",
        "MemoryManager", "render_performance_dashboard", "streamlit_cache_data_with_metrics",
        "streamlit_cache_resource_with_metrics", "minimize_reruns", "debounce_rerun",
        "perf_monitor", "session_manager", "PERFORMANCE_CONFIG", "get_performance_config"}
    assert isinstance(perf_monitor, PerformanceMonitor)
    assert isinstance(session_manager, OptimizedSessionState)


def test_importing_it_opens_nothing_and_needs_no_streamlit():
    program = """
        import builtins, sys, threading
        sys.modules["streamlit"] = None     # Not installed.
        sys.modules["psutil"] = None
        def opened(event, arguments):
            if event.startswith(("socket.", "sqlite3.", "subprocess.")) or (
                    event == "open" and isinstance(arguments[1], str) and "r" not in arguments[1]):
                raise AssertionError((event, arguments))
        sys.addaudithook(opened)
        import reprise_client.optimization_utils as utils
        assert threading.active_count() == 1
        heavy = {"numpy", "pandas", "ssl", "httptools", "asyncio"} & set(sys.modules)
        assert not heavy, heavy
        utils.session_manager.initialize_defaults({"history": []})
        utils.render_performance_dashboard()
        assert utils.MemoryManager.get_memory_stats()["session_state_keys"] == 1
        assert utils.debounce_rerun() and not utils.debounce_rerun()
    """
    subprocess.run([sys.executable, "-B", "-c", textwrap.dedent(program)], check=True,
                   timeout=PATIENCE)


# PerformanceMonitor.


def test_timers_tell_seconds_and_keep_the_latest():
    monitor = PerformanceMonitor()
    monitor.start_timer("load")
    time.sleep(0.01)
    seconds = monitor.end_timer("load")
    assert isinstance(seconds, float) and seconds >= 0.01
    assert monitor.get_metrics()["timing"] == {"load": seconds} == monitor.metrics
    monitor.start_timer("load")
    assert monitor.get_metrics()["timing"]["load"] == seconds
    again = monitor.end_timer("load")
    assert monitor.get_metrics()["timing"] == {"load": again}


def test_a_timer_that_was_not_started_is_zero():
    monitor = PerformanceMonitor()
    assert monitor.end_timer("never") == 0.0
    monitor.start_timer("once")
    assert monitor.end_timer("once") > 0
    assert monitor.end_timer("once") == 0.0
    assert list(monitor.metrics) == ["once"]


def test_timers_of_threads_do_not_disturb_each_other():
    monitor = PerformanceMonitor()
    started, may_end = threading.Event(), threading.Event()
    monitor.start_timer("same")
    time.sleep(0.05)
    found = []

    def other() -> None:
        monitor.start_timer("same")
        started.set()
        assert may_end.wait(PATIENCE)
        found.append(monitor.end_timer("same"))

    thread = threading.Thread(target=other)
    thread.start()
    assert started.wait(PATIENCE)
    assert monitor.end_timer("same") >= 0.05
    may_end.set()
    thread.join()
    assert found[0] > 0 and monitor.end_timer("same") == 0.0


def test_a_timer_may_end_in_another_thread():
    monitor = PerformanceMonitor()
    thread = threading.Thread(target=monitor.start_timer, args=("rerun",))
    thread.start()
    thread.join()
    assert monitor.end_timer("rerun") > 0


def test_timers_and_metrics_are_bounded(monkeypatch):
    monkeypatch.setattr(limits, "MAX_TIMERS", 10)
    monitor = PerformanceMonitor()
    for number in range(50):
        monitor.start_timer(f"left-{number}")
    for number in range(50):
        monitor.record(f"operation-{number}", 0.1)
    assert len(monitor._started) == 10 == len(monitor.metrics)
    assert "operation-49" in monitor.metrics


def test_memory_usage_without_psutil(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    usage = perf_monitor.get_memory_usage()
    assert set(usage) == {"rss_mb", "vms_mb", "percent"}
    assert 1 < usage["rss_mb"] <= usage["vms_mb"] and 0 < usage["percent"] < 100
    assert set(perf_monitor.get_metrics()["memory"]) == set(usage)


def test_timings_go_to_the_service(client, monitored, name):
    perf_monitor.start_timer(name)
    seconds = perf_monitor.end_timer(name)
    (sample,) = timings(client, monitored, name)
    assert sample["duration_seconds"] == pytest.approx(seconds, abs=1e-6)


def test_timings_stay_here_while_monitoring_is_off(service, name, clock):
    client = Client(service.url, timeout=10)
    monitor = client.monitor(flush_seconds=3600)
    configure(client=client, monitor=monitor, session_state={})
    PERFORMANCE_CONFIG["enable_monitoring"] = False
    perf_monitor.record(name, 1.0)
    assert monitor.statistics()["recorded"] == 0 and perf_monitor.metrics[name] == 1.0
    # Somebody else switches it on.
    client.change_settings(enable_monitoring=True)
    clock.now += limits.SETTINGS_SECONDS
    perf_monitor.record(name, 2.0)
    assert [s["duration_seconds"] for s in timings(client, monitor, name)] == [2.0]


def test_long_names_are_cut_for_the_service_only(client, monitored, name):
    perf_monitor.record(name + "x" * 200, 1.0)
    assert timings(client, monitored, (name + "x" * 200)[:128])
    assert list(perf_monitor.metrics) == [name + "x" * 200]


def test_debug_mode_logs_each_operation(caplog):
    with caplog.at_level(logging.DEBUG, "reprise_client"):
        perf_monitor.record("load_model", 1.5, cache="miss")
    assert "load_model took 1.500000 s (miss)" in caplog.text


# Cached functions outside of Streamlit.


def test_data_is_computed_once_for_equal_arguments():
    calls = []

    @streamlit_cache_data_with_metrics(ttl=1800, show_spinner=False)
    def cached_quality_score(audio_path: str, expected: dict[str, int], weight: float = 1.0):
        """Scores."""
        calls.append(audio_path)
        return {"path": audio_path, "score": [1, 2]}

    first = cached_quality_score("a.wav", {"tempo": 120, "bars": 8})
    # Other objects with the same content, in another order and by other ways to pass them.
    again = cached_quality_score(audio_path="".join(["a.", "wav"]), weight=1.0,
                                 expected={"bars": 8, "tempo": 120})
    assert first == again == {"path": "a.wav", "score": [1, 2]} and calls == ["a.wav"]
    # What one caller changes nobody else sees.
    again["score"].append(3)
    assert cached_quality_score("a.wav", {"tempo": 120, "bars": 8})["score"] == [1, 2]
    cached_quality_score("b.wav", {"tempo": 120, "bars": 8})
    assert calls == ["a.wav", "b.wav"]
    assert cached_quality_score.__name__ == "cached_quality_score"
    assert cached_quality_score.__doc__ == "Scores."
    cached_quality_score.clear()
    cached_quality_score("a.wav", {"tempo": 120, "bars": 8})
    assert len(calls) == 3


def test_timers_are_named_by_content_and_tell_hits(client, monitored, name):
    def scored(path: str) -> str:
        if path == "broken":
            raise OSError(path)
        return path

    scored.__name__ = name
    score = streamlit_cache_data_with_metrics()(scored)
    for path in ("a", "a", "b", "".join(["a"])):
        score(path)
    with pytest.raises(OSError):
        score("broken")
    # Two distinct contents and the broken one, however often they were called.
    names = list(perf_monitor.metrics)
    assert len(names) == 3 and all(n.startswith(name + "_") for n in names)
    found = timings(client, monitored, name)
    assert [(s["cache"], s["outcome"]) for s in found] == [
        ("miss", "ok"), ("hit", "ok"), ("miss", "ok"), ("hit", "ok"), ("miss", "error")]
    labels = [s["labels"]["arguments"] for s in found]
    assert labels[0] == labels[1] == labels[3] != labels[2]
    assert names[0] == f"{name}_{labels[0]}"


def test_a_function_without_arguments_is_named_plainly():
    @streamlit_cache_data_with_metrics()
    def presets() -> int:
        return 1

    presets()
    assert list(perf_monitor.metrics) == ["presets"]


def test_data_expires(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(caching._Results, "_clock", staticmethod(clock))
    calls = []

    def count(ttl: Any) -> Any:
        @streamlit_cache_data_with_metrics(ttl=ttl)
        def compute() -> int:
            calls.append(ttl)
            return len(calls)

        return compute

    for ttl, seconds in ((300, 300), ("1h30m", 5400), ("2 days", 172_800),
                         (timedelta(minutes=2), 120), (0.5, 0.5)):
        function = count(ttl)
        before = function()
        clock.now += seconds * 0.99
        assert function() == before
        clock.now += seconds * 0.02
        assert function() == before + 1
    forever = count(None)
    value = forever()
    clock.now += 1e9
    assert forever() == value
    for wrong in ("soon", "5x", "", "1h and more"):
        with pytest.raises(ValueError, match="duration"):
            streamlit_cache_data_with_metrics(ttl=wrong)
    with pytest.raises(TypeError, match="ttl"):
        streamlit_cache_data_with_metrics(ttl=[1])  # type: ignore[arg-type]


def test_parameters_with_an_underscore_do_not_count_and_others_must_have_content():
    @streamlit_cache_data_with_metrics()
    def read(path: str, _connection: object = None) -> object:
        return object.__name__ + path

    assert read("a", threading.Lock()) == read("a", threading.Lock()) == "objecta"

    @streamlit_cache_data_with_metrics()
    def wait(lock: Any) -> None: ...

    with pytest.raises(TypeError, match="Lock|lock"):
        wait(threading.Lock())


def test_exceptions_are_not_kept():
    attempts = []

    @streamlit_cache_data_with_metrics()
    def flaky() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("first")
        return "there"

    with pytest.raises(ConnectionError):
        flaky()
    assert flaky() == flaky() == "there" and len(attempts) == 2


def test_recursive_functions_are_kept_and_told_apart():
    @streamlit_cache_data_with_metrics()
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(60) == 1_548_008_755_920


@pytest.mark.parametrize("decorator", [streamlit_cache_data_with_metrics,
                                       streamlit_cache_resource_with_metrics])
def test_many_threads_compute_once(decorator):
    calls, results = [], []
    barrier = threading.Barrier(8)

    @decorator()
    def load(name: str) -> list[str]:
        calls.append(name)
        time.sleep(0.05)
        return [name]

    def ask() -> None:
        barrier.wait(PATIENCE)
        results.append(load("model"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["model"] and results == [["model"]] * 8


def test_a_resource_is_the_same_object_for_everybody():
    made = []

    @streamlit_cache_resource_with_metrics()
    def connect(url: str) -> object:
        made.append(threading.Lock())  # Cannot be copied.
        return made[-1]

    assert connect("a") is connect("a") is not connect("b")
    assert len(made) == 2
    assert all(name.startswith("resource_connect_") for name in perf_monitor.metrics)
    connect.clear()
    assert connect("a") is made[2]


def test_what_is_kept_here_is_bounded(monkeypatch):
    monkeypatch.setattr(limits, "MAX_LOCAL_RESULTS", 3)
    calls = []

    @streamlit_cache_data_with_metrics()
    def square(n: int) -> int:
        calls.append(n)
        return n * n

    for n in (1, 2, 3, 1, 4, 1, 2):  # 4 pushes out 2, which was used the longest ago.
        square(n)
    assert calls == [1, 2, 3, 4, 2]


def test_coroutine_functions_are_refused():
    with pytest.raises(TypeError, match="coroutine"):
        @streamlit_cache_data_with_metrics()
        async def load() -> None: ...


# LazyLoader.


def test_a_lazy_loader_loads_when_it_is_needed_and_once():
    calls = []

    def load_backend(*args: Any, **kwargs: Any) -> list[Any]:
        calls.append((args, kwargs))
        return [1]

    loader = LazyLoader(load_backend)
    assert loader.cache_key == "load_backend"
    assert not loader.is_loaded() and calls == []
    first = loader.load("small", device="cpu")
    assert loader.load("other") is first and calls == [(("small",), {"device": "cpu"})]
    assert loader.is_loaded()
    assert list(perf_monitor.metrics) == ["lazy_load_load_backend"]
    loader.reset()
    assert not loader.is_loaded()
    assert loader.load() is not first and len(calls) == 2
    assert LazyLoader(lambda: None, cache_key="models").cache_key == "models"


def test_none_is_a_result_as_well():
    calls = []
    loader = LazyLoader(lambda: calls.append(1), "nothing")
    assert loader.load() is None and loader.load() is None and calls == [1]


def test_many_threads_load_once():
    calls, results = [], []
    barrier = threading.Barrier(16)

    def load() -> object:
        calls.append(1)
        time.sleep(0.05)
        return object()

    loader = LazyLoader(load)

    def ask() -> None:
        barrier.wait(PATIENCE)
        results.append(loader.load())

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(set(map(id, results))) == 1


def test_an_exception_of_a_loader_is_not_remembered(client, monitored, name):
    attempts = []

    def load() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise ImportError("not yet")
        return "loaded"

    loader = LazyLoader(load, name)
    for _ in range(2):
        with pytest.raises(ImportError):
            loader.load()
        assert not loader.is_loaded()
    assert loader.load() == "loaded" and len(attempts) == 3
    found = timings(client, monitored, f"lazy_load_{name}")
    assert [s["outcome"] for s in found] == ["error", "error", "ok"]


def test_a_child_that_was_forked_while_a_thread_loads_is_not_stuck():
    loading, go_on = threading.Event(), threading.Event()
    parent = os.getpid()

    def load() -> str:
        if os.getpid() == parent:
            loading.set()
            assert go_on.wait(PATIENCE)
        return "loaded"

    loader = LazyLoader(load)
    thread = threading.Thread(target=loader.load)
    thread.start()
    assert loading.wait(PATIENCE)
    child = os.fork()
    if child == 0:
        os._exit(0 if loader.load() == "loaded" else 1)
    try:
        until(lambda: os.waitpid(child, os.WNOHANG) == (child, 0))
    finally:
        go_on.set()
        thread.join()


# The session's state.


def test_defaults_are_set_only_where_nothing_is():
    session_state = {"auto_generate": True}
    configure(session_state=session_state)
    manager = OptimizedSessionState()
    defaults = {"pending_example": None, "auto_generate": False, "history": []}
    manager.initialize_defaults(defaults)
    assert session_state == {"pending_example": None, "auto_generate": True, "history": []}
    assert manager.get_initialized_keys() == {"pending_example", "history"}
    # The list is not shared with the next session.
    session_state["history"].append(1)
    assert defaults["history"] == []
    manager.initialize_defaults(defaults)
    assert session_state["history"] == [1]
    manager.get_initialized_keys().clear()
    assert manager.get_initialized_keys() == {"pending_example", "history"}


def test_a_default_that_cannot_be_copied_is_shared():
    lock = threading.Lock()
    OptimizedSessionState().initialize_defaults({"lock": lock})
    assert context.session_state()["lock"] is lock


def test_values_are_read_and_set():
    assert session_manager.safe_get("tempo") is None
    assert session_manager.safe_get("tempo", 120) == 120
    session_manager.safe_set("tempo", 90)
    assert session_manager.safe_get("tempo", 120) == 90


def test_outside_of_streamlit_the_state_is_that_of_the_process():
    configure()
    session_manager.safe_set("tempo", 90)
    assert context._local_state == {"tempo": 90}


# MemoryManager.


def test_large_objects_go_and_are_counted():
    session_state = {"large_audio_data": b"x", "temp_analysis_results": None, "prompt": "jazz"}
    configure(session_state=session_state)
    assert MemoryManager.cleanup_large_objects() == 2
    assert session_state == {"prompt": "jazz"}
    assert MemoryManager.cleanup_large_objects() == 0


def test_history_is_cut_to_its_first_and_temporaries_go():
    history = [{"id": i} for i in range(35)]
    session_state = {"history": history, "temp_wave": 1, "cache_score": 2, "temperature": 0.8,
                     "temp_current_generation": "song", "cached_waveforms": 3, 7: "seven"}
    configure(session_state=session_state)
    assert MemoryManager.optimize_session_state() is None
    assert session_state == {
        "history": [{"id": i} for i in range(20)], "temperature": 0.8,
        "temp_current_generation": "song", "cached_waveforms": 3, 7: "seven"}
    for short in ([{"id": 1}], None, 5):
        session_state["history"] = short
        MemoryManager.optimize_session_state()
        assert session_state["history"] is short


def test_history_may_be_any_sequence():
    from collections import deque

    session_state: dict[str, Any] = {"history": deque(range(30))}
    configure(session_state=session_state)
    MemoryManager.optimize_session_state()
    assert session_state["history"] == list(range(20))


def test_history_is_cut_to_the_setting(service):
    client = Client(service.url, timeout=10)
    session_state = {"history": list(range(30))}
    configure(client=client, session_state=session_state)
    PERFORMANCE_CONFIG["max_history_items"] = 5
    MemoryManager.optimize_session_state()
    assert session_state["history"] == [0, 1, 2, 3, 4]


def test_memory_stats_without_psutil(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    configure(session_state={"wave": bytes(100_000), "score": [1] * 100, "tempo": 120})
    stats = MemoryManager.get_memory_stats()
    assert set(stats) == {"session_state_keys", "gc_collections", "gc_collected",
                          "largest_objects", "system_memory_mb", "system_memory_percent"}
    assert stats["session_state_keys"] == 3
    assert list(stats["largest_objects"]) == ["wave", "score", "tempo"]
    assert stats["largest_objects"]["wave"] >= 100_000
    assert stats["gc_collections"] > 0 and stats["gc_collected"] >= 0
    assert stats["system_memory_mb"] > 10 and 0 < stats["system_memory_percent"] < 100


# Reruns.


def test_a_rerun_is_allowed_at_once_and_then_after_the_delay(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(state, "_wall", clock)
    assert debounce_rerun() is True
    assert debounce_rerun() is False
    clock.now += 0.5
    assert debounce_rerun(delay=0.4) is True
    clock.now += 0.9
    assert debounce_rerun() is False
    # What was refused does not count.
    clock.now += 0.11
    assert debounce_rerun() is True
    # The clock was set back.
    clock.now -= 3600
    assert debounce_rerun() is True
    assert debounce_rerun(0) is True


def test_of_many_threads_one_may_rerun():
    class Slow(dict):
        def get(self, *arguments: Any) -> Any:
            value = super().get(*arguments)
            time.sleep(0.01)
            return value

    configure(session_state=Slow())
    barrier, allowed = threading.Barrier(16), []

    def ask() -> None:
        barrier.wait(PATIENCE)
        allowed.append(debounce_rerun(3600))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(allowed) == [False] * 15 + [True]


async def test_minimized_functions_return_none_when_debounced(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(state, "_wall", clock)

    @minimize_reruns
    def refresh(value: int) -> int:
        """Refreshes."""
        return value * 2

    @minimize_reruns
    async def refresh_later(value: int) -> int:
        return value * 3

    assert refresh.__doc__ == "Refreshes."
    assert refresh(2) == 4
    assert refresh(2) is None
    assert await refresh_later(2) is None
    clock.now += 1.5
    assert await refresh_later(2) == 6


# CacheManager.


def test_results_of_registered_functions_are_kept(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(caching._Results, "_clock", staticmethod(clock))
    calls = []

    @CacheManager.register("model_info")
    def model_info() -> dict[str, Any]:
        calls.append("model_info")
        return {"small": {"params": "300M"}}

    CacheManager.register("device_detection", lambda: calls.append("device") or "cpu")
    CacheManager.register("ui_presets", lambda: calls.append("presets") or {"quick": 15})
    assert model_info() == {"small": {"params": "300M"}} and calls == ["model_info"]
    calls.clear()
    for _ in range(3):
        assert CacheManager.cache_model_info() == {"small": {"params": "300M"}}
        assert CacheManager.cache_device_detection() == "cpu"
        assert CacheManager.cache_ui_presets() == {"quick": 15}
    assert calls == ["model_info", "device", "presets"]
    for seconds, renewed in ((301, ["device"]), (300, ["device", "presets"]),
                             (1200, ["model_info", "device", "presets"])):
        clock.now += seconds
        calls.clear()
        CacheManager.cache_model_info()
        CacheManager.cache_device_detection()
        CacheManager.cache_ui_presets()
        assert calls == renewed
    assert {"cache_model_info", "cache_device_detection", "cache_ui_presets"} == set(
        perf_monitor.metrics)


def test_what_is_not_registered_says_what_to_do():
    with pytest.raises(LookupError, match=r'@CacheManager.register\("model_info"\)'):
        CacheManager.cache_model_info()
    with pytest.raises(ValueError, match="model_info, device_detection, ui_presets"):
        CacheManager.register("models", lambda: 1)


# PERFORMANCE_CONFIG.


def test_settings_are_read_from_the_service_and_written_to_it(service, clock):
    client = Client(service.url, timeout=10)
    configure(client=client)
    assert dict(PERFORMANCE_CONFIG) == DEFAULTS == get_performance_config()
    assert {name: type(value) for name, value in PERFORMANCE_CONFIG.items()} == {
        "cache_ttl_seconds": int, "max_history_items": int, "memory_cleanup_interval": int,
        "enable_monitoring": bool, "debounce_delay": float}
    PERFORMANCE_CONFIG["cache_ttl_seconds"] = 600
    assert client.get_setting("cache_ttl_seconds")["value"] == 600
    assert PERFORMANCE_CONFIG["cache_ttl_seconds"] == 600
    PERFORMANCE_CONFIG.update(max_history_items=7, debounce_delay=0.25)
    assert client.get_setting("max_history_items")["value"] == 7
    assert client.get_setting("debounce_delay")["value"] == 0.25
    # What is set there by another one is seen here after a few seconds.
    client.change_settings(debounce_delay=1.5)
    assert PERFORMANCE_CONFIG["debounce_delay"] == 0.25
    clock.now += limits.SETTINGS_SECONDS
    assert PERFORMANCE_CONFIG["debounce_delay"] == 1.5
    del PERFORMANCE_CONFIG["debounce_delay"]
    assert PERFORMANCE_CONFIG["debounce_delay"] == 0.5
    assert client.get_setting("debounce_delay")["source"] == "default"
    PERFORMANCE_CONFIG.clear()
    assert PERFORMANCE_CONFIG.copy() == DEFAULTS


def test_reads_are_answered_from_a_copy(client, clock, monkeypatch):
    calls = []
    answer = client._answer
    monkeypatch.setattr(client, "_answer", lambda request, timeout: (
        calls.append(request.target), answer(request, timeout))[1])
    configure(client=client)
    for _ in range(50):
        PERFORMANCE_CONFIG["debounce_delay"]
        get_performance_config()
    assert calls == ["/v1/config"]
    clock.now += limits.SETTINGS_SECONDS
    PERFORMANCE_CONFIG["debounce_delay"]
    assert len(calls) == 2


def test_unknown_names_and_wrong_values(client):
    configure(client=client)
    with pytest.raises(KeyError, match="did you mean 'cache_ttl_seconds'"):
        PERFORMANCE_CONFIG["cache_ttl_second"]
    with pytest.raises(KeyError):
        PERFORMANCE_CONFIG["new_setting"] = 1
    with pytest.raises(KeyError):
        del PERFORMANCE_CONFIG["new_setting"]
    assert PERFORMANCE_CONFIG.get("new_setting", 5) == 5
    assert "new_setting" not in PERFORMANCE_CONFIG and "debounce_delay" in PERFORMANCE_CONFIG
    before = get_performance_config()
    for name, value, error in (
        ("cache_ttl_seconds", 0, ValueError), ("cache_ttl_seconds", -1, ValueError),
        ("cache_ttl_seconds", "300", TypeError), ("max_history_items", 2.5, ValueError),
        ("max_history_items", 0, ValueError), ("enable_monitoring", 1, TypeError),
        ("debounce_delay", True, TypeError), ("debounce_delay", float("nan"), ValueError),
        ("debounce_delay", float("inf"), ValueError),
        ("memory_cleanup_interval", 1e9, ValueError),
    ):
        with pytest.raises(error, match=name):
            PERFORMANCE_CONFIG[name] = value
        # All or none.
        with pytest.raises(error):
            PERFORMANCE_CONFIG.update({"debounce_delay": 3, name: value})
    PERFORMANCE_CONFIG.forget()
    assert get_performance_config() == before
    with pytest.raises(TypeError):
        PERFORMANCE_CONFIG.popitem()


def test_the_bounds_are_those_of_the_service(client):
    from reprise_client import InvalidRequest
    from reprise_client.optimization_utils.configuration import _SETTINGS

    for name, setting in _SETTINGS.items():
        if setting.default is True:
            continue
        for wrong in (setting.lowest - 1, setting.highest * 2):
            with pytest.raises(InvalidRequest):
                client.change_settings(**{name: wrong})
        for right in (setting.lowest, setting.highest):
            client.change_settings(**{name: right})
        client.drop_setting(name)


def test_without_a_service_defaults_and_local_values_hold(clock, caplog):
    configure(client=quick("http://127.0.0.1:1"))
    assert get_performance_config() == DEFAULTS
    PERFORMANCE_CONFIG["cache_ttl_seconds"] = 600
    PERFORMANCE_CONFIG["enable_monitoring"] = False
    assert PERFORMANCE_CONFIG["cache_ttl_seconds"] == 600
    assert get_performance_config() == {**DEFAULTS, "cache_ttl_seconds": 600,
                                        "enable_monitoring": False}
    assert "in force in this process only" in caplog.text
    with pytest.raises(ValueError):
        PERFORMANCE_CONFIG["cache_ttl_seconds"] = -5
    with pytest.raises(KeyError):
        PERFORMANCE_CONFIG["nope"] = 1
    del PERFORMANCE_CONFIG["cache_ttl_seconds"]
    assert PERFORMANCE_CONFIG["cache_ttl_seconds"] == 300


def test_the_service_goes_and_comes_back(service, clock):
    client = quick(service.url, timeout=10)
    configure(client=client)
    PERFORMANCE_CONFIG["max_history_items"] = 7
    service.kill()
    clock.now += limits.SETTINGS_SECONDS
    # The last known values, and what was set meanwhile.
    assert PERFORMANCE_CONFIG["max_history_items"] == 7
    PERFORMANCE_CONFIG["debounce_delay"] = 2
    assert PERFORMANCE_CONFIG["debounce_delay"] == 2
    service.start()

    def is_there() -> bool:
        clock.now += limits.MAX_SETTINGS_RETRY_SECONDS
        PERFORMANCE_CONFIG["debounce_delay"]
        return bool(client.get_setting("debounce_delay")["value"] == 2)

    until(is_there)
    client.change_settings(debounce_delay=3)
    clock.now += limits.MAX_SETTINGS_RETRY_SECONDS
    until(lambda: (setattr(clock, "now", clock.now + 60),
                   PERFORMANCE_CONFIG["debounce_delay"])[1] == 3)


def test_a_hanging_service_delays_reads_by_a_bounded_time(service, clock, monkeypatch):
    client = Client(service.url)
    spent = []
    run = client._run

    def timed(call: Any) -> Any:
        spent.append(call.timeout)
        return run(call)

    monkeypatch.setattr(client, "_run", timed)
    configure(client=client)
    hold(service)
    for _ in range(100):
        assert PERFORMANCE_CONFIG["debounce_delay"] == 0.5
    # It was asked once, with a bounded time, and not again until a pause is over.
    assert spent == [limits.SETTINGS_CALL_SECONDS]
    PERFORMANCE_CONFIG["debounce_delay"] = 2
    assert spent[1:] == [limits.SETTINGS_WRITE_SECONDS]
    assert PERFORMANCE_CONFIG["debounce_delay"] == 2
    perf_monitor.record("operation", 0.1)
    MemoryManager.optimize_session_state()
    service.go_on()


def test_a_token_that_may_not_read_settings(service, clock, caplog):
    admin = Client(service.url, timeout=10)
    owner = Client(service.url, timeout=10,
                   token=admin.create_token(name="a", scopes=["admin"])["token"])
    writer = Client(service.url, timeout=10,
                    token=owner.create_token(name="w", scopes=["write"])["token"])
    configure(client=writer)
    assert get_performance_config() == DEFAULTS
    PERFORMANCE_CONFIG["debounce_delay"] = 2
    assert PERFORMANCE_CONFIG["debounce_delay"] == 2
    clock.now += 2 * limits.MAX_SETTINGS_RETRY_SECONDS
    assert PERFORMANCE_CONFIG["debounce_delay"] == 2
    assert owner.get_setting("debounce_delay")["value"] == 0.5
    assert "403" in caplog.text


def test_threads_share_one_read(client):
    calls = []
    settings = PerformanceSettings(lambda: client)
    run = settings._run
    settings._run = lambda *a, **k: (calls.append(1), time.sleep(0.05), run(*a, **k))[2]
    threads = [threading.Thread(target=settings.copy) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]


# Which service.


def test_the_default_client_is_that_of_the_environment(service, name, monkeypatch):
    monkeypatch.setenv("REPRISE_URL", service.url)
    configure()
    client = Client(service.url, timeout=10)
    client.change_settings(max_history_items=9)
    assert context.current_client().url == service.url
    until(lambda: (PERFORMANCE_CONFIG.forget(), PERFORMANCE_CONFIG["max_history_items"])[1] == 9)
    perf_monitor.record(name, 1.0)
    assert context.current_monitor().flush(PATIENCE)
    assert client.get_samples(name=name).items


def test_an_address_that_is_none_is_logged_and_everything_goes_on(monkeypatch, caplog):
    monkeypatch.setenv("REPRISE_URL", "ftp://nowhere")
    configure()
    assert get_performance_config() == DEFAULTS
    PERFORMANCE_CONFIG["debounce_delay"] = 1
    assert PERFORMANCE_CONFIG["debounce_delay"] == 1
    perf_monitor.record("operation", 1.0)
    assert [r.levelname for r in caplog.records if "ftp" in r.getMessage()] == ["ERROR"]


async def test_a_client_for_asyncio_is_refused_where_it_is_given():
    from reprise_client import AsyncClient

    with pytest.raises(TypeError, match="Client"):
        configure(client=AsyncClient("http://127.0.0.1:1"))  # type: ignore[arg-type]


# Within Streamlit: an app in which only the import was changed.

APP = '''
import time
import streamlit as st

from reprise_client.optimization_utils import (
    PERFORMANCE_CONFIG, CacheManager, LazyLoader, MemoryManager, debounce_rerun,
    get_performance_config, minimize_reruns, perf_monitor, render_performance_dashboard,
    session_manager, streamlit_cache_data_with_metrics, streamlit_cache_resource_with_metrics,
)

session_manager.initialize_defaults({"history": [], "feedback": {}, "auto_generate": False})

@streamlit_cache_resource_with_metrics()
def load_backend():
    st.session_state.loads = st.session_state.get("loads", 0) + 1
    return object()

@streamlit_cache_data_with_metrics(ttl=1800, show_spinner=False)
def cached_quality_score(audio_path, expected_params):
    st.session_state.scorings = st.session_state.get("scorings", 0) + 1
    return {"score": len(audio_path), "params": expected_params}

@CacheManager.register("ui_presets")
def presets():
    return {"quick": {"duration": 15}}

@minimize_reruns
def rerun():
    return "rerun"

st.session_state.backend = id(load_backend())
if st.button("Generate"):
    perf_monitor.start_timer("generate")
    number = len(st.session_state.history)
    st.session_state.history.insert(0, {"id": f"g-{number}", "prompt": "jazz"})
    session_manager.safe_set("temp_wave", bytes(1000))
    session_manager.safe_set("large_audio_data", bytes(1000))
    st.session_state.temp_current_generation = f"g-{number}"
    score = cached_quality_score("a.wav", {"tempo": 120})
    st.write(f"score {score['score']}, {CacheManager.cache_ui_presets()['quick']['duration']} s")
    perf_monitor.end_timer("generate")
if st.button("Rerun"):
    st.write(f"allowed: {rerun()}")
st.write(f"cut to {get_performance_config()['max_history_items']}")
render_performance_dashboard()
'''


@pytest.fixture
def app(tmp_path) -> Any:
    pytest.importorskip("streamlit", reason="Streamlit is not installed")
    from streamlit.testing.v1 import AppTest

    configure()
    path = tmp_path / "app.py"
    path.write_text(APP)

    def open_tab() -> Any:
        return AppTest.from_file(str(path), default_timeout=PATIENCE).run()

    return open_tab


def button(tab: Any, label: str) -> Any:
    return next(button for button in tab.button if label in button.label)


def texts(tab: Any) -> list[str]:
    return [element.value for element in tab.markdown]


def test_an_app_runs_with_only_its_import_changed(app, shared_service, client, monkeypatch):
    monitor = client.monitor(flush_seconds=3600)
    configure(client=client, monitor=monitor)
    tab = app()
    assert not tab.exception
    assert "cut to 20" in texts(tab)
    backend = tab.session_state.backend
    for number in range(3):
        button(tab, "Generate").click().run()
        assert not tab.exception
        assert "score 5, 15 s" in texts(tab)
        assert tab.session_state.history[0]["id"] == f"g-{number}"
    # Computed once, in spite of all reruns.
    assert tab.session_state.scorings == 1 and tab.session_state.backend == backend
    assert monitor.flush(PATIENCE)
    scores = client.get_samples(name="cached_quality_score").items[::-1]
    assert [s["cache"] for s in scores] == ["miss", "hit", "hit"]
    assert len(client.get_samples(name="generate").items) == 3
    # The state of the app is that of Streamlit, not of the process.
    assert context._local_state == {}


def test_the_dashboard_shows_and_cleans(app):
    tab = app()
    button(tab, "Generate").click().run()
    sidebar = tab.sidebar
    assert [metric.label for metric in sidebar.metric] == ["Memory Usage"]
    assert sidebar.metric[0].value.endswith(" MB") and float(sidebar.metric[0].value[:-3]) > 1
    captions = [caption.value for caption in sidebar.caption]
    assert any(c.startswith("generate: ") and c.endswith("s") for c in captions)
    assert any(c.startswith("cached_quality_score_") for c in captions)
    for number in range(30):
        tab.session_state.history.insert(0, {"id": f"h-{number}"})
    next(b for b in sidebar.button if "Cleanup" in b.label).click().run()
    assert not tab.exception
    assert [message.value for message in tab.sidebar.success] == ["Cleaned 1 objects"]
    assert "large_audio_data" not in tab.session_state
    assert "temp_wave" not in tab.session_state
    assert tab.session_state.temp_current_generation == "g-0"
    history = tab.session_state.history
    assert len(history) == 20 and history[0]["id"] == "h-29"


def test_each_session_has_its_own_state_and_debounce(app, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(state, "_wall", clock)
    first, second = app(), app()
    button(first, "Generate").click().run()
    assert second.session_state.history == []
    button(first, "Rerun").click().run()
    button(second, "Rerun").click().run()
    assert "allowed: rerun" in texts(first) and "allowed: rerun" in texts(second)
    button(first, "Rerun").click().run()
    assert "allowed: None" in texts(first)
    clock.now += 1.01
    button(first, "Rerun").click().run()
    assert "allowed: rerun" in texts(first)


def test_streamlit_says_what_it_cannot_hash_and_keeps_no_exception(app):
    from streamlit.testing.v1 import AppTest

    def script() -> None:
        import threading

        import streamlit as st

        from reprise_client.optimization_utils import streamlit_cache_data_with_metrics

        @streamlit_cache_data_with_metrics(show_spinner=False)
        def load(value: object, _connection: object = None) -> int:
            if value == "broken":
                raise OSError("broken")
            st.session_state.calls = st.session_state.get("calls", 0) + 1
            return 7

        assert load("a", threading.Lock()) == load("a", threading.Lock()) == 7
        for wrong in (threading.Lock(), "broken"):
            try:
                load(wrong)
            except Exception as error:
                st.write(type(error).__name__)
        if st.button("Clear"):
            load.clear()
            load("a")

    tab = AppTest.from_function(script, default_timeout=PATIENCE).run()
    assert not tab.exception
    assert texts(tab) == ["UnhashableParamError", "OSError"]
    assert tab.session_state.calls == 1
    tab.button[0].click().run()
    assert not tab.exception and tab.session_state.calls == 2


def test_initialized_keys_are_those_of_the_session(app):
    keys = {"history", "feedback", "auto_generate"}
    from streamlit.testing.v1 import AppTest

    def script() -> None:
        import streamlit as st
        from streamlit.runtime.scriptrunner import get_script_run_ctx

        from reprise_client.optimization_utils import session_manager

        # A test of an app has the same id for all its sessions; the server has not.
        if "id" in st.session_state:
            get_script_run_ctx().session_id = st.session_state.id
        st.session_state.before = sorted(session_manager.get_initialized_keys())
        session_manager.initialize_defaults({"history": [], "feedback": {},
                                             "auto_generate": False})
        st.session_state.after = session_manager.get_initialized_keys()

    first = AppTest.from_function(script, default_timeout=PATIENCE).run()
    assert first.session_state.after == keys
    second = AppTest.from_function(script, default_timeout=PATIENCE)
    second.session_state["feedback"] = {"g-1": 5}
    second.session_state["id"] = "second"
    second.run()
    assert second.session_state.before == []
    assert second.session_state.after == keys - {"feedback"}
    assert second.session_state.feedback == {"g-1": 5}


@pytest.mark.parametrize("state_of_service", ["gone", "hanging"])
def test_the_app_goes_on_without_the_service(app, service, state_of_service):
    client = quick(service.url)
    configure(client=client, monitor=client.monitor(flush_seconds=0.01))
    if state_of_service == "gone":
        service.kill()
    else:
        hold(service)
    tab = app()
    button(tab, "Generate").click().run()
    assert not tab.exception
    assert "score 5, 15 s" in texts(tab) and "cut to 20" in texts(tab)
    next(b for b in tab.sidebar.button if "Cleanup" in b.label).click().run()
    assert not tab.exception
    assert context.current_monitor().statistics()["sent"] == 0
    context.current_monitor().close(0)
