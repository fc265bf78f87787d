"""Functions: their code in a key, the functions they use, and the rules of what can be called."""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from .content import (
    DIGEST_BYTES, SCALARS, Failure, Sink, State, cut, encode, encode_part, name_of, new_hash,
    no_rule, record, register, text, type_name,
)  # fmt: skip

#: The longest key, in bytes. Keys are ASCII.
MAX_KEY_BYTES = 200
#: The most functions of one module that are followed from one function.
MAX_HELPERS = 1000
#: The most layers of `__wrapped__` that are followed.
MAX_LAYERS = 100
#: The flags of a code object that change what it does: *args, **kwargs, generator, coroutine.
_CODE_FLAGS = 0x04 | 0x08 | 0x20 | 0x80 | 0x100 | 0x200
#: Names that a class body stores and that depend on line numbers or on the order of a set.
_UNSTABLE_CLASS_NAMES = frozenset({"__firstlineno__", "__static_attributes__"})

#: A part of a key: its name, kind, encoding and rendering. Without one, the value is rendered.
Part = tuple[str, str, bytes, "str | None", object]
_Helpers = list[tuple[str, types.FunctionType]]


class Parameters(NamedTuple):
    """The names of a function's parameters, by kind."""

    positional: tuple[str, ...]
    positional_only: int
    keyword_only: tuple[str, ...]
    variadic: str | None
    variadic_keywords: str | None


class Plan:
    """What is known of a called function. It holds no reference to the function or its values.

    A strong one would keep a reloaded script alive, with all its globals. `parameters` is None if
    the code of the innermost function does not say what a call takes.
    """

    __slots__ = ("closes", "codes", "helpers", "key_start", "name", "parameters", "parts", "token")

    def __init__(self, layers: list[Any]) -> None:
        self.name = name_of(layers[-1])
        self.codes = tuple(getattr(layer, "__code__", None) for layer in layers)
        self.closes = any(getattr(layer, "__closure__", None) for layer in layers)
        self.parameters = _parameters_of(layers)
        helpers = _helpers_of(layers)
        self.helpers = tuple((name, helper.__code__) for name, helper in helpers)
        name_token = text(self.name)
        code_token = _code_token(layers, helpers)
        self.token = new_hash(name_token + code_token).digest()
        self.parts: tuple[Part, ...] = (
            ("function", "name", name_token, cut(self.name), None),
            ("code", "code", code_token, cut(_summary(layers, helpers)), None),
        )
        readable = self.name.replace("<lambda>", "lambda").replace("<locals>.", "")
        plain = (c if c.isascii() and (c.isalnum() or c in "._") else "~" for c in readable)
        self.key_start = "".join(plain)[-(MAX_KEY_BYTES - 2 * DIGEST_BYTES - 1) :] + ":"

    def is_fresh(self, target: Any) -> bool:
        """Whether no layer and no followed function was replaced, as a notebook does."""
        inner = target
        if len(self.codes) > 1 or hasattr(target, "__wrapped__"):
            layers = layers_of(target)
            inner = layers[-1]
            if tuple(getattr(layer, "__code__", None) for layer in layers) != self.codes:
                return False
        elif self.codes != (target.__code__,):
            return False
        if not self.helpers:
            return True
        names = getattr(inner, "__globals__", {})
        for name, code in self.helpers:
            helper = names.get(name)
            if type(helper) is types.FunctionType and helper.__code__ is code:
                continue
            helper = _unwrapped(helper)
            if helper is None or helper.__code__ is not code:
                return False
        return True


_plans: WeakKeyDictionary[types.FunctionType, Plan] = WeakKeyDictionary()


def plan_of(target: Any) -> Plan:
    """The plan of a function as it is now; the same object as long as nothing was replaced."""
    if type(target) is not types.FunctionType:
        return Plan(layers_of(target))
    plan = _plans.get(target)
    if plan is None or not plan.is_fresh(target):
        plan = _plans[target] = Plan(layers_of(target))
    return plan


def layers_of(target: Any) -> list[Any]:
    """A function and the ones it wraps, outermost first."""
    layers = [target]
    while len(layers) < MAX_LAYERS:
        inner = getattr(layers[-1], "__wrapped__", None)
        if inner is None or not callable(inner):
            break
        layers.append(inner.__func__ if isinstance(inner, types.MethodType) else inner)
    return layers


def closure_of(target: Any) -> list[tuple[str, str, Any]]:
    """The closed-over variables of all layers, without the layers themselves."""
    layers = layers_of(target)
    found: list[tuple[str, str, Any]] = []
    for layer in layers:
        cells = getattr(layer, "__closure__", None) or ()
        for name, cell in zip(layer.__code__.co_freevars if cells else (), cells):
            try:
                value = cell.cell_contents
            except ValueError:
                value = NotImplemented  # The variable has no value yet.
            if not any(value is other for other in layers):
                found.append(("closure", name, value))
    return found


