// The configuration file: YAML, of which JSON is a subset, read with libyaml.

import CYAML
import Domain
import Glibc

enum ConfigurationFile {
    /// The settings a file names, as text. A null leaves a setting as if it were not named.
    /// - Throws: ``ExitMessage`` with file, line and remedy.
    static func read(_ path: String) throws(ExitMessage) -> [String: String] {
        guard let file = fopen(path, "r") else {
            throw wrong("\(path): cannot be read: \(String(cString: strerror(errno)))")
        }
        defer { fclose(file) }
        var parser = yaml_parser_t()
        guard yaml_parser_initialize(&parser) == 1 else { throw wrong("\(path): out of memory") }
        defer { yaml_parser_delete(&parser) }
        yaml_parser_set_input_file(&parser, file)
        var document = yaml_document_t()
        guard yaml_parser_load(&parser, &document) == 1 else {
            let problem = parser.problem.map { String(cString: $0) } ?? "not valid"
            throw wrong("\(path), line \(parser.problem_mark.line + 1): \(problem)")
        }
        defer { yaml_document_delete(&document) }
        let values = try settings(in: &document, path)
        try requireEnd(&parser, path)
        return values
    }

    /// A second document would be ignored silently.
    private static func requireEnd(_ parser: inout yaml_parser_t, _ path: String) throws(ExitMessage) {
        var document = yaml_document_t()
        let line = parser.mark.line + 1
        guard yaml_parser_load(&parser, &document) == 1 else {
            throw wrong("\(path), line \(line): invalid text after the settings")
        }
        defer { yaml_document_delete(&document) }
        guard yaml_document_get_root_node(&document) == nil else {
            throw wrong("\(path), line \(line): there is a second document; all settings must be in one")
        }
    }

    private static func settings(
        in document: inout yaml_document_t, _ path: String
    ) throws(ExitMessage) -> [String: String] {
        guard let root = yaml_document_get_root_node(&document), scalar(root) != "" else { return [:] }
        guard root.pointee.type == YAML_MAPPING_NODE else {
            throw wrong("\(path): must be a mapping of settings to values, such as 'port: 8080'")
        }
        var values: [String: String] = [:]
        var pair = root.pointee.data.mapping.pairs.start
        while let current = pair, current < root.pointee.data.mapping.pairs.top {
            let key = yaml_document_get_node(&document, current.pointee.key)!
            let value = yaml_document_get_node(&document, current.pointee.value)!
            let line = key.pointee.start_mark.line + 1
            guard let name = scalar(key), Setting.all.contains(where: { $0.name == name }) else {
                throw wrong(
                    "\(path), line \(line): \(Setting.unknown(scalar(key) ?? "?")) The settings are "
                        + Setting.all.map(\.name).joined(separator: ", "))
            }
            guard let text = scalar(value) else {
                throw wrong("\(path), line \(line): \(name) must be a single value, not a list or mapping")
            }
            guard values[name] == nil else { throw wrong("\(path), line \(line): \(name) is set twice") }
            let isPlain = value.pointee.data.scalar.style == YAML_PLAIN_SCALAR_STYLE
            if !(isPlain && ["", "~", "null"].contains(text)) { values[name] = text }
            pair = current + 1
        }
        return values
    }

    private static func scalar(_ node: UnsafeMutablePointer<yaml_node_t>) -> String? {
        guard node.pointee.type == YAML_SCALAR_NODE else { return nil }
        let scalar = node.pointee.data.scalar
        return String(decoding: UnsafeBufferPointer(start: scalar.value, count: scalar.length), as: UTF8.self)
    }

    private static func wrong(_ message: String) -> ExitMessage {
        ExitMessage(message: message, code: ExitMessage.wrongConfiguration)
    }
}
