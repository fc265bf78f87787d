// Shared by the tests of the domain.

import Domain

/// The fields a `validation_failed` names; nil when `body` ends otherwise.
func invalidFields(_ body: () throws -> Void) -> [String]? {
    do {
        try body()
        return nil
    } catch let failure as Failure where failure.code == .validationFailed {
        return failure.errors.map(\.field)
    } catch {
        return nil
    }
}
