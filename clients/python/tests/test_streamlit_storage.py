"""The storage of `st.cache_data(persist="disk")`: what Streamlit expects, and what replicas see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reprise_client import Client, ConnectFailed
from reprise_client.http.message import Headers, Response
from reprise_client.operations import Entry, Stored

streamlit = pytest.importorskip("streamlit", reason="Streamlit is not installed")

from streamlit.runtime.caching.storage import (  # noqa: E402
    CacheStorageContext,
    CacheStorageKeyNotFoundError,
)
from streamlit.runtime.caching.storage.dummy_cache_storage import (  # noqa: E402
    MemoryCacheStorageManager,
)

from reprise_client import limits  # noqa: E402
from reprise_client.streamlit import (  # noqa: E402
    MissingSecret,
    UnsupportedStreamlit,
    install,
    status,
    uninstall,
    versions,
)
from reprise_client.streamlit.storage import Seal, Shared, SharedStorages  # noqa: E402

SECRET = "0123456789abcdef0123456789abcdef"


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Replica:
    """One process of the app, as far as the storage goes."""

    def __init__(self, client: Any, namespace: str, **options: Any) -> None:
        self.clock = Clock()
        seal = Seal(options.pop("secret", SECRET))
        self.shared = Shared(client, namespace, seal, now=self.clock, **options)
        self.storages = SharedStorages(self.shared, MemoryCacheStorageManager())

    def function(self, key: str = "f" * 32, **options: Any) -> Any:
        return self.storages.create(CacheStorageContext(
            function_key=key, function_display_name="f", persist="disk", **options))

    @property
    def figures(self) -> Any:
        return self.shared.figures

    def close(self) -> None:
        self.shared.close(0)


def is_missing(storage: Any, key: str) -> bool:
    try:
        storage.get(key)
    except CacheStorageKeyNotFoundError:
        return True
    return False


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def hold(service: Any) -> None:
    """Stops the service, and waits until it has stopped."""
    service.hold()
    stat = f"/proc/{service.process.pid}/stat"

    def is_stopped() -> bool:
        with open(stat) as file:
            return file.read().rpartition(")")[2].split()[0] == "T"

    until(is_stopped)


@pytest.fixture
def replicas(client: Client, name: str) -> Iterator[tuple[Replica, Replica]]:
    first, second = Replica(client, name), Replica(client, name)
    yield first, second
    first.close()
    second.close()


# What Streamlit expects of a storage.


def test_what_was_set_is_found_and_what_was_not_is_missing(replicas):
    storage = replicas[0].function()
    assert is_missing(storage, "a")
    assert not storage.has("a")
    storage.set("a", b"value")
    assert storage.get("a") == b"value"
    assert storage.has("a")
    storage.set("a", b"other")
    assert storage.get("a") == b"other"
    storage.delete("a")
    assert is_missing(storage, "a")
    storage.delete("a")


@pytest.mark.parametrize("value", [b"", b"\0" * 3, bytes(range(256)) * 5000])
def test_any_bytes_come_back(replicas, value):
    replicas[0].function().set("a", value)
    found = replicas[1].function().get("a")
    assert found == value and type(found) is bytes


def test_clear_removes_the_values_of_one_function_only(replicas):
    first, second = replicas[0].function("1" * 32), replicas[0].function("2" * 32)
    for storage in (first, second):
        storage.set("a", b"1")
        storage.set("b", b"2")
    first.clear()
    assert is_missing(first, "a") and is_missing(first, "b")
    assert second.get("a") == b"1"
    other = replicas[1]
    assert is_missing(other.function("1" * 32), "a")
    assert other.function("2" * 32).get("b") == b"2"


def test_clear_all_removes_everything(replicas):
    for key in ("1" * 32, "2" * 32):
        replicas[0].function(key).set("a", b"1")
    replicas[0].storages.clear_all()
    for key in ("1" * 32, "2" * 32):
        assert is_missing(replicas[1].function(key), "a")


def test_a_ttl_counts_in_all_replicas(replicas, client, name):
    first, second = (replica.function(ttl_seconds=100) for replica in replicas)
    first.set("a", b"1")
    (entry,) = client.list_entries(name).items
    assert entry["ttl_seconds"] == pytest.approx(100, abs=1)
    assert second.get("a") == b"1"
    # Streamlit's own copy in memory has real time; the clock of the replica is what expires it.
    replicas[1].clock.now += 101
    local = replicas[1].shared.copies.get(second, "a")
    assert replicas[1].clock.now > local.expires_at
    client.delete_entry(name, entry["key"])
    assert is_missing(second, "a")


def test_without_a_ttl_values_are_kept_for_a_bounded_time(replicas, client, name):
    replicas[0].function().set("a", b"1")
    (entry,) = client.list_entries(name).items
    assert entry["ttl_seconds"] == limits.STREAMLIT_KEEP_SECONDS
    forever = Replica(client, name, keep_seconds=None)
    forever.function().set("b", b"1")
    kept = {each["ttl_seconds"] for each in client.list_entries(name).items}
    assert kept == {limits.STREAMLIT_KEEP_SECONDS, None}


def test_an_entry_tells_its_function_and_what_it_cost(replicas, client, name):
    storage = replicas[0].function("abc")
    assert is_missing(storage, "k")
    replicas[0].clock.now += 12.5
    storage.set("k", b"1")
    (entry,) = client.list_entries(name).items
    assert entry["key"].startswith("abc.k")
    assert entry["tags"] == ["function:abc"]
    assert entry["compute_seconds"] == 12.5


def test_a_miss_is_asked_for_once(replicas, client):
    first, second = (replica.function() for replica in replicas)
    calls = client.statistics()["calls"]
    for _ in range(5):
        assert is_missing(second, "a")
    assert client.statistics()["calls"] == calls + 1
    assert replicas[1].figures.misses == 1
    first.set("a", b"1")
    assert is_missing(second, "a")
    replicas[1].clock.now += 1
    assert second.get("a") == b"1"


def test_what_is_not_persisted_is_left_to_streamlit(replicas, client, name):
    storage = replicas[0].storages.create(CacheStorageContext(
        function_key="f", function_display_name="f", persist=None))
    storage.set("a", b"1")
    assert storage.get("a") == b"1"
    assert client.list_entries(name).items == []


def test_a_session_scope_is_left_to_streamlit(replicas, client, name):
    replica = replicas[0]
    sessions = [SharedStorages(replica.shared, MemoryCacheStorageManager(), scope="session").create(
        CacheStorageContext(function_key="f" * 32, function_display_name="f", persist="disk"))
        for _ in range(2)]
    replica.function().set("a", b"of all")
    sessions[0].set("a", b"of one")
    assert is_missing(sessions[1], "a")
    sessions[0].clear()
    replica.clock.now += 10
    assert replica.function().get("a") == b"of all"


def test_max_entries_bounds_the_copies(replicas):
    storage = replicas[0].function(max_entries=2)
    for key in "abc":
        storage.set(key, key.encode())
    before = replicas[0].figures.local_hits
    assert storage.get("a") == b"a"
    assert replicas[0].figures.local_hits == before, "it was in memory"


# Copies in the process.


def test_a_copy_is_checked_once_in_a_while_and_by_its_tag(replicas, client):
    replica = replicas[0]
    storage = replica.function()
    storage.set("a", b"1" * 1000)
    calls = client.statistics()["calls"]
    for _ in range(50):
        storage.get("a")
    assert client.statistics()["calls"] == calls
    replica.clock.now += replica.shared.revalidate_seconds
    expires = replica.shared.copies.get(storage, "a").expires_at
    for _ in range(50):
        assert storage.get("a") == b"1" * 1000
    assert client.statistics()["calls"] == calls + 1
    assert replica.shared.copies.get(storage, "a").expires_at == pytest.approx(expires, abs=5)


def test_a_check_moves_no_value(name):
    entry = Entry(Response(200, Headers([(b"ETag", b'"1"')]), b"RPS0value"))
    client = FakeClient(lambda: entry)
    replica = Replica(client, name, secret=None)
    storage = replica.function()
    assert storage.get("a") == b"value"
    assert client.asked == [None]
    replica.clock.now += 5
    client.answer = lambda: Entry(Response(304, Headers([(b"ETag", b'"1"')]), b""))
    assert storage.get("a") == b"value"
    assert client.asked == [None, '"1"']


def test_a_copy_ends_when_the_entry_does(name):
    headers = Headers([(b"ETag", b'"1"'), (b"Cache-Control", b"private, max-age=5")])
    client = FakeClient(lambda: Entry(Response(200, headers, b"RPS0value")))
    replica = Replica(client, name, secret=None, revalidate_seconds=1000)
    storage = replica.function()
    for seconds, asked in ((0, 1), (4.9, 1), (0.2, 2), (4, 2)):
        replica.clock.now += seconds
        assert storage.get("a") == b"value"
        assert len(client.asked) == asked
    client.put_entry = lambda *arguments, **options: Stored(Response(201, headers, b""))
    limited = replica.function("1" * 32, ttl_seconds=10)
    limited.set("b", b"own")
    replica.clock.now += 9
    assert limited.get("b") == b"own"
    replica.clock.now += 2
    assert limited.get("b") == b"value"


def test_another_replica_sees_a_change_when_it_checks(replicas):
    first, second = (replica.function() for replica in replicas)
    first.set("a", b"1")
    assert second.get("a") == b"1"
    first.set("a", b"2")
    assert second.get("a") == b"1"
    replicas[1].clock.now += 1
    assert second.get("a") == b"2"
    first.clear()
    replicas[1].clock.now += 1
    assert is_missing(second, "a")


def test_copies_are_bounded(client, name):
    replica = Replica(client, name, max_local_bytes=1000, max_local_entries=5)
    storage = replica.function()
    for number in range(20):
        storage.set(str(number), b"x" * 10)
    assert replica.shared.copies.figures() == (5, 50)
    storage.set("large", b"x" * 990)
    assert replica.shared.copies.figures() == (2, 1000)
    before = replica.figures.local_hits
    assert storage.get("0") == b"x" * 10
    assert replica.figures.local_hits == before
    replica.close()


def test_a_value_that_was_cleared_on_its_way_is_not_kept(name):
    entry = Entry(Response(200, Headers([(b"ETag", b'"1"')]), b"RPS0old"))

    def clear_meanwhile() -> Entry:
        client.answer = lambda: entry
        storage.clear()
        return entry

    client = FakeClient(clear_meanwhile)
    replica = Replica(client, name, secret=None)
    storage = replica.function()
    assert storage.get("a") == b"old"
    assert replica.shared.copies.figures() == (0, 0)


class FakeClient:
    """Answers as it is told, and remembers what it was asked."""

    url, timeout = "http://fake", 2.0

    def __init__(self, answer: Callable[[], Entry]) -> None:
        self.answer = answer
        self.asked: list[str | None] = []

    def get_entry(self, namespace: str, key: str, *, if_none_match: str | None = None) -> Entry:
        self.asked.append(if_none_match)
        return self.answer()

    def clear_entries(self, namespace: str, *, tag: str | None = None) -> None:
        pass

    def put_entry(self, *arguments: Any, **options: Any) -> None:
        raise NotImplementedError

    def delete_entry(self, *arguments: Any, **options: Any) -> None:
        raise NotImplementedError


# Signatures.


def test_what_others_wrote_is_not_read(replicas, client, name):
    storage = replicas[0].function()
    storage.set("a", b"1")
    storage.set("b", b"2")
    own, other = (entry["key"] for entry in client.list_entries(name).items)
    signed = client.get_entry(name, own).body
    forged = [
        b"", b"RPS1", b"\x80\x04N.", b"RPS0\x80\x04N.",
        signed[:-1], signed + b"x", signed[:10] + b"\0" + signed[11:], b"RPS0" + signed[36:],
    ]
    reader = replicas[1].function()
    for number, body in enumerate(forged):
        client.put_entry(name, own, body)
        replicas[1].clock.now += 1
        assert is_missing(reader, "a"), body
        assert replicas[1].figures.rejected == number + 1
    # Nor is a value in the place of another, or in another namespace.
    client.put_entry(name, other, signed)
    assert is_missing(reader, "b")
    client.put_entry(name + "-2", own, signed)
    assert is_missing(Replica(client, name + "-2").function(), "a")
    client.put_entry(name, own, signed)
    replicas[1].clock.now += 1
    assert reader.get("a") == b"1"


def test_another_secret_reads_nothing(client, name):
    Replica(client, name).function().set("a", b"1")
    assert is_missing(Replica(client, name, secret=SECRET[::-1]).function(), "a")
    assert is_missing(Replica(client, name, secret=None).function(), "a")


def test_a_rejected_copy_is_replaced(replicas, client, name):
    storage = replicas[0].function()
    storage.set("a", b"1")
    (entry,) = client.list_entries(name).items
    client.put_entry(name, entry["key"], b"forged")
    replicas[0].clock.now += 1
    assert is_missing(storage, "a")
    storage.set("a", b"3")
    assert replicas[1].function().get("a") == b"3"


def test_a_short_secret_is_refused():
    with pytest.raises(ValueError, match="needs at least 16"):
        Seal("short")


# When the service is gone.


def test_without_the_service_misses_and_copies(service, name):
    replica = Replica(Client(service.url, timeout=2), name)
    storage = replica.function()
    storage.set("kept", b"1")
    service.kill()
    replica.clock.now += 5
    assert storage.get("kept") == b"1"
    assert replica.figures.unchecked_hits == 1
    assert is_missing(storage, "absent")
    storage.set("new", b"2")
    assert storage.get("new") == b"2"
    storage.delete("kept")
    assert is_missing(storage, "kept")
    assert not storage.has("absent")
    assert replica.figures.errors > 0 and replica.figures.last_error
    replica.close()


def test_what_waited_is_sent_when_the_service_is_back(service, name):
    replica = Replica(Client(service.url, timeout=5), name)
    storage, cleared = replica.function("1" * 32), replica.function("2" * 32)
    storage.set("stale", b"0")
    cleared.set("old", b"0")
    cleared.set("again", b"0")
    service.kill()
    storage.set("a", b"1")
    storage.delete("stale")
    cleared.set("never", b"0")
    cleared.clear()
    cleared.set("again", b"1")
    assert replica.shared.unsent.figures()[0] == 4
    # The service still has what was removed; here it is gone already.
    service.start()
    replica.clock.now += 100
    assert is_missing(cleared, "old")
    until(lambda: replica.shared.unsent.figures() == (0, 0))
    other = Replica(Client(service.url, timeout=5), name)
    assert other.function("1" * 32).get("a") == b"1"
    assert is_missing(other.function("1" * 32), "stale")
    assert is_missing(other.function("2" * 32), "old")
    assert is_missing(other.function("2" * 32), "never")
    assert other.function("2" * 32).get("again") == b"1"
    assert replica.figures.dropped == 0
    replica.close()


def test_what_waited_does_not_replace_what_is_newer(service, name):
    replica = Replica(Client(service.url, timeout=5), name)
    storage = replica.function()
    service.kill()
    storage.set("a", b"late")
    waiting = replica.shared.unsent
    assert waiting.figures()[0] == 1
    held = replica.shared.client
    other = Replica(Client(service.url, timeout=5), name)
    replica.shared.client = Client("http://127.0.0.1:9", timeout=1)  # still out of reach
    service.start()
    other.function().set("a", b"newer")
    replica.shared.client = held
    until(lambda: waiting.figures() == (0, 0))
    replica.clock.now += 10
    assert storage.get("a") == b"newer"
    replica.close()


def test_a_held_service_costs_its_budget_once(service, name):
    replica = Replica(Client(service.url, timeout=0.5), name)
    storage = replica.function()
    storage.set("kept", b"1")
    hold(service)
    try:
        replica.clock.now += 5
        calls = replica.shared.client.statistics()["calls"]
        assert storage.get("kept") == b"1"
        for number in range(20):
            assert is_missing(storage, f"absent-{number}")
            storage.set(f"absent-{number}", b"2")
        # Only the first call waited: the rest of the rerun does without.
        reads = replica.figures.misses + replica.figures.hits
        assert reads == 21
        assert replica.figures.unchecked_hits == 1
        # The thread that sends what waits has tried a few times meanwhile, at most.
        assert 1 <= replica.shared.client.statistics()["calls"] - calls < 20
        assert replica.shared.unsent.figures()[0] == 20
    finally:
        service.go_on()
    until(lambda: replica.shared.unsent.figures() == (0, 0))
    replica.close()


def test_what_is_to_be_removed_is_not_read_any_more(name, monkeypatch):
    entry = Entry(Response(200, Headers([(b"ETag", b'"1"')]), b"RPS0old"))
    client = FakeClient(lambda: entry)

    def fail(*arguments: Any, **options: Any) -> None:
        raise ConnectFailed("gone for removals only")

    monkeypatch.setattr(client, "clear_entries", fail)
    monkeypatch.setattr(client, "delete_entry", fail)
    monkeypatch.setattr(client, "put_entry", fail)
    replica = Replica(client, name, secret=None)
    storage, other = replica.function("1" * 32), replica.function("2" * 32)
    storage.delete("a")
    replica.clock.now += 10
    assert is_missing(storage, "a") and not storage.has("a")
    assert storage.get("b") == b"old"
    storage.clear()
    replica.clock.now += 10
    assert is_missing(storage, "b")
    assert other.get("b") == b"old"
    storage.set("b", b"new")
    replica.clock.now += 10
    assert storage.get("b") == b"new"
    replica.storages.clear_all()
    replica.clock.now += 10
    assert is_missing(other, "b")
    replica.close()


def test_the_end_of_the_process_sends_what_waits(client, name):
    replica = Replica(Client("http://127.0.0.1:9", timeout=1), name)
    replica.function().set("a", b"1")
    replica.shared.client = client
    replica.shared.close(60)
    assert replica.shared.unsent.figures() == (0, 0)
    assert Replica(client, name).function().get("a") == b"1"


def test_what_waits_is_bounded(name):
    gone = Client("http://127.0.0.1:9", timeout=1)
    replica = Replica(gone, name, max_unsent_bytes=1000, max_unsent_entries=10)
    storage = replica.function()
    for number in range(30):
        storage.set(str(number), b"x")
    assert replica.shared.unsent.figures() == (10, 10)
    assert replica.figures.dropped == 20
    storage.set("large", b"x" * 995)
    assert replica.shared.unsent.figures()[1] <= 1000
    for number in range(30):
        replica.function(f"{number:032}").clear()
        storage.delete(str(number))
    assert replica.shared.unsent.figures()[0] <= 21
    assert is_missing(storage, "29")
    replica.close()


def test_a_value_the_service_refuses_stays_in_the_process(client, name):
    client.request("PUT", f"/v1/cache/{name}", json={"max_entry_bytes": 100})
    replica = Replica(client, name)
    storage = replica.function()
    storage.set("a", b"x" * 1000)
    replica.clock.now += 10
    assert storage.get("a") == b"x" * 1000
    assert replica.figures.not_shared == 1
    assert replica.shared.unsent.figures() == (0, 0)
    replica.close()


def test_a_value_that_is_too_large_is_not_sent(client, name, monkeypatch):
    monkeypatch.setattr(limits, "MAX_STREAMLIT_VALUE_BYTES", 100)
    replica = Replica(client, name)
    replica.function().set("a", b"x" * 101)
    assert client.list_entries(name).items == []
    assert replica.figures.not_shared == 1


def test_another_server_at_the_address_is_an_error_and_a_miss(client, name):
    wrong = Client(client.url + "/no-such-prefix", timeout=5)
    replica = Replica(wrong, name)
    assert is_missing(replica.function(), "a")
    assert replica.figures.errors == 1


def test_threads_share_a_storage(replicas):
    storage = replicas[0].function()
    problems: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for number in range(60):
                key = str((seed * 7 + number) % 10)
                if number % 20 == 19:
                    storage.clear()
                elif not is_missing(storage, key):
                    assert storage.get(key).startswith(key.encode()) if not is_missing(
                        storage, key) else True
                else:
                    storage.set(key, key.encode() * 100)
                replicas[0].clock.now += 0.3
        except CacheStorageKeyNotFoundError:
            pass  # cleared by another thread between two calls
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []


# Installing it.


@pytest.fixture
def clean() -> Iterator[None]:
    uninstall(wait_seconds=0)
    yield
    uninstall(wait_seconds=0)


def test_it_is_installed_once(clean, client, name):
    assert status()["installed"] is False
    first = install(client, namespace=name, secret=SECRET)
    assert first["installed"] and first["signed"] and first["namespace"] == name
    assert first["runtime"] is False
    from streamlit.runtime.caching import cache_data_api
    hook = cache_data_api._data_caches.get_storage_manager
    results = []
    threads = [threading.Thread(target=lambda: results.append(
        install(Client(client.url, timeout=10), namespace=name, secret=SECRET)))
        for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    install()
    assert cache_data_api._data_caches.get_storage_manager is hook
    assert len(results) == 8
    install(client, namespace=name + "-2", secret=SECRET)
    assert status()["namespace"] == name + "-2"
    uninstall()
    assert status()["installed"] is False
    assert "get_storage_manager" not in vars(cache_data_api._data_caches)
    uninstall()


def test_a_secret_is_needed(clean, client, monkeypatch):
    with pytest.raises(MissingSecret, match="runs the code.*REPRISE_PICKLE_SECRET"):
        install(client)
    with pytest.raises(ValueError, match="at least 16"):
        install(client, secret="short")
    assert status()["installed"] is False
    assert install(client, trust_service=True)["signed"] is False
    uninstall()
    monkeypatch.setenv("REPRISE_TRUST_SERVICE", "1")
    monkeypatch.setenv("REPRISE_STREAMLIT_NAMESPACE", "of-the-environment")
    assert install(client)["namespace"] == "of-the-environment"
    uninstall()
    monkeypatch.setenv("REPRISE_PICKLE_SECRET", SECRET)
    assert install(client)["signed"] is True


def test_other_arguments_are_checked(clean, client):
    for options in ({"revalidate_seconds": -1}, {"keep_seconds": 0}, {"keep_seconds": -1}):
        with pytest.raises(ValueError, match="must be"):
            install(client, secret=SECRET, **options)
    assert status()["installed"] is False


def test_an_unknown_streamlit_is_refused(clean, client, monkeypatch):
    monkeypatch.setattr(streamlit, "__version__", "9.9.1")
    with pytest.raises(UnsupportedStreamlit, match=r"9\.9\.1.*1\.50 to 1\.\d+.*Nothing was"):
        install(client, secret=SECRET)
    assert status()["installed"] is False


def test_an_unexpected_layout_is_refused(clean, client, monkeypatch):
    from streamlit.runtime.caching.cache_data_api import DataCaches

    monkeypatch.delattr(DataCaches, "get_storage_manager")
    with pytest.raises(UnsupportedStreamlit, match="get_storage_manager"):
        install(client, secret=SECRET)
    assert status()["installed"] is False


def test_the_installed_streamlit_is_in_the_table():
    assert versions.minor_version() in versions.SUPPORTED
    assert versions.layout() == versions.SUPPORTED[versions.minor_version()]
