"""Figures of the service in the app's sidebar: cache, operations, memory, sessions, findings."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import streamlit as st

from .. import limits
from ..errors import Forbidden, NotFound, RepriseError, Unauthenticated
from . import installation
from .tab import PARAMETER

if TYPE_CHECKING:
    from ..client import Client

#: Operations that are shown, the most frequent ones.
_MAX_OPERATIONS = 10
#: Findings that are shown.
_MAX_FINDINGS = 5
#: Seconds for which findings, or that they may not be seen, are remembered.
_FINDINGS_SECONDS = 60.0


def performance_dashboard(
    client: Client | None = None,
    *,
    title: str = "Performance",
    sidebar: bool = True,
    run_every: float | None = limits.STREAMLIT_DASHBOARD_SECONDS,
) -> None:
    """Shows how the app does: cache hit rate, operation times, memory and session sizes.

    The figures are those of the last hour, from all replicas, and refresh every `run_every`
    seconds without a rerun of the app; None refreshes them only with it. Findings of the
    service's diagnostics are shown if the token may see them. If the service is gone, a line
    says so and nothing else happens.

    `client`: as for `session`. `sidebar` false: shown where it is called.
    """
    client = client or installation.default_client()

    @st.fragment(run_every=run_every)
    def figures() -> None:
        st.markdown(f"**{_escaped(title)}**")
        try:
            summary = client.get_summary()
        except (Forbidden, Unauthenticated):
            st.caption("The app's token may not see the figures.")
            return
        except RepriseError:
            st.caption("The figures are not available at the moment.")
            return
        _show_levels(summary)
        _show_own_session(client)
        _show_operations(summary)
        _show_memory(summary)
        _show_findings(client)

    if sidebar:
        with st.sidebar:
            figures()
    else:
        figures()


def _show_levels(summary: dict[str, Any]) -> None:
    totals = summary["cache"]["totals"]
    left, right = st.columns(2)
    ratio = totals["hit_ratio"]
    asked = totals["hits"] + totals["misses"]
    left.metric("Cache hits", "–" if ratio is None else f"{ratio:.0%}",
                help=f"{totals['hits']:,} of {asked:,} reads of the service in the last hour. "
                     f"It keeps {totals['entry_count']:,} values, "
                     f"{_bytes(totals['size_bytes'])}.")
    sessions = summary["sessions"]
    right.metric("Sessions", f"{sessions['session_count']:,}",
                 help=f"{sessions['state_key_count']:,} keys, "
                      f"{_bytes(sessions['state_size_bytes'])} of state.")
    here = installation.status()
    hits, unsent = here.get("hits", 0), here.get("unsent", 0)
    if here.get("installed") and (reads := hits + here.get("misses", 0)):
        st.caption(f"st.cache_data in this process: {hits:,} hits of {reads:,}"
                   + (f", {unsent:,} to be sent" if unsent else ""))


def _show_own_session(client: Client) -> None:
    session_id = st.session_state.get(f"_reprise_{PARAMETER}")
    if not isinstance(session_id, str):
        return
    try:
        found = client.get_session(session_id)
    except RepriseError:
        return
    st.caption(f"This session: {found['state_key_count']:,} keys, "
               f"{_bytes(found['state_size_bytes'])}; "
               f"{found['history_count']:,} items of history, "
               f"{_bytes(found['history_size_bytes'])}")


def _show_operations(summary: dict[str, Any]) -> None:
    timings = summary["timings"][:_MAX_OPERATIONS]
    if not timings:
        st.caption("No operations were timed in the last hour.")
        return
    rows = [f"| {_escaped(each['name'])} | {each['count']:,} | {_seconds(each['p50_seconds'])} "
            f"| {_seconds(each['p95_seconds'])} |" for each in timings]
    st.markdown("\n".join(["| Operation | Count | p50 | p95 |", "| :-- | --: | --: | --: |",
                           *rows]))
    if summary["timings_total"] > len(timings):
        st.caption(f"{summary['timings_total'] - len(timings):,} more are on the service's "
                   "dashboard.")


def _show_memory(summary: dict[str, Any]) -> None:
    rows = []
    for each in summary["memory"][:_MAX_OPERATIONS]:
        latest = each["rss_bytes"]["latest"]
        if latest is not None:
            rows.append(f"| {_escaped(each['name'])} | {_bytes(latest)} "
                        f"| {_bytes(each['rss_bytes']['max'])} |")
    if rows:
        st.markdown("\n".join(["| Memory | Now | Most |", "| :-- | --: | --: |", *rows]))


def _show_findings(client: Client) -> None:
    findings = _findings(client)
    if not findings:
        return
    for finding in findings[:_MAX_FINDINGS]:
        show = st.error if finding["severity"] == "critical" else st.warning
        show(f"**{_escaped(finding['title'])}**  \n{_escaped(finding['remedy'])}")


_lock = threading.Lock()
_seen: dict[str, tuple[float, list[Any]]] = {}


def _findings(client: Client) -> list[Any]:
    """What the operator should act on; empty if the token may not see it."""
    with _lock:
        found = _seen.get(client.url)
        if found is not None and time.monotonic() - found[0] < _FINDINGS_SECONDS:
            return found[1]
    findings: list[Any] = []
    try:
        findings = [finding for finding in client.get_diagnostics()["findings"]
                    if finding["severity"] != "info"]
    except (Forbidden, Unauthenticated, NotFound):
        pass
    except RepriseError:
        return []
    with _lock:
        if len(_seen) > 100:
            _seen.clear()
        _seen[client.url] = (time.monotonic(), findings)
    return findings


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line and in one cell."""
    plain = " ".join(text.split())
    return "".join(f"\\{character}" if character in r"\`*_{}[]()<>#+-.!|~$:" else character
                   for character in plain)


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1000 * size else f"{value:,.0f} s"
    return f"{value * 1e6:.3g} µs"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
