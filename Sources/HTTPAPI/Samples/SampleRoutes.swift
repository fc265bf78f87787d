// /v1/samples: performance samples recorded and listed.

import Domain
import HTTPTypes
import Hummingbird
import NIOCore

struct SampleRoutes: Sendable {
    let samples: any SampleStore
    let settings: LiveSettings
    let clock: WallClock

    var routes: [Route] {
        [
            Route(.post, "/v1/samples", scope: .write, computesLong: true, record),
            Route(.get, "/v1/samples", scope: .read, list),
        ]
    }

    @Sendable func record(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        let sent = try await read(request, context)
        guard settings.current.boolean(.enableMonitoring) else {
            return .json(["accepted": 0, "monitoring": "disabled"], status: .accepted)
        }
        let receipt = try await samples.record(sent)
        var answer: [JSON.Member] = [.init(name: "accepted", value: .integer(receipt.accepted))]
        if receipt.foldedCount > 0 {
            answer.append(.init(name: "folded", value: .integer(receipt.foldedCount)))
            answer.append(.init(name: "folded_into", value: .string(Sample.otherName)))
            answer.append(.init(name: "folded_names", value: .array(receipt.foldedNames.map(JSON.string))))
        }
        return .json(.object(answer), status: .accepted)
    }

    /// One sample, `{"samples": […]}`, or one per line.
    private func read(_ request: Request, _ context: APIContext) async throws -> [Sample] {
        var reader = SampleReader(now: clock.now())
        if let type = request.headers[.contentType], MediaRange.isLines(type) {
            try request.requireIdentityEncoding()
            let body = try await request.collectBytes(maxBytes: Limits.maxSamplesBodyBytes, context)
            var index = 0
            var rest = body.readableBytesView
            while !rest.isEmpty {
                let line = rest.prefix { $0 != UInt8(ascii: "\n") }
                rest = rest.dropFirst(line.count + 1)
                guard line.contains(where: { $0 != UInt8(ascii: " ") && $0 != UInt8(ascii: "\r") }) else { continue }
                try reader.add(line: line, path: "samples[\(index)]", memory: context.body)
                index += 1
            }
            return try reader.finish()
        }
        let json = try await request.jsonBody(
            context, maxBytes: Limits.maxSamplesBodyBytes,
            bound: JSONListBound("samples", maxItems: Limits.maxSamplesPerRequest, otherwise: SampleReader.tooMany))
        guard json["samples"] != nil else {
            try reader.add(json, path: "")
            return try reader.finish()
        }
        var body = try ObjectReader(json)
        let items = body.take("samples") ?? .null
        guard case .array(let items) = items else {
            throw Failure.invalid("samples", "must be an array of samples.")
        }
        try body.finish()
        for (index, item) in items.enumerated() { try reader.add(item, path: "samples[\(index)]") }
        return try reader.finish()
    }

    @Sendable func list(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let filter = SampleFilter(
            kind: query.choice("kind"), name: query.sampleText("name"), sessionID: query.name("session_id"),
            variant: query.sampleText("variant"), since: query.instant("since"), until: query.instant("until"))
        let limit = query.limit()
        let position = query.position()
        try query.finish()
        let page = try await samples.samples(filter, after: position, limit: limit)
        return try .page(page.items.map(\.json), next: page.next?.text, for: request)
    }
}

extension QueryReader {
    /// A name or variant of samples.
    mutating func sampleText(_ name: String) -> String? {
        value(name) { text throws(Failure) in
            guard Sample.isValid(text, maxCharacters: Limits.maxSampleNameCharacters) else {
                throw .invalid(
                    name, "must be 1 to \(Limits.maxSampleNameCharacters) characters without control characters.")
            }
            return text
        }
    }
}

extension Sample {
    fileprivate var json: JSON {
        var members: [JSON.Member] = [
            .init(name: "kind", value: .string(kind.rawValue)), .init(name: "name", value: .string(name)),
            .init(name: "recorded_at", value: .instant(recordedAt)),
        ]
        switch measurement {
        case .timing(let seconds, let outcome, let cache, let variant):
            members += [
                .init(name: "duration_seconds", value: .decimal(seconds)),
                .init(name: "outcome", value: .string(outcome.rawValue)),
                .init(name: "cache", value: .optional(cache) { .string($0.rawValue) }),
                .init(name: "variant", value: .optional(variant, JSON.string)),
            ]
        case .memory(let rss, let vms, let percent):
            members += [
                .init(name: "rss_bytes", value: .integer(rss)), .init(name: "vms_bytes", value: .integer(vms)),
                .init(name: "percent", value: .decimal(percent)),
            ]
        case .gauge(let value, let unit):
            members += [
                .init(name: "value", value: .decimal(value)), .init(name: "unit", value: .optional(unit, JSON.string)),
            ]
        }
        members += [
            .init(name: "session_id", value: .optional(sessionID) { .string($0.rawValue) }),
            .init(name: "labels", value: labels.map(JSON.verbatim) ?? [:]),
        ]
        return .object(members)
    }
}
