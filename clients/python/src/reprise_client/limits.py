"""Every bound of this package, in one place."""

from __future__ import annotations

#: Seconds for a call, with everything that it retries.
CALL_SECONDS = 2.0
#: Seconds for a call that moves a large value or does long work, such as a backup.
LONG_CALL_SECONDS = 300.0
#: Seconds for any call, at most: a day.
MAX_CALL_SECONDS = 86_400.0
#: Seconds until a connection is established, within the call's time.
CONNECT_SECONDS = 1.0
#: How often a call is repeated after it failed, at most.
RETRIES = 2
#: Seconds before the first repetition, on average half of it; doubled for each further one.
BACKOFF_SECONDS = 0.05
#: Seconds between two attempts, at most, unless the service asks for more.
MAX_BACKOFF_SECONDS = 1.0
#: Failures in a row after which calls fail at once for a while.
BREAKER_FAILURES = 3
#: Seconds for which calls then fail at once; doubled each time that the next attempt fails.
BREAKER_SECONDS = 1.0
#: The same, at most.
MAX_BREAKER_SECONDS = 30.0
#: Connections of one client to its service, at most; further calls wait for one.
MAX_CONNECTIONS = 32
#: The same, whatever is asked for.
MAX_POOL_CONNECTIONS = 1000
#: Seconds after which an idle connection is looked at before it is used again.
IDLE_CHECK_SECONDS = 0.5
#: Seconds after which an idle connection is closed; the service closes it after 60.
MAX_IDLE_SECONDS = 45.0
#: Bytes of an answer's head, at most.
MAX_HEAD_BYTES = 64 * 1024
#: Bytes of an answer that is kept in memory, at most.
MAX_BODY_BYTES = 256 * 1024 * 1024
#: The same for what is no value but JSON. The service ends a batch's answers at 16 MiB, which are
#: 22 in base64, and pages at 4.
MAX_JSON_BYTES = 32 * 1024 * 1024
#: Bytes that are read or written at a time.
CHUNK_BYTES = 256 * 1024
# Streamlit.
#: Seconds for which a local copy is used before the service is asked whether it still holds.
STREAMLIT_REVALIDATE_SECONDS = 1.0
#: Seconds that a value of a function without a `ttl` is kept by the service.
STREAMLIT_KEEP_SECONDS = 30 * 86_400.0
#: Bytes of one cached value that is sent, at most; larger ones stay in the process.
MAX_STREAMLIT_VALUE_BYTES = 64 * 1024 * 1024
#: Bytes of all local copies of one process, at most.
MAX_STREAMLIT_LOCAL_BYTES = 256 * 1024 * 1024
#: Local copies of one process, at most.
MAX_STREAMLIT_LOCAL_ENTRIES = 10_000
#: Bytes of values that wait until the service is back, at most; the oldest go first.
MAX_STREAMLIT_UNSENT_BYTES = 64 * 1024 * 1024
#: Values, and removals, that wait until the service is back, at most.
MAX_STREAMLIT_UNSENT_ENTRIES = 1_000
#: Seconds between two attempts to send what waits: the first, and the longest.
STREAMLIT_SEND_SECONDS = 0.25
MAX_STREAMLIT_SEND_SECONDS = 5.0
#: Seconds for which the service is not asked again after it did not answer.
STREAMLIT_PAUSE_SECONDS = 2.0
#: Seconds for one attempt to send a value that waits.
STREAMLIT_SEND_CALL_SECONDS = 30.0
#: Misses of one function that are remembered until their values are computed, at most.
MAX_STREAMLIT_MISSES = 1_000
#: Tabs of one process whose session is saved after each rerun, at most.
MAX_STREAMLIT_TABS = 10_000
#: Seconds that the end of the process waits for values that were not sent.
STREAMLIT_EXIT_SECONDS = 2.0
#: Seconds between two warnings in the log about the same service.
STREAMLIT_WARNING_SECONDS = 60.0
#: Seconds between two updates of a progress bar.
STREAMLIT_PROGRESS_SECONDS = 0.1
#: Seconds between two refreshes of the dashboard.
STREAMLIT_DASHBOARD_SECONDS = 5.0
# Sessions: what the service takes, and what waits here while it is away.
#: Bytes of the key of a session's state, at most.
MAX_STATE_KEY_BYTES = 512
#: Bytes of one value of a session's state, or of one history item, as JSON, at most.
MAX_STATE_VALUE_BYTES = 256 * 1024
#: Keys of a session's state, at most.
MAX_STATE_KEYS = 1000
#: Levels of lists and dicts in one value; the service takes 128 for a whole request.
MAX_JSON_LEVELS = 100
#: Prefixes by which one patch may delete.
MAX_PATCH_PREFIXES = 100
#: Requests in one batch, at most.
MAX_BATCH_REQUESTS = 100
#: Bytes of the body of one request in a batch, at most; the service takes 1 MiB.
MAX_BATCHED_BYTES = 1_000_000
#: Bytes of a batch that several changes share, at most; the service takes 16 MiB.
MAX_BATCH_BYTES = 8 * 1024 * 1024
#: How often a state that somebody else changed is merged and sent again for one save.
MAX_MERGES = 5
#: Saves that wait for the service, at most. Saves of one session are put together where that
#: does not change what they do, so that this is rather a number of sessions.
MAX_OUTBOX_WRITES = 1000
#: Bytes of the saves that wait, at most.
MAX_OUTBOX_BYTES = 32 * 1024 * 1024
#: Seconds after which a save that waits is given up.
MAX_OUTBOX_SECONDS = 3600.0
#: Seconds between two attempts to send what waits: at first, and at most.
OUTBOX_RETRY_SECONDS = 0.25
MAX_OUTBOX_RETRY_SECONDS = 15.0
#: Bytes of JSON that are compared to tell whether a session that goes has unsaved changes.
MAX_UNSAVED_BYTES = 65_536
#: Seconds for which the end of the process waits for what has not been sent.
OUTBOX_EXIT_SECONDS = 2.0
#: Sessions whose last known state is kept for the time that the service is away, and its bytes.
MAX_KNOWN_SESSIONS = 256
MAX_KNOWN_BYTES = 32 * 1024 * 1024
#: Debounces that one client decides itself while the service is away.
MAX_LOCAL_DEBOUNCES = 1000
#: Bytes of an export to CSV that stay in memory before they go to a temporary file.
EXPORT_MEMORY_BYTES = 8 * 1024 * 1024

