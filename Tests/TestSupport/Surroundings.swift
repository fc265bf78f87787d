// What every test that opens a storage gives it: settings, a logger.

import Domain
import Logging

/// Says only what is critical. Not the handler that does nothing: Hummingbird takes a request's id from the metadata,
/// which that one does not keep.
package let quietLogger = {
    var logger = Logger(label: "tests")
    logger.logLevel = .critical
    return logger
}()

extension Settings {
    /// Without waiting for the disk: no test pulls the plug.
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
