// All of Reprise's limits in one place: no queue, cache, set of names, body or query grows without one.

/// The service's fixed limits. Sizes are bytes and durations milliseconds, as each name says.
///
/// What an operator may change is a ``Setting`` instead; a limit here is either part of the HTTP contract or a guard
/// that no deployment has needed to change.
public enum Limits {
    // MARK: Names and keys

    /// Longest namespace, template, debounce or session name. All are ASCII, so characters are bytes.
    public static let maxNameBytes = 128
    /// Longest cache or state key, in bytes of UTF-8.
    public static let maxKeyBytes = 512
    /// Longest tag.
    public static let maxTagBytes = 128
    /// Tags one cache entry may have.
    public static let maxTagsPerEntry = 16
    /// Namespaces one database may hold: names that contain object ids must not grow it without bound.
    public static let maxNamespaces = 10_000

    // MARK: Values

    /// Largest value kept in a row. Larger ones are stored as chunks and streamed: docs/design/values.md.
    public static let maxInlineValueBytes = 64 * 1024
    /// Size of one stored chunk of a large value. Also what one streaming request holds in memory at a time. Offsets in
    /// databases depend on it: changing it needs a migration.
    public static let chunkBytes = 64 * 1024
    /// Large values that may be sent at the same time in parts of ``chunkBytes``, and in parts of a quarter of that;
    /// for more, parts are a sixteenth, so that 4096 clients that read nothing hold less than 100 MiB.
    public static let fewDownloads = 64
    public static let manyDownloads = 256
    /// Upper bound of the setting `max_entry_bytes`: 1 GiB.
    public static let maxEntryBytesCeiling = 1024 * 1024 * 1024
    /// Bounds of the setting `max_database_bytes`: 64 MiB, because the log takes 28 MiB of it, to 16 TiB.
    public static let leastDatabaseBytes = 64 * 1024 * 1024
    public static let maxDatabaseBytesCeiling = 16 * 1024 * 1024 * 1024 * 1024
    /// Bytes that the unfinished uploads of large values may have sent together, if that is more than four times
    /// `max_entry_bytes`. A caller gets as much as is left free: half of it when alone. Above it the answer is 503.
    public static let maxUnfinishedUploadBytes = 1024 * 1024 * 1024
    /// Longest `Content-Type` or `Content-Encoding` kept with a value.
    public static let maxMediaTypeBytes = 256
    /// Longest lifetime: 100 years, in milliseconds. A caller that wants more means "never" and should say so.
    public static let maxLifetimeMilliseconds: Int64 = 100 * 365 * 86_400 * 1000
    /// Largest compute time a caller may report: one year, in seconds.
    public static let maxComputeSeconds = 31_536_000.0

    // MARK: Sessions

    /// How often a request opens a session again that others remove before its parts are read.
    public static let maxOpenings = 3
    /// Keys in one session's state, including its template's defaults, and defaults of one template.
    public static let maxKeysPerSession = 1000
    /// Largest value of one state key, as JSON text.
    public static let maxStateValueBytes = 256 * 1024
    /// Values of one session's state together, including its template's defaults; defaults of one template together.
    public static let maxStateBytes = 8 * 1024 * 1024
    /// Largest data of one history item, as JSON text.
    public static let maxHistoryItemBytes = 256 * 1024
    /// Highest cap of a session's history, for the setting `max_history_items` and for a session or template.
    public static let maxHistoryItems = 10_000
    /// Largest metadata of a session, as JSON text.
    public static let maxMetadataBytes = 16 * 1024
    /// Session templates one database may hold.
    public static let maxTemplates = 1000
    /// Prefixes one state patch may delete by.
    public static let maxDeletePrefixes = 100
    /// Longest delay of a debounce: one day, in milliseconds.
    public static let maxDebounceDelayMilliseconds: Int64 = 86_400_000
    /// Minimum time for which the last allowed call of a debounce is remembered: one hour, in milliseconds.
    public static let debounceMemoryMilliseconds: Int64 = 3_600_000
    /// Debounces remembered for one session; beyond that, the one allowed longest ago is forgotten.
    public static let maxDebounceMarks = 1000

    // MARK: Samples

