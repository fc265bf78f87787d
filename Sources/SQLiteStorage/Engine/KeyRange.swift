// A range of keys as two bounds that an index can seek to.

/// The keys that begin with a prefix and come after a key, as a half-open range of their bytes: SQLite compares text
/// byte by byte. There is only one lower bound, because with two SQLite seeks to one and scans to the other.
struct KeyRange {
    var start: Value
    var end: Value

    init(prefix: String?, after key: String?) {
        let first = Array((prefix ?? "").utf8)
        // The least text above a key is the key with a zero byte.
        let next: [UInt8] = key.map { Array($0.utf8) + [0] } ?? []
        start = .textBytes(first.lexicographicallyPrecedes(next) ? next : first)
        // The successor of a prefix is the prefix with its last byte incremented, which cannot overflow because no
        // UTF-8 byte is above 0xF4. Without a prefix: above any UTF-8.
        var bytes = Array((prefix ?? "").utf8)
        if let last = bytes.popLast() { bytes.append(last + 1) } else { bytes = [0xFF] }
        end = .textBytes(bytes)
    }
}
