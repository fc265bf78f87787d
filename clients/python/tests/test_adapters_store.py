"""What the adapters share: keys, signatures, clients, and what happens without the service."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from typing import Any

import pytest
from conftest import Service
from hypothesis import given, settings
from hypothesis import strategies as st

from reprise_client import Client
from reprise_client.adapters import _store
from reprise_client.adapters._store import (
    HASHED,
    Encoded,
    NotAnInteger,
    Pickled,
    Plain,
    Sealed,
    Store,
    Undecodable,
    Value,
    stored_key,
)
from reprise_client.codecs import SignedPickle
from reprise_client.errors import ConnectFailed, TransportError

SECRET = "a secret of 16 bytes or more"
TEXT = Encoded(b"text", "text/plain")


# Keys.


@given(st.text(st.characters(), max_size=600))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_a_stored_key_is_one_that_the_service_takes(key: str) -> None:
    stored = stored_key(key)
    assert 1 <= len(stored.encode("utf-8")) <= 512
    assert not any(c < " " or "\x7f" <= c <= "\x9f" for c in stored)
    assert stored == key or stored.startswith(HASHED)


def test_keys_that_need_it_are_hashed_and_never_meet_another_key() -> None:
    long, control, half = "k" * 513, "a\nb", "\ud800"
    keys = ["", "a", "k" * 512, long, control, half, "\x85", "é" * 257, "\ud83d\ude00", "😀"]
    keys += [stored_key(key) for key in keys]
    names = {key: stored_key(key) for key in dict.fromkeys(keys)}
    changed = [key for key, name in names.items() if name != key]
    assert {"", long, control, half, "\x85", "é" * 257, "\ud83d\ude00"} <= set(changed)
    # Also the keys that look like hashes: each has a stored key of its own.
    assert len(set(names.values())) == len(names)
    assert stored_key("a") == "a" and stored_key("k" * 512) == "k" * 512


def test_a_prefix_stays_in_front_of_a_hash() -> None:
    assert stored_key("a\n", "p:").startswith("p:" + HASHED)
    assert stored_key("", "p:").startswith("p:" + HASHED)
    assert stored_key("k" * 511, "p:").startswith("p:" + HASHED)
    with pytest.raises(ValueError, match="prefix"):
        _store.checked_prefix("p" * 401)
    with pytest.raises(ValueError, match="prefix"):
        _store.checked_prefix("p\n")


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "%2F", " ", "\x00", "é" * 300, "\udcff"])
def test_the_service_takes_them(client: Client, name: str, key: str) -> None:
    store = Store(name, client=client, strict=True)
    stored = stored_key(key)
    assert store.run(store.write(stored, TEXT, None))
    assert store.run(store.exists(stored))
    assert store.run(store.read_many([stored]))[stored].body == b"text"
    assert store.run(store.remove(stored)) is True
    assert store.run(store.remove(stored)) is False


@pytest.mark.parametrize("namespace", ["", "a/b", "a b", ".", "..", "n" * 129, "ü"])
def test_a_namespace_that_the_service_refuses_is_refused_here(namespace: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        Store(namespace)


# Values.


class Trap:
    """Leaves a trace if it is unpickled."""

    sprung = False

    def __reduce__(self) -> Any:
        return (setattr, (Trap, "sprung", True))


@pytest.fixture(autouse=True)
def no_trap() -> None:
    Trap.sprung = False


@pytest.mark.parametrize("kind", ["pickled", "sealed"])
def test_a_signature_belongs_to_a_secret_and_a_place(kind: str) -> None:
    def make(secret: str) -> Any:
        signing = SignedPickle(secret)
        return (Pickled(signing) if kind == "pickled"
                else Sealed(signing, pickle.dumps, pickle.loads))

    ours = make(SECRET)
    encoded = ours.encode((1, "two"), b"place")
    value = Value(bytes(encoded.body), encoded.content_type, "")
    assert ours.decode(value, b"place") == (1, "two")
    with pytest.raises(Undecodable):
        ours.decode(value, b"another")
    with pytest.raises(Undecodable):
        make("another secret of 16 bytes").decode(value, b"place")
    for forged in (pickle.dumps(Trap()), value.body[:-1] + b"x", b"", b"RPK1" + bytes(32)):
        with pytest.raises(Undecodable):
            ours.decode(value._replace(body=forged), b"place")
        with pytest.raises(Undecodable):
            ours.decode(Value(forged, "application/octet-stream", ""), b"place")
        with pytest.raises(Undecodable):
            ours.decode(Value(forged, "application/json", ""), b"place")
    assert not Trap.sprung


def test_what_another_format_wrote_is_not_read() -> None:
    signing = SignedPickle(SECRET)
    formats = [Pickled(signing), Sealed(signing, pickle.dumps, pickle.loads),
               Plain(_store.dump_json, pickle.loads)]
    for one in formats:
        encoded = one.encode(["a"], b"place")
        for other in formats:
            if other is not one:
                with pytest.raises(Undecodable):
                    other.decode(Value(bytes(encoded.body), encoded.content_type, ""), b"place")


def test_integers_are_readable_by_the_service_and_others_are_not_taken_for_them() -> None:
    format = Pickled(SignedPickle(SECRET))
    assert format.encode(-5, b"") == (b"-5", "application/json")
    for value in (True, 5.0, 1 << 63, -(1 << 63) - 1):
        encoded = format.encode(value, b"")
        assert encoded.content_type != "application/json"
        back = format.decode(Value(bytes(encoded.body), encoded.content_type, ""), b"")
        assert back == value and type(back) is type(value)


def test_without_a_secret_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(_store.MissingSecret, match="REPRISE_PICKLE_SECRET") as caught:
        _store.signer(None, "This library", "set it.")
    assert "This library" in str(caught.value) and "set it." in str(caught.value)
    monkeypatch.setenv("REPRISE_PICKLE_SECRET", SECRET)
    assert _store.signer(None, "This library", "set it.").encode(1)


# The store.


def test_many_values_go_in_pieces(client: Client, name: str) -> None:
    """More than one batch of operations, of bytes sent, and of bytes in an answer."""
    store = Store(name, client=client, strict=True)
    values = {f"k{i}": Encoded(b"%d" % i, "text/plain") for i in range(1001)}
    values.update({f"large{i}": Encoded(bytes([i]) * 200_000, "text/plain") for i in range(90)})
    values["alone"] = Encoded(b"x" * 1_000_000, "text/plain")
    assert set(store.run(store.write_many(values, 60))) == set(values)
    found = store.run(store.read_many([*values, "absent"]))
    assert {key: value.body for key, value in found.items()} == {
        key: value.body for key, value in values.items()}
    assert store.run(store.count()) == len(values)
    assert store.run(store.remove_many([*values, "absent"])) == {*values, "absent"}
    assert store.run(store.count()) == 0


def test_counters(client: Client, name: str) -> None:
    store = Store(name, client=client, strict=True)
    zero = Encoded(b"0", "application/json")
    with pytest.raises(KeyError):
        store.run(store.increment("n", 1))
    assert store.run(store.increment("n", 2, start=zero, ttl=50)) == 2
    assert store.run(store.increment("n", 3, start=zero, ttl=5000)) == 5
    left = client.get_metadata(name, "n")["expires_in_seconds"]
    assert left is not None and left <= 50
    with pytest.raises(NotAnInteger):
        store.run(store.increment("n", (1 << 63) - 1))
    assert store.run(store.read("n")).body == b"5"  # type: ignore[union-attr]
    store.run(store.write("t", TEXT, 50))
    with pytest.raises(NotAnInteger):
        store.run(store.increment("t", 1))
    assert store.run(store.change("t", lambda value: Encoded(value.body * 2, "text/plain")))
    assert store.run(store.read("t")).body == b"texttext"  # type: ignore[union-attr]
    left = client.get_metadata(name, "t")["expires_in_seconds"]
    assert left is not None and left <= 50
    with pytest.raises(KeyError):
        store.run(store.change("absent", lambda value: TEXT))


def test_a_change_is_made_anew_when_somebody_else_was_faster(client: Client, name: str) -> None:
    store = Store(name, client=client, strict=True)
    store.run(store.write("k", Encoded(b"a", "text/plain"), None))
    others = [b"b", b"c"]

    def change(value: Value) -> Encoded:
        if others:
            client.put_entry(name, "k", others.pop(), ttl_seconds=None)
        return Encoded(value.body + b"!", "text/plain")

    assert store.run(store.change("k", change))
    assert store.run(store.read("k")).body == b"b!"  # type: ignore[union-attr]


def test_times_to_live(client: Client, name: str) -> None:
    store = Store(name, client=client, strict=True)
    assert store.run(store.write("k", TEXT, 1e15))
    assert store.run(store.touch("k", None))
    assert client.get_metadata(name, "k")["expires_at"] is None
    assert store.run(store.touch("k", 1e15))
    assert client.get_metadata(name, "k")["expires_at"] is not None
    assert not store.run(store.write("k", TEXT, 0, only_new=True))
    assert store.run(store.touch("k", 0))
    assert not store.run(store.touch("k", 0)) and not store.run(store.touch("k", 5))
    assert store.run(store.write("k", TEXT, 0, only_new=True))
    assert store.run(store.read("k")) is None


def everything(store: Store) -> list[Any]:
    """What each flow returns. Without the service, all of them return nothing."""
    run = store.run
    return [
        run(store.read("k")), run(store.read_many(["k"])), run(store.write("k", TEXT, 5)),
        run(store.write("k", TEXT, 5, only_new=True)), run(store.write_many({"k": TEXT}, 5)),
        run(store.remove("k")), run(store.remove_many(["k"])), run(store.exists("k")),
        run(store.touch("k", 5)), run(store.increment("k", 1, start=TEXT)),
        run(store.change("k", lambda value: TEXT)), run(store.clear()), run(store.count()),
        run(store.page(None))[0],
    ]


def test_without_the_service_everything_is_a_miss(
    service: Service, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(name, url=service.url)
    assert store.run(store.write("k", TEXT, None))
    service.kill()
    with caplog.at_level(logging.DEBUG, "reprise_client"):
        results = everything(store)
    assert not any(results)
    assert store.failures == len(results)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and name in warnings[0].getMessage()


def test_a_service_that_does_not_answer_is_a_miss(service: Service, name: str) -> None:
    store = Store(name, url=service.url, call_timeout=0.2)
    service.hold()
    try:
        assert not any(everything(store))
    finally:
        service.go_on()


def test_strict_stores_raise(service: Service, name: str) -> None:
    store = Store(name, client=Client(service.url, timeout=0.5), strict=True)
    service.kill()
    for flow in (store.read("k"), store.write("k", TEXT, 5), store.remove("k"),
                 store.exists("k"), store.clear(), store.read_many(["k"])):
        with pytest.raises(TransportError):
            store.run(flow)


def test_refusals_are_failures_too(client: Client, name: str) -> None:
    client.set_policy(name, max_entry_bytes=10)
    store = Store(name, client=client)
    large = Encoded(b"x" * 11, "text/plain")
    assert not store.run(store.write("k", large, None))
    assert set(store.run(store.write_many({"k": large, "l": TEXT}, None))) == {"l"}
    assert store.failures == 2


def test_a_wrong_address_is_no_quiet_miss(shared_service: Service, name: str) -> None:
    store = Store(name, url=shared_service.url + "/elsewhere", strict=True)
    with pytest.raises(Exception, match="404"):
        store.run(store.read("k"))


def test_a_service_that_comes_back_is_used_again(service: Service, name: str) -> None:
    from reprise_client.http.policy import Breaker

    # A breaker that is never open, so that no time has to pass.
    store = Store(name, client=Client(service.url, breaker=Breaker(failures=10**9)))
    assert store.run(store.write("k", TEXT, None))
    service.kill()
    assert store.run(store.read("k")) is None
    service.start()
    assert store.run(store.read("k")).body == b"text"  # type: ignore[union-attr]


# Clients.


def test_backends_with_the_same_options_share_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Store("a", url="http://127.0.0.1:9", token="t")
    assert Store("b", url="http://127.0.0.1:9", token="t").client is first.client
    assert Store("b", url="http://127.0.0.1:9", token="u").client is not first.client
    assert Store("b", url="http://127.0.0.1:9", token="t", call_timeout=1).client \
        is not first.client
    by_default = Store("a").client
    monkeypatch.setenv("REPRISE_URL", "http://127.0.0.1:10")
    assert Store("a").client is not by_default and Store("a").client.url.endswith(":10")
    with pytest.raises(TypeError, match="token"):
        Store("a", client=by_default, token="t")
    with pytest.raises(ValueError, match="call_timeout"):
        Store("a", call_timeout=0)


def test_shared_clients_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_store, "_clients", {})
    monkeypatch.setattr(_store.limits, "MAX_SHARED_CLIENTS", 2)
    stores = [Store("a", url=f"http://127.0.0.1:{port}") for port in range(1, 6)]
    assert len(_store._clients) == 2
    with pytest.raises(ConnectFailed):
        stores[4].client.get_liveness()


# Importing.


@pytest.mark.parametrize("module, library, extra", [
    ("cachelib", "cachelib", "cachelib"),
    ("flask_caching", "flask_caching", "flask"),
    ("dogpile", "dogpile.cache", "dogpile"),
    ("django", "django", "django"),
    ("requests_cache", "requests_cache", "requests"),
])
def test_a_library_that_is_missing_is_named_with_its_extra(
    module: str, library: str, extra: str
) -> None:
    script = (f"import sys; sys.modules[{library!r}] = None\n"
              f"import reprise_client.adapters.{module}")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ") and f"reprise-client[{extra}]" in last, done.stderr


@pytest.mark.parametrize("module", ["cachelib", "flask_caching", "dogpile", "django",
                                    "requests_cache"])
def test_importing_opens_nothing(module: str) -> None:
    script = f"""
import sys, threading
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event == "socket.connect" else None)
import reprise_client.adapters.{module}
assert threading.active_count() == 1 and not opened, (threading.enumerate(), opened)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