    /// Samples in one request.
    public static let maxSamplesPerRequest = 10_000
    /// Longest name or variant of a sample, in Unicode characters.
    public static let maxSampleNameCharacters = 128
    /// Longest unit of a gauge.
    public static let maxSampleUnitCharacters = 32
    /// Largest magnitude of a gauge: below it, a `Double` can represent every integer.
    public static let maxGaugeValue = 1e15
    /// Labels of one sample, and their longest name and value.
    public static let maxSampleLabels = 8
    public static let maxLabelNameCharacters = 64
    public static let maxLabelValueCharacters = 256
    /// How far in the future a sample may be, because clocks differ.
    public static let maxSampleLeadMilliseconds: Int64 = 300_000
    /// Names of one kind of samples; the rest are counted as ``Sample/otherName``.
    public static let maxSampleNames = 1000
    /// Variants of one name; the rest are counted as ``Sample/otherName``.
    public static let maxSampleVariants = 20
    /// Raw samples kept; beyond that, the oldest are removed before `sample_retention_seconds` is over.
    public static let maxSamples = 20_000_000
    /// Time between two roll-ups of new samples, in milliseconds.
    public static let sampleRollupMilliseconds: Int64 = 10_000
    /// Raw samples one answer is computed from; beyond that, roll-ups answer.
    public static let maxRawSamplesPerQuery = 50_000
    /// Longest range that is answered by minutes rather than hours: a day, in milliseconds.
    public static let maxMinuteRangeMilliseconds: Int64 = 86_400_000
    /// Longest range that is answered by hours rather than six hours: three days, in milliseconds.
    public static let maxHourRangeMilliseconds: Int64 = 3 * 86_400_000
    /// Longest range of a query: a year, in milliseconds.
    public static let maxMetricRangeMilliseconds: Int64 = 366 * 86_400_000
    /// Steps of one time series.
    public static let maxTimeSeriesSteps = 2000
    /// Names and sessions in one answer, and series in one answer with steps. Names and variants alone are bounded by
    /// ``maxSampleNames`` and ``maxSampleVariants``.
    public static let maxMeasuredItems = 2000
    /// Namespaces that metrics name; the others are summed up.
    public static let maxLabelledNamespaces = 100
    /// Sessions listed as the largest.
    public static let maxLargestSessions = 10
    /// Kinds of history listed.
    public static let maxReportedKinds = 20
    /// Names for which one answer compares two variants.
    public static let maxComparedNames = 200
    /// Names of each sort that a summary lists.
    public static let maxSummaryNames = 50
    /// Parts of operations (variants, with hits and misses separate) that a summary lists; the most frequent ones.
    public static let maxSummaryParts = 100
    /// Processes, routes and background runs that a summary lists.
    public static let maxSummaryProcesses = 20
    public static let maxSummaryRoutes = 20
    public static let maxSummaryRuns = 10
    /// Time between two self-measurements of the service, in milliseconds.
    public static let selfSampleMilliseconds: Int64 = 10_000

    // MARK: Idempotency keys

    /// Longest `Idempotency-Key`: visible ASCII, so characters are bytes.
    public static let maxIdempotencyKeyBytes = 128
    /// How long a request is known by its key: one day, in milliseconds.
    public static let keyMemoryMilliseconds: Int64 = 86_400_000
    /// Keys that are remembered; beyond that, the oldest are forgotten.
    public static let maxRememberedKeys = 100_000
    /// Largest body of an answer that is kept. A longer one is sent, but cannot be given again.
    public static let maxKeptAnswerBytes = 1024 * 1024
    /// All answers kept, with their header fields; beyond that, the oldest go.
    public static let maxKeptAnswersBytes = 32 * 1024 * 1024
    /// Requests with a key that may be under way at the same time; above it the answer is 503.
    public static let maxKeyedRequestsUnderWay = 8192

    // MARK: Access