# The cache: cache.py, local.py, memoize.py.

#: Seconds for a read from the cache, so that a service that hangs costs no more than that.
CACHE_GET_SECONDS = 0.5
#: A call that sends values gets a second more for so many bytes.
CACHE_BYTES_PER_SECOND = 4 * 1024 * 1024
#: Operations in one batch of the cache, at most.
CACHE_BATCH_OPERATIONS = 1000
#: Bytes of the values in one batch that is sent, in base64.
CACHE_BATCH_BYTES = 4 * 1024 * 1024
#: A larger value is not sent in a batch but alone. In bytes.
CACHE_BATCH_VALUE_BYTES = 256 * 1024
#: How often `update` reads and writes before it gives up.
CACHE_UPDATE_ATTEMPTS = 10
#: The longest key of the service, in bytes.
MAX_ENTRY_KEY_BYTES = 512
#: Bytes that the values of one namespace take in this process, at most.
LOCAL_BYTES = 64 * 1024 * 1024
#: What one value takes there beside its content and its key, in bytes.
LOCAL_ITEM_BYTES = 400
#: Namespaces of one client that share their local values and computations between caches.
MAX_SHARED_NAMESPACES = 1000
#: Calls of one memoized function whose keys are remembered, and the longest text among their
#: arguments, in characters.
MAX_REMEMBERED_KEYS = 2048
MAX_REMEMBERED_TEXT = 200
#: Computations of one namespace that are under way in this process and can be waited for.
MAX_FLIGHTS = 10_000
#: Seconds that a computation is waited for, before the waiter computes itself.
WAIT_SECONDS = 60.0
#: Seconds after which the lock of a computation expires if its holder died.
LOCK_SECONDS = 10.0
#: Seconds between two renewals of such a lock.
LOCK_RENEW_SECONDS = 3.0
#: Seconds for a call that takes, renews or releases a lock.
LOCK_CALL_SECONDS = 1.0
#: Seconds between two looks at a lock that another process holds: at first, and at most.
LOCK_POLL_SECONDS = 0.02
MAX_LOCK_POLL_SECONDS = 0.5
#: Seconds without a lock after which the thread that renews them ends.
LOCK_THREAD_IDLE_SECONDS = 10.0
#: Seconds between two log lines about the same answer, such as "the disk is full".
LOG_AGAIN_SECONDS = 300.0
#: Seconds of a debounce that the app does not say, while the service is away; its default there.
LOCAL_DEBOUNCE_SECONDS = 0.5

