// Clears in steps, while the writer is held.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct CacheClearTests {
    /// The write reaches the writer before the clear's first step, and within the same millisecond.
    @Test func whatIsWrittenAfterAClearBeganStays() async throws {
        try await withStorage { storage, _ in
            for key in ["a1", "a2"] { try await storage.put(key, "old", tags: ["t"]) }
            for tag in [nil, "t"] {
                let gate = Gate()
                let begun = Shared(false)
                let held = Task.immediate {
                    try await storage.writer.perform { _ in
                        begun.set(true)
                        gate.wait()
                    }
                }
                // Otherwise the write could become part of the group that is held.
                while !begun.value { await Task.yield() }
                let write = Task.immediate { try await storage.put("a1", "new", tags: ["t"]) }
                let clear = Task.immediate {
                    if let tag { return try await storage.clearAll(tag: Tag(stored: tag)) }
                    return try await storage.clear(.n, filter: EntryFilter(prefix: "a"))
                }
                // The clear has read its page, so its step waits behind the write.
                while storage.writer.waiting.operations < 2 { await Task.yield() }
                gate.open()
                try await held.value
                #expect(try await !write.value.created)
                #expect(try await clear.value.removed == 1)
                #expect(try await storage.text("a1") == "new")
                try await storage.put("a2", "old", tags: ["t"])
            }
        }
    }
}
