// Synchronizes tasks and threads in tests.

import Dispatch
import Synchronization

/// Closed at first; waiting tasks continue once it is opened.
package final class Gate: Sendable {
    private let semaphore = DispatchSemaphore(value: 0)

    package init() {}

    package func wait() { semaphore.wait() }
    package func open() { semaphore.signal() }
}

/// A value several tasks share.
package final class Shared<Value: Sendable>: Sendable {
    private let mutex: Mutex<Value>

    package init(_ value: Value) { mutex = Mutex(value) }

    package var value: Value { mutex.withLock { $0 } }
    package func set(_ value: Value) { mutex.withLock { $0 = value } }
    package func change(_ body: @Sendable (inout Value) -> Void) { mutex.withLock { body(&$0) } }
}
