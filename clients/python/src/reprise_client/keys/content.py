"""The encoding of a value: bytes that are equal exactly where the content is.

Each value becomes a tag and, where its size varies, a length, then its bytes, so that no two
values share an encoding (`["ab"]` and `["a", "b"]`, `1`, `1.0`, `True` and `"1"` all differ). A
long encoding is replaced by its BLAKE2b digest of 160 bits.

How a type is encoded is its rule. Rules are registered under the names of types, so that a library
is never imported for its rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from operator import attrgetter
from struct import pack
from types import FunctionType
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

#: The size of a digest in bytes: 160 bits, 40 hexadecimal digits in a key.
DIGEST_BYTES = 20
#: The deepest nesting of containers and objects in one argument, in levels.
MAX_DEPTH = 100
#: The most items that one key may visit in Python containers. It takes about a second.
MAX_ITEMS = 5_000_000
#: An encoding up to this size, in bytes, stands for itself; a longer one becomes its digest.
MAX_TOKEN_BYTES = 64
#: Encoded bytes are handed to the hash in pieces of this size.
FLUSH_BYTES = 1 << 16
#: The longest rendering of a value in a table or an error, in characters.
MAX_RENDERING_CHARS = 60
#: Separates these digests from all others, and from those of a later encoding.
_PERSON = b"reprise-key-1"

Hashers = Mapping[type, Callable[[Any], object]]


class UnhashableArgument(TypeError):
    """An argument has no content that a key can be made of.

    The text names the function, the place, the type and the ways out. `parameter` is the name of
    the parameter or closed-over variable, `path` the place inside it, `reason` what is wrong.
    """

    __module__ = "reprise_client.keys"

    def __init__(self, function: str, parameter: str, path: str, type_name: str, reason: str):
        self.function = function
        self.parameter = parameter
        self.path = path
        self.type_name = type_name
        self.reason = reason
        short = type_name.rpartition(".")[2]
        if function:
            start = f"Cannot make a cache key for {function}(): {path} is of type {type_name}"
            ways = f'Leave it out with ignore=["{parameter}"], make the key with key=…, or say'
        else:
            start = f"Cannot hash the value: {path} is of type {type_name}"
            ways = "Say"
        super().__init__(
            f"{start}, and {reason}. {ways} what its content is with hashers={{{short}: …}} or "
            f"a method __reprise_key__(self) of {short} that returns plain data."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self.function, self.parameter, self.path, self.type_name, self.reason)
        return type(self), state


class Failure(Exception):
    """A value that cannot be hashed. Each level on the way out adds its step to the path."""

    def __init__(self, value: object, reason: str) -> None:
        super().__init__(reason)
        self.type_name = type_name(type(value))
        self.reason = reason
        self.steps: list[str] = []

    def at(self, step: str) -> Failure:
        self.steps.append(step)
        return self

    def as_error(self, function: str, parameter: str) -> UnhashableArgument:
        path = parameter + "".join(reversed(self.steps))
        return UnhashableArgument(function, parameter, path, self.type_name, self.reason)


class Sink:
    """Collects encoded bytes and hashes them once they are many."""

    __slots__ = ("hash", "pending")

    def __init__(self) -> None:
        self.pending = bytearray()
        self.hash: Any = None

    def write(self, data: bytes) -> None:
        self.pending += data
        if len(self.pending) > FLUSH_BYTES:
            self.flush()

    def buffer(self, data: Any) -> None:
        """Takes a contiguous buffer, a large one without a copy."""
        if len(data) > MAX_TOKEN_BYTES:
            self.flush()
            self.hash.update(data)
        else:
            self.pending += data

    def flush(self) -> None:
        if self.hash is None:
            self.hash = new_hash()
        self.hash.update(self.pending)
        self.pending.clear()

    def token(self) -> bytes:
        if self.hash is None and len(self.pending) <= MAX_TOKEN_BYTES:
            return bytes(self.pending)
        self.flush()
        assert self.hash is not None
        return b"#%b" % self.hash.digest()


class State:
    """What one walk shares: hashers, the containers it is inside of, and its size so far."""

    __slots__ = ("active", "hashers", "items", "scalars")

    def __init__(self, hashers: Hashers) -> None:
        self.hashers = hashers
        self.active: set[int] = set()
        self.items = 0
        self.scalars = SCALARS
        if hashers:
            self.scalars = {
                kind: encoded
                for kind, encoded in SCALARS.items()
                if not issubclass(kind, tuple(hashers))
            }

    def count(self, value: object, items: int) -> None:
        self.items += items
        if self.items > MAX_ITEMS:
            raise Failure(
                value, f"the key would visit more than {MAX_ITEMS:,} items; use a numpy array"
            )


Rule = Callable[[Any, Sink, State], None]


def new_hash(data: bytes = b"") -> blake2b:
    return blake2b(data, digest_size=DIGEST_BYTES, person=_PERSON)


def token_of(value: object, state: State) -> bytes:
    sink = Sink()
    encode(value, sink, state)
    return sink.token()


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"s%d:%b" % (len(raw), raw)


def _number(value: float) -> bytes:
    return b"f" + (pack(">d", value) if value == value else b"nan.....")


#: The types that hold no other values, and their encodings.
SCALARS: dict[type, Callable[[Any], bytes]] = {
    str: text,
    int: lambda value: b"i%x;" % value,
    float: _number,
    bool: lambda value: b"T" if value else b"F",
    type(None): lambda value: b"N",
    complex: lambda value: b"j" + _number(value.real) + _number(value.imag),
}


def encode(value: Any, out: Sink, state: State, skip: type | None = None) -> None:
    """Writes the encoding of a value. `skip` is the hasher that just returned it."""
    kind = type(value)
    # What a hasher returned as a plain value is final.
    scalar = (state.scalars if skip is None else SCALARS).get(kind)
    if scalar is not None:
        out.write(scalar(value))
        return
    identity = id(value)
    active = state.active
    if identity in active and skip is None:
        if isinstance(value, FunctionType):
            # A function that calls itself through its closure: its name says which one.
            out.write(b"&" + text(name_of(value)))
            return
        raise Failure(value, "it contains itself")
    if len(active) >= MAX_DEPTH:
        raise Failure(value, f"it is nested deeper than {MAX_DEPTH} levels")
    active.add(identity)
    try:
        hashed = _hasher_of(kind, state.hashers) if state.hashers else None
        if hashed is not None and hashed is not skip:
            out.write(b"h" + text(type_name(kind)))
            encode(state.hashers[hashed](value), out, state, hashed)
        # Of the type, because `__reprise_key__` of a class is for its instances.
        elif (own := getattr(kind, "__reprise_key__", None)) is not None:
            out.write(b"r" + text(type_name(kind)))
            encode_part(".__reprise_key__()", own(value), out, state)
        else:
            _rule_of(kind)(value, out, state)
    finally:
        active.discard(identity)


def encode_part(step: str, value: Any, out: Sink, state: State, rule: Rule = encode) -> None:
    """Writes a part of a value. `step` leads to it in the path of an error."""
    try:
        rule(value, out, state)
    except Failure as failure:
        raise failure.at(step)


def encode_items(values: Iterable[Any], out: Sink, state: State) -> None:
    """Writes items in order. The caller wrote how many."""
    scalars = state.scalars
    write = out.write
    for index, value in enumerate(values):
        scalar = scalars.get(type(value))
        if scalar is not None:
            write(scalar(value))
            continue
        try:
            encode(value, out, state)
        except Failure as failure:
            raise failure.at(f"[{index}]")


def encode_attributes(values: Mapping[str, Any], owner: object, out: Sink, state: State) -> None:
    state.count(owner, len(values))
    out.write(b".%d:" % len(values))
    for name in sorted(values):
        out.write(text(name))
        encode_part(f".{name}", values[name], out, state)


def encode_dict(owner: object, out: Sink, state: State) -> None:
    """Writes the instance attributes of a value, if its type keeps them in a dict."""
    encode_attributes(getattr(owner, "__dict__", {}), owner, out, state)


def record(tag: bytes, *attributes: str, named: bool = False, then: Rule | None = None) -> Rule:
    """A rule for types whose content is these attributes.

    `a.b` is an attribute of an attribute, and `a()` what a method returns. The tag says which type
    it is, or, if `named`, the type's name. `then` writes what else there is.
    """
    parts = [(f".{name}", attrgetter(name.removesuffix("()"))) for name in attributes]

    def rule(value: Any, out: Sink, state: State) -> None:
        out.write(tag + text(type_name(type(value))) if named else tag)
        for step, get in parts:
            part = get(value)
            encode_part(step, part() if step.endswith("()") else part, out, state)
        if then is not None:
            then(value, out, state)

    return rule


def as_text(tag: bytes) -> Rule:
    """A rule for a type whose content is its text, and whose tag says which type it is."""
    return lambda value, out, state: out.write(tag + text(str(value)))


# The rule of a type.

#: Rules by the name of a type. A subclass counts by the rule of its base and its attributes.
RULES: dict[str, Rule] = {}
#: Names in `RULES` whose rule takes an instance of a subclass as it is.
_FAMILIES: set[str] = set()
#: Marks of classes with declared fields, and what returns the names of their fields.
FIELDS: dict[str, Callable[[Any], Iterable[str]]] = {}
_rules: WeakKeyDictionary[type, Rule] = WeakKeyDictionary()

#: How an instance of a subclass becomes one of the base, without its overridden methods.
_PLAIN: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    complex: lambda value: complex(value.real, value.imag),
}


def register(rules: Mapping[str, Rule], *, families: bool = False) -> None:
    """Adds rules by the names of types, with spaces between the types of one rule.

    Rules of `families` tell subclasses apart themselves, or a subclass does not matter to them.
    """
    by_name = {name: rule for names, rule in rules.items() for name in names.split()}
    RULES.update(by_name)
    if families:
        _FAMILIES.update(by_name)


def _rule_of(kind: type) -> Rule:
    rule = _rules.get(kind)
    if rule is None:
        rule = _rules[kind] = _find_rule(kind)
    return rule


def _find_rule(kind: type) -> Rule:
    names = [type_name(base) for base in kind.__mro__]
    # An enum can have fields, and a float of numpy is a float too.
    for name in (names[0], "enum.Enum", "numpy.generic"):
        if name in names and name in RULES:
            return RULES[name]
    for mark, names_of in FIELDS.items():
        if hasattr(kind, mark):
            return _fields(kind, tuple(names_of(kind)), mark in vars(kind))
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return RULES["typing.NamedTuple"]
    for base, name in zip(kind.__mro__, names):
        if name in RULES:
            return RULES[name] if name in _FAMILIES else _subclass(base, RULES[name])
    if hasattr(kind, "__fspath__"):
        return RULES["os.PathLike"]
    if any("__call__" in vars(base) for base in kind.__mro__):
        return RULES["typing.Callable"]
    return no_rule


def _fields(kind: type, names: tuple[str, ...], declares: bool) -> Rule:
    """The rule of a class with declared fields."""

    def rule(value: Any, out: Sink, state: State) -> None:
        found = {name: getattr(value, name) for name in names if hasattr(value, name)}
        out.write(b"C" + text(type_name(kind)))
        encode_attributes(found, value, out, state)
        extra = getattr(value, "__pydantic_extra__", None) or {}
        if not declares:
            # A subclass that did not declare its own fields can keep more in its attributes.
            attributes = getattr(value, "__dict__", {})
            extra = {name: item for name, item in attributes.items() if name not in found}
        encode_attributes(extra, value, out, state)

    return rule


def _subclass(base: type, rule: Rule) -> Rule:
    """The rule of a subclass of a known type: its name and its instance attributes count."""
    plain = _PLAIN.get(base)

    def with_attributes(value: Any, out: Sink, state: State) -> None:
        out.write(b"<" + text(type_name(type(value))))
        rule(value if plain is None else plain(value), out, state)
        encode_dict(value, out, state)

    return with_attributes


def no_rule(value: Any, out: Sink, state: State) -> NoReturn:
    if hasattr(type(value), "__next__"):
        raise Failure(value, "reading an iterator would use it up; pass a list")
    raise Failure(value, "Reprise does not know what its content is")


def _hasher_of(kind: type, hashers: Hashers) -> type | None:
    for base in kind.__mro__:
        if base in hashers:
            return base
    # Abstract classes and protocols are not in the list of bases.
    return next((hashed for hashed in hashers if issubclass(kind, hashed)), None)


# Names and short renderings, which call no code of the value's class.


def type_name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def name_of(target: Any) -> str:
    module = getattr(target, "__module__", None) or type(target).__module__
    name = getattr(target, "__qualname__", None) or getattr(target, "__name__", None)
    return f"{module}.{name or type(target).__qualname__}"


def cut(shown: str) -> str:
    if len(shown) <= MAX_RENDERING_CHARS:
        return shown
    return shown[: MAX_RENDERING_CHARS - 1] + "…"


def item_step(key: object) -> str:
    """The step to an item of a mapping in the path of an error."""
    if type(key) is str:
        return '["' + cut(key.replace("\\", "\\\\").replace('"', '\\"')) + '"]'
    return f"[{cut(repr(key)) if type(key) in SCALARS else type_name(type(key))}]"
