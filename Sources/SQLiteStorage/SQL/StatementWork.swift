// How many values a compiled query processes, at most, between two checks of its watch.

import Domain

/// One instruction of a compiled statement, as EXPLAIN lists it. https://sqlite.org/opcode.html
struct Instruction {
    let opcode: String
    let p2: Int
    let p3: Int
    let p4: String

    /// How many values it processes, each of which may have ``StorageLimits/maxSQLValueBytes``.
    ///
    /// An unknown opcode counts as an operator of two, so that a later SQLite does not open a gap.
    var operands: Int {
        if Self.withoutWork.contains(opcode) { return 0 }
        switch opcode {
        case "Function", "PureFunc", "AggStep", "AggInverse":
            // Ends in the number of arguments, or in (-1) if the function takes any number.
            let count = p4.split(separator: "(").last.flatMap { Int($0.dropLast()) } ?? -1
            return count < 0 ? StorageLimits.maxSQLFunctionArguments : count
        // Columns of a row, compared, or converted to their affinity: each may be a long text of digits.
        case "Compare": return p3
        case "Affinity": return p2
        case "MakeRecord": return p4.isEmpty ? 1 : p2
        case "AggFinal", "AggValue", "BitNot", "Cast", "If", "IfNot", "IsTrue", "MustBeInt", "Not": return 1
        case _ where opcode.hasPrefix("Seek") || opcode.hasPrefix("Idx"): return 1
        case "Found", "NotFound", "NoConflict", "NotExists": return 1
        default: return 2
        }
    }

    /// They move the program counter, a cursor or a register. Loading or copying the largest value takes a hundredth of
    /// a millisecond; ``StorageLimits/maxSQLInstructions`` bounds their number.
    private static let withoutWork: Set = [
        "AddImm", "BeginSubrtn", "Blob", "Clear", "Close", "ClrSubtype", "CollSeq", "Column", "ColumnsUsed", "Copy",
        "Count", "CursorHint", "DecrJumpZero", "DeferredSeek", "ElseEq", "EndCoroutine", "Explain", "Filter",
        "FilterAdd", "FinishSeek", "GetSubtype", "Gosub", "Goto", "Halt", "HaltIfNull", "IfEmpty", "IfNoHope",
        "IfNotOpen", "IfNotZero", "IfNullRow", "IfPos", "IfSmaller", "Init", "InitCoroutine", "Insert", "IntCopy",
        "Int64", "Integer", "IsNull", "IsType", "Jump", "Last", "Move", "NewRowid", "Next", "Noop", "NotNull", "Null",
        "NullRow", "Offset", "OffsetLimit", "Once", "OpenAutoindex", "OpenDup", "OpenEphemeral", "OpenPseudo",
        "OpenRead", "Param", "Permutation", "Prev", "ReadCookie", "Real", "RealAffinity", "ReleaseReg", "ReopenIdx",
        "ResetSorter", "ResultRow", "Return", "Rewind", "RowCell", "RowData", "RowSetAdd", "RowSetRead", "RowSetTest",
        "Rowid", "SCopy", "Sequence", "SequenceTest", "SetSubtype", "SoftNull", "Sort", "SorterData", "SorterInsert",
        "SorterNext", "SorterOpen", "SorterSort", "String", "String8", "TableLock", "Trace", "Transaction", "VColumn",
        "VFilter", "VInitIn", "VNext", "VOpen", "Variable", "Yield", "ZeroOrNull",
    ]
}

extension Connection {
    /// - Throws: `sql_limit_exceeded` for a statement that processes more than ``StorageLimits/maxSQLOperands`` values.
    ///
    /// SQLite checks the watch where its program jumps back, and always finishes what is between two checks. No stretch
    /// of a program is longer than the program, so the bound on the whole program bounds each stretch.
    func checkWork(of statement: Statement) throws {
        guard !statement.isExplanation else { return }
        var operands = 0
        let explanation = try prepare("EXPLAIN " + statement.text)
        while try explanation.step() { operands += explanation.instruction.operands }
        guard operands <= StorageLimits.maxSQLOperands else {
            throw Failure(
                .sqlLimitExceeded,
                "The query is compiled to operators and functions of \(operands) values; up to "
                    + "\(StorageLimits.maxSQLOperands) are allowed: name fewer expressions, or take it apart.")
        }
    }
}

extension Statement {
    /// The current row of an EXPLAIN.
    fileprivate var instruction: Instruction {
        func text(_ column: Int32) -> String { if case .text(let text) = value(column) { text } else { "" } }
        func int(_ column: Int32) -> Int { if case .integer(let int) = value(column) { Int(int) } else { 0 } }
        return Instruction(opcode: text(1), p2: int(3), p3: int(4), p4: text(5))
    }
}
