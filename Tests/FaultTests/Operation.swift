// What the tests do to a storage while the power is on.

import Domain
import TestSupport

@testable import SQLiteStorage

/// Something to do to a storage, and what it makes of its contents.
enum Operation {
    struct Value: Sendable {
        var key: String
        var bytes: Int
        var seed: Int
        var lifetime = TimeToLive.never
        var tags: [String] = []

        var content: [UInt8] { noise(bytes, seed: seed) }
    }

    case put(Value, Name)
    case upload(Value, Name)
    /// An upload that is broken off.
    case abandon(bytes: Int)
    case putTogether([Value], Name)
    case delete(String, Name)
    case increment(String)
    /// With an idempotency key.
    case incrementOnce(String, key: UInt8)
    case clear(Name, tag: String?)
    case clearEverywhere(tag: String)
    case removeNamespace(Name)
    case open(Name)
    case patch(Name, set: [String: Int], delete: [String])
    case remove(Name)
    case append(Name, item: String, bytes: Int)
    case rate(Name, item: String, Int)
    case clearHistory(Name)
    case define(Name, Int)
    case measure([String])
    case change(setting: String, String?)
    /// These are not seen: counted reads, background work, time.
    case look(String, Name)
    case debounce(Name)
    case maintain(MaintenanceTask)
    case flush
    case checkpoint(truncating: Bool)
    case advance(milliseconds: Int64)

    static let counters = Name(stored: "counters")
    static let capped = Name(stored: "capped")
    static let namespaces = [Name(stored: "a"), Name(stored: "b"), capped]
    static let maxCapped = 5
    static let keys: ClosedRange<UInt8> = 0...40
    static let maxHistoryItems = 6

    /// The storage that all schedules begin with.
    static func prepare(_ storage: SQLiteStorage) async throws {
        _ = try await storage.setPolicy(
            CachePolicy(timeToLive: .never, maxEntries: maxCapped, eviction: .firstInFirstOut), of: capped)
    }
}

extension World {
    /// Makes the change that an operation promises.
    mutating func apply(_ operation: Operation, now: Instant) {
        switch operation {
        case .put(let value, let name), .upload(let value, let name): store(value, in: name, now: now)
        case .putTogether(let values, let name): for value in values { store(value, in: name, now: now) }
        case .delete(let key, let name):
            cache[name.rawValue]?[key] = nil
            if name == Operation.capped { cappedKeys.removeAll { $0 == key } }
        case .increment(let key), .incrementOnce(let key, _):
            if case .incrementOnce(_, let number) = operation {
                // It was carried out before.
                guard marks.insert(number).inserted else { return }
            }
            let sum = Array("\(counter(key) + 1)".utf8)
            cache[Operation.counters.rawValue, default: [:]][key] = Entry(
                tag: EntityTag(of: sum), sizeBytes: sum.count, tags: [], expiresAt: nil)
        case .clear(let name, let tag): clear(name.rawValue, tag: tag)
        case .clearEverywhere(let tag): for name in cache.keys { clear(name, tag: tag) }
        case .removeNamespace(let name): cache[name.rawValue] = nil
        case .open(let id): if sessions[id.rawValue] == nil { sessions[id.rawValue] = Conversation() }
        case .patch(let id, let set, let delete):
            for key in delete { sessions[id.rawValue]?.state[key] = nil }
            for (key, value) in set { sessions[id.rawValue]?.state[key] = "\(value)" }
        case .remove(let id): sessions[id.rawValue] = nil
        case .append(let id, let item, let bytes):
            guard var history = sessions[id.rawValue]?.history, !history.contains(where: { $0.id == item }) else {
                return
            }
            history.append(Item(id: item, data: JSON.text(bytes: bytes).text))
            sessions[id.rawValue]?.history = history.suffix(Operation.maxHistoryItems)
        case .rate(let id, let item, let rating):
            guard let index = sessions[id.rawValue]?.history.firstIndex(where: { $0.id == item }) else { return }
            sessions[id.rawValue]?.history[index].data = "{\"rating\":\(rating)}"
        case .clearHistory(let id): sessions[id.rawValue]?.history = []
        case .define(let name, let value): templates[name.rawValue] = "k=\(value)"
        case .measure(let names): for name in names { timings[name, default: 0] += 1 }
        case .change(let setting, let value): settings[setting] = value
        case .abandon, .look, .debounce, .maintain, .flush, .checkpoint, .advance: break
        }
    }

    /// Only ``Operation/increment(_:)`` and ``Operation/incrementOnce(_:key:)`` write into this namespace, from 0 on.
    private func counter(_ key: String) -> Int {
        guard let tag = cache[Operation.counters.rawValue]?[key]?.tag else { return 0 }
        return (1...).first { EntityTag(of: Array("\($0)".utf8)) == tag }!
    }

