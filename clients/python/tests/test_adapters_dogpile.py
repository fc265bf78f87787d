"""The dogpile.cache backend: its locks, its signatures, and what it does without the service."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest
from conftest import Service
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE

from reprise_client import Client, ConnectionLost, TransportError
from reprise_client.adapters import dogpile as adapter
from reprise_client.adapters.dogpile import RepriseBackend

SECRET = "a secret of 16 bytes or more"


def make(client: Client, name: str, **arguments: Any) -> RepriseBackend:
    return RepriseBackend({"client": client, "namespace": name, "pickle_secret": SECRET,
                           "strict": True, **arguments})


def mutex(backend: RepriseBackend, key: str = "k") -> Any:
    found = backend.get_mutex(key)
    assert found is not None
    return found


def test_the_name_is_known_where_the_package_is_installed(shared_service: Service) -> None:
    region = make_region().configure("reprise", arguments={
        "url": shared_service.url, "pickle_secret": SECRET})
    assert isinstance(region.backend, RepriseBackend)
    adapter.register("by.hand")
    region = make_region().configure("by.hand", arguments={"serializer": "json"})
    assert isinstance(region.backend, RepriseBackend)


def test_the_secret_or_json() -> None:
    with pytest.raises(ValueError, match=r'\["pickle_secret"\].*\["serializer"\] = "json"'):
        RepriseBackend({})
    RepriseBackend({"serializer": "json"})
    with pytest.raises(ValueError, match="serializer is"):
        RepriseBackend({"serializer": "yaml"})
    with pytest.raises(ValueError, match="lock_timeout"):
        RepriseBackend({"serializer": "json", "lock_timeout": 0})
    with pytest.raises(ValueError, match="ttl_seconds"):
        RepriseBackend({"serializer": "json", "ttl_seconds": 0})


def test_values_and_their_time_to_live(client: Client, name: str) -> None:
    backend = make(client, name, ttl_seconds=50)
    backend.set_serialized("k", b"v")
    backend.set_serialized_multi({"a\n": b"1", "x" * 600: b"2"})
    assert backend.get_serialized_multi(["k", "a\n", "absent", "x" * 600]) == [
        b"v", b"1", NO_VALUE, b"2"]
    assert client.get_metadata(name, "k")["ttl_seconds"] == 50
    make(client, name).set_serialized("k", b"v")
    assert client.get_metadata(name, "k")["expires_at"] is None
    backend.delete_multi(["k", "a\n"])
    assert backend.get_serialized_multi(["k", "a\n"]) == [NO_VALUE, NO_VALUE]


def test_a_forged_value_is_a_miss(client: Client, name: str) -> None:
    backend = make(client, name, strict=False)
    backend.set_serialized("a", b"1")
    entry = client.get_entry(name, "a")
    client.put_entry(name, "b", entry.body, content_type=entry.content_type)
    client.put_entry(name, "c", b'{"ct": 1}|\x80\x04N.')
    assert backend.get_serialized_multi("abc") == [b"1", NO_VALUE, NO_VALUE]
    assert backend.failures == 2


def test_processes_exclude_each_other(client: Client, name: str) -> None:
    one, other = mutex(make(client, name)), mutex(make(client, name))
    assert one.acquire() and not other.acquire(False) and other.locked()
    one.release()
    assert not one.locked() and other.acquire(False)
    other.release()
    assert mutex(make(client, name), "another").acquire(False)


def test_a_waiter_gets_the_lock_when_it_is_released(client: Client, name: str) -> None:
    one, other = mutex(make(client, name)), mutex(make(client, name))
    one.acquire()
    got = threading.Event()
    waiter = threading.Thread(target=lambda: other.acquire() and got.set())
    waiter.start()
    assert not got.wait(0.05)
    one.release()
    waiter.join(30)
    assert got.is_set()
    # It really has it.
    assert not one.acquire(False)
    other.release()


def test_a_lock_is_taken_over_after_its_time(client: Client, name: str) -> None:
    lost, other = mutex(make(client, name, lock_timeout=0.2)), mutex(make(client, name))
    lost.acquire()
    deadline = time.monotonic() + 30
    while not other.acquire(False):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # Who lost it does not give away what is another's now.
    lost.release()
    assert not mutex(make(client, name)).acquire(False)
    other.release()


def test_a_waiter_goes_on_at_last(client: Client, name: str) -> None:
    """Whoever holds the lock all the time: the app must not stand still."""
    holder, waiter = mutex(make(client, name)), mutex(make(client, name, lock_timeout=0.3))
    holder.acquire()
    assert waiter.acquire()
    waiter.release()
    assert not waiter.acquire(False)
    holder.release()


def test_an_answer_that_was_lost_leaves_no_lock(
    client: Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(client, name, strict=False)
    held = mutex(backend)
    put = client.put_entry

    def put_and_lose(*arguments: Any, **options: Any) -> Any:
        put(*arguments, **options)
        raise ConnectionLost("lost")

    with monkeypatch.context() as patched:
        patched.setattr(client, "put_entry", put_and_lose, raising=False)
        assert held.acquire()
    assert not mutex(backend).acquire(False)
    held.release()
    assert mutex(backend).acquire(False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_no_lock(client: Client, name: str) -> None:
    held = mutex(make(client, name))
    held.acquire()
    child = os.fork()
    if child == 0:
        # Its parent has the lock, and no thread here will release the one of the process.
        signal.alarm(30)
        was_free = held.acquire(False)
        os._exit(7 if not was_free and held.acquire() else 1)
    time.sleep(0.05)
    held.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_lock_that_is_not_taken_cannot_be_released(client: Client, name: str) -> None:
    with pytest.raises(RuntimeError):
        mutex(make(client, name)).release()


def test_two_regions_create_once(client: Client, name: str) -> None:
    """As two processes would: each region has its own locks of the process."""
    running = threading.Lock()
    calls = []

    def creator() -> int:
        assert running.acquire(False), "two creators at once"
        calls.append(1)
        time.sleep(0.05)
        running.release()
        return 42

    def create(results: list[int]) -> None:
        region = make_region().configure("reprise", arguments={
            "client": client, "namespace": name, "pickle_secret": SECRET, "strict": True})
        results.append(region.get_or_create("k", creator))

    results: list[int] = []
    threads = [threading.Thread(target=create, args=(results,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [42] * 6 and len(calls) == 1


@pytest.mark.parametrize("how", ["killed", "held"])
def test_the_app_goes_on_without_the_service(service: Service, name: str, how: str) -> None:
    region = make_region().configure("reprise", expiration_time=60, arguments={
        "url": service.url, "namespace": name, "pickle_secret": SECRET, "call_timeout": 0.3})
    assert region.get_or_create("k", lambda: 1) == 1
    if how == "killed":
        service.kill()
    else:
        service.hold()
    try:
        assert region.get("k") is NO_VALUE
        assert region.get_or_create("k", lambda: 2) == 2
        assert region.get_or_create_multi(["a", "b"], lambda *keys: [1] * len(keys)) == [1, 1]
        region.set("k", 3)
        region.set_multi({"k": 3})
        region.delete("k")
        region.delete_multi(["k"])
        assert not region.key_is_locked("k")
        assert region.actual_backend.failures > 0
    finally:
        service.go_on()


def test_the_lock_of_the_process_holds_without_the_service(service: Service) -> None:
    backend = RepriseBackend({"url": service.url, "pickle_secret": SECRET})
    service.kill()
    held = mutex(backend)
    assert held.acquire() and held.locked() and not held.acquire(False)
    held.release()
    assert not held.locked()


def test_strict_backends_raise(service: Service, name: str) -> None:
    backend = RepriseBackend({"url": service.url, "pickle_secret": SECRET, "strict": True})
    service.kill()
    held = mutex(backend)
    for call in (lambda: backend.get_serialized("k"), lambda: backend.set_serialized("k", b""),
                 lambda: held.acquire()):
        with pytest.raises(TransportError):
            call()
    assert not held._local.locked()
