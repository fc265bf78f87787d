// One run of random operations with power cuts in between, which a seed determines.

import Domain
import FoundationEssentials
import Glibc
import TestSupport

@testable import SQLiteStorage

/// Opens a storage, works with it, cuts the power, and checks what is left; several times in succession, so that a cut
/// can also come while what the last one left is being opened.
///
/// The storage is used by one task, except for groups, whose order is known. So the same seed repeats the same changes
/// of the disk.
struct Schedule {
    let seed: UInt64
    var isDurable = true
    /// Whether the disk says it has synced, and has not.
    var diskLies = false

    /// What happened, to be added up.
    struct Report {
        var cuts = 0
        var acknowledged = 0
        /// Acknowledged operations that were gone. Only without durability.
        var lost = 0

        static func += (total: inout Self, part: Self) {
            total.cuts += part.cuts
            total.acknowledged += part.acknowledged
            total.lost += part.lost
        }
    }

    private static let cutsPerSchedule = 3
    private static let maxOperations = 60

    /// - Throws: ``Damage``.
    func run() async throws -> Report {
        var plan = Plan(numbers: RepeatableNumbers(seed: seed))
        let root = TemporaryFolder()
        let clock = ManualClock()
        var report = Report()
        var world = World()
        var versions: [Name: Int64] = [:]
        var folder = root.file("0")
        mkdir(folder, 0o700)
        // Some begin with no file at all.
        if plan.numbers.next() % 4 != 0 {
            let storage = try open(folder, clock)
            try await Operation.prepare(storage)
            await storage.close()
        } else {
            plan.hasCappedNamespace = false
        }
        for round in 1...Self.cutsPerSchedule {
            let disk = try SimulatedDisk(folder: folder, afterChanges: plan.changes())
            if diskLies { disk.ignoreSyncs() }
            var course = Course(world: world)
            course.versions = versions
            try await work(on: folder, disk, clock, &plan, &course)
            disk.cut()

            let kind = plan.pick(SimulatedDisk.Kind.allCases)
            let remains = plan.numbers.next()
            // One to be checked, and one to continue with as it is.
            let (checked, next) = (root.file("\(round)-checked"), root.file("\(round)"))
            for path in [checked, next] {
                mkdir(path, 0o700)
                try disk.write(kind, seed: remains, to: path)
            }
            let found: Int
            do {
                found = try await check(checked, clock, course)
            } catch {
                throw Damage("seed \(seed), cut \(round) (\(kind), after \(disk.changes) changes): \(error)")
            }
            report.cuts += 1
            report.acknowledged += course.acknowledged
            report.lost += max(0, course.acknowledged - found)
            world = course.states[found]
            versions = course.versions
            try? FileManager.default.removeItem(atPath: folder)
            try? FileManager.default.removeItem(atPath: checked)
            folder = next
        }
        return report
    }

    private func open(_ folder: String, _ clock: ManualClock) throws -> SQLiteStorage {
        var settings = Settings()
        settings.set(.durability, to: .text(isDurable ? "full" : "normal"), source: .flag)
        // Without a clock that ends steps, the same seed makes the same steps.
        return try SQLiteStorage(
            path: folder + "/reprise.db", settings: LiveSettings(settings), clock: clock.wallClock,
            logger: quietLogger, microseconds: { 0 })
    }

    /// What was done since the last cut.
    struct Course {
        /// The contents before the first operation, and after each.
        var states: [World]
        /// How many of them were acknowledged: all that a caller may rely on.
        var acknowledged = 0
        /// The highest version of each session that a caller was told.
        var versions: [Name: Int64] = [:]

        init(world: World) { states = [world] }
    }

    // MARK: While the power is on

    private func work(
        on folder: String, _ disk: SimulatedDisk, _ clock: ManualClock, _ plan: inout Plan, _ course: inout Course
    ) async throws {
        var storage: SQLiteStorage
        do {
            storage = try open(folder, clock)
        } catch {
            guard disk.isOff else { throw Damage("seed \(seed): cannot open with the power on: \(error)") }
            return
        }
        for _ in 0..<Self.maxOperations where !disk.isOff {
            if plan.numbers.next() % 32 == 0 {
                // What was committed without a sync is durable once the storage is closed.
                await storage.close()
                do {
                    storage = try open(folder, clock)
                } catch {
                    guard disk.isOff else { throw Damage("seed \(seed): cannot be opened again: \(error)") }
                    return
                }
            } else if plan.numbers.next() % 8 == 0 {
                try await performGroup(plan.group(course.states.last!), on: storage, disk, clock, &course)
            } else {
                let operation = plan.operation(course.states.last!)
                try await perform(operation, on: storage, disk, clock, &course)
            }
        }
        if plan.numbers.next() % 2 == 0 { disk.cut() }
        await storage.close()
    }

