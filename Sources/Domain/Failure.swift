// What can go wrong, in the words a caller sees.

/// The one error type that crosses the layers. Its ``Code`` is the stable slug of the wire contract; the HTTP layer
/// holds the one table from code to status.
public struct Failure: Error, Sendable, Equatable {
    /// Stable identifiers of everything a request can fail with.
    public enum Code: String, Sendable, CaseIterable {
        // The request itself
        case malformedRequest = "malformed_request"
        case malformedJSON = "malformed_json"
        case badPercentEncoding = "bad_percent_encoding"
        case requestTimeout = "request_timeout"
        case expectationFailed = "expectation_failed"
        case httpVersionNotSupported = "http_version_not_supported"
        case notFound = "not_found"
        case methodNotAllowed = "method_not_allowed"
        case notAcceptable = "not_acceptable"
        case unsupportedMediaType = "unsupported_media_type"
        case payloadTooLarge = "payload_too_large"
        case headersTooLarge = "headers_too_large"
        case validationFailed = "validation_failed"
        case preconditionFailed = "precondition_failed"
        case rangeNotSatisfiable = "range_not_satisfiable"
        // The cache
        case cacheMiss = "cache_miss"
        case namespaceNotFound = "namespace_not_found"
        case tooManyNamespaces = "too_many_namespaces"
        case notAnInteger = "not_an_integer"
        case integerOverflow = "integer_overflow"
        case batchAborted = "batch_aborted"
        // Sessions
        case sessionNotFound = "session_not_found"
        case sessionExists = "session_exists"
        case stateKeyNotFound = "state_key_not_found"
        case tooManyKeys = "too_many_keys"
        case templateNotFound = "template_not_found"
        case tooManyTemplates = "too_many_templates"
        case historyItemNotFound = "history_item_not_found"
        // SQL from outside
        case invalidSQL = "invalid_sql"
        case sqlNotAllowed = "sql_not_allowed"
        case sqlLimitExceeded = "sql_limit_exceeded"
        // Access
        case unauthenticated = "unauthenticated"
        case forbidden = "forbidden"
        case hostNotAllowed = "host_not_allowed"
        case originNotAllowed = "origin_not_allowed"
        case tooManyAttempts = "too_many_attempts"
        case tokenNotFound = "token_not_found"
        case tooManyTokens = "too_many_tokens"
        // Idempotency keys
        case idempotencyKeyReused = "idempotency_key_reused"
        case idempotencyKeyInUse = "idempotency_key_in_use"
        case idempotencyAnswerLost = "idempotency_answer_lost"
        // Settings
        case settingNotFound = "setting_not_found"
        // Backups
        case backupNotFound = "backup_not_found"
        case backupRunning = "backup_running"
        // The service
        case overloaded = "overloaded"
        case deadlineExceeded = "deadline_exceeded"
        case shuttingDown = "shutting_down"
        case databaseBusy = "database_busy"
        case databaseReadOnly = "database_read_only"
        case databaseDamaged = "database_damaged"
        case databaseReplaced = "database_replaced"
        case storageFull = "storage_full"
        case storageUnavailable = "storage_unavailable"
        case notSupported = "not_supported"
        case internalError = "internal_error"
    }

    /// One thing wrong with one field of a request.
    public struct FieldError: Sendable, Equatable {
        /// Where: a JSON path such as `operations[3].ttl_seconds`, a query parameter or a header's name.
        public var field: String
        /// What is wrong, and what would be right.
        public var message: String

        public init(field: String, message: String) {
            self.field = field
            self.message = message
        }
    }

    public var code: Code
    /// One sentence for a person, with the remedy where there is one. Never internal detail.
    public var detail: String
    /// For `validation_failed`: each thing wrong, up to ``Limits/maxReportedErrors``.
    public var errors: [FieldError]
    /// For `cache_miss`: why, and since when.
    public var miss: CacheMiss?
    /// When to try again, if that is not in a second.
    public var retryAfterSeconds: Int?
    /// For `range_not_satisfiable`: the size of the current value.
    public var completeLength: Int?
    /// For `forbidden`: the scope that the caller's token lacks.
    public var requiredScope: Scope?
    /// For `unauthenticated`: whether a token was sent, and was not valid.
    public var tokenWasSent = false
    /// For `invalid_sql`: the byte of the query at which the error is, from 0, if known.
    public var queryOffset: Int?

    public init(_ code: Code, _ detail: String) {
        self.code = code
        self.detail = detail
        self.errors = []
    }

    /// A `validation_failed` naming one field.
    public static func invalid(_ field: String, _ message: String) -> Failure {
        invalid([FieldError(field: field, message: message)])
    }

    /// A `validation_failed` naming every field in `errors`.
    public static func invalid(_ errors: [FieldError]) -> Failure {
        var failure = Failure(
            .validationFailed,
            errors.count == 1
                ? "\(errors[0].field): \(errors[0].message)" : "\(errors.count) fields are invalid; see errors."
        )
        failure.errors = Array(errors.prefix(Limits.maxReportedErrors))
        return failure
    }

    /// A look-up that found no live entry.
    public static func miss(_ miss: CacheMiss) -> Failure {
        var failure = Failure(.cacheMiss, miss.detail)
        failure.miss = miss
        return failure
    }

    /// Invalid SQL: SQLite's message, and the byte it is about.
    public static func invalidSQL(_ detail: String, at offset: Int? = nil) -> Failure {
        var failure = Failure(.invalidSQL, detail)
        failure.queryOffset = offset
        return failure
    }

    /// A temporary refusal: too much is waiting already.
    public static func overloaded(_ what: String) -> Failure {
        var failure = Failure(.overloaded, "\(what) Try again shortly, with fewer requests at once.")
        failure.retryAfterSeconds = 1
        return failure
    }
}
