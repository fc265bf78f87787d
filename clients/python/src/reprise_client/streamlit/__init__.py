"""Reprise for Streamlit apps: shared `st.cache_data`, sessions that survive a reload, a dashboard.

    import reprise_client.streamlit as reprise

    reprise.install()                       # st.cache_data(persist="disk") is shared
    state = reprise.session(defaults={"tempo": 120})   # of this browser tab
    st.session_state.setdefault("tempo", state["tempo"])
    state["tempo"] = st.slider("Tempo", 60, 180, key="tempo")
    for song in reprise.track(songs, text="{done} of {total}"):
        ...
    reprise.performance_dashboard()

Needs the extra: `pip install 'reprise-client[streamlit]'`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dashboard import performance_dashboard
    from .installation import MissingSecret, install, status, uninstall
    from .progress import ProgressBar, track
    from .tab import session
    from .versions import SUPPORTED, UnsupportedStreamlit

_HOME = {
    "MissingSecret": "installation",
    "ProgressBar": "progress",
    "SUPPORTED": "versions",
    "UnsupportedStreamlit": "versions",
    "install": "installation",
    "performance_dashboard": "dashboard",
    "session": "tab",
    "status": "installation",
    "track": "progress",
    "uninstall": "installation",
}

__all__ = [
    "SUPPORTED", "MissingSecret", "ProgressBar", "UnsupportedStreamlit", "install",
    "performance_dashboard", "session", "status", "track", "uninstall",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f".{home}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name != "streamlit":
            raise
        from .versions import NOT_INSTALLED

        raise ModuleNotFoundError(NOT_INSTALLED, name="streamlit") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
