"""The names of the guide's `optimization_utils`, backed by the service. Change only the import:

    from reprise_client.optimization_utils import PERFORMANCE_CONFIG, render_performance_dashboard

Importing this opens nothing and does not import Streamlit. In a Streamlit script the state is
`st.session_state` and results are kept by `st.cache_data`; anywhere else both are kept by the
process, so that scripts and tests run as they are.

The service is found by `REPRISE_URL` and `REPRISE_TOKEN` when it is first needed, or by
`configure`. Timings go to it in the background. If it does not answer, everything goes on: the
settings have their last known values, and samples are dropped and counted. No call here raises
because of the service, and none waits for it longer than `limits.SETTINGS_CALL_SECONDS`, or
`limits.SETTINGS_WRITE_SECONDS` for a change of a setting.
"""

from __future__ import annotations

from .caching import (
    CacheManager,
    streamlit_cache_data_with_metrics,
    streamlit_cache_resource_with_metrics,
)
from .configuration import PERFORMANCE_CONFIG, get_performance_config
from .context import configure
from .dashboard import render_performance_dashboard
from .loading import LazyLoader
from .state import (
    MemoryManager,
    OptimizedSessionState,
    debounce_rerun,
    minimize_reruns,
    session_manager,
)
from .timing import PerformanceMonitor, perf_monitor

__all__ = [
    "PERFORMANCE_CONFIG", "CacheManager", "LazyLoader", "MemoryManager", "OptimizedSessionState",
    "PerformanceMonitor", "configure", "debounce_rerun", "get_performance_config",
    "minimize_reruns", "perf_monitor", "render_performance_dashboard", "session_manager",
    "streamlit_cache_data_with_metrics", "streamlit_cache_resource_with_metrics",
]  # fmt: skip
