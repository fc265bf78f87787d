"""What the other modules work with: the client, its monitor, the session's state, and Streamlit if
a script of it runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..client import Client
    from ..monitor import Monitor

log = logging.getLogger("reprise_client")

#: What was configured, and what was made because it was not. `setdefault` makes one of each,
#: without a lock that a forked child could find held.
_chosen: dict[str, Any] = {}
_made: dict[str, Any] = {}
#: The state of a process without Streamlit.
_local_state: dict[str, Any] = {}


def configure(
    client: Client | None = None,
    monitor: Monitor | None = None,
    session_state: MutableMapping[str, Any] | None = None,
) -> None:
    """Says what this module works with; what is None is the default again.

    `client`: for the settings; by default one of `REPRISE_URL` and `REPRISE_TOKEN`. `monitor`:
    where timings go; by default one of the client. `session_state`: any mapping; by default
    `st.session_state` in a Streamlit script and a dict of this process elsewhere. Settings that
    are known from another service are forgotten.
    """
    from ..client import AsyncClient
    from .configuration import PERFORMANCE_CONFIG

    if isinstance(client, AsyncClient):
        raise TypeError("this module needs a Client, because its functions are not coroutines; "
                        f"give it Client({client.url!r})")
    chosen = {"client": client, "monitor": monitor, "session_state": session_state}
    _chosen.clear()
    _made.clear()
    _chosen.update({name: value for name, value in chosen.items() if value is not None})
    PERFORMANCE_CONFIG.forget()


def current_client() -> Client | None:
    """The client; None if `REPRISE_URL` is no address."""
    client: Client | None = _chosen.get("client")
    if client is None and "monitor" in _chosen:
        client = _chosen["monitor"]._runner()
    if client is not None:
        return client
    if "client" not in _made:
        from ..client import Client

        try:
            client = Client()
        except ValueError as error:
            log.error("there is no service to work with: %s", error)
        _made.setdefault("client", client)
    return _made.get("client")


def current_monitor() -> Monitor | None:
    """The monitor; None if there is no client."""
    monitor: Monitor | None = _chosen.get("monitor") or _made.get("monitor")
    if monitor is None:
        client = current_client()
        if client is not None:
            monitor = _made.setdefault("monitor", client.monitor())
    return monitor


def _script() -> Any:
    """The context of the Streamlit script that this thread runs; None if it runs none."""
    if "streamlit" not in sys.modules:
        return None
    try:
        from streamlit.runtime.scriptrunner import get_script_run_ctx

        return get_script_run_ctx(suppress_warning=True)
    except Exception:  # Streamlit is being imported just now, or is another version.
        return None


def streamlit() -> Any:
    """The module, if a script of it runs in this thread; otherwise None."""
    return sys.modules["streamlit"] if _script() is not None else None


def session_state() -> MutableMapping[str, Any]:
    """The state that the app works on."""
    state: MutableMapping[str, Any] | None = _chosen.get("session_state")
    if state is not None:
        return state
    module = streamlit()
    return _local_state if module is None else module.session_state


def session_key() -> str:
    """Tells the sessions of one process apart."""
    script = None if "session_state" in _chosen else _script()
    return "" if script is None else str(script.session_id)