    /// Tokens one database may hold. All are in memory, about 1 KiB each.
    public static let maxTokens = 1000
    /// Longest name of a token, in bytes of UTF-8.
    public static let maxTokenNameBytes = 128
    /// Namespaces and beginnings of namespaces one token may be limited to.
    public static let maxTokenNamespaces = 50
    /// Longest token accepted in a request, and longest `admin_token`.
    public static let maxTokenBytes = 512
    /// Shortest `admin_token` without a warning, and shortest that is compared however many wrong ones come.
    public static let minGoodTokenBytes = 16
    public static let minStrongTokenBytes = 32
    /// Addresses whose failed attempts to authenticate are counted; beyond that, all others share one count.
    public static let maxCountedAddresses = 1024
    /// Failed attempts that an address may make without being slowed down, and how many of them are forgiven each
    /// second.
    public static let freeFailedAttempts = 20
    public static let forgivenAttemptsPerSecond = 1
    /// How much longer each attempt beyond that takes than the one before, and how long at most, in milliseconds.
    public static let attemptDelayStepMilliseconds: Int64 = 10
    public static let maxAttemptDelayMilliseconds: Int64 = 250
    /// Attempts of one address that may wait at a time; above it the answer is 429.
    public static let maxDelayedAttempts = 16
    /// Hosts and origins in the settings `allowed_hosts` and `allowed_origins`.
    public static let maxAllowedNames = 100

    // MARK: Settings

    /// Largest file that holds a secret setting.
    public static let maxSecretFileBytes = 64 * 1024

    // MARK: Requests

    /// Largest JSON body, except a batch.
    public static let maxJSONBodyBytes = 1024 * 1024
    /// Largest body of a batch, of cache operations or of requests.
    public static let maxBatchBodyBytes = 16 * 1024 * 1024
    /// Largest body that contains a whole state or a template's defaults: their size, and what JSON syntax adds.
    public static let maxStateBodyBytes = 9 * 1024 * 1024
    /// Largest JSON body that counts as short: it is parsed on the event loop, and long ones never keep it out.
    public static let maxShortBodyBytes = 64 * 1024
    /// Memory that the short JSON bodies of all requests may take together, and that all others may, as they arrive and
    /// parsed. A caller gets as much as is left free: half of it when alone. Above it the answer is 503, and 413 for a
    /// body that takes more than half by itself.
    public static let maxHeldShortBodyBytes = 64 * 1024 * 1024
    public static let maxHeldLongBodyBytes = 256 * 1024 * 1024
    /// The rate at which a JSON body has to arrive, and the windows over which it is measured; below it the answer is
    /// 408.
    public static let minBodyBytesPerSecond = 16 * 1024
    public static let bodyWindowSeconds: Int64 = 10
    /// The rate at which a body that is passed on in chunks has to arrive, and the longest time that any body may take:
    /// two hours.
    public static let minStreamedBytesPerSecond = 4 * 1024
    public static let maxBodySeconds: Int64 = 7200
    /// Bytes around the chunks of a body (sizes, line ends, extensions), with 16 and twice its size allowed for each
    /// part of the content.
    public static let maxChunkOverheadBytes = 16 * 1024
    /// What is read of a body after its request has been answered, for example with 413; then the connection is closed.
    public static let maxDrainedBytes = 128 * 1024 * 1024
    /// Largest body of samples.
    public static let maxSamplesBodyBytes = 8 * 1024 * 1024
    /// Operations in one batch.
    public static let maxBatchOperations = 1000
    /// Requests of one batch of requests, and bytes of the body of one of them, or of its answer.
    public static let maxBatchRequests = 100
    public static let maxBatchPartBytes = 1024 * 1024
    /// Answers of a batch that always have room, so that what was done and what is missing is told in any case.
    public static let maxSmallBatchPartBytes = 4096
    /// Bytes of values, or of answers, in the answer to one batch; each one beyond that fails, and must be fetched
    /// separately.
    public static let maxBatchAnswerBytes = 16 * 1024 * 1024
    /// Deepest nesting of a JSON text.
    public static let maxJSONDepth = 128
    /// Items of one page of a collection when `limit` is not sent.
    public static let defaultPageItems = 50
    /// Most items of one page.
    public static let maxPageItems = 500
    /// Bytes of history data on one page; a page ends before it would exceed this, but has at least one item.
    public static let maxPageBytes = 4 * 1024 * 1024
    /// Validation errors listed in one answer.
    public static let maxReportedErrors = 20
    /// Longest `X-Request-Id` accepted from a caller.
    public static let maxRequestIDBytes = 128
    /// Bytes of an answer that the system takes before the client's machine has room for them.
    public static let maxUnsentBytes = 128 * 1024
    /// Bytes of one request's header fields; above it the answer is 431.
    public static let maxHeaderBytes = 32 * 1024
    /// What incomplete heads of more than ``maxShortHeadBytes`` may take together; above that, the oldest give way.
    public static let maxHeldHeadBytes = 8 * 1024 * 1024
    public static let maxShortHeadBytes = 4 * 1024
    /// Header fields of one request.
    public static let maxHeaderFields = 200