def defaults_of(function: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The default values of a function's parameters: positional and keyword-only ones."""
    named = getattr(function, "__kwdefaults__", None) or {}
    return getattr(function, "__defaults__", None) or (), named


def is_marker(value: object) -> bool:
    """Whether a default says "not given": an `object()`, or an instance without any attribute."""
    kind = type(value)
    if kind is object:
        return True
    plain = kind.__bases__ == (object,) and "__slots__" not in vars(kind)
    return plain and getattr(value, "__dict__", None) == {}


def resolve_callable(
    target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, tuple[Any, ...], Mapping[str, Any]]:
    """The function behind partials, methods and callable objects, with its full arguments."""
    for _ in range(MAX_LAYERS):
        if isinstance(target, functools.partial):
            args = (*_filled(target.args, args),)
            kwargs = {**target.keywords, **kwargs}
            target = target.func
        elif isinstance(target, types.MethodType):
            target, args = target.__func__, (target.__self__, *args)
        elif isinstance(target, (staticmethod, classmethod)):
            target = target.__func__
        elif isinstance(target, (types.FunctionType, type)) or hasattr(target, "__wrapped__"):
            return target, args, kwargs
        elif isinstance(target, types.BuiltinFunctionType):
            own: Any = target.__self__
            if own is None or isinstance(own, (types.ModuleType, type)):
                return target, args, kwargs
            target, args = getattr(type(own), target.__name__), (own, *args)
        elif isinstance(target, _DESCRIPTORS) or _is_importable(target):
            return target, args, kwargs
        elif isinstance(getattr(type(target), "__call__", None), types.FunctionType):
            target, args = type(target).__call__, (target, *args)
        else:
            break
    raise TypeError(f"Cannot make a cache key: {type_name(type(target))} is not a function.")


_DESCRIPTORS = (types.MethodDescriptorType, types.WrapperDescriptorType)


def _filled(fixed: tuple[Any, ...], args: tuple[Any, ...]) -> Iterator[Any]:
    """A partial's arguments, with its placeholders (Python 3.14) filled from the call's."""
    hole = getattr(functools, "Placeholder", None)
    rest = list(args)
    for value in fixed:
        yield rest.pop(0) if hole is not None and value is hole and rest else value
    yield from rest


# What a plan holds.


def _parameters_of(layers: list[Any]) -> Parameters | None:
    inner = layers[-1]
    if not isinstance(inner, types.FunctionType) or any(
        hasattr(layer, "__signature__")
        or isinstance(getattr(layer, "__wrapped__", None), types.MethodType)
        for layer in layers
    ):
        return None
    code = inner.__code__
    names, flags = code.co_varnames, code.co_flags
    positional = code.co_argcount
    named = positional + code.co_kwonlyargcount
    return Parameters(
        names[:positional],
        code.co_posonlyargcount,
        names[positional:named],
        names[named] if flags & 0x04 else None,
        names[named + bool(flags & 0x04)] if flags & 0x08 else None,
    )


def _helpers_of(layers: list[Any]) -> _Helpers:
    """The functions of the same module that the layers name, directly or through each other."""
    names: Mapping[str, Any] = getattr(layers[-1], "__globals__", {})
    found: dict[str, types.FunctionType] = {}
    for layer in layers:
        code = getattr(layer, "__code__", None)
        if isinstance(code, types.CodeType) and getattr(layer, "__globals__", None) is names:
            _follow(code, names, found)
    return sorted(found.items())


def _follow(
    code: types.CodeType, names: Mapping[str, Any], helpers: dict[str, types.FunctionType]
) -> None:
    waiting = [code]
    while waiting:
        current = waiting.pop()
        waiting += [c for c in current.co_consts if isinstance(c, types.CodeType)]
        for name in current.co_names:
            if name in helpers or name not in names:
                continue
            helper = _unwrapped(names[name])
            if helper is None or helper.__globals__ is not names or helper.__code__ is code:
                continue
            if len(helpers) >= MAX_HELPERS:
                return
            helpers[name] = helper
            waiting.append(helper.__code__)


def _unwrapped(value: Any) -> types.FunctionType | None:
    if isinstance(value, type):
        return None
    try:
        # Not `getattr`, which makes a lazy proxy among the globals do its work.
        object.__getattribute__(value, "__wrapped__")
    except AttributeError:
        return value if type(value) is types.FunctionType else None
    inner = layers_of(value)[-1]
    return inner if isinstance(inner, types.FunctionType) else None


def _summary(layers: list[Any], helpers: _Helpers) -> str:
    inner = layers[-1]
    code = getattr(inner, "__code__", None)
    summary = f"{len(code.co_code)} bytes" if code is not None else type_name(type(inner))
    if len(layers) > 1:
        summary += f", {len(layers) - 1} wrapped"
    if helpers:
        summary += ", uses " + ", ".join(name for name, _ in helpers)
    return summary


def _code_token(layers: list[Any], helpers: _Helpers) -> bytes:
    """The encoding of the code of all layers and of the functions that they use."""
    sink = Sink()
    state = State({})
    for layer in layers:
        code = getattr(layer, "__code__", None)
        if isinstance(code, types.CodeType):
            _code(code, sink, state)
        elif isinstance(layer, type):
            sink.write(b"Y" + text(type_name(layer)))
            for name, method in sorted(vars(layer).items()):
                if isinstance(method, types.FunctionType):
                    sink.write(text(name))
                    _code(method.__code__, sink, state)
        else:
            sink.write(b"k" + text(type_name(type(layer))))
    for name, helper in helpers:
        sink.write(b"+" + text(name))
        _code(helper.__code__, sink, state)
        encode(_constants(helper.__defaults__), sink, state)
        encode(_constants(helper.__kwdefaults__), sink, state)
    return sink.token()


def _constants(value: Any) -> Any:
    """Default values of a followed function that cannot change; others count by type."""
    if isinstance(value, (tuple, frozenset)):
        return tuple(_constants(item) for item in value)
    if isinstance(value, dict):
        return {name: _constants(item) for name, item in value.items()}
    return value if type(value) in SCALARS or type(value) is bytes else type(value)


# Rules.


def _code(code: types.CodeType, out: Sink, state: State) -> None:
    out.write(b"c" + text(code.co_name))
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    encode((*counts, code.co_flags & _CODE_FLAGS), out, state)
    encode((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars), out, state)
    encode(getattr(code, "co_exceptiontable", b""), out, state)
    if _UNSTABLE_CLASS_NAMES.isdisjoint(code.co_names):
        encode((code.co_code, code.co_consts), out, state)
    else:
        encode(_class_body(code), out, state)


def _class_body(code: types.CodeType) -> list[tuple[str, Any]]:
    """The instructions of a class body without those that store its line number."""
    kept: list[tuple[str, Any]] = []
    for step in dis.get_instructions(code):
        if step.opname == "STORE_NAME" and step.argval in _UNSTABLE_CLASS_NAMES:
            kept.pop()
            continue
        constant = step.opname in ("LOAD_CONST", "RETURN_CONST")
        kept.append((step.opname, step.argval if constant else step.arg))
    return kept


def _function(value: Any, out: Sink, state: State) -> None:
    """A function as an argument: its code, defaults and closed-over variables."""
    plan = plan_of(value)
    out.write(b"l" + plan.token)
    for layer in layers_of(value):
        defaults, named = defaults_of(layer)
        encode_part(".__defaults__", [*map(_marked, defaults)], out, state)
        marked = {name: _marked(default) for name, default in named.items()}
        encode_part(".__kwdefaults__", marked, out, state)
    closed = closure_of(value) if plan.closes else []
    out.write(b"%d:" % len(closed))
    for _, name, item in closed:
        out.write(text(name))
        encode_part(f".<closure {name}>", item, out, state)


def _marked(value: Any) -> Any:
    return types.SimpleNamespace(marker=type(value)) if is_marker(value) else value


def _builtin(value: Any, out: Sink, state: State) -> None:
    owner = getattr(value, "__objclass__", None)
    name = name_of(value) if owner is None else f"{type_name(owner)}.{value.__name__}"
    out.write(b"U" + text(name))
    own = getattr(value, "__self__", None)
    encode_part(".__self__", None if isinstance(own, types.ModuleType) else own, out, state)


def _callable_object(value: Any, out: Sink, state: State) -> None:
    """A callable that is not a function: one that wraps a function, or one known by its name."""
    if hasattr(value, "__wrapped__"):
        _function(value, out, state)
    elif _is_importable(value):
        out.write(b"U" + text(name_of(value)))
    else:
        no_rule(value, out, state)


def _is_importable(value: Any) -> bool:
    found: Any = sys.modules.get(str(getattr(value, "__module__", "")))
    if found is None:  # A ufunc of numpy has no module of its own.
        found = sys.modules.get(type(value).__module__)
    for name in str(getattr(value, "__qualname__", getattr(value, "__name__", ""))).split("."):
        found = getattr(found, name, None)
    return found is value


register({
    "code": _code,
    "function": _function,
    "method": record(b"M", "__func__", "__self__"),
    "builtin_function_or_method classmethod_descriptor": _builtin,
    "method_descriptor method-wrapper wrapper_descriptor": _builtin,
    "functools.partial": record(b"\x52", "func", "args", "keywords"),
    "operator.itemgetter operator.attrgetter operator.methodcaller": record(
        b"g", "__reduce__()"
    ),
    "staticmethod": record(b"\x53", "__func__"),
    "classmethod": record(b"\x54", "__func__"),
    "property": record(b"\x55", "fget", "fset", "fdel"),
    "typing.Callable": _callable_object,
})  # fmt: skip
