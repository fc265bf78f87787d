// Samples in requests.

import Domain

/// Reads samples: one object, an array in `samples`, or lines.
struct SampleReader {
    private let now: Instant
    private(set) var samples: [Sample] = []
    private var errors: [Failure.FieldError] = []

    init(now: Instant) { self.now = now }

    /// - Throws: `validation_failed` when there are too many.
    mutating func add(_ json: JSON, path: String) throws(Failure) {
        guard samples.count < Limits.maxSamplesPerRequest else { throw Self.tooMany }
        do throws(Failure) {
            samples.append(try Sample(json, path: path, now: now))
        } catch {
            errors += error.errors
            guard errors.count < Limits.maxReportedErrors else { throw .invalid(errors) }
        }
    }

    /// - Throws: `malformed_json`; `validation_failed` when there are too many; what `memory` throws.
    mutating func add(
        line: some Collection<UInt8>, path: String, memory: (any JSONMemory)?
    ) throws(Failure) {
        let json: JSON
        do throws(Failure) {
            json = try JSON(parsing: line, memory: memory)
        } catch {
            guard error.code == .malformedJSON else { throw error }
            throw Failure(error.code, "\(path): \(error.detail)")
        }
        try add(json, path: path)
    }

    static var tooMany: Failure {
        .invalid("samples", "must be at most \(Limits.maxSamplesPerRequest): send the rest in another request.")
    }

    /// - Throws: `validation_failed` with everything that was wrong.
    func finish() throws(Failure) -> [Sample] {
        guard errors.isEmpty else { throw .invalid(errors) }
        return samples
    }
}

extension Sample {
    /// - Parameter path: its position in the request, such as `samples[3]`; empty for the body itself.
    /// - Throws: `validation_failed` with everything that is wrong with it.
    fileprivate init(_ json: JSON, path: String, now: Instant) throws(Failure) {
        var object = try ObjectReader(json, path: path)
        let name = object.requiredText("name", maxCharacters: Limits.maxSampleNameCharacters)
        let recordedAt = object.recordedAt(now: now)
        let sessionID = object.name("session_id")
        let labels = object.labels()
        let measurement: Measurement?
        let kind: SampleKind? = object.required("kind") { $0.choice("kind") }
        switch kind {
        case .timing: measurement = object.timing()
        case .memory: measurement = object.memory()
        case .gauge: measurement = object.gauge()
        case nil:
            // The other checks depend on it.
            try object.finishIgnoringRest()
            measurement = nil
        }
        try object.finish()
        guard let name, let measurement else { throw .invalid(path, "is incomplete.") }
        self.init(
            name: name, measurement: measurement, recordedAt: recordedAt ?? now, sessionID: sessionID, labels: labels)
    }
}

extension ObjectReader {
    fileprivate mutating func text(_ field: String, maxCharacters: Int) -> String? {
        guard let text = string(field) else { return nil }
        guard Sample.isValid(text, maxCharacters: maxCharacters) else {
            report(field, "must be 1 to \(maxCharacters) characters without control characters.")
            return nil
        }
        return text
    }

    fileprivate mutating func requiredText(_ field: String, maxCharacters: Int) -> String? {
        guard isPresent(field) else {
            report(field, "is missing.")
            return nil
        }
        return text(field, maxCharacters: maxCharacters)
    }

    fileprivate mutating func required<T>(_ field: String, _ read: (inout ObjectReader) -> T?) -> T? {
        guard isPresent(field) else {
            report(field, "is missing.")
            return nil
        }
        return read(&self)
    }

    fileprivate mutating func recordedAt(now: Instant) -> Instant? {
        guard let text = string("recorded_at") else { return nil }
        guard let instant = Instant(rfc3339: text) else {
            report("recorded_at", "must be a date and time such as 2026-11-23T07:14:00.123Z (RFC 3339).")
            return nil
        }
        guard instant.milliseconds(since: now) <= Limits.maxSampleLeadMilliseconds else {
            report(
                "recorded_at",
                "must not be more than \(Limits.maxSampleLeadMilliseconds / 60_000) minutes in the future; the "
                    + "server's clock says \(now.rfc3339).")
            return nil
        }
        return instant
    }

    fileprivate mutating func labels() -> JSONText? {
        guard let json = take("labels"), json != .null else { return nil }
        guard case .object(let members) = json, members.count <= Limits.maxSampleLabels,
            members.allSatisfy({ member in
                guard let value = member.value.stringValue else { return false }
                return Sample.isValid(member.name, maxCharacters: Limits.maxLabelNameCharacters)
                    && (value.isEmpty || Sample.isValid(value, maxCharacters: Limits.maxLabelValueCharacters))
            })
        else {
            report(
                "labels",
                "must be an object of at most \(Limits.maxSampleLabels) strings; names may have 1 to "
                    + "\(Limits.maxLabelNameCharacters) characters, values up to \(Limits.maxLabelValueCharacters).")
            return nil
        }
        return members.isEmpty ? nil : JSONText(json)
    }

    fileprivate mutating func timing() -> Sample.Measurement? {
        let seconds = required("duration_seconds") { $0.decimal("duration_seconds", in: 0...Limits.maxComputeSeconds) }
        let outcome: Sample.Outcome? = choice("outcome")
        let cache: Sample.CacheResult? = choice("cache")
        let variant = text("variant", maxCharacters: Limits.maxSampleNameCharacters)
        return seconds.map { .timing(seconds: $0, outcome: outcome ?? .ok, cache: cache, variant: variant) }
    }

    fileprivate mutating func memory() -> Sample.Measurement? {
        let bytes: ClosedRange<Int64> = 0...(1 << 53) - 1
        let rss = required("rss_bytes") { $0.integer("rss_bytes", in: bytes) }
        let vms = required("vms_bytes") { $0.integer("vms_bytes", in: bytes) }
        let percent = required("percent") { $0.decimal("percent", in: 0...100) }
        guard let rss, let vms, let percent else { return nil }
        return .memory(rssBytes: rss, vmsBytes: vms, percent: percent)
    }

    fileprivate mutating func gauge() -> Sample.Measurement? {
        let range = -Limits.maxGaugeValue...Limits.maxGaugeValue
        let value = required("value") { $0.decimal("value", in: range) }
        let unit = text("unit", maxCharacters: Limits.maxSampleUnitCharacters)
        return value.map { .gauge(value: $0, unit: unit) }
    }
}
