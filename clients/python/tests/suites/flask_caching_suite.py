"""Flask-Caching's backend tests for our backend. `upstream.py` copies this beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import test_backend_cache

from reprise_client.adapters.flask_caching import RepriseCache


class TestReprise(test_backend_cache.GenericCacheTests):
    _can_use_fast_sleep = False

    @pytest.fixture(params=["", "flask_cache_"])
    def make_cache(self, request: pytest.FixtureRequest) -> Iterator[Callable[[], RepriseCache]]:
        cache = RepriseCache(
            os.environ["REPRISE_SUITE_URL"], pickle_secret="a secret for upstream tests",
            namespace="flask-suite", key_prefix=request.param, call_timeout=30, strict=True)
        cache.clear()
        yield lambda: cache
        cache.clear()
