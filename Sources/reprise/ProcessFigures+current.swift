// What the kernel says about this process, read from /proc.

import Domain
import FoundationEssentials
import Glibc

extension ProcessFigures {
    /// Read anew each time; nil if there is no `/proc`.
    static var current: ProcessFigures? {
        // https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html: pages in all, pages resident.
        guard let pages = text(of: "/proc/self/statm")?.split(separator: " "), pages.count > 1,
            let size = Int64(pages[0]), let resident = Int64(pages[1])
        else { return nil }
        let page = Int64(sysconf(Int32(_SC_PAGESIZE)))
        var total = Int64(sysconf(Int32(_SC_PHYS_PAGES))) * page
        if let limit = text(of: "/sys/fs/cgroup/memory.max").flatMap({ Int64($0.filter(\.isNumber)) }), limit > 0 {
            total = min(total, limit)
        }
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        let (cpu, started) = times
        return ProcessFigures(
            residentBytes: resident * page, virtualBytes: size * page,
            memoryPercent: total > 0 ? min(Double(resident * page) / Double(total) * 100, 100) : 0, cpuSeconds: cpu,
            openDescriptors: (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0,
            maxDescriptors: Int(clamping: limit.rlim_cur), startedAt: started)
    }

    /// CPU time used, and when the process started.
    private static var times: (cpuSeconds: Double, startedAt: Double) {
        // https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html. The name, in brackets, may hold anything; after
        // it fields count from 3: 14 and 15 are user and system time, 22 the start since boot, all in clock ticks.
        guard let stat = text(of: "/proc/self/stat"), let name = stat.lastIndex(of: ")") else { return (0, 0) }
        let fields = stat[name...].split(separator: " ")
        guard fields.count > 19, let user = Double(fields[11]), let system = Double(fields[12]),
            let start = Double(fields[19])
        else { return (0, 0) }
        let ticks = Double(sysconf(Int32(_SC_CLK_TCK)))
        let boot = text(of: "/proc/stat")?.split(separator: "\n").first { $0.hasPrefix("btime ") }
            .flatMap { Double($0.dropFirst(6)) }
        return ((user + system) / ticks, (boot ?? 0) + start / ticks)
    }

    private static func text(of path: String) -> String? {
        FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) }
    }
}
