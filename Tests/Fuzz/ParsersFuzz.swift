// libFuzzer: the parsers written in Swift, on any bytes. None may crash, and what one accepts must come back the same.

import Domain

@_cdecl("LLVMFuzzerTestOneInput")
func fuzzOneInput(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let input = UnsafeBufferPointer(start: data, count: size)
    guard let choice = input.first else { return 0 }
    let bytes = Array(input.dropFirst())
    let text = String(decoding: bytes, as: UTF8.self)
    switch choice % 8 {
    case 0: checkJSON(bytes)
    case 1: checkPercentEncoding(text)
    case 2: checkRange(text)
    case 3: checkDates(text)
    case 4: checkCursor(text)
    case 5: checkNames(text)
    case 6: checkConditions(text)
    default: checkMergePatch(bytes)
    }
    return 0
}

private func checkJSON(_ bytes: [UInt8]) {
    let value = try? JSON(parsing: bytes)
    precondition(JSON.isValid(bytes) == (value != nil), "both ways of parsing must agree")
    guard let value else { return }
    let written = value.utf8
    let again = try? JSON(parsing: written)
    precondition(again == value && again?.utf8 == written, "what is written must mean the same")
}

private func checkPercentEncoding(_ text: String) {
    for plusIsSpace in [false, true] {
        guard let decoded = try? PercentEncoding.decode(text[...], plusIsSpace: plusIsSpace) else { continue }
        let digits = Array("0123456789abcdef".utf8)
        let encoded = decoded.utf8.flatMap { [UInt8(ascii: "%"), digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
        let again = try? PercentEncoding.decode(String(decoding: encoded, as: UTF8.self)[...], plusIsSpace: plusIsSpace)
        precondition(again.map { Array($0.utf8) } == Array(decoded.utf8), "every byte must come back")
    }
}

private func checkRange(_ text: String) {
    for length in [0, 1, 1000, Int.max] {
        for header in [text, "bytes=" + text] {
            guard let range = try? ByteRange.parse(header, length: length) else { continue }
            precondition(!range.isEmpty && range.lowerBound >= 0 && range.upperBound <= length, "outside the value")
        }
    }
}

private func checkDates(_ text: String) {
    if let instant = Instant(rfc3339: text) {
        // Not the instant itself: one beyond the year 9999 is written as the last of that year.
        precondition(Instant(rfc3339: instant.rfc3339)?.rfc3339 == instant.rfc3339, "RFC 3339")
    }
    let now = Instant(milliseconds: 1_800_000_000_000)
    if let instant = Instant(httpDate: text, now: now) {
        precondition(Instant(httpDate: instant.httpDate, now: now)?.httpDate == instant.httpDate, "HTTP date")
    }
    _ = DecimalSeconds.parse(text).map { try? TimeToLive(seconds: $0, field: "f") }
}

private func checkCursor(_ text: String) {
    precondition(text.isEmpty || text.utf8.count > 1500 || Cursor.decode(Cursor.encode(text)) == text, "a cursor")
    guard let position = Cursor.decode(text).flatMap({ CollectionPosition(text: $0) }) else { return }
    precondition(CollectionPosition(text: position.text) == position, "a position")
}

private func checkNames(_ text: String) {
    if let name = try? Name(text, field: "f") { precondition((1...128).contains(name.rawValue.utf8.count)) }
    if let key = try? Key(text, field: "f") { precondition(Array(key.rawValue.utf8) == Array(text.utf8)) }
    if let tags = try? Tag.set(of: text.split(separator: ",").map(String.init), field: "f") {
        precondition(tags.count <= Limits.maxTagsPerEntry)
    }
}

private func checkConditions(_ text: String) {
    let tags = EntityCondition.Tags(header: text)
    let entity = EntityCondition.Entity.present("a")
    _ = EntityCondition(match: tags).verdict(onReading: entity)
    _ = EntityCondition(noneMatch: tags).verdict(onWriting: entity)
    guard case .oneOf(let sent) = tags else { return }
    for tag in sent { precondition(!tag.text.utf8.contains(UInt8(ascii: "\"")), "a quote ends a tag") }
}

/// The bytes before the first zero byte are a value, the rest is its patch.
private func checkMergePatch(_ bytes: [UInt8]) {
    let parts = bytes.split(separator: 0, maxSplits: 1)
    guard parts.count == 2, let value = try? JSON(parsing: parts[0]), let patch = try? JSON(parsing: parts[1]) else {
        return
    }
    let patched = value.merged(with: patch)
    precondition(patched.merged(with: patch) == patched, "a patch that is applied twice changes nothing more")
}
