"""Which versions of Streamlit the storage and the tab's session work with, and how they differ.

Streamlit has no public way to replace what `st.cache_data` stores its values in, and none to be
told that a rerun has ended. Both are done with its internals, so every minor version is listed
here once the tests have passed with it, and any other is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["SUPPORTED", "Layout", "UnsupportedStreamlit", "layout"]


@dataclass(frozen=True)
class Layout:
    """What differs between versions.

    `has_scopes`: `st.cache_data` takes `scope=`, and its registry is one dictionary for each
    session instead of a single one.
    """

    has_scopes: bool


#: By minor version. Patch releases of a minor version have the same layout.
SUPPORTED: dict[str, Layout] = {
    "1.50": Layout(has_scopes=False),
    "1.51": Layout(has_scopes=False),
    "1.52": Layout(has_scopes=False),
    "1.53": Layout(has_scopes=True),
    "1.54": Layout(has_scopes=True),
    "1.55": Layout(has_scopes=True),
    "1.56": Layout(has_scopes=True),
    "1.57": Layout(has_scopes=True),
    "1.58": Layout(has_scopes=True),
    "1.59": Layout(has_scopes=True),
    "1.60": Layout(has_scopes=True),
    "1.61": Layout(has_scopes=True),
    "1.62": Layout(has_scopes=True),
    "1.63": Layout(has_scopes=True),
    "1.64": Layout(has_scopes=True),
    "1.65": Layout(has_scopes=True),
    "1.66": Layout(has_scopes=True),
    "1.67": Layout(has_scopes=True),
}


class UnsupportedStreamlit(RuntimeError):
    """The installed Streamlit is one that this package has not been tested with."""


NOT_INSTALLED = ("Streamlit is not installed. Install it with: "
                 "pip install 'reprise-client[streamlit]'")


def minor_version() -> str:
    """The installed Streamlit, as in `1.67`."""
    import streamlit

    match = re.match(r"\d+\.\d+", streamlit.__version__)
    return match.group() if match else streamlit.__version__


def layout() -> Layout:
    """How the installed Streamlit is laid out. Raises `UnsupportedStreamlit`."""
    try:
        import streamlit
    except ModuleNotFoundError as error:
        if error.name != "streamlit":
            raise
        raise ModuleNotFoundError(NOT_INSTALLED, name="streamlit") from None

    found = SUPPORTED.get(minor_version())
    if found is None:
        raise _unsupported(f"Streamlit {streamlit.__version__} is not among the versions that "
                           "this reprise-client works with")
    try:
        _check(found)
    except (AttributeError, ImportError) as error:
        raise _unsupported(f"This Streamlit {streamlit.__version__} is not laid out like the "
                           f"release of that version ({error})") from error
    return found


def _check(found: Layout) -> None:
    """Looks for everything that is used, so that nothing is installed by half."""
    from streamlit.runtime.caching import cache_data_api
    from streamlit.runtime.caching.storage import (  # noqa: F401
        CacheStorage,
        CacheStorageContext,
        CacheStorageKeyNotFoundError,
        CacheStorageManager,
    )
    from streamlit.runtime.caching.storage.dummy_cache_storage import (  # noqa: F401
        MemoryCacheStorageManager,
    )
    from streamlit.runtime.scriptrunner import get_script_run_ctx  # noqa: F401
    from streamlit.runtime.scriptrunner.script_runner import ScriptRunner

    caches: Any = cache_data_api._data_caches
    for name in ("get_storage_manager", "get_cache", "_caches_lock", "_function_caches"):
        getattr(caches, name)
    ScriptRunner._on_script_finished  # noqa: B018
    if hasattr(caches, "clear_session") != found.has_scopes:
        raise AttributeError("its caches are not kept as expected")


def _unsupported(what: str) -> UnsupportedStreamlit:
    oldest, latest = next(iter(SUPPORTED)), list(SUPPORTED)[-1]
    return UnsupportedStreamlit(
        f"{what}: {oldest} to {latest}. Nothing was changed. Install one of these "
        f"(pip install 'streamlit~={latest}.0'), or a later reprise-client, or run the app "
        "without reprise_client.streamlit: st.cache_data then keeps its values on the local disk."
    )
