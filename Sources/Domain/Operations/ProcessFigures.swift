// What the system says about this process.

/// A process's memory, CPU time and open files at one moment.
public struct ProcessFigures: Sendable {
    public var residentBytes: Int64
    public var virtualBytes: Int64
    /// Resident memory as a share of the machine's, or of the control group's limit where that is lower.
    public var memoryPercent: Double
    public var cpuSeconds: Double
    public var openDescriptors: Int
    public var maxDescriptors: Int
    /// In seconds since 1970.
    public var startedAt: Double

    public init(
        residentBytes: Int64, virtualBytes: Int64, memoryPercent: Double, cpuSeconds: Double, openDescriptors: Int,
        maxDescriptors: Int, startedAt: Double
    ) {
        self.residentBytes = residentBytes
        self.virtualBytes = virtualBytes
        self.memoryPercent = memoryPercent
        self.cpuSeconds = cpuSeconds
        self.openDescriptors = openDescriptors
        self.maxDescriptors = maxDescriptors
        self.startedAt = startedAt
    }

    public var memory: Sample.Measurement {
        .memory(rssBytes: residentBytes, vmsBytes: virtualBytes, percent: memoryPercent)
    }
}
