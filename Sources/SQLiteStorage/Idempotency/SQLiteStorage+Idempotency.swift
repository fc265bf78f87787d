// Requests with an idempotency key: their marks, their answers, and how both are forgotten. docs/design/idempotency.md.

import Domain
import Synchronization

extension SQLiteStorage: IdempotencyStore {
    public func earlierRequest(like request: KeyedRequest) async throws -> EarlierRequest? {
        let horizon = keyHorizon
        let (mark, answer) = try readers.point { connection in
            try connection.consistently {
                let mark = try connection.mark(of: request, after: horizon)
                guard let mark, mark.answerBytes <= StorageLimits.maxPointReadBytes else { return (mark, nil) }
                return (mark, try connection.answer(of: mark.id))
            } as (KeyMark?, KeptAnswer?)
        }
        guard let mark else { return nil }
        guard mark.content == request.content else { return .different }
        if let answer { return .answered(answer) }
        guard mark.answerBytes > StorageLimits.maxPointReadBytes else { return .unanswered }
        let large = try await readers.pooled { try $0.answer(of: mark.id) }
        return large.map { .answered($0) } ?? .unanswered
    }

    public func marking<Answer: Sendable>(
        _ request: KeyedRequest, _ body: @escaping @Sendable () async throws -> Answer
    ) async throws -> Answer {
        let mark: @Sendable (Connection) throws -> Void = { connection in
            try connection.mark(request, at: self.clock.now(), after: self.keyHorizon)
        }
        return try await Writer.$companion.withValue(mark) { try await body() }
    }

    public func keep(_ answer: KeptAnswer?, of request: KeyedRequest) async throws {
        let fields = answer.map { JSON.array($0.fields.flatMap { [.string($0.name), .string($0.value)] }).text }
        let bytes = Connection.pageBytes + (answer?.body.count ?? 0) + (fields?.utf8.count ?? 0)
        // The mark is on the disk already if the request changed anything, and without its answer it is still right.
        try await writer.perform(.foreground, bytes: bytes, .withNext) { connection in
            try connection.mark(request, at: self.clock.now(), after: self.keyHorizon)
            guard let answer, let fields else { return }
            try connection.run(
                """
                INSERT INTO idempotency_answers (mark_id, status, fields, body)
                SELECT mark_id, ?2, ?3, ?4 FROM idempotency_marks WHERE key_digest = ?1
                """, .blob(request.key), .integer(answer.status), .text(fields), .blob(answer.body))
            try connection.forgetExcessAnswers()
        }
    }

    /// What was marked up to then is forgotten.
    private var keyHorizon: Instant { clock.now().advanced(milliseconds: -Limits.keyMemoryMilliseconds) }

    /// Forgets keys after a day, with their answers. Bytes are those of answers.
    func forgetOldKeys(isDryRun: Bool) async throws -> Removal {
        var total = Removal()
        if !isDryRun && clockWatch.holdsSweeps { return total }
        let horizon = keyHorizon
        var last: Int64 = 0
        while true {
            let start = last
            let page = try await readers.pooled(.upkeep) { try $0.oldestMarks(after: start) }
            // After the clock was set back, a younger one can be before others. They wait for it.
            let due = page.prefix { $0.madeAt <= horizon }
            if isDryRun {
                total += due.reduce(into: Removal()) { $0 += Removal(removed: 1, freedBytes: $1.answerBytes) }
            } else {
                total += try await forget(due, upTo: horizon)
            }
            guard due.count == page.count, let end = due.last else { break }
            last = end.id
        }
        if total.removed > 0, !isDryRun { signals.hasSpareSpace.store(true, ordering: .relaxed) }
        return total
    }

    private func forget(_ marks: ArraySlice<KeyMark>, upTo horizon: Instant) async throws -> Removal {
        var total = Removal()
        var rest = marks
        while !rest.isEmpty {
            let part = rest
            let (step, count) = try await writer.perform(.background, .durable, .shrinking) { connection in
                var step = Removal()
                for (index, mark) in part.enumerated() {
                    // The number may be that of another one by now.
                    try connection.run(
                        "DELETE FROM idempotency_marks WHERE mark_id = ?1 AND made_at_ms <= ?2", .integer(mark.id),
                        .instant(horizon))
                    if connection.changes > 0 { step += Removal(removed: 1, freedBytes: mark.answerBytes) }
                    if self.writer.isStepOver { return (step, index + 1) }
                }
                return (step, part.count)
            }
            total += step
            rest = rest.dropFirst(count)
        }
        return total
    }

