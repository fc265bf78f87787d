"""The session of a browser tab, found again by the page's address.

The address carries 128 random bits, `?session=…`. So the session survives what the tab's own
state does not: a reload, a restart of the app, a change of the replica. Whoever has the address
has the session, as with a link to a shared document: do not put secrets into it, and do not show
the address in public. An id that is not 32 hexadecimal digits is replaced by a new one.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from .. import limits
from .installation import default_client
from .versions import layout

if TYPE_CHECKING:
    from ..client import Client
    from ..session import Session

_LOGGER = logging.getLogger("reprise_client.streamlit")

#: The name of the field of the address.
PARAMETER = "session"

_ID = re.compile(r"[0-9a-f]{32}")


def session(
    client: Client | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    parameter: str = PARAMETER,
    **options: Any,
) -> Session:
    """The session of the tab that this script runs for: a mapping that outlives the tab.

        state = session(defaults={"tempo": 120})
        st.session_state.setdefault("tempo", state["tempo"])
        state["tempo"] = st.slider("Tempo", 60, 180, key="tempo")

    (Do not pass `state["tempo"]` as the slider's `value`: Streamlit takes a widget whose default
    changes for another widget, and would lose every second change.)

    It is read from the service once in a rerun, however often this is called, and what was
    changed is saved once, when the rerun ends: also after `st.stop()`, `st.rerun()` and an
    exception (but not `sys.exit()`), and after the rerun of a fragment. As a context manager it
    is saved at the end of the block as well. If the service is gone, changes are kept and sent
    when it is back.

    `client`: None for one that is configured by the environment and lives as long as the process.
    Keep one of your own alive with `st.cache_resource`, because what was not sent yet goes with
    it. `defaults` are values for keys that are absent. `options` are those of `Session`.

    Sets the address's `parameter`, and remembers the id in `st.session_state` for pages whose
    address lacks it. Raises `RuntimeError` outside of a script that Streamlit runs, and
    `UnsupportedStreamlit`.
    """
    layout()
    context = get_script_run_ctx(suppress_warning=True)
    if context is None:
        raise RuntimeError(
            "session() finds out for which browser tab Streamlit runs the script, and here "
            "Streamlit runs none. Start the app with `streamlit run`, or use client.session(id)."
        )
    _watch()
    client = client or default_client()
    session_id = tab_id(parameter)
    tab = _tab(context.session_id)
    opened = tab.opened.get((client.url, session_id))
    if opened is None:
        opened = client.session(session_id, defaults=defaults, **options)
        tab.opened[client.url, session_id] = opened
    elif defaults:
        opened.initialize_defaults(defaults)
    return opened


def tab_id(parameter: str = PARAMETER) -> str:
    """The id of the tab's session; sets it in the address if it is not there."""
    given = st.query_params.get(parameter)
    remembered = f"_reprise_{parameter}"
    found = given if given is not None and _ID.fullmatch(given) else None
    if found is None:
        # A change of page within the app leaves the fields of the address behind.
        kept = st.session_state.get(remembered)
        found = kept if isinstance(kept, str) and _ID.fullmatch(kept) else secrets.token_hex(16)
    if st.session_state.get(remembered) != found:
        st.session_state[remembered] = found
    if given != found:
        st.query_params[parameter] = found
    return found


class _Tab:
    """The sessions of one connection of a browser."""

    def __init__(self) -> None:
        #: Those of this rerun, by the service and the id.
        self.opened: dict[tuple[str, str], Session] = {}
        #: Those of earlier ones that something still refers to: fragments use the variables of
        #: the last whole rerun.
        self._earlier: list[weakref.ref[Session]] = []

    def save(self) -> None:
        """Saves what changed in any of them; the next rerun reads them anew."""
        self._earlier = [each for each in self._earlier if each() is not None]
        self._earlier += [weakref.ref(opened) for opened in self.opened.values()]
        self.opened.clear()
        for each in self._earlier:
            session = each()
            if session is None:
                continue
            try:
                session.save()
            except Exception:
                # The page is complete, and the next rerun reports what is still wrong.
                _LOGGER.warning("The session of a tab was not saved", exc_info=True)


_lock = threading.Lock()
_tabs: OrderedDict[str, _Tab] = OrderedDict()


def _tab(connection: str) -> _Tab:
    with _lock:
        tab = _tabs.get(connection)
        if tab is None:
            tab = _tabs[connection] = _Tab()
            while len(_tabs) > limits.MAX_STREAMLIT_TABS:
                _tabs.popitem(last=False)
        else:
            _tabs.move_to_end(connection)
        return tab


def _finished(connection: str) -> None:
    with _lock:
        tab = _tabs.get(connection)
    if tab is not None:
        tab.save()


def _watch() -> None:
    """Has `_finished` called at the end of each rerun, before the browser is told of the end."""
    from streamlit.runtime.scriptrunner.script_runner import ScriptRunner

    runner: Any = ScriptRunner
    if runner.__dict__.get("_reprise_finished") is not _finished:
        # Called by its place, because this module may be imported anew.
        runner._reprise_finished = _finished
    with _lock:
        for kind in _kinds(ScriptRunner):
            _wrap(kind, runner)


def _kinds(kind: Any) -> Iterator[Any]:
    """A class and all classes made from it: Streamlit's test bench has a runner of its own."""
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


def _wrap(kind: Any, runner: Any) -> None:
    own = kind.__dict__.get("_on_script_finished")
    if own is None or hasattr(own, "_reprise"):
        return

    def on_script_finished(self: Any, context: Any, *arguments: Any, **options: Any) -> Any:
        runner.__dict__["_reprise_finished"](context.session_id)
        return own(self, context, *arguments, **options)

    on_script_finished._reprise = True  # type: ignore[attr-defined]
    kind._on_script_finished = on_script_finished
