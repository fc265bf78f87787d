// What every test passes to a storage that it opens: settings and a logger.

import Domain
import Logging

/// Logs only critical messages. The no-op handler would not do: Hummingbird takes a request's id from the metadata,
/// which that one does not keep.
package let quietLogger = {
    var logger = Logger(label: "tests")
    logger.logLevel = .critical
    return logger
}()

extension Settings {
    /// Without waiting for the disk: no test cuts the power.
    package static var quick: Settings {
        var settings = Settings()
        settings.set(.durability, to: .text("normal"), source: .flag)
        return settings
    }

    /// One setting changed, and without waiting for the disk.
    package static func with(_ setting: Setting, _ value: SettingValue) -> LiveSettings {
        var settings = Settings.quick
        settings.set(setting, to: value, source: .flag)
        return LiveSettings(settings)
    }
}
