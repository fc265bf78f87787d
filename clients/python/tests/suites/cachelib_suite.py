"""cachelib's tests for our backend. `upstream.py` copies this beside them and runs it."""

from __future__ import annotations

import os
from typing import Any

import pytest
import test_simple_cache as simple
from delete_many_with_prefix import DeleteManyWithPrefixTests

from reprise_client.adapters.cachelib import RepriseCache, SignedPickleSerializer

SECRET = "a secret for upstream tests"


class Signed(RepriseCache):
    """The default serializer."""

    serializer = SignedPickleSerializer(SECRET)


class Custom(RepriseCache):
    """A serializer of the app, which evaluates what it reads: it must be signed."""

    serializer = simple.SillySerializer()


@pytest.fixture(autouse=True, params=[Signed, Custom])
def cache_factory(request: pytest.FixtureRequest, key_prefix: str | None) -> None:
    def factory(self: Any, *arguments: Any, **options: Any) -> RepriseCache:
        options.setdefault("key_prefix", key_prefix)
        cache = request.param(
            os.environ["REPRISE_SUITE_URL"], *arguments, namespace="cachelib-suite",
            pickle_secret=SECRET, call_timeout=30, strict=True, **options)
        cache._store.run(cache._store.clear())
        return cache

    request.cls.cache_factory = factory


class Countable:
    """What the tests for the cache in memory look at: the number of entries."""

    def __init__(self, cache: RepriseCache) -> None:
        self._store = cache._store

    def __len__(self) -> int:
        return self._store.run(self._store.count())


Signed._cache = Custom._cache = property(Countable)  # type: ignore[attr-defined]


class TestReprise(simple.TestSimpleCache, DeleteManyWithPrefixTests):
    """The common tests, and those for the cache in memory, which has some with many threads."""

    test_threshold = pytest.mark.skip("in memory only")(simple.TestSimpleCache.test_threshold)
    test_prune_old_entries = pytest.mark.skip("in memory only")(
        simple.TestSimpleCache.test_prune_old_entries)
    test_threshold_zero_defaults_to_500 = pytest.mark.skip("in memory only")(
        simple.TestSimpleCache.test_threshold_zero_defaults_to_500)
