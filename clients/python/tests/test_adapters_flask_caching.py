"""The Flask-Caching backend: its settings, and what it does without the service."""

from __future__ import annotations

from typing import Any

import flask
import pytest
from cachelib.serializers import JSONSerializer
from conftest import Service
from flask_caching import Cache

from reprise_client import Client, TransportError
from reprise_client.adapters.flask_caching import RepriseCache

SECRET = "a secret of 16 bytes or more"


def make(url: str, **settings: Any) -> tuple[flask.Flask, Cache, RepriseCache]:
    app = flask.Flask(__name__)
    app.config.update(
        CACHE_TYPE="reprise_client.adapters.flask_caching.RepriseCache", CACHE_REPRISE_URL=url,
        **settings)
    cache = Cache(app)
    backend = app.extensions["cache"][cache]
    assert type(backend) is RepriseCache
    return app, cache, backend


def test_the_settings(shared_service: Service, client: Client, name: str) -> None:
    app, cache, backend = make(
        shared_service.url, CACHE_REPRISE_NAMESPACE=name, CACHE_REPRISE_PICKLE_SECRET=SECRET,
        CACHE_DEFAULT_TIMEOUT=77, CACHE_KEY_PREFIX="app:", CACHE_REPRISE_CALL_TIMEOUT=9,
        CACHE_REPRISE_STRICT=True)
    with app.app_context():
        assert cache.set("k", (1, 2)) and cache.get("k") == (1, 2)
    assert client.get_metadata(name, "app:k")["ttl_seconds"] == 77
    assert backend._store.strict and backend._store.client.timeout == 9
    assert make(shared_service.url, SECRET_KEY=SECRET)[2]._store.namespace == "flask-caching"


def test_options_of_the_client_come_from_cache_options(shared_service: Service) -> None:
    backend = make(shared_service.url, SECRET_KEY=SECRET,
                   CACHE_OPTIONS={"retries": 0, "namespace": "other"})[2]
    assert backend._store.client._policy.retries == 0
    assert backend._store.namespace == "other"


def test_a_view_is_computed_once(shared_service: Service, name: str) -> None:
    app, cache, _ = make(shared_service.url, CACHE_REPRISE_NAMESPACE=name, SECRET_KEY=SECRET)
    calls = []

    @app.route("/")
    @cache.cached()
    def view() -> str:
        calls.append(1)
        return "said"

    visitor = app.test_client()
    assert visitor.get("/").text == visitor.get("/").text == "said" and len(calls) == 1


def test_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="SECRET_KEY or CACHE_REPRISE_PICKLE_SECRET.*json"):
        make("http://127.0.0.1:9")
    with pytest.raises(ValueError, match="SECRET_KEY cannot sign.*CACHE_REPRISE_PICKLE_SECRET"):
        make("http://127.0.0.1:9", SECRET_KEY="dev")
    monkeypatch.setenv("REPRISE_PICKLE_SECRET", SECRET)
    make("http://127.0.0.1:9", SECRET_KEY="dev")


def test_json_needs_none(shared_service: Service, client: Client, name: str) -> None:
    for settings in ({"CACHE_REPRISE_SERIALIZER": "json"}, {"CACHE_SERIALIZER": JSONSerializer},
                     {"CACHE_SERIALIZER": JSONSerializer()}):
        app, cache, backend = make(
            shared_service.url, CACHE_REPRISE_NAMESPACE=name, CACHE_KEY_PREFIX="", **settings)
        assert isinstance(backend.serializer, JSONSerializer)
        with app.app_context():
            assert cache.set("k", {"a": 1}) and cache.get("k") == {"a": 1}
        assert client.get_entry(name, "k").body == b'{"a": 1}'


def test_the_app_goes_on_without_the_service(service: Service, name: str) -> None:
    app, cache, backend = make(service.url, SECRET_KEY=SECRET)
    calls = []

    @app.route("/")
    @cache.cached()
    def view() -> str:
        calls.append(1)
        return "said"

    @cache.memoize()
    def double(number: int) -> int:
        return number * 2

    visitor = app.test_client()
    assert visitor.get("/").text == "said"
    service.kill()
    assert visitor.get("/").text == "said" and len(calls) == 2
    with app.app_context():
        assert double(4) == 8 and double(4) == 8
        assert cache.delete_many("a", "b") == [] and cache.get("a") is None
        cache.delete_memoized(double)
    assert backend.failures > 0
    strict = make(service.url, SECRET_KEY=SECRET, CACHE_REPRISE_STRICT=True)[2]
    with pytest.raises(TransportError):
        strict.get("k")