    /// Gives marks made in the future, by the clock of now, the time they would have if they were made now. In steps.
    func repairKeys() async throws {
        var last: Int64 = 0
        while true {
            let (start, now) = (last, clock.now())
            let page = try await readers.pooled(.upkeep) { try $0.oldestMarks(after: start) }
            let ahead = page.filter { $0.madeAt > now }.map(\.id)
            if !ahead.isEmpty {
                try await writer.perform(.background, .durable, .shrinking) { connection in
                    for id in ahead {
                        try connection.run(
                            "UPDATE idempotency_marks SET made_at_ms = min(made_at_ms, ?2) WHERE mark_id = ?1",
                            .integer(id), .instant(now))
                    }
                }
            }
            guard let end = page.last else { return }
            last = end.id
        }
    }
}

/// A row of `idempotency_marks`.
private struct KeyMark: Sendable {
    let id: Int64
    let content: [UInt8]
    let madeAt: Instant
    /// 0 without an answer.
    let answerBytes: Int

    init(_ row: borrowing Row) {
        id = row.integer("mark_id")
        content = row.blob("content_digest")
        madeAt = row.instant("made_at_ms")
        answerBytes = row.int("answer_bytes")
    }
}

extension Connection {
    /// - Parameter horizon: older marks are forgotten.
    fileprivate func mark(of request: KeyedRequest, after horizon: Instant) throws(SQLiteError) -> KeyMark? {
        try first(
            """
            SELECT m.mark_id, m.content_digest, m.made_at_ms, coalesce(a.size_bytes, 0) AS answer_bytes
            FROM idempotency_marks m LEFT JOIN idempotency_answers a ON a.mark_id = m.mark_id
            WHERE m.key_digest = ?1 AND m.made_at_ms > ?2
            """, .blob(request.key), .instant(horizon), row: KeyMark.init)
    }

    fileprivate func answer(of mark: Int64) throws -> KeptAnswer? {
        let row = try first(
            "SELECT status, fields, body FROM idempotency_answers WHERE mark_id = ?1", .integer(mark)
        ) { (status: $0.int(0), fields: $0.text(1), body: $0.blob(2)) }
        guard let row, case .array(let texts) = try JSON(parsing: row.fields.utf8) else { return nil }
        let fields = stride(from: 0, to: texts.count - 1, by: 2).map {
            KeptAnswer.Field(name: texts[$0].stringValue ?? "", value: texts[$0 + 1].stringValue ?? "")
        }
        return KeptAnswer(status: row.status, fields: fields, body: row.body)
    }

    /// Marks a request as carried out, unless it is marked already, and forgets the oldest marks above their number.
    fileprivate func mark(
        _ request: KeyedRequest, at now: Instant, after horizon: Instant
    ) throws(SQLiteError) {
        try run(
            "DELETE FROM idempotency_marks WHERE key_digest = ?1 AND made_at_ms <= ?2", .blob(request.key),
            .instant(horizon))
        try run(
            """
            INSERT INTO idempotency_marks (key_digest, content_digest, made_at_ms) VALUES (?1, ?2, ?3)
            ON CONFLICT (key_digest) DO NOTHING
            """, .blob(request.key), .blob(request.content), .instant(now))
        guard changes > 0 else { return }
        // Numbers without a row only make it fewer.
        try run(
            """
            DELETE FROM idempotency_marks WHERE mark_id IN (
                SELECT mark_id FROM idempotency_marks
                WHERE mark_id <= (SELECT max(mark_id) FROM idempotency_marks) - ?1 ORDER BY mark_id LIMIT ?2)
            """, .integer(Limits.maxRememberedKeys), .integer(StorageLimits.maxForgottenPerWrite))
    }

    /// Removes the oldest answers above their size. Their marks stay.
    fileprivate func forgetExcessAnswers() throws(SQLiteError) {
        let total = try first("SELECT answer_bytes FROM idempotency_totals") { $0.int(0) } ?? 0
        var excess = total - Limits.maxKeptAnswersBytes
        guard excess > 0 else { return }
        let oldest = try all(
            "SELECT mark_id, size_bytes FROM idempotency_answers WHERE mark_id > 0 ORDER BY mark_id LIMIT ?1",
            .integer(StorageLimits.maxForgottenPerWrite)
        ) { (mark: $0.integer(0), bytes: $0.int(1)) }
        for answer in oldest where excess > 0 {
            try run("DELETE FROM idempotency_answers WHERE mark_id = ?1", .integer(answer.mark))
            excess -= answer.bytes
        }
    }

    fileprivate func oldestMarks(after mark: Int64) throws(SQLiteError) -> [KeyMark] {
        try all(
            """
            SELECT m.mark_id, m.content_digest, m.made_at_ms, coalesce(a.size_bytes, 0) AS answer_bytes
            FROM idempotency_marks m LEFT JOIN idempotency_answers a ON a.mark_id = m.mark_id
            WHERE m.mark_id > ?1 ORDER BY m.mark_id LIMIT ?2
            """, .integer(mark), .integer(StorageLimits.sweepBatchRows), row: KeyMark.init)
    }
}
