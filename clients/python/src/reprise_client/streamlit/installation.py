"""Puts the shared storage behind `st.cache_data(persist="disk")`, and takes it away again."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict

from .. import limits
from .versions import layout, minor_version

if TYPE_CHECKING:
    from ..client import Client
    from .storage import Shared

_LOGGER = logging.getLogger("reprise_client.streamlit")

#: The namespace of the service that values are kept in if none is named.
DEFAULT_NAMESPACE = "streamlit"

#: Where an installation is found again: on what it changed, because the app's server may import
#: this module anew.
_MARK = "_reprise_installation"
_lock = threading.RLock()
_client: tuple[tuple[str | None, str | None], Client] | None = None


class MissingSecret(ValueError):
    """Cached values would be read without anything that shows who wrote them."""

    def __init__(self) -> None:
        super().__init__(
            "A secret is needed. Streamlit keeps cached values as pickles, and reading a pickle "
            "runs the code that is in it: without signatures, whoever can write to the service "
            "could run code in this app. Set REPRISE_PICKLE_SECRET, or pass secret=, to the same "
            "16 or more bytes in all replicas; make one with: python -c "
            "'import secrets; print(secrets.token_hex(32))'. If nobody but this app can write to "
            "the service, pass trust_service=True instead (reprise-streamlit: set "
            "REPRISE_TRUST_SERVICE=1)."
        )


class Status(TypedDict, total=False):
    """Whether the storage is installed, and what it did in this process since then."""

    installed: bool
    #: Whether Streamlit's server runs in this process. Without it nothing is shared.
    runtime: bool
    streamlit: str
    url: str
    namespace: str
    signed: bool
    hits: int
    local_hits: int
    misses: int
    unchecked_hits: int
    stored: int
    errors: int
    rejected: int
    not_shared: int
    dropped: int
    copies: int
    copies_bytes: int
    unsent: int
    unsent_bytes: int
    last_error: str


class _Installation:
    """One installation, with everything that tells whether another call asks for the same."""

    def __init__(self, shared: Shared, signature: tuple[Any, ...]) -> None:
        self.shared = shared
        self.signature = signature


def install(
    client: Client | None = None,
    *,
    namespace: str | None = None,
    secret: bytes | str | None = None,
    trust_service: bool | None = None,
    revalidate_seconds: float = limits.STREAMLIT_REVALIDATE_SECONDS,
    keep_seconds: float | None = limits.STREAMLIT_KEEP_SECONDS,
) -> Status:
    """Lets all replicas of the app share what `st.cache_data(persist="disk")` keeps.

    Call it at the top of the script, in each rerun; all calls but the first do nothing. The
    decorated functions stay as they are. Those without `persist="disk"`, and those with
    `scope="session"`, are kept by Streamlit as before.

    `client`: None for one that is configured by the environment (`REPRISE_URL`,
    `REPRISE_TOKEN`). Its `timeout` is how long a call may hold up a rerun.
    `namespace`: by default `REPRISE_STREAMLIT_NAMESPACE`, or else "streamlit". Give each app its
    own, because `st.cache_data.clear()` clears all of it.
    `secret`: at least 16 bytes, the same in all replicas; by default `REPRISE_PICKLE_SECRET`.
    Values are signed with it, and a value whose signature is missing or wrong is a miss.
    `trust_service`: do without a secret (or `REPRISE_TRUST_SERVICE=1`).
    `revalidate_seconds`: how long a copy in the process is used without asking the service
    whether it still holds. What another replica cleared may be seen for that long.
    `keep_seconds`: how long the service keeps values of functions without a `ttl`; None for
    ever. With a `ttl`, values are kept for that long, after a restart as well.

    Raises `MissingSecret`, `UnsupportedStreamlit`, `ValueError`. The service need not run.
    Outside of `streamlit run`, the storage waits until a server runs in this process, and a
    message in the log says so.
    """
    layout()
    from streamlit import runtime

    with _lock:
        current = installed()
        if current is not None and client is None and namespace is None and secret is None:
            return status()
        namespace = namespace or default_namespace()
        secret = secret or os.environ.get("REPRISE_PICKLE_SECRET") or None
        if trust_service is None:
            trust_service = os.environ.get("REPRISE_TRUST_SERVICE", "") in ("1", "true", "yes")
        if secret is None and not trust_service:
            raise MissingSecret
        if not revalidate_seconds >= 0:
            raise ValueError(f"revalidate_seconds must be 0 or more, not {revalidate_seconds}")
        if keep_seconds is not None and not keep_seconds > 0:
            raise ValueError(f"keep_seconds must be more than 0, or None, not {keep_seconds}")
        from ..operations import segment
        from .storage import Seal, Shared

        segment(namespace)
        seal = Seal(secret)
        client = client or default_client()
        # Scripts make a client in each rerun; what counts is where it leads, and with what token.
        signature = (client.url, client._address.common, client.timeout, namespace,
                     seal.fingerprint, revalidate_seconds, keep_seconds)
        if current is not None:
            if current.signature == signature:
                return status()
            _LOGGER.warning("The shared storage is installed anew, with other settings. If this "
                            "happens in each rerun, parts of the app do not agree on them.")
            uninstall()
        version = f".py{sys.version_info[0]}.{sys.version_info[1]}-st{minor_version()}"
        shared = Shared(client, namespace, seal, revalidate_seconds=revalidate_seconds,
                        keep_seconds=keep_seconds, version=version)
        _hook(_Installation(shared, signature))
        if not runtime.exists():
            _LOGGER.info("Streamlit's server does not run in this process yet. Cached values are "
                         "shared as soon as it does.")
        return status()


def uninstall(*, wait_seconds: float = limits.STREAMLIT_EXIT_SECONDS) -> None:
    """Gives `st.cache_data` back to Streamlit; what the service has, it keeps.

    Waits `wait_seconds` at most for values that the service was not sent yet.
    """
    with _lock:
        current = installed()
        if current is None:
            return
        caches = _data_caches()
        for name in ("get_storage_manager", "get_cache", _MARK):
            caches.__dict__.pop(name, None)
        _forget_persisted(caches)
    current.shared.close(wait_seconds)


def status() -> Status:
    """What is installed, and what it did in this process since then."""
    if "streamlit" not in sys.modules:
        return {"installed": False, "runtime": False}
    import streamlit
    from streamlit import runtime

    current = installed()
    found: Status = {"installed": current is not None, "runtime": runtime.exists(),
                     "streamlit": streamlit.__version__}
    if current is None:
        return found
    shared = current.shared
    found["url"] = shared.client.url
    found["namespace"] = shared.namespace
    found["signed"] = shared.seal.is_signing
    found.update(vars(shared.figures))  # type: ignore[typeddict-item]
    found["copies"], found["copies_bytes"] = shared.copies.figures()
    found["unsent"], found["unsent_bytes"] = shared.unsent.figures()
    return found


def default_client() -> Client:
    """The client that is used if none is given. It lives as long as the process, because it holds
    what the service was not sent yet."""
    from ..client import Client

    global _client
    with _lock:
        if _client is None or _client[0] != _settings():
            _client = (_settings(), Client())
        return _client[1]


def _settings() -> tuple[str | None, str | None]:
    return os.environ.get("REPRISE_URL"), os.environ.get("REPRISE_TOKEN")


def default_namespace() -> str:
    """The namespace that the environment names, or else `DEFAULT_NAMESPACE`."""
    return os.environ.get("REPRISE_STREAMLIT_NAMESPACE") or DEFAULT_NAMESPACE


def _data_caches() -> Any:
    from streamlit.runtime.caching import cache_data_api

    return cache_data_api._data_caches


def installed() -> _Installation | None:
    found: _Installation | None = _data_caches().__dict__.get(_MARK)
    return found


def _hook(installation: _Installation) -> None:
    """Answers Streamlit's question for a storage; both methods are put before those of the class.

    One place serves every way to run an app: `streamlit run`, an ASGI app, and tests, which make
    a new runtime for each rerun.
    """
    from streamlit import runtime

    from .storage import SharedStorages

    caches = _data_caches()
    own_manager: Callable[[], Any] = type(caches).get_storage_manager.__get__(caches)
    own_cache: Callable[..., Any] = type(caches).get_cache.__get__(caches)
    asked = threading.local()

    def get_storage_manager() -> Any:
        if not runtime.exists():
            return own_manager()
        return SharedStorages(installation.shared, own_manager(),
                              getattr(asked, "scope", "global"))

    def get_cache(*arguments: Any, **options: Any) -> Any:
        # The storage is not told the scope, and needs to know it.
        asked.scope = options.get("scope", "global")
        try:
            return own_cache(*arguments, **options)
        finally:
            asked.scope = "global"

    caches.get_storage_manager = get_storage_manager
    caches.get_cache = get_cache
    setattr(caches, _MARK, installation)
    _forget_persisted(caches)


def _forget_persisted(caches: Any) -> None:
    """Lets Streamlit make the storages of persisted functions anew."""
    gone = []
    nested = layout().has_scopes
    with caches._caches_lock:
        registry = caches._function_caches
        for by_key in list(registry.values()) if nested else [registry]:
            for key in [key for key, cache in by_key.items() if cache.persist == "disk"]:
                gone.append(by_key.pop(key))
    for cache in gone:
        if hasattr(cache, "mark_detached"):
            cache.mark_detached()
        cache.storage.close()
