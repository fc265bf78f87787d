"""Django's cache tests for our backend, run as a program by `upstream.py`.

The first argument is the folder with Django's tests. As for other third-party backends, the
tests are those of `BaseCacheTests`, with settings that name the backend.
"""

from __future__ import annotations

import os
import sys
import unittest
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    sys.modules["django_suite"] = sys.modules["__main__"]

import django
from django.conf import settings

BASE = {
    "BACKEND": "reprise_client.adapters.django.RepriseCache",
    "LOCATION": os.environ["REPRISE_SUITE_URL"],
    "OPTIONS": {"namespace": "django-suite", "call_timeout": 30, "strict": True},
}

if not settings.configured:
    settings.configure(
        SECRET_KEY="a secret for upstream tests",
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth",
                        "django.contrib.sessions", "cache"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CACHES={"default": BASE},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        USE_TZ=False,
        ROOT_URLCONF="cache.urls",
        MIDDLEWARE=[],
    )
    django.setup()

from cache import tests as upstream  # noqa: E402
from django.core.cache import cache  # noqa: E402
from django.test import TestCase, override_settings  # noqa: E402
from django.test.runner import DiscoverRunner  # noqa: E402

from reprise_client.adapters.django import RepriseCache  # noqa: E402

#: As for Redis and Memcached: the number of entries is limited by the service.
WITHOUT_CULLING = {"cull", "zero_cull"}


@override_settings(CACHES=upstream.caches_setting_for_tests(base=BASE, exclude=WITHOUT_CULLING))
class RepriseCacheTests(upstream.BaseCacheTests, TestCase):  # type: ignore[misc]
    pass


def _asyncio(name: str) -> Any:
    """A method of the cache that runs its `a…` method instead."""
    from asgiref.sync import async_to_sync

    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        return async_to_sync(getattr(type(self), f"a{name}"))(self, *arguments, **options)

    return method


AsyncCache = type("AsyncCache", (RepriseCache,), {name: _asyncio(name) for name in (
    "get", "set", "add", "touch", "delete", "has_key", "get_many", "set_many", "delete_many",
    "incr", "decr", "clear", "incr_version", "decr_version", "get_or_set")})


ASYNC = {
    **BASE, "BACKEND": "django_suite.AsyncCache",
    "OPTIONS": {"namespace": "django-suite-async", "call_timeout": 30, "strict": True},
}


@override_settings(CACHES=upstream.caches_setting_for_tests(base=ASYNC, exclude=WITHOUT_CULLING))
class RepriseAsyncCacheTests(upstream.BaseCacheTests, TestCase):  # type: ignore[misc]
    """The same with the asyncio methods."""


class Result(unittest.TextTestResult):
    """Writes what became of each test as a line for `upstream.py`."""

    def _line(self, outcome: str, test: unittest.TestCase, reason: str = "") -> None:
        print(f"@@ {outcome} {test.id()} {reason}", flush=True)

    def addSuccess(self, test: Any) -> None:  # noqa: N802
        super().addSuccess(test)
        self._line("passed", test)

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._line("failed", test)

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self._line("failed", test)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._line("failed", subtest)

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self._line("skipped", test, reason)


class Runner(DiscoverRunner):  # type: ignore[misc]
    def get_resultclass(self) -> type[unittest.TextTestResult]:
        return Result


if __name__ == "__main__":
    assert cache is not None
    runner = Runner(verbosity=1, interactive=False)
    suite = unittest.TestSuite()
    loader = unittest.defaultTestLoader
    for case in (RepriseCacheTests, RepriseAsyncCacheTests):
        suite.addTests(loader.loadTestsFromTestCase(case))
    runner.setup_test_environment()
    old = runner.setup_databases(aliases={"default": True})
    outcome = runner.run_suite(suite)
    runner.teardown_databases(old)
    runner.teardown_test_environment()
    sys.exit(0 if outcome.wasSuccessful() else 1)
