"""dogpile.cache's tests for our backend. `upstream.py` copies this beside them and runs it."""

from __future__ import annotations

import os

from dogpile.testing.fixtures import (
    _GenericBackendTestSuite,
    _GenericMutexTestSuite,
    _GenericSerializerTestSuite,
)
from tests.cache import test_redis_backend

ARGUMENTS = {
    "url": os.environ["REPRISE_SUITE_URL"], "pickle_secret": "a secret for upstream tests",
    "namespace": "dogpile-suite", "call_timeout": 30, "strict": True,
}


class _Reprise:
    backend = "reprise"
    config_args = {"arguments": {**ARGUMENTS, "distributed_lock": False}}


class RepriseTest(_Reprise, _GenericBackendTestSuite):
    """Locks of the process: no two creators may run at once."""


class RepriseDistributedTest(_Reprise, _GenericBackendTestSuite):
    """Locks of the service."""

    config_args = {"arguments": ARGUMENTS}


class RepriseSerializerTest(_Reprise, _GenericSerializerTestSuite, _GenericBackendTestSuite):
    pass


class RepriseJsonTest(_Reprise, _GenericSerializerTestSuite, _GenericBackendTestSuite):
    """The serializer that needs no secret."""

    config_args = {"arguments": {**ARGUMENTS, "pickle_secret": None, "serializer": "json"}}


class RepriseMutexTest(_Reprise, _GenericMutexTestSuite):
    config_args = {"arguments": ARGUMENTS}


class RepriseAsyncCreationTest(test_redis_backend.RedisAsyncCreationTest):
    backend = "reprise"
    config_args = {"arguments": ARGUMENTS}

    @classmethod
    def _check_backend_available(cls, backend: object) -> None:
        pass
