"""The key of one call: its arguments by parameter name, the key, and a table of what is in it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, MappingProxyType
from typing import Any

from .code import (
    Part, Plan, closure_of, defaults_of, is_marker, layers_of, plan_of, resolve_callable,
)  # fmt: skip
from .content import (
    MAX_RENDERING_CHARS, MAX_TOKEN_BYTES, SCALARS, Failure, Hashers, State, cut, name_of, new_hash,
    text, token_of, type_name,
)  # fmt: skip

_NO_HASHERS: Hashers = MappingProxyType({})
_NO_KEYWORDS: Mapping[str, Any] = MappingProxyType({})

#: An argument of a call: the kind of its part of the key, its name and its value.
_Bound = tuple[str, str, Any]


@dataclass(frozen=True)
class KeyPart:
    """One part of a key. Two keys differ exactly where the digests of their parts differ.

    `kind` is `name`, `code`, `closure`, `argument`, `arguments` (the extra positional ones),
    `keyword` (an extra one) or `ignored`. `rendering` is a short text of at most
    `MAX_RENDERING_CHARS` characters and can show values of arguments. `digest` is 40 hexadecimal
    digits, and empty for an ignored part.
    """

    __module__ = "reprise_client.keys"

    name: str
    kind: str
    rendering: str
    digest: str


@dataclass(frozen=True)
class CallKey:
    """The key of one call, and what it was made of.

    `key` is the function's name, `:` and 40 hexadecimal digits: at most `MAX_KEY_BYTES` characters
    of `A-Za-z0-9._~:-`. Keys are equal when `key` is equal.
    """

    __module__ = "reprise_client.keys"

    key: str
    _parts: tuple[Part, ...] = field(default=(), repr=False, compare=False)

    def __str__(self) -> str:
        return self.key

    @property
    def parts(self) -> tuple[KeyPart, ...]:
        """The parts of the key: name, code, closed-over variables, arguments, in this order."""
        return tuple(
            KeyPart(
                name,
                kind,
                _render(value) if rendering is None else rendering,
                "" if kind == "ignored" else new_hash(token).hexdigest(),
            )
            for name, kind, token, rendering, value in self._parts
        )

    def explain(self) -> str:
        """A table with a line for each part, to find the reason why two calls differ."""
        rows = [("part", "kind", "value", "digest")]
        rows += [(p.name, p.kind, p.rendering, p.digest[:12] or "-") for p in self.parts]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]))
            for row in rows
        ]
        return "\n".join([f"key {self.key}", *lines])


def call_key(
    function: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] = _NO_KEYWORDS,
    *,
    ignore: Collection[str] = (),
    hashers: Hashers = _NO_HASHERS,
) -> CallKey:
    """Makes the key of the call `function(*args, **kwargs)`, without making the call.

    Arguments are bound to parameters first, so `f(1)`, `f(a=1)` and `f(a=1, b=<default>)` share a
    key. A bound method is its function with `self` as the first argument. A `functools.partial` is
    its function with its arguments. A function with `__wrapped__` counts with all its layers.

    `ignore` names parameters, extra keywords and closed-over variables that the key leaves out.
    `hashers` maps types to functions that return the content of a value; the most derived type
    wins, and it goes before `__reprise_key__` and the built-in rules.

    Raises `UnhashableArgument` for a value without content, `ValueError` for a name in `ignore`
    that the function does not have, and `TypeError` for arguments that the function cannot take.
    """
    if isinstance(ignore, str):
        raise TypeError(f'ignore takes a list of names: ignore=["{ignore}"].')
    target: Any = function
    if type(target) is not FunctionType:
        target, args, kwargs = resolve_callable(target, tuple(args), kwargs)
    plan = plan_of(target)
    bound = _bind_by_code(plan, target, args, kwargs)
    if bound is None:
        bound = _bind_by_signature(plan, target, args, kwargs)
    if plan.closes:
        bound[:0] = closure_of(target)
    if ignore:
        _check_ignored(plan, ignore, bound)
    state: State | None = State(hashers) if hashers else None
    scalars = SCALARS if state is None else state.scalars
    parts: list[Part] = [*plan.parts]
    stream = [plan.token]
    for kind, name, value in bound:
        if name in ignore:
            parts.append((name, "ignored", b"", type_name(type(value)), None))
            continue
        scalar = scalars.get(type(value))
        if scalar is not None:
            token = scalar(value)
            if len(token) > MAX_TOKEN_BYTES:
                token = b"#" + new_hash(token).digest()
            parts.append((name, kind, token, None, value))
        else:
            if state is None:
                state = State(hashers)
            try:
                token = token_of(value, state)
            except Failure as failure:
                if not _is_default_marker(target, value):
                    raise failure.as_error(plan.name, name) from failure.__cause__
                token = b"!" + text(type_name(type(value)))
            # Rendered now, because the value can change.
            parts.append((name, kind, token, _render(value), None))
        stream.append(_prefix(kind, name))
        stream.append(token)
    return CallKey(plan.key_start + new_hash(b"".join(stream)).hexdigest(), tuple(parts))


def digest(value: object, *, hashers: Hashers = _NO_HASHERS) -> str:
    """The content of a value as 40 hexadecimal digits, equal in every process.

    Types count: `1`, `1.0`, `True` and `numpy.int64(1)` differ, and so do a list and a tuple, and
    `Decimal("1.0")` and `Decimal("1.00")`. Every NaN of Python is the same; `0.0` and `-0.0`
    differ. The order of dicts and sets is left out; that of an `OrderedDict` counts. Numpy arrays
    count by dtype, shape and bytes; their memory order does not. A datetime counts with its zone.
    An existing file behind a `pathlib.Path` counts with its size and modification time. An open
    file counts by its name and its content from the present position, which stays where it is.
    All fields of a dataclass, an attrs class, a pydantic model and a msgspec struct count. Text is
    not normalized. A dataframe's `attrs` and an image's other frames do not count.

    Raises `UnhashableArgument` for a value without content, one that contains itself, one that is
    nested deeper than `MAX_DEPTH` levels, and one with more than `MAX_ITEMS` items.
    """
    try:
        return new_hash(token_of(value, State(hashers))).hexdigest()
    except Failure as failure:
        raise failure.as_error("", "value") from failure.__cause__


_KIND_TAGS = {"argument": b"p", "arguments": b"v", "keyword": b"k", "closure": b"c"}


@functools.lru_cache(maxsize=4096)
def _prefix(kind: str, name: str) -> bytes:
    return _KIND_TAGS[kind] + text(name)


def _is_default_marker(target: Any, value: object) -> bool:
    positional, named = defaults_of(layers_of(target)[-1])
    defaults = (*positional, *named.values())
    return is_marker(value) and any(value is default for default in defaults)


# Binding: the arguments of a call by parameter name.


def _bind_by_code(
    plan: Plan, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[_Bound] | None:
    """Binds fast; returns None where the arguments do not fit or the code does not tell."""
    if plan.parameters is None:
        return None
    positional, positional_only, keyword_only, variadic, variadic_keywords = plan.parameters
    inner = target if len(plan.codes) == 1 else layers_of(target)[-1]
    rest: dict[str, Any] = {**kwargs} if kwargs else {}
    bound: list[_Bound] = []
    given = len(args)
    defaults = inner.__defaults__ or ()
    without_default = len(positional) - len(defaults)
    for index, name in enumerate(positional):
        if index < given:
            value = args[index]
        elif name in rest and index >= positional_only:
            value = rest.pop(name)
        elif index >= without_default:
            value = defaults[index - without_default]
        else:
            return None
        bound.append(("argument", name, value))
    if variadic is not None:
        bound.append(("arguments", variadic, tuple(args[len(positional) :])))
    elif given > len(positional):
        return None
    for name in keyword_only:
        if name not in rest and name not in (inner.__kwdefaults__ or ()):
            return None
        value = rest.pop(name) if name in rest else inner.__kwdefaults__[name]
        bound.append(("argument", name, value))
    if rest:
        # A name that is left over is an extra keyword, or was given by position too.
        if variadic_keywords is None or not rest.keys().isdisjoint(positional[positional_only:]):
            return None
        bound += [("keyword", name, rest[name]) for name in sorted(rest)]
    return bound


def _bind_by_signature(
    plan: Plan, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[_Bound]:
    """Binds with `inspect.signature`: for functions without readable code, and for its errors."""
    as_given: list[_Bound] = [("arguments", "args", tuple(args))]
    as_given += [("keyword", name, kwargs[name]) for name in sorted(kwargs)]
    try:
        signature = inspect.signature(target)
    except (ValueError, TypeError):
        return as_given
    try:
        call = signature.bind(*args, **kwargs)
    except TypeError as error:
        if len(plan.codes) > 1:
            # A wrapper can take other arguments than the function it wraps.
            return as_given
        raise TypeError(f"{plan.name}(): {error}.") from None
    call.apply_defaults()
    bound: list[_Bound] = []
    for name, value in call.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            bound.append(("arguments", name, value))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            bound += [("keyword", extra, value[extra]) for extra in sorted(value)]
        else:
            bound.append(("argument", name, value))
    return bound


def _check_ignored(plan: Plan, ignore: Collection[str], bound: list[_Bound]) -> None:
    if plan.parameters is None or plan.parameters.variadic_keywords is not None:
        return  # Any name can be an extra keyword.
    known = [name for _, name, _ in bound]
    for name in ignore:
        if name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, n=1)
            hint = f' Did you mean "{close[0]}"?' if close else f" It has: {', '.join(known)}."
            raise ValueError(f'{plan.name}() has no parameter "{name}" to ignore.{hint}')


# Renderings: short, and without calling code of the value's class.

#: Types whose `str` is shown, and types whose shape is.
_SHOWN = frozenset({
    "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta",
    "decimal.Decimal", "fractions.Fraction", "uuid.UUID", "pathlib.PosixPath",
    "pathlib._local.PosixPath", "pathlib.WindowsPath", "pathlib._local.WindowsPath",
})  # fmt: skip
_SHAPED = frozenset({"numpy.ndarray", "pandas.DataFrame", "pandas.core.frame.DataFrame"})


def _render(value: Any) -> str:
    kind = type(value)
    if kind is int and value.bit_length() > 8 * MAX_RENDERING_CHARS:
        return f"int of {value.bit_length()} bits"
    if kind in (str, bytes):
        return cut(repr(value[:MAX_RENDERING_CHARS]))
    if kind in SCALARS:
        return cut(repr(value))
    if isinstance(value, (type, FunctionType)):
        return cut(name_of(value))
    name = type_name(kind)
    if kind in (list, tuple, set, frozenset, dict, bytearray):
        return f"{name} of {len(value)}"
    if name in _SHAPED:
        shape = "×".join(str(size) for size in value.shape)
        return cut(f"{name} {shape} {getattr(value, 'dtype', '')}".rstrip())
    return cut(f"{name} {value}" if name in _SHOWN else name)