# Adapters for cache libraries.

#: Clients that adapters of one process share, at most; further ones have their own.
MAX_SHARED_CLIENTS = 64
#: Seconds between two warnings in the log about the same cache.
ADAPTER_WARNING_SECONDS = 60.0
#: Bytes of a key prefix, at most, so that every key behind it fits.
MAX_KEY_PREFIX_BYTES = 400
#: Bytes of the values that one page of an iteration reads at once.
ADAPTER_PAGE_BYTES = 8 * 1024 * 1024
#: How often a value is read and replaced before a change to it is given up.
ADAPTER_CHANGE_ATTEMPTS = 50
#: The longest time to live that the service takes, in seconds: 100 years.
MAX_TTL_SECONDS = 3_153_600_000.0
#: Seconds after which a mutex is free although its holder did not release it.
MUTEX_SECONDS = 60.0
#: Seconds between two attempts to take a lock: at first, and at most.
LOCK_RETRY_SECONDS = 0.01
MAX_LOCK_RETRY_SECONDS = 0.1
# Samples: monitor.py.
#: Samples that wait to be sent, at most; beyond that, the oldest go.
MAX_QUEUED_SAMPLES = 10_000
#: Samples in one request; the service takes 10,000.
MAX_SAMPLES_PER_REQUEST = 500
#: Seconds for which samples are gathered before they are sent.
MONITOR_FLUSH_SECONDS = 2.0
#: Seconds for one request that sends samples; it is made by a thread that nobody waits for.
MONITOR_CALL_SECONDS = 5.0
#: Seconds between two attempts to send samples: at first, and at most.
MONITOR_RETRY_SECONDS = 0.5
MAX_MONITOR_RETRY_SECONDS = 15.0
#: Samples that could not be sent are given up when they are older than this, in seconds.
MAX_SAMPLE_AGE_SECONDS = 3600.0
#: Seconds for which nothing is sent after the service said that monitoring is off.
MONITOR_DISABLED_SECONDS = 60.0
#: Seconds without a sample after which the thread that sends them ends.
MONITOR_IDLE_SECONDS = 5.0
#: Seconds that `flush` and `close` wait, unless told otherwise.
MONITOR_CLOSE_SECONDS = 5.0
#: Seconds that the end of the process waits for samples that were not sent.
MONITOR_EXIT_SECONDS = 2.0
#: Seconds between two warnings of one monitor in the log.
MONITOR_WARNING_SECONDS = 60.0
#: What the service takes as a sample: characters of texts, labels, seconds and values.
MAX_SAMPLE_NAME_CHARACTERS = 128
MAX_SAMPLE_UNIT_CHARACTERS = 32
MAX_SAMPLE_LABELS = 8
MAX_LABEL_NAME_CHARACTERS = 64
MAX_LABEL_VALUE_CHARACTERS = 256
MAX_TIMING_SECONDS = 31_536_000.0
MAX_GAUGE_VALUE = 1e15
MAX_MEMORY_BYTES = 2**53 - 1
#: Objects that are visited to tell the size of a session's state.
MAX_SIZED_OBJECTS = 100_000
# The guide's module: optimization_utils.
#: Seconds for which the settings that were read are used before they are read anew.
SETTINGS_SECONDS = 5.0
#: Seconds for one read of the settings, so that a service that hangs costs no more than that.
SETTINGS_CALL_SECONDS = 0.5
#: Seconds for one write of settings.
SETTINGS_WRITE_SECONDS = 1.0
#: Seconds for which settings are not asked for after that failed: at first, and at most.
SETTINGS_RETRY_SECONDS = 5.0
MAX_SETTINGS_RETRY_SECONDS = 60.0
#: Timers that run, and operations whose latest time is kept, at most.
MAX_TIMERS = 1000
#: Results that one cached function keeps in a process without Streamlit, at most.
MAX_LOCAL_RESULTS = 1000
#: Streamlit sessions for which it is remembered which keys were initialized, at most.
MAX_INITIALIZED_SESSIONS = 10_000
#: Operations that the dashboard lists, at most.
MAX_DASHBOARD_OPERATIONS = 20
