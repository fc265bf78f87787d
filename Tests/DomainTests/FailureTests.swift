// The one error type: stable slugs, bounded answers.

import Domain
import Testing

struct FailureTests {
    @Test func slugsAreSnakeCase() {
        for code in Failure.Code.allCases {
            #expect(code.rawValue.utf8.allSatisfy { (0x61...0x7A).contains($0) || $0 == UInt8(ascii: "_") })
        }
    }

    @Test func oneFieldIsNamedInTheDetail() {
        let failure = Failure.invalid("port", "must be a number.")
        #expect(failure.code == .validationFailed)
        #expect(failure.detail == "port: must be a number.")
        #expect(failure.errors == [Failure.FieldError(field: "port", message: "must be a number.")])
    }

    @Test func theListOfErrorsIsBounded() {
        let errors = (0..<100).map { Failure.FieldError(field: "f\($0)", message: "") }
        let failure = Failure.invalid(errors)
        #expect(failure.errors == Array(errors.prefix(20)))
        #expect(failure.detail.contains("100"))
    }

    @Test func aMissTellsItsReason() {
        #expect(Failure.miss(.absent).miss?.reason == .absent)
        #expect(Failure.miss(.absent).code == .cacheMiss)
    }

    @Test func whatPassesTellsWhenToTryAgain() {
        #expect(Failure.overloaded("Too much.").retryAfterSeconds == 1)
    }
}