    private mutating func store(_ value: Operation.Value, in name: Name, now: Instant) {
        cache[name.rawValue, default: [:]][value.key] = Entry(
            tag: EntityTag(of: value.content), sizeBytes: value.bytes, tags: value.tags.sorted(),
            expiresAt: value.lifetime.expiry(from: now))
        guard name == Operation.capped else { return }
        if !cappedKeys.contains(value.key) { cappedKeys.append(value.key) }
        if cappedKeys.count > Operation.maxCapped { cache[name.rawValue]?[cappedKeys.removeFirst()] = nil }
    }

    private mutating func clear(_ name: String, tag: String?) {
        guard let entries = cache[name] else { return }
        let left = tag.map { tag in entries.filter { !$0.value.tags.contains(tag) } } ?? [:]
        cache[name] = left
        if name == Operation.capped.rawValue { cappedKeys.removeAll { left[$0] == nil } }
    }
}

extension Operation {
    /// - Returns: the version of a session that the caller was told.
    func perform(on storage: SQLiteStorage, _ clock: ManualClock) async throws -> (id: Name, version: Int64)? {
        switch self {
        case .put(let value, let name): _ = try await storage.write(value.write(.bytes(value.content)), namespace: name)
        case .upload(let value, let name):
            let content = value.content
            let upload = try await storage.beginUpload()
            try await Self.append(content, to: upload)
            _ = try await storage.write(value.write(.uploaded(upload)), namespace: name)
        case .abandon(let bytes): try await Self.append(noise(bytes), to: try await storage.beginUpload())
        case .putTogether(let values, let name):
            let results = try await storage.batch(
                values.map { .set($0.write(.bytes($0.content))) }, namespace: name, atomic: true)
            for case .failed(let failure) in results { throw failure }
        case .delete(let key, let name):
            try await storage.delete(EntryAddress(key, in: name), condition: .none)
        case .increment(let key):
            _ = try await storage.increment(
                CacheIncrement(key: Key(stored: key), timeToLive: .never), namespace: Self.counters)
        case .incrementOnce(let key, let number):
            let request = KeyedRequest(key: [number], content: [])
            guard try await storage.earlierRequest(like: request) == nil else { return nil }
            try await storage.marking(request) { try await Self.increment(key).perform(on: storage, clock) }
            try await storage.keep(KeptAnswer(status: 200, fields: [], body: noise(2000)), of: request)
        case .clear(let name, let tag):
            _ = try await storage.clear(name, filter: EntryFilter(tag: tag.map { Tag(stored: $0) }))
        case .clearEverywhere(let tag): _ = try await storage.clearAll(tag: Tag(stored: tag))
        case .removeNamespace(let name): try await storage.removeNamespace(name)
        case .open(let id):
            let draft = SessionDraft(timeToLive: .never, maxHistoryItems: Self.maxHistoryItems)
            let opening = try await storage.openSession(id, draft, defaults: [], condition: .none)
            return (id, opening.session.version)
        case .patch(let id, let set, let delete):
            let change = try await storage.patch(
                id, set: set.mapValues { .number("\($0)") }, delete: delete.map { Key(stored: $0) })
            return (id, change.version)
        case .remove(let id): try await storage.removeSession(id)
        case .append(let id, let item, let bytes):
            _ = try await storage.append(item, data: .text(bytes: bytes), to: id)
        case .rate(let id, let item, let rating):
            _ = try await storage.patchHistoryItem(
                Name(stored: item), of: id, patch: ["rating": .number("\(rating)")], condition: .none)
        case .clearHistory(let id): _ = try await storage.clearHistory(of: id)
        case .define(let name, let value): try await storage.define(name, defaults: ["k": .number("\(value)")])
        case .measure(let names):
            _ = try await storage.record(
                names.map { name in
                    Sample(
                        name: name, measurement: .timing(seconds: 0.1, outcome: .ok, cache: nil, variant: nil),
                        recordedAt: clock.now)
                })
        case .change(let setting, let value):
            _ = try await storage.changeSettingOverrides([setting: value], of: nil)
        case .look(let key, let name): _ = try? await storage.read(EntryAddress(key, in: name))
        case .debounce(let id): _ = try await storage.debounce(id, of: id, delayMilliseconds: 1000)
        case .maintain(let task): _ = try await storage.perform(task, isDryRun: false)
        case .flush: try await storage.flushCounters()
        case .checkpoint(let truncating): try await storage.writer.checkpoint(truncating: truncating)
        case .advance(let milliseconds): clock.advance(milliseconds: milliseconds)
        }
        return nil
    }

    private static func append(_ bytes: [UInt8], to upload: any ValueUpload) async throws {
        for start in stride(from: 0, to: bytes.count, by: Limits.chunkBytes) {
            try await upload.append(Array(bytes[start..<min(start + Limits.chunkBytes, bytes.count)]))
        }
    }
}

extension Operation.Value {
    fileprivate func write(_ content: NewContent) -> CacheWrite {
        var write = CacheWrite(key, self.content, lifetime: lifetime, tags: tags)
        write.content = content
        return write
    }
}