    private func perform(
        _ operation: Operation, on storage: SQLiteStorage, _ disk: SimulatedDisk, _ clock: ManualClock,
        _ course: inout Course
    ) async throws {
        var next = course.states.last!
        next.apply(operation, now: clock.now)
        course.states.append(next)
        do {
            if let (id, version) = try await operation.perform(on: storage, clock) {
                course.versions[id] = max(version, course.versions[id] ?? 0)
            }
            course.acknowledged = course.states.count - 1
        } catch {
            guard disk.isOff else { throw Damage("seed \(seed): \(operation) with the power on: \(error)") }
        }
    }

    /// Performs operations whose writes are committed together.
    private func performGroup(
        _ operations: [Operation], on storage: SQLiteStorage, _ disk: SimulatedDisk, _ clock: ManualClock,
        _ course: inout Course
    ) async throws {
        let gate = Gate()
        let isHeld = Shared(false)
        let holding = Task.immediate {
            try await storage.writer.perform { _ in
                isHeld.set(true)
                gate.wait()
            }
        }
        while !isHeld.value { await Task.yield() }
        var tasks: [Task<(id: Name, version: Int64)?, any Error>] = []
        for operation in operations {
            tasks.append(Task.immediate { try await operation.perform(on: storage, clock) })
            while storage.writer.waiting.operations < tasks.count { await Task.yield() }
            var next = course.states.last!
            next.apply(operation, now: clock.now)
            course.states.append(next)
        }
        gate.open()
        _ = try? await holding.value
        let first = course.states.count - tasks.count
        var isCut = false
        for (index, task) in tasks.enumerated() {
            do {
                _ = try await task.value
                // Once one has failed, only those succeed that change nothing.
                if !isCut { course.acknowledged = first + index }
            } catch {
                isCut = true
                guard disk.isOff else { throw Damage("seed \(seed): \(operations[index]) in a group: \(error)") }
            }
        }
    }

    // MARK: After the cut

    /// - Returns: which of the states was found.
    private func check(_ folder: String, _ clock: ManualClock, _ course: Course) async throws -> Int {
        let storage = try open(folder, clock)
        do {
            let found = try await check(storage, clock, course)
            await storage.close()
            return found
        } catch {
            await storage.close()
            throw error
        }
    }

    private func check(_ storage: SQLiteStorage, _ clock: ManualClock, _ course: Course) async throws -> Int {
        try await storage.checkRows()
        let world = try await World(storage, now: clock.now)
        let relied = isDurable ? course.acknowledged : 0
        guard
            let found = course.states.indices.reversed().first(where: {
                $0 >= relied && course.states[$0].seen(at: clock.now) == world
            })
        else {
            let earlier = course.states.indices.first { course.states[$0].seen(at: clock.now) == world }
            throw Damage(
                (earlier.map { "\(course.acknowledged - $0) acknowledged operations are gone: " }
                    ?? "neither the state before nor after any operation: ")
                    + world.difference(from: course.states[course.acknowledged].seen(at: clock.now)))
        }
        if isDurable {
            for (id, version) in course.versions where world.sessions[id.rawValue] != nil {
                let now = try await storage.session(id).version
                guard now >= version else { throw Damage("session \(id) went back from version \(version) to \(now)") }
            }
        }
        // What was interrupted is continued, and nobody sees it.
        for task in storage.tasks { _ = try await storage.perform(task.task, isDryRun: false) }
        try await storage.checkRows()
        let after = try await World(storage, now: clock.now)
        guard after == world else { throw Damage("maintenance changed " + after.difference(from: world)) }
        return found
    }
}

/// Random choices that make sense for what is there.
private struct Plan {
    var numbers: RepeatableNumbers
    var hasCappedNamespace = true
    private var count = 0

    init(numbers: RepeatableNumbers) { self.numbers = numbers }

    mutating func pick<Choices: Collection>(_ choices: Choices) -> Choices.Element {
        choices.randomElement(using: &numbers)!
    }

