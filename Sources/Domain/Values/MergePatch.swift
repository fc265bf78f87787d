// JSON Merge Patch (RFC 7396).

extension JSON {
    /// This value changed by `patch`: members of an object are set, null removes them, objects are merged level by
    /// level, and anything that is not an object replaces the whole.
    ///
    /// Members keep their order, new ones come last. The cost grows with the two sizes, not with their product.
    public func merged(with patch: JSON) -> JSON {
        guard case .object(let changes) = patch else { return patch }
        var members: [Member?] = []
        if case .object(let own) = self { members = own }
        var places: [ExactText: Int] = [:]
        for (place, member) in members.enumerated() { places[ExactText(member!.name)] = place }
        for change in changes {
            let place = places[ExactText(change.name)]
            if change.value == .null {
                if let place { members[place] = nil }
            } else if let place {
                members[place]!.value = members[place]!.value.merged(with: change.value)
            } else {
                members.append(Member(name: change.name, value: JSON.null.merged(with: change.value)))
            }
        }
        return .object(members.compactMap { $0 })
    }
}
