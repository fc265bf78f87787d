// Which storage engine a value of the setting `database` chooses.

import Testing

@testable import reprise

struct StorageSelectionTests {
    @Test(arguments: [
        "data/reprise.db", "/var/lib/reprise.db", "a:b", "./x://y", "1://x", "über://x", "://", ":", "c:/x",
    ])
    func aPathMeansSQLite(path: String) throws {
        #expect(try StorageSelection(database: path) == .sqlite(path: path))
    }

    @Test(arguments: ["postgres://app:secret@host/db", "POSTGRES://x", "sqlite://x", "http+unix://x", "a://"])
    func aURLIsRefusedWithoutItsPassword(url: String) throws {
        let refusal = #expect(throws: ExitMessage.self) { try StorageSelection(database: url) }
        #expect(refusal?.code == ExitMessage.wrongConfiguration)
        #expect(refusal?.message.contains("secret") == false)
        #expect(refusal?.message.contains("--database") == true)
    }
}