    private mutating func number(_ range: Range<Int>) -> Int { .random(in: range, using: &numbers) }

    /// Early cuts as often as late ones: opening a file makes a few changes, all operations some thousands.
    mutating func changes() -> Int { number(0..<(1 << number(2..<13))) }

    /// Operations whose writes are single, so that they can be grouped.
    mutating func group(_ world: World) -> [Operation] {
        (0..<number(2..<7)).map { _ in
            switch number(0..<5) {
            case 0: .increment(pick(["x", "y"]))
            case 1: .delete(key(), namespace())
            case 2: .measure([pick(["t", "u"])])
            case 3: values(count: 2)
            default: put()
            }
        }
    }

    mutating func operation(_ world: World) -> Operation {
        count += 1
        let id = world.sessions.keys.sorted().randomElement(using: &numbers).map { Name(stored: $0) }
        switch number(0..<100) {
        case 0..<18: return put()
        case 18..<24: return upload()
        case 24..<26: return .abandon(bytes: number(1..<200_000))
        case 26..<30: return values(count: number(2..<6))
        case 30..<35: return .delete(key(), namespace())
        case 35..<37: return .increment(pick(["x", "y"]))
        case 37..<39: return .incrementOnce(pick(["x", "y"]), key: pick(Operation.keys))
        case 39..<42: return .clear(namespace(), tag: nil)
        case 42..<44: return .clear(namespace(), tag: pick(["red", "blue"]))
        case 44..<46: return .clearEverywhere(tag: pick(["red", "blue"]))
        case 46..<47:
            let removable = world.cache.keys.filter { $0 == "a" || $0 == "b" }.sorted()
            return removable.first.map { .removeNamespace(Name(stored: $0)) } ?? .flush
        case 47..<52: return .open(Name(stored: pick(["s1", "s2", "s3"])))
        case 52..<59: if let id { return .patch(id, set: [pick(["p", "q"]): count], delete: [pick(["q", "r"])]) }
        case 59..<61: if let id { return .remove(id) }
        case 61..<68: if let id { return .append(id, item: "i\(count)", bytes: number(2..<3000)) }
        case 68..<70:
            if let id, let item = world.sessions[id.rawValue]?.history.last?.id { return .rate(id, item: item, count) }
        case 70..<71: if let id { return .clearHistory(id) }
        case 71..<73: return .define(Name(stored: pick(["t1", "t2"])), count)
        case 73..<78: return .measure((0..<number(1..<20)).map { _ in pick(["t", "u"]) })
        case 78..<80: return .change(setting: "debounce_delay", pick([nil, "\(count)"]))
        case 80..<83: return .look(key(), namespace())
        case 83..<84: if let id { return .debounce(id) }
        case 84..<91: return .maintain(pick(SQLiteStorage.tasks).task)
        case 91..<93: return .flush
        case 93..<97: return .checkpoint(truncating: pick([true, false]))
        default: return .advance(milliseconds: Int64(number(1..<60_000)))
        }
        return .open(Name(stored: "s1"))
    }

    private mutating func namespace() -> Name {
        pick(hasCappedNamespace ? Operation.namespaces : Array(Operation.namespaces.prefix(2)))
    }

    private mutating func key() -> String { "k\(number(0..<8))" }

    private mutating func put() -> Operation {
        let name = namespace()
        return .put(value(in: name), name)
    }

    private mutating func values(count: Int) -> Operation {
        let name = namespace()
        return .putTogether((0..<count).map { _ in value(in: name) }, name)
    }

    private mutating func upload() -> Operation {
        let name = namespace()
        var value = value(in: name)
        value.bytes = number(Limits.chunkBytes + 1..<6 * Limits.chunkBytes)
        return .upload(value, name)
    }

    /// The namespace with a cap has no entries that expire: which of them is evicted would depend on the sweep.
    private mutating func value(in name: Name) -> Operation.Value {
        count += 1
        let bytes = number(0..<10) == 0 ? number(0..<60_000) : number(0..<2000)
        let tags = Set((0..<number(0..<3)).map { _ in pick(["red", "blue"]) })
        let expires = name != Operation.capped && number(0..<4) == 0
        return Operation.Value(
            key: key(), bytes: bytes, seed: count,
            lifetime: expires ? .milliseconds(Int64(number(1..<100_000))) : .never, tags: tags.sorted())
    }
}