    // MARK: Connections

    /// Concurrent connections of all listeners together. Above that, those that do nothing give way; if all are at
    /// work, new ones wait in the kernel's accept queue.
    public static let maxConnections = 4096
    /// Connections that wait in the kernel's accept queue of each listener.
    public static let acceptBacklog = 1024
    /// Connections at once after whose end memory is returned to the system.
    public static let burstConnections = 256
    /// Connections that give way at once.
    public static let connectionsThatGiveWay = 16
    /// When a connection gives way: without a request for this long; with a body that arrives at less than
    /// ``minStreamedBytesPerSecond``, or with an answer that is not read, for this long.
    public static let minIdleSeconds = 1.0
    public static let minSlowBodySeconds = 2.0
    public static let minStalledSeconds = 3.0
    /// Time for a TLS handshake.
    public static let handshakeSeconds: Int64 = 10
    /// Requests at once on one HTTP/2 connection.
    public static let maxStreamsPerConnection = 100
    /// Time between two looks at the files of the certificate.
    public static let certificateCheckSeconds: Int64 = 5
    /// Largest file of a certificate chain or key.
    public static let maxCertificateFileBytes = 1024 * 1024

    // MARK: Reading

    /// Time such a read may take before it is interrupted with 503.
    public static let readDeadlineMilliseconds: Int64 = 5000

    // MARK: Ad-hoc SQL

    /// Longest text of a query. The stack that SQLite needs to compile a query grows with its length: 1 MiB at this
    /// length.
    public static let maxSQLBytes = 32 * 1024
    /// Parameters of a query.
    public static let maxSQLParameters = 100
    /// Rows in an answer: the default if `limit` is not sent, and the maximum.
    public static let defaultSQLRows = 1000
    public static let maxSQLRows = 10_000
    /// Bytes of all values in one answer, with 24 bytes added for each value; the answer is truncated after that.
    public static let maxSQLAnswerBytes = 4 * 1024 * 1024
    /// Bytes of all answers that their callers have not read yet, counted in the same way; above it the answer is 503.
    public static let maxHeldSQLAnswerBytes = 32 * 1024 * 1024
    /// Columns of a result, a grouping or an ordering.
    public static let maxSQLColumns = 200
    /// Queries that run at the same time.
    public static let maxConcurrentSQL = 2
    /// Queries that may wait for their turn, for two deadlines at most; above it the answer is 503.
    public static let maxQueuedSQL = 4
    /// Time a query may take before it is interrupted with 503.
    public static let sqlDeadlineMilliseconds: Int64 = 5000

    // MARK: Backups

    /// Highest value of the setting `backup_keep`.
    public static let maxBackups = 1000
    /// Pause after a scheduled backup that failed: one minute, doubled after each further failure up to an hour, in
    /// milliseconds.
    public static let backupRetryMilliseconds: Int64 = 60_000
    public static let maxBackupRetryMilliseconds: Int64 = 3_600_000

    // MARK: Diagnostics

    /// Age up to which `/metrics` reports the number of findings without looking again.
    public static let findingsAgeSeconds: Int64 = 60

    // MARK: Background work

    /// Removed keys whose reason is remembered, so that a later miss can be explained.
    public static let maxRememberedRemovals = 100_000
    /// How long the reason is remembered: one day, in milliseconds.
    public static let removalMemoryMilliseconds: Int64 = 86_400_000
    /// Rows of `maintenance_runs` kept.
    public static let maxMaintenanceRuns = 10_000
}
