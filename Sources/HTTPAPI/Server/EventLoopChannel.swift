// Runs each connection's requests on the event loop that does its I/O.

import HummingbirdCore
import Logging
import NIOCore

/// A connection whose tasks prefer its event loop.
///
/// Swift's concurrency runtime has threads of its own, so that by default each request changes threads twice: from the
/// event loop to a pool thread and back with the answer. Preferring the loop (SE-0417) saves both. A request must then
/// not compute for long between two suspensions, because its loop serves other connections too: point reads take
/// microseconds, lists and chunks run on the readers' threads, writes on the writer's. docs/design/event-loops.md.
struct EventLoopChannel<Base: ServerChildChannel>: ServerChildChannel {
    let base: Base

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<Base.Value> {
        // What has arrived waits in memory until its request is read. By default that is 64 KiB four times at once, and
        // thousands of uploads would fill memory. See also ``HTTP1Connection/waitingParts``.
        let reads = AdaptiveRecvByteBufferAllocator(minimum: 1024, initial: 2048, maximum: 16 * 1024)
        // What a client does not read waits in memory; those who do are not slower for that.
        let writes = ChannelOptions.Types.WriteBufferWaterMark(low: 4 * 1024, high: 8 * 1024)
        return channel.setOption(ChannelOptions.writeBufferWaterMark, value: writes).flatMap {
            channel.setOption(ChannelOptions.recvAllocator, value: reads)
        }.flatMap {
            channel.setOption(ChannelOptions.maxMessagesPerRead, value: 1)
        }.flatMap {
            base.setup(channel: channel, logger: logger)
        }
    }

    /// The streams of an HTTP/2 connection are child tasks, which inherit the preference.
    func handle(value: Base.Value, logger: Logger) async {
        await withTaskExecutorPreference(EventLoopExecutor(loop: value.channel.eventLoop)) {
            await base.handle(value: value, logger: logger)
        }
    }
}

/// An event loop as a place to run tasks.
private final class EventLoopExecutor: TaskExecutor {
    private let loop: any EventLoop

    init(loop: any EventLoop) { self.loop = loop }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        loop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}
