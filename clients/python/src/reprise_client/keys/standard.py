"""The rules of the types of Python and its standard library, and `File`.

Functions, methods and what else can be called have theirs in `code.py`.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from typing import Any

from .content import (
    FIELDS, SCALARS, Failure, Rule, Sink, State, as_text, encode, encode_dict, encode_items,
    encode_part, item_step, new_hash, record, register, text, token_of, type_name,
)  # fmt: skip

#: The most bytes that are read from one file.
MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class File:
    """A file given by its content instead of its path, so that a copy of it makes the same key.

    A key takes the file's name without its folder, and all bytes of the file, up to
    `MAX_FILE_BYTES`. Use it for an argument that is opened: `load(File("data/sales.csv"))`. It is
    path-like, so `open(file)` works. A plain `pathlib.Path` is cheaper: its text, and the size
    and modification time of the file.
    """

    __module__ = "reprise_client.keys"

    path: str | os.PathLike[str]

    def __fspath__(self) -> str:
        return os.fspath(self.path)


# Containers.


def _sequence(tag: bytes) -> Rule:
    def rule(value: Any, out: Sink, state: State) -> None:
        # The list is a snapshot: another thread can change the container meanwhile.
        values = value if type(value) is tuple else list(value)
        state.count(value, len(values))
        out.write(b"%b%d:" % (tag, len(values)))
        encode_items(values, out, state)

    return rule


def _set(tag: bytes) -> Rule:
    def rule(value: Any, out: Sink, state: State) -> None:
        state.count(value, len(value))
        try:
            tokens = sorted(token_of(item, state) for item in list(value))
        except Failure as failure:
            raise failure.at("{…}")
        out.write(b"%b%d:" % (tag, len(tokens)))
        for token in tokens:
            out.write(token)

    return rule


def _mapping(tag: bytes, ordered: bool = False) -> Rule:
    def rule(value: Any, out: Sink, state: State) -> None:
        state.count(value, len(value))
        pairs: list[tuple[bytes, bytes]] = []
        for key, item in list(value.items()):
            step = ".keys()"
            try:
                name = token_of(key, state)
                scalar = state.scalars.get(type(item))
                step = ""
                token = token_of(item, state) if scalar is None else scalar(item)
            except Failure as failure:
                raise failure.at(step or item_step(key))
            pairs.append((name, token))
        if not ordered:
            pairs.sort()
        out.write(b"%b%d:" % (tag, len(pairs)))
        for pair in pairs:
            out.write(b"%b%b" % pair)

    return rule


def _namedtuple(value: Any, out: Sink, state: State) -> None:
    out.write(b"n" + text(type_name(type(value))) + b"%d:" % len(value))
    for name, item in zip(type(value)._fields, value):
        out.write(text(name))
        encode_part(f".{name}", item, out, state)


def _dataclass_fields(kind: Any) -> list[str]:
    # Pseudo fields (ClassVar, InitVar) are declared too, but are not part of the instance.
    return [
        name
        for name, declared in kind.__dataclass_fields__.items()
        if getattr(getattr(declared, "_field_type", None), "name", "_FIELD") == "_FIELD"
    ]


# Values with a text or a buffer.


def _scalar(kind: type) -> Rule:
    """The rule that subclasses of a plain type use."""
    encoded = SCALARS[kind]
    return lambda value, out, state: out.write(encoded(value))


def _bytes(tag: bytes) -> Rule:
    def rule(value: Any, out: Sink, state: State) -> None:
        out.write(b"%b%d:" % (tag, len(value)))
        out.buffer(value)

    return rule


def _memoryview(value: memoryview, out: Sink, state: State) -> None:
    out.write(b"m" + text(value.format) + text(repr(value.shape)) + b"%d:" % value.nbytes)
    plain = value.c_contiguous and value.nbytes
    out.buffer(value.cast("B") if plain else value.tobytes())


def _array(value: Any, out: Sink, state: State) -> None:
    data = memoryview(value).cast("B") if len(value) else b""
    out.write(b"a" + text(f"{value.typecode} {sys.byteorder} {value.itemsize}"))
    out.write(b"%d:" % len(data))
    out.buffer(data)


def _alias(value: Any, out: Sink, state: State) -> None:
    """`list[int]`, `int | str`, `Optional[int]`: the origin and the arguments."""
    out.write(b"A")
    encode_part(".__origin__", getattr(value, "__origin__", type(value)), out, state)
    encode_part(".__args__", value.__args__, out, state)


# Moments.


def encode_zone(value: Any, out: Sink, state: State, moment: Any = None) -> None:
    """Writes a time zone. `moment` gives the offset of a zone without a name of its own."""
    if value is None:
        out.write(b"N")
        return
    # `key` is a zone of zoneinfo, `zone` one of pytz. Others are told by their name and offset.
    name = getattr(value, "key", None) or getattr(value, "zone", None)
    kind = type_name(type(value))
    if name is None and kind != "datetime.timezone" and moment is None:
        name = str(value)
        if " at 0x" in name:
            raise Failure(value, "it has neither a name nor a moment that gives its offset")
    offset = None if name else value.utcoffset(moment)
    named = name or value.tzname(moment)
    out.write(b"z" + text(kind) + text(str(named)) + text(str(offset)))


def _moment(tag: bytes, dated: bool) -> Rule:
    def rule(value: Any, out: Sink, state: State) -> None:
        naive = value if value.tzinfo is None else value.replace(tzinfo=None)
        out.write(tag + text(naive.isoformat()) + b"%d" % value.fold)
        encode_zone(value.tzinfo, out, state, value if dated else None)

    return rule


# Files.


def _path(value: Any, out: Sink, state: State) -> None:
    """A path counts by its text, and with size and modification time where it is a file."""
    path = os.fspath(value)
    out.write(b"p" + text(type_name(type(value))))
    encode(path, out, state)
    # A path without `open` is a pure path: it is only a text.
    if hasattr(value, "open") or not hasattr(value, "as_posix"):
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            pass
        else:
            if stat.S_ISREG(status.st_mode):
                out.write(b"@%d:%d;" % (status.st_size, status.st_mtime_ns))
                return
    out.write(b"-")


def _file(value: File, out: Sink, state: State) -> None:
    path = os.fspath(value)
    out.write(b"P" + text(os.path.basename(path)))
    try:
        with open(path, "rb") as stream:
            _rest(value, stream, out)
    except (OSError, ValueError) as error:
        raise Failure(value, f"the file could not be read ({error})") from error


def _open_file(value: Any, out: Sink, state: State) -> None:
    name = getattr(value, "name", None)
    # A descriptor's number says nothing about the content.
    out.write(b"O" + text(str(name) if isinstance(name, (str, bytes, os.PathLike)) else ""))
    try:
        position = value.tell()
        try:
            _rest(value, value, out)
        finally:
            value.seek(position)
    except (OSError, ValueError, AttributeError) as error:
        reason = f"it cannot be read and set back to its position ({error})"
        raise Failure(value, reason) from error


def _rest(owner: object, stream: Any, out: Sink) -> None:
    """Writes the digest of the rest of a stream, which it reads in pieces."""
    content = new_hash()
    total = 0
    tag = b"v"
    while piece := stream.read(1 << 20):
        if isinstance(piece, str):
            piece, tag = piece.encode("utf-8", "surrogatepass"), b"u"
        content.update(piece)
        total += len(piece)
        if total > MAX_FILE_BYTES:
            raise Failure(owner, f"it has more than {MAX_FILE_BYTES:,} bytes")
    if piece is None:
        raise OSError("it has no data yet")
    out.write(tag + b"%d:" % total + content.digest())


FIELDS["__dataclass_fields__"] = _dataclass_fields
register({kind.__name__: _scalar(kind) for kind in (str, int, float, complex)})
register({
    "bytes": _bytes(b"b"),
    "bytearray": _bytes(b"B"),
    "memoryview": _memoryview,
    "array.array": _array,
    "list": _sequence(b"["),
    "tuple": _sequence(b"("),
    "typing.NamedTuple": _namedtuple,
    "set": _set(b"{"),
    "frozenset": _set(b"}"),
    "dict": _mapping(b"d"),
    "mappingproxy": _mapping(b"\x5b"),
    "collections.OrderedDict": _mapping(b"o", ordered=True),
    "collections.defaultdict": record(b"D", "default_factory", then=_mapping(b"")),
    "collections.deque": record(b"q", "maxlen", then=_sequence(b"[")),
    "types.SimpleNamespace": record(b"S", then=encode_dict),
    "range": record(b"\x50", "start", "stop", "step"),
    "slice": record(b"\x51", "start", "stop", "step"),
    "ellipsis NotImplementedType": record(b"1", named=True),
    "enum.Enum": record(b"E", "name", "_value_", named=True),
    "module": record(b"\x56", "__name__"),
    "typing.TypeVar": record(b"\x57", "__name__"),
    "typing._SpecialForm": as_text(b"\x58"),
    "datetime.datetime": _moment(b"t", dated=True),
    "datetime.date": lambda value, out, state: out.write(b"y" + text(value.isoformat())),
    "datetime.time": _moment(b"\x59", dated=False),
    "datetime.timedelta": record(b"\x5a", "days", "seconds", "microseconds"),
    "decimal.Decimal": as_text(b"\x5c"),
    "fractions.Fraction": record(b"\x5d", "numerator", "denominator"),
    "uuid.UUID": as_text(b"\x5e"),
    "re.Pattern": record(b"\x5f", "pattern", "flags"),
    "random.Random": record(b"R", "getstate()"),
    "logging.Logger": record(b"\x60", "name"),
    f"{__package__}.File": _file,
})  # fmt: skip
register({
    "type": lambda value, out, state: out.write(b"Y" + text(type_name(value))),
    "types.GenericAlias types.UnionType typing.Union": _alias,
    "typing._GenericAlias typing._UnionGenericAlias": _alias,
    "BaseException": record(b"x", "args", named=True),
    "datetime.tzinfo": encode_zone,
    "os.PathLike pathlib.PurePath pathlib._local.PurePath": _path,
    "_io._IOBase tempfile._TemporaryFileWrapper tempfile.SpooledTemporaryFile": _open_file,
}, families=True)  # fmt: skip
