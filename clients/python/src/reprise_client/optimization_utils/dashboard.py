"""`render_performance_dashboard`: what the app costs, in Streamlit's sidebar."""

from __future__ import annotations

from .. import limits
from . import context
from .state import MemoryManager
from .timing import perf_monitor


def render_performance_dashboard() -> None:
    """Shows memory, the latest times of operations and a button that cleans up, in the sidebar.

    Asks the service for nothing. Does nothing outside of a Streamlit script.
    """
    st = context.streamlit()
    if st is None:
        context.log.debug("there is no Streamlit script whose sidebar could show the dashboard")
        return
    sidebar = st.sidebar
    sidebar.markdown("---")
    sidebar.markdown("### 📊 Performance Monitor")
    # Cleaned first, so that the figures are those that are left.
    figures = sidebar.container()
    if sidebar.button("🧹 Cleanup Memory", key="reprise_cleanup_memory"):
        cleaned = MemoryManager.cleanup_large_objects()
        MemoryManager.optimize_session_state()
        sidebar.success(f"Cleaned {cleaned} objects")
    metrics = perf_monitor.get_metrics()
    memory, stats = metrics["memory"], MemoryManager.get_memory_stats()
    figures.metric("Memory Usage", f"{memory['rss_mb']:.1f} MB", f"{memory['percent']:.1f}%",
                   delta_color="off")
    figures.caption(
        f"Machine: {stats['system_memory_mb']:.0f} MB in use "
        f"({stats['system_memory_percent']:.1f}%). "
        f"Session state: {stats['session_state_keys']} keys.")
    times = list(metrics["timing"].items())
    if times:
        figures.markdown("**Operation Times:**")
        for operation, seconds in times[-limits.MAX_DASHBOARD_OPERATIONS:]:
            figures.caption(f"{operation}: {seconds:.3f}s")
