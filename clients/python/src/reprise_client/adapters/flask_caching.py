"""A Flask-Caching backend that keeps its values in Reprise.

    app.config["CACHE_TYPE"] = "reprise_client.adapters.flask_caching.RepriseCache"
    app.config["CACHE_REPRISE_URL"] = "http://127.0.0.1:8080"

| setting | meaning |
| --- | --- |
| `CACHE_REPRISE_URL` | where the service is; by default `REPRISE_URL` in the environment |
| `CACHE_REPRISE_TOKEN` | its token; by default `REPRISE_TOKEN` in the environment |
| `CACHE_REPRISE_NAMESPACE` | by default `flask-caching` |
| `CACHE_REPRISE_PICKLE_SECRET` | by default `REPRISE_PICKLE_SECRET`, then the app's `SECRET_KEY` |
| `CACHE_REPRISE_SERIALIZER` | `"pickle"` (the default) or `"json"` |
| `CACHE_REPRISE_CALL_TIMEOUT` | seconds for a call to the service |
| `CACHE_REPRISE_STRICT` | raise when the service is gone, instead of a miss |

`CACHE_DEFAULT_TIMEOUT`, `CACHE_KEY_PREFIX`, `CACHE_SERIALIZER` and `CACHE_OPTIONS` are those of
Flask-Caching. Needs the extra `reprise-client[flask]`.
"""

from __future__ import annotations

import os
from typing import Any

from ._store import SECRET_VARIABLE, MissingSecret, missing_library

try:
    from flask import Flask
    from flask_caching.backends.base import BaseCache
except ImportError as error:
    raise missing_library("Flask-Caching", "flask", error) from error

from . import cachelib as _cachelib

__all__ = ["RepriseCache"]


class RepriseCache(_cachelib.RepriseCache, BaseCache):
    """A backend of Flask-Caching in a namespace of Reprise; see the cachelib backend for what its
    methods return.

    As with other backends that are servers, `CACHE_IGNORE_ERRORS` has no effect: what cannot be
    deleted is missing in the answer of `delete_many`. `CACHE_REPRISE_STRICT` raises.
    """

    def __init__(self, url: str | None = None, **options: Any) -> None:
        options.setdefault("namespace", "flask-caching")
        super().__init__(url, **options)

    @classmethod
    def factory(
        cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> RepriseCache:
        """Makes the backend from an app's settings; Flask-Caching calls it."""
        options = dict(kwargs)
        # Its default would raise whenever the service is away.
        options["ignore_delete_many_errors"] = True
        for name in ("url", "token", "namespace", "pickle_secret", "serializer", "call_timeout",
                     "strict"):
            value = config.get(f"CACHE_REPRISE_{name.upper()}")
            if value is not None:
                options.setdefault(name, value)
        if config.get("CACHE_KEY_PREFIX"):
            options.setdefault("key_prefix", config["CACHE_KEY_PREFIX"])
        serializer = config.get("CACHE_SERIALIZER")
        if serializer is not None:
            options.setdefault(
                "serializer", serializer() if isinstance(serializer, type) else serializer)
        source = None
        if not options.get("pickle_secret") and not os.environ.get(SECRET_VARIABLE):
            source = app.secret_key
            if source:
                options["pickle_secret"] = source
        try:
            return cls(*args, **options)
        except MissingSecret as error:
            raise MissingSecret(
                f"{error} With Flask, set SECRET_KEY or CACHE_REPRISE_PICKLE_SECRET; for JSON, "
                'set CACHE_REPRISE_SERIALIZER = "json".'
            ) from None
        except ValueError as error:
            if source and "secret" in str(error):
                raise ValueError(
                    f"The app's SECRET_KEY cannot sign pickles: {error} Or set "
                    "CACHE_REPRISE_PICKLE_SECRET."
                ) from None
            raise
