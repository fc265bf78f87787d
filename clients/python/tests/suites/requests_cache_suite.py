"""requests-cache's tests for our backend. `upstream.py` copies this beside them and runs it."""

from __future__ import annotations

import os
from typing import Any

from tests.integration.base_cache_test import BaseCacheTest
from tests.integration.base_storage_test import BaseStorageTest

from reprise_client.adapters.requests_cache import RepriseCache, RepriseDict

REACH = {
    "url": os.environ["REPRISE_SUITE_URL"], "pickle_secret": "a secret for upstream tests",
    "call_timeout": 30, "strict": True,
}


class TestRepriseDict(BaseStorageTest):
    storage_class = RepriseDict
    init_kwargs = REACH


class TestRepriseCache(BaseCacheTest):
    backend_class = RepriseCache
    init_kwargs = REACH


class TestRepriseCacheJson(BaseCacheTest):
    """The serializer that needs no secret."""

    backend_class = RepriseCache
    init_kwargs = {**REACH, "pickle_secret": None}

    def init_session(self, *arguments: Any, **options: Any) -> Any:
        options["serializer"] = options.get("serializer") or "json"
        options.setdefault("cache_name", "pytest_cache_json")
        return super().init_session(*arguments, **options)
