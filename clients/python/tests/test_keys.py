"""Cache keys: equal content gives equal keys, all else different ones."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import itertools
import logging
import math
import operator
import os
import pathlib
import pickle
import random
import re
import subprocess
import sys
import textwrap
import threading
import types
import typing
import uuid
import zoneinfo
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprise_client import keys
from reprise_client.keys import CallKey, File, UnhashableArgument, call_key, digest
from reprise_client.keys import content, libraries, standard

SOURCE = pathlib.Path(keys.__file__).parents[2]
property_test = settings(derandomize=True, deadline=None, max_examples=200, database=None)


class Color(enum.Enum):
    RED = 1
    GREEN = 2


class Level(enum.IntEnum):
    LOW = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(typing.NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Options:
    name: str
    models: list[Any]
    limit: typing.ClassVar[int] = 3


class MoreOptions(Options):
    """A subclass that keeps a field the dataclass does not know."""

    def __init__(self, extra: int) -> None:
        super().__init__("more", [])
        self.extra = extra


class UserId(str):
    pass


class Client:
    """Has no content."""


class Model:
    def __init__(self, version: int) -> None:
        self.version = version

    def __reprise_key__(self) -> object:
        return self.version

    def predict(self, x: int) -> int:
        return x * self.version

    @classmethod
    def load(cls, name: str) -> str:
        return name

    @staticmethod
    def double(x: int) -> int:
        return 2 * x


def add(a: int, b: int = 2, *, c: int = 3) -> int:
    return a + b + c


def collect(a: int, /, *rest: int, **options: Any) -> None:
    return None


async def fetch(url: str) -> str:
    return url


def key_of(function: Any, *args: Any, **kwargs: Any) -> str:
    return call_key(function, args, kwargs).key


def compiled(source: str, name: str = "f", module: str = "made") -> Any:
    """A function of a module of its own, which is made of this text."""
    names: dict[str, Any] = {"__name__": module}
    exec(compile(textwrap.dedent(source), "made.py", "exec"), names)
    return names[name]


# Calls


def test_the_ways_to_give_an_argument_share_a_key() -> None:
    same = {key_of(add, 1), key_of(add, a=1), key_of(add, 1, 2), key_of(add, b=2, a=1, c=3)}
    assert len(same) == 1
    assert key_of(add, 1, 3) not in same
    assert key_of(add, 1, c=2) not in same


def test_a_key_is_readable_short_and_plain() -> None:
    key = key_of(add, 1)
    assert re.fullmatch(r"[\w.]*test_keys\.add:[0-9a-f]{40}", key)
    long = compiled("def f(): pass")
    long.__qualname__ = "ü" + "x" * 500 + ".<locals>.<lambda>"
    key = key_of(long)
    assert len(key) == keys.MAX_KEY_BYTES
    assert re.fullmatch(r"[A-Za-z0-9._~:-]+", key)
    assert "x.lambda:" in key


def test_extra_arguments_count_and_the_order_of_keywords_does_not() -> None:
    assert key_of(collect, 1, x=1, y=2) == key_of(collect, 1, y=2, x=1)
    assert key_of(collect, 1, a=1) != key_of(collect, 1)
    found = {key_of(collect, 1), key_of(collect, 1, 2), key_of(collect, 1, 2, 3)}
    assert len(found | {key_of(collect, 1, x=2), key_of(collect, 1, rest=(2,))}) == 5


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"a": 1}), ((1,), {"z": 1})],
)
def test_arguments_that_do_not_fit_are_refused(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError, match=r"test_keys\.add\(\): .*argument"):
        call_key(add, args, kwargs)


def test_ignored_names_are_left_out() -> None:
    def query(sql: str, client: object = None, **more: object) -> None:
        return None

    one = call_key(query, ("x", Client()), ignore=["client"])
    two = call_key(query, ("x", None), ignore=("client",))
    assert one == two
    assert [p.kind for p in one.parts if p.name == "client"] == ["ignored"]
    assert call_key(query, ("x",), {"log": Client()}, ignore={"log"}).key == key_of(query, "x")


def test_a_misspelt_name_in_ignore_is_told() -> None:
    with pytest.raises(ValueError, match=r'no parameter "aa" to ignore. Did you mean "a"\?'):
        call_key(add, (1,), ignore=["aa"])
    with pytest.raises(ValueError, match=r"It has: a, b, c\."):
        call_key(add, (1,), ignore=["client"])
    with pytest.raises(TypeError, match=r'ignore=\["client"\]'):
        call_key(add, (1,), ignore="client")


def test_methods_take_self_as_an_argument() -> None:
    assert key_of(Model(1).predict, 2) == key_of(Model(1).predict, x=2)
    assert key_of(Model(1).predict, 2) == key_of(Model.predict, Model(1), 2)
    assert key_of(Model(1).predict, 2) != key_of(Model(2).predict, 2)
    assert key_of(Model.load, "a") != key_of(Model.load, "b")
    assert key_of(Model.double, 1) == key_of(Model(1).double, 1)
    assert key_of(Model.__dict__["double"], 1) == key_of(Model.double, 1)

    class Report:
        def load(self, day: int) -> int:
            return day

    with pytest.raises(UnhashableArgument, match=r'ignore=\["self"\]'):
        call_key(Report().load, (1,))
    assert call_key(Report().load, (1,), ignore=["self"]).key


def test_partials_share_the_key_of_the_whole_call() -> None:
    assert key_of(functools.partial(add, 1, c=4), 5) == key_of(add, 1, 5, c=4)
    assert key_of(functools.partial(functools.partial(add, 1), b=2)) == key_of(add, 1)


def test_a_wrapper_counts_with_what_it_wraps() -> None:
    def scaled(factor: int) -> Any:
        def decorate(function: Any) -> Any:
            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                return factor * function(*args, **kwargs)

            return wrapper

        return decorate

    assert key_of(scaled(2)(add), 1) == key_of(scaled(2)(add), a=1, b=2)
    assert key_of(scaled(2)(add), 1) != key_of(scaled(3)(add), 1)
    assert key_of(scaled(2)(add), 1) != key_of(add, 1)
    assert key_of(functools.lru_cache(add), 1) == key_of(functools.lru_cache(add), a=1)


def test_a_wrapper_may_take_other_arguments_than_the_function_it_wraps() -> None:
    @functools.wraps(add)
    def wrapper(text: str, more: str, still: str, last: str) -> int:
        return add(1)

    assert key_of(wrapper, "a", "b", "c", "d") != key_of(wrapper, "a", "b", "c", "e")


def test_all_kinds_of_callables_have_keys() -> None:
    class Multiply:
        def __reprise_key__(self) -> object:
            return 1

        def __call__(self, x: int) -> int:
            return x

    import numpy

    calls = [
        key_of(lambda x: x, 1), key_of(lambda x: -x, 1), key_of(fetch, "x"), key_of(len, [1]),
        key_of(math.sqrt, 2.0), key_of("a,b".split, ","), key_of(str.split, "a;b", ";"),
        key_of(Multiply(), 1), key_of(Options, "a", []), key_of(dict, a=1), key_of(numpy.add, 1, 2),
        key_of(numpy.sum, [1]),
    ]  # fmt: skip
    assert len(set(calls)) == len(calls)
    assert key_of("a,b".split, ",") == key_of(str.split, "a,b", ",")
    with pytest.raises(TypeError, match="int is not a function"):
        key_of(3)


# The function's part


def test_an_edit_of_the_code_makes_another_key() -> None:
    sources = [
        "def f(a): return a + 1", "def f(a): return a + 2", "def f(a): return a - 1",
        "def f(b): return b + 1", "def f(a): return g.x", "def f(a): return g.y",
        "async def f(a): return a + 1", "def f(a): yield a + 1",
        "def f(a): return lambda: a + 1", "def f(a): return lambda: a + 2",
        "def f(a): return a in {1, 2}", "def f(a): return a in {1, 3}",
        "def f(a): return 1.0", "def f(a): return True", "def f(a): return 1",
        "def f(a):\n try: return a()\n except ValueError: return 1",
    ]  # fmt: skip
    found = {key_of(compiled(source), 1) for source in sources}
    assert len(found) == len(sources)


def test_places_and_lines_do_not_count() -> None:
    source = """
    def f(a):
        class Row:
            size = 1
            def get(self):
                self.a = self.b = self.c = a
                return [x for x in (1, 2, a)]
        return Row
    """
    plain = compiled(source)
    for lines in (1, 50, 300, 70_000):
        moved = compiled("\n" * lines + source)
        assert key_of(moved, 1) == key_of(plain, 1)
    assert key_of(compiled(source.replace("size = 1", "size = 2")), 1) != key_of(plain, 1)
    assert key_of(compiled(source, module="other"), 1) != key_of(plain, 1)


def test_functions_of_the_same_module_count_with_their_code() -> None:
    source = """
    def f(a): return g(a)
    def g(a, rate=1): return [h(x) for x in a]
    def h(a): return f(a) + {number}
    def unrelated(): return {other}
    """
    one = key_of(compiled(source.format(number=1, other=1)), 1)
    assert one == key_of(compiled(source.format(number=1, other=2)), 1)
    assert one != key_of(compiled(source.format(number=2, other=1)), 1)
    changed = source.replace("rate=1", "rate=2")
    assert one != key_of(compiled(changed.format(number=1, other=1)), 1)
    summary = call_key(compiled(source.format(number=1, other=1)), (1,)).parts[1].rendering
    assert summary.endswith("uses g, h")


def test_a_function_that_is_replaced_later_makes_another_key() -> None:
    f = compiled("def f(): return g()\ndef g(): return 1")
    before = key_of(f)
    assert key_of(f) == before
    exec("def g(): return 3", f.__globals__)
    assert key_of(f) != before
    exec("def g(): return 1", f.__globals__)
    assert key_of(f) == before
    f.__code__ = compiled("def f(): return 5").__code__
    assert key_of(f) != before


def test_closed_over_values_count() -> None:
    def make(rate: object) -> Any:
        def convert(x: int) -> object:
            return rate, x

        return convert

    assert key_of(make(1), 1) == key_of(make(1), 1)
    assert key_of(make(1), 1) != key_of(make(2), 1)
    with pytest.raises(UnhashableArgument, match="rate is of type .*Client"):
        key_of(make(Client()), 1)
    ignored = call_key(make(Client()), (1,), ignore=["rate"])
    assert [(p.name, p.kind) for p in ignored.parts[2:]] == [("rate", "ignored"), ("x", "argument")]


def test_functions_that_close_over_themselves_have_keys() -> None:
    def make() -> Any:
        def even(n: int) -> bool:
            return n == 0 or odd(n - 1)

        def odd(n: int) -> bool:
            return n != 0 and even(n - 1)

        def unset() -> object:
            return later

        if odd is None:
            later = 1
        return even, unset

    assert key_of(make()[0], 1) == key_of(make()[0], 1)
    assert digest(make()[0]) == digest(make()[0])
    assert key_of(make()[1]) == key_of(make()[1])


def test_a_bare_object_as_default_is_a_marker() -> None:
    missing = object()

    def read(name: str, default: object = missing) -> object:
        return default

    assert key_of(read, "a") == key_of(read, "a", missing)
    assert key_of(read, "a") != key_of(read, "a", None)
    with pytest.raises(UnhashableArgument, match="default is of type object"):
        key_of(read, "a", object())
    assert digest(read) == digest(read)


def test_a_plan_does_not_keep_a_reloaded_script_alive() -> None:
    import gc
    import weakref

    f = compiled("def f(x, key=len, again=lambda: g()): return g(x)\ndef g(x): return f(x)")
    key_of(f, 1)
    gone = weakref.ref(f)
    del f
    gc.collect()
    assert gone() is None


# Content


LOOK_ALIKES: list[Any] = [
    None, True, False, 0, 1, -1, 255, -255, 1 << 64, 10**5000, 0.0, -0.0, 1.0, math.inf, -math.inf,
    math.nan, 1j, complex(-0.0, 0.0), "", "1", "None", "a", "ab", b"", b"1", b"a", b"ab",
    bytearray(b"ab"), memoryview(b"ab"), memoryview(b"ab").cast("b"), "\ud800", "é", "e\u0301",
    [], (), {}, set(), frozenset(), [[]], [()], ([],), ["ab"], ["a", "b"], ("a", "b"), [["a"], "b"],
    ["a", ["b"]], ["a", "b", ""], {"a": "b"}, {"b": "a"}, [("a", "b")], {"a", "b"},
    frozenset({"a", "b"}), {"ab"}, {1: 2}, {"1": 2}, {True: 2}, {1.0: 2}, {"a": {}}, {"a": []},
    collections.OrderedDict(a=1, b=2), collections.OrderedDict([("b", 2), ("a", 1)]),
    {"a": 1, "b": 2}, collections.defaultdict(int, a=1, b=2), collections.Counter(a=1, b=2),
    collections.defaultdict(list, a=1, b=2), types.MappingProxyType({"a": 1, "b": 2}),
    types.SimpleNamespace(a=1, b=2), collections.deque(["a", "b"]),
    collections.deque(["a", "b"], maxlen=2), Point(1, 2), (1, 2), [1, 2], Point(2, 1),
    Options("a", [1]), Options("a", [2]), Options("a", ["1"]), Color.RED, Color.GREEN, Level.LOW,
    Right.READ, Right.READ | Right.WRITE, UserId("a"), decimal.Decimal(1), decimal.Decimal("1.0"),
    decimal.Decimal("nan"), fractions.Fraction(1), fractions.Fraction(1, 3), range(3),
    range(0, 3, 2),
    slice(3), slice(0, 3), ..., NotImplemented, dt.date(2026, 1, 2), dt.datetime(2026, 1, 2),
    dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc),
    dt.datetime(2026, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")),
    dt.datetime(2026, 1, 2, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
    dt.datetime(2026, 1, 2, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
    dt.datetime(2026, 1, 2, fold=1), dt.time(1), dt.time(1, tzinfo=dt.timezone.utc),
    dt.timedelta(1), dt.timedelta(0, 1), dt.timedelta(0, 0, 1), dt.timezone.utc,
    dt.timezone(dt.timedelta(hours=1)), zoneinfo.ZoneInfo("UTC"), zoneinfo.ZoneInfo("Europe/Paris"),
    uuid.UUID(int=1), uuid.UUID(int=2), pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a"),
    pathlib.Path("does/not/exist"), array.array("i", [1]), array.array("l", [1]), array.array("i"),
    re.compile("a"), re.compile("a", re.I), re.compile(b"a"), int, str, Options, Client, add, fetch,
    len, [].append, [1].append, str.upper, Model(1), Model(1).predict, Model(2).predict, Model.load,
    functools.partial(add, 1), functools.partial(add, 2), functools.partial(add, a=1), math, os,
    operator.itemgetter(1), operator.itemgetter(2), operator.attrgetter("a"), list[int], list[str],
    int | None, typing.Optional[str], typing.Any, ValueError("a"), ValueError("b"), KeyError("a"),
    logging.getLogger("a"), logging.getLogger("b"), random.Random(1), random.Random(2),
    MoreOptions(1), MoreOptions(2), functools.lru_cache(add),
]  # fmt: skip


def test_look_alikes_differ() -> None:
    found: dict[str, Any] = {}
    for value in LOOK_ALIKES:
        name = digest(value)
        assert name not in found, (found.get(name), value)
        assert name == digest(value)
        found[name] = value


def test_a_key_and_a_digest_agree() -> None:
    for value in LOOK_ALIKES:
        assert call_key(add, (value,)).parts[2].digest == digest(value)


def test_equal_content_is_equal() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"x", "y", "z"}) == digest({"z", "y", "x"})
    assert digest(float("nan")) == digest(-float("nan"))
    assert digest(Options("a", [1])) == digest(Options("a", [1]))
    assert digest("x" * 10**6) == digest("x" * 10**6)
    assert digest(lambda x: x + 1) != digest(lambda x: x + 2)
    assert digest(memoryview(b"abcd")[::2]) == digest(memoryview(b"ac"))
    shared = [1]
    assert digest([shared, shared]) == digest([[1], [1]])
    assert digest(random.Random(5)) == digest(random.Random(5))


def test_a_moment_in_a_fold_counts() -> None:
    zone = zoneinfo.ZoneInfo("Europe/Paris")
    twice = dt.datetime(2026, 10, 25, 2, 30, tzinfo=zone)
    assert digest(twice) != digest(twice.replace(fold=1))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4)
        | st.frozensets(st.text(max_size=3) | st.integers(), max_size=4)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equality that tells types apart and takes every NaN for the same."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return math.isnan(a) and math.isnan(b) or (a, math.copysign(1, a)) == (
            b, math.copysign(1, b)
        )
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


@property_test
@given(plain, plain)
def test_digests_are_equal_exactly_when_contents_are(a: Any, b: Any) -> None:
    assert (digest(a) == digest(b)) == same(a, b)


@property_test
@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_lists_of_short_texts_do_not_collide(a: list[str], b: list[str]) -> None:
    assert (digest(a) == digest(b)) == (a == b)


@property_test
@given(plain)
def test_a_copy_has_the_same_digest(value: Any) -> None:
    assert digest(pickle.loads(pickle.dumps(value))) == digest(value)


@property_test
@given(st.dictionaries(st.text(), st.integers(), max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_a_dict_does_not_count(value: dict[str, int], order: random.Random) -> None:
    items = list(value.items())
    order.shuffle(items)
    assert digest(dict(items)) == digest(value)


SCRIPT = """
import datetime, decimal, enum, functools, sys
from reprise_client.keys import call_key

class Mode(enum.Enum):
    FAST = "f"

def helper(x):
    return x in {"alpha", "beta", "gamma", 3, None}

def outer(names, mode=Mode.FAST, *, tags=frozenset({"a", "b", "c"})):
    class Row:
        def set(self):
            self.one = self.two = self.three = self.four = helper(names)
    return Row, {n for n in names if n in {"x", "y", "z"}}

calls = [
    call_key(outer, (["x"],), {"tags": {"q", "r", "s", "t"}}),
    call_key(outer, ({"one": {1, 2.5, "3"}, "two": datetime.date(2026, 1, 2)},)),
    call_key(outer, (Mode,), {"mode": lambda v: v in {"k", "l", "m"}}),
    call_key(functools.partial(outer, len), (decimal.Decimal("1.5"),)),
]
print("\\n".join(call.key for call in calls))
"""


def test_keys_are_equal_in_processes_with_other_hash_seeds(tmp_path: pathlib.Path) -> None:
    results = set()
    for seed, lines in (("1", 0), ("2", 0), ("3", 400)):
        script = tmp_path / f"app{seed}.py"
        script.write_text("\n" * lines + SCRIPT)
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(SOURCE)}
        results.add(
            subprocess.run(
                [sys.executable, str(script)], env=environment, capture_output=True, check=True,
                text=True, timeout=60,
            ).stdout  # fmt: skip
        )
    assert len(results) == 1
    assert len(set(results.pop().split())) == 4


def test_the_import_brings_no_library_of_the_app() -> None:
    code = "import sys, reprise_client.keys, reprise_client.codecs; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True,
        timeout=60,
    ).stdout.split()  # fmt: skip
    heavy = {"numpy", "pandas", "pyarrow", "PIL", "pydantic", "polars", "torch", "attr"}
    assert heavy.isdisjoint(loaded)


# Files


def test_a_path_counts_with_size_and_time_of_its_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "sales.csv"
    missing = digest(path)
    path.write_text("a,b")
    os.utime(path, ns=(10, 10))
    first = digest(path)
    assert first != missing
    assert first == digest(pathlib.Path(str(path)))
    os.utime(path, ns=(10, 11))
    assert digest(path) != first
    path.write_text("a,b,c")
    os.utime(path, ns=(10, 10))
    assert digest(path) != first
    assert digest(pathlib.PurePath(path)) == digest(pathlib.PurePath(path))
    assert digest(tmp_path) == digest(tmp_path)
    assert digest(pathlib.Path("a\0b"))


def test_file_counts_by_its_content(tmp_path: pathlib.Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sales.csv").write_bytes(b"a,b" * 100_000)
    one = File(tmp_path / "one" / "sales.csv")
    two = File(str(tmp_path / "two" / "sales.csv"))
    assert digest(one) == digest(two)
    with open(one, "ab") as stream:
        stream.write(b"c")
    assert digest(one) != digest(two)
    with pytest.raises(UnhashableArgument, match="the file could not be read .*none"):
        key_of(add, File(tmp_path / "none"))


def test_an_open_file_counts_from_its_position(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("héllo\nworld\n", encoding="utf-8")
    for mode in ("rb", "r", "r+"):
        with open(path, mode, **({} if "b" in mode else {"encoding": "utf-8"})) as stream:
            start = digest(stream)
            assert digest(stream) == start
            stream.readline()
            position = stream.tell()
            assert digest(stream) != start
            assert stream.tell() == position
            assert stream.readline() in ("world\n", b"world\n")
    assert digest(io.BytesIO(b"ab")) == digest(io.BytesIO(b"ab"))
    assert digest(io.BytesIO(b"ab")) != digest(io.StringIO("ab"))

    class UploadedFile(io.BytesIO):
        name = "a.csv"

    assert digest(UploadedFile(b"ab")) != digest(io.BytesIO(b"ab"))
    moved = io.BytesIO(b"xab")
    moved.read(1)
    assert digest(moved) == digest(io.BytesIO(b"ab"))


def test_a_stream_that_cannot_go_back_is_refused(tmp_path: pathlib.Path) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe, open(tmp_path / "out", "wb") as out:
        for stream in (pipe, out):
            with pytest.raises(UnhashableArgument, match="cannot be read and set back"):
                key_of(add, stream)


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard, "MAX_FILE_BYTES", 10)
    assert digest(io.BytesIO(b"x" * 10))
    with pytest.raises(UnhashableArgument, match="more than 10 bytes"):
        digest(io.BytesIO(b"x" * 11))


# Own content and errors


def test_a_type_can_say_what_its_content_is() -> None:
    assert digest(Model(1)) == digest(Model(1))
    assert digest(Model(1)) != digest(Model(2))

    class Wrong(Model):
        def __reprise_key__(self) -> object:
            return [self.version, Client()]

    with pytest.raises(UnhashableArgument, match=r"a\.__reprise_key__\(\)\[1\] is of type"):
        key_of(add, Wrong(1))

    class Itself:
        def __reprise_key__(self) -> object:
            return self

    with pytest.raises(UnhashableArgument, match="it contains itself"):
        key_of(add, Itself())


def test_hashers_go_first_and_the_most_derived_type_wins() -> None:
    class Special(Client):
        pass

    hashers = {object: lambda v: "object", Client: lambda v: "client"}
    both = {**hashers, Special: lambda v: "special"}
    assert digest(Special(), hashers=hashers) != digest(Special(), hashers=both)
    assert digest([Client()], hashers=both) == digest([Client()], hashers=hashers)
    assert digest(Model(1), hashers={Model: lambda m: 0}) == digest(
        Model(2), hashers={Model: lambda m: 0}
    )
    lower = {str: str.lower}
    assert digest("A", hashers=lower) == digest("a", hashers=lower)
    assert digest(["A"], hashers=lower) != digest(["b"], hashers=lower)
    assert digest("a", hashers={str: lambda text: text})
    ordered = {list: sorted}
    assert digest([[2, 1], [3]], hashers=ordered) == digest([[3], [1, 2]], hashers=ordered)
    assert digest([2, 1], hashers=ordered) == digest([1, 2], hashers=ordered)


def test_an_error_names_the_place_and_the_ways_out() -> None:
    def load(region: str, options: dict[str, Any]) -> None:
        return None

    options = {"models": [1, 2, 3, types.SimpleNamespace(client=Client())]}
    with pytest.raises(UnhashableArgument) as caught:
        call_key(load, ("eu", options))
    error = caught.value
    text = str(error)
    assert 'options["models"][3].client is of type' in text
    assert "load()" in text and "test_keys.Client" in text
    assert 'ignore=["options"]' in text and "key=" in text
    assert "hashers={Client: …}" in text and "__reprise_key__" in text
    assert (error.parameter, error.path) == ("options", 'options["models"][3].client')
    assert isinstance(error, TypeError)
    assert str(pickle.loads(pickle.dumps(error))) == text
    with pytest.raises(UnhashableArgument, match="Cannot hash the value: value"):
        digest(options)


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(), Client(), object(), iter([1]), (x for x in ()), itertools.count(),
        {1: Client()}, [Client()], Options("a", [Client()]), functools.partial(add, Client()),
        Client().__init__, collections.OrderedDict(a=Client()), Point(1, Client()),
        {Client()}, {Client(): 1}, collections.deque([Client()]), ValueError(Client()),
    ],
)  # fmt: skip
def test_what_has_no_content_is_refused(value: Any) -> None:
    with pytest.raises(UnhashableArgument):
        key_of(add, value)


def test_an_iterator_is_not_used_up() -> None:
    numbers = iter([1, 2])
    with pytest.raises(UnhashableArgument, match="pass a list"):
        key_of(add, numbers)
    assert list(numbers) == [1, 2]


def test_cycles_depth_and_size_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    loop: list[Any] = [1]
    loop.append({"again": loop})
    with pytest.raises(UnhashableArgument, match=r'a\[1\]\["again"\] .* it contains itself'):
        key_of(add, loop)
    deep: list[Any] = []
    for _ in range(keys.MAX_DEPTH - 1):
        deep = [deep]
    assert digest(deep)
    with pytest.raises(UnhashableArgument, match="nested deeper than 100 levels"):
        digest([deep])
    monkeypatch.setattr(content, "MAX_ITEMS", 10)
    assert digest([[1] * 5] + [2] * 4)
    with pytest.raises(UnhashableArgument, match="more than 10 items"):
        digest([[1] * 5] * 2)


def test_explain_shows_every_part() -> None:
    key = call_key(add, (1,), {"c": "x" * 200}, ignore=["b"])
    table = key.explain()
    lines = table.splitlines()
    assert lines[0] == f"key {key.key}" and str(key) == key.key
    assert lines[1].split() == ["part", "kind", "value", "digest"]
    assert [line.split()[0] for line in lines[2:]] == ["function", "code", "a", "b", "c"]
    assert lines[5].endswith("-") and "ignored" in lines[5]
    assert all(len(part.rendering) <= keys.MAX_RENDERING_CHARS for part in key.parts)
    assert all(re.fullmatch("[0-9a-f]{40}|", part.digest) for part in key.parts)


def test_explain_shows_what_the_arguments_were_at_the_time() -> None:
    import numpy

    values = [1, 2]
    key = call_key(add, (values, numpy.zeros((2, 3))), {"c": dt.date(2026, 1, 2)})
    values.clear()
    shown = [part.rendering for part in key.parts[2:]]
    assert shown == ["list of 2", "numpy.ndarray 2×3 float64", "datetime.date 2026-01-02"]


def test_call_keys_are_equal_when_the_key_is() -> None:
    assert call_key(add, (1,)) == call_key(add, (), {"a": 1})
    assert len({call_key(add, (1,)), call_key(add, (1, 2))}) == 1
    assert CallKey("a") != CallKey("b")
    assert pickle.loads(pickle.dumps(call_key(add, ([1],)))).explain()


# Libraries


def test_numpy_arrays_count_by_content() -> None:
    np = pytest.importorskip("numpy")
    base = np.arange(24, dtype="f8").reshape(4, 6)
    alike = [
        base.copy(), np.asfortranarray(base), base[:, ::-1][:, ::-1], np.repeat(base, 2, 0)[::2],
        base.T.T, np.ascontiguousarray(base.T).T,
    ]  # fmt: skip
    assert {digest(array) for array in alike} == {digest(base)}
    other = [
        base.T, base.reshape(6, 4), base.astype("f4"), base.astype("i8"), base.tolist(), base + 1,
        base.astype(">f8"), base.astype(object), base.view(np.matrix), base[0], base[0, 0],
        np.ma.masked_array(base, base > 3), base > 3, base.astype("U"), base.astype("S"),
        base.astype("m8[s]"), base.astype("M8[s]"), base.astype("M8[ms]"), np.array(1.0),
        np.array([1.0]), np.float64(1), np.float32(1), np.int64(1), np.int32(1), 1, 1.0,
        np.zeros(0),
        np.zeros((0, 2)), np.zeros((2, 0)), np.zeros(2, "V0"), np.bool_(True), np.str_("1"),
        np.dtype("f8"), np.dtype("f4"), np.float64, np.add, np.sum, np.datetime64(1, "s"),
        np.array(["a", None], object), np.array([b"a", None], object), np.longdouble(1),
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
        np.array([(1, 2.0)], [("a", "i4"), ("c", "f8")]), np.random.default_rng(1),
        np.random.default_rng(2), np.random.RandomState(1), np.random.RandomState(2),
        np.random.PCG64(1), np.random.SeedSequence(1),
    ]  # fmt: skip
    found = [digest(base), *(digest(value) for value in other)]
    assert len(set(found)) == len(found)
    assert found[1:] == [digest(value) for value in other]


def test_bytes_of_numpy_without_meaning_do_not_count() -> None:
    np = pytest.importorskip("numpy")
    padded = np.dtype([("a", "i1"), ("b", "f8"), ("c", "f8", (2,))], align=True)
    one, two = np.zeros(3, padded), np.frombuffer(b"\xff" * (3 * padded.itemsize), padded).copy()
    for name in padded.names:
        two[name] = one[name]
    assert digest(one) == digest(two)
    masked = np.ma.masked_array([1, 2], [False, True])
    assert digest(masked) == digest(np.ma.masked_array([1, 3], [False, True]))
    assert digest(masked) != digest(np.ma.masked_array([2, 2], [False, True]))
    wide = np.frombuffer(b"\xff" * 32, np.longdouble).copy()
    wide[:] = 1
    assert digest(wide) == digest(np.ones(2, np.longdouble))


def test_large_arrays_that_are_not_in_row_order_are_hashed_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    np = pytest.importorskip("numpy")
    array = np.random.default_rng(1).random((50, 7, 3))
    monkeypatch.setattr(libraries, "COPY_BYTES", 1000)
    assert digest(np.asfortranarray(array)) == digest(array)
    assert digest(np.broadcast_to(array[0], (40, 7, 3))) == digest(np.stack([array[0]] * 40))


def test_an_object_in_an_array_is_told_with_its_place() -> None:
    np = pytest.importorskip("numpy")
    with pytest.raises(UnhashableArgument, match=r"a\[1\] is of type .*Client"):
        key_of(add, np.array([1, Client()], object))
    loop = np.empty(1, object)
    loop[0] = loop
    with pytest.raises(UnhashableArgument, match="contains itself"):
        digest(loop)


def test_memory_maps_are_arrays(tmp_path: pathlib.Path) -> None:
    np = pytest.importorskip("numpy")
    np.save(tmp_path / "a.npy", np.arange(5))
    assert digest(np.load(tmp_path / "a.npy", mmap_mode="r")) == digest(np.arange(5))


def test_dataframes_count_by_values_labels_and_dtypes() -> None:
    pd = pytest.importorskip("pandas")
    np = pytest.importorskip("numpy")
    base = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None]})
    assert digest(base) == digest(base.copy()) == digest(base[::-1][::-1].reset_index(drop=True))
    category = pd.Series(["x", "y"], dtype="category")
    index = pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=[1, 0])
    values = [
        base, base[["b", "a"]], base.rename(columns={"a": "c"}), base.assign(a=[1, 2, 4]),
        base.set_index("a"), base.astype({"a": "int32"}), base.astype({"a": "Int64"}),
        base.astype({"b": "string"}), base.astype({"b": "category"}), base.iloc[:2], base.iloc[:0],
        base.rename(index={0: 5}), base["a"], base["a"].rename("z"), base["a"].array.to_numpy(),
        base.columns, base.index, pd.Index([0, 1, 2]), pd.Index([0, 1, 2], name="n"), category,
        category.cat.as_ordered(), category.cat.reorder_categories(["y", "x"]),
        category.cat.add_categories(["z"]), pd.CategoricalIndex(category), index,
        index.set_names([0, 1]), index.swaplevel(), pd.DataFrame({"v": [1, 2]}, index=index),
        pd.DataFrame([[1, 2]], columns=index), pd.Series(pd.date_range("2026", periods=2)),
        pd.Series(pd.date_range("2026", periods=2, tz="UTC")),
        pd.Series(pd.date_range("2026", periods=2, tz="Europe/Paris")),
        pd.Series(pd.to_timedelta([1, 2], "s")), pd.Series(pd.period_range("2026", periods=2)),
        pd.Series(pd.interval_range(0, 2)), pd.Series([1.5, None]),
        pd.Series([1.5, None], dtype="Float64"), pd.Series([True, None], dtype="boolean"),
        pd.Series([[1], {2: 3}]), pd.Timestamp(1), pd.Timestamp(2),
        pd.Timestamp(1, tz="UTC"), pd.Timedelta(1), pd.Timedelta(2), pd.NaT, pd.NA,
        pd.Interval(0, 1), pd.Interval(0, 1, "both"), pd.Period("2026"), pd.Period("2026-01"),
        pd.DataFrame({"a": [1]}), pd.DataFrame(np.ones((1, 2)), columns=["d", "d"]),
        pd.Series([0, 1], dtype="Sparse[int]"),
        pd.Series(["x"], dtype="string"), pd.Series([1, 2], index=["codes", "names"]),
    ]  # fmt: skip
    found = [digest(value) for value in values]
    assert len(set(found)) == len(found)
    assert found == [digest(pickle.loads(pickle.dumps(value))) for value in values]


def test_an_object_in_a_dataframe_is_told_with_its_place() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"name": ["a", "b"], "client": [Client(), Client()]})
    with pytest.raises(UnhashableArgument, match=r'a\["client"\]\[0\] is of type'):
        key_of(add, frame)


def test_arrow_tables_count_by_content() -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": [1, None, 3], "b": ["x", None, "z"], "c": [True, False, None]})
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert digest(table) == digest(pieces) == digest(pieces.combine_chunks())
    values = [
        table, table.slice(1), table.select(["a", "b"]), table.rename_columns(["x", "b", "c"]),
        table.replace_schema_metadata({"k": "v"}), table.to_batches()[0], table["a"], table.schema,
        pa.array([1, 2]), pa.array([1, 2], pa.int32()), pa.array([1, 0]), pa.array([1, None]),
        pa.array([1, 2], pa.timestamp("ns")), pa.array([1, 2], pa.timestamp("s")), pa.int64(),
        pa.array(["a", "b"]).dictionary_encode(), pa.array(["a", "b"]), pa.array([[1], [2]]),
        pa.array([1.5, 2.5]), pa.array([1, 2], pa.date32()), pa.array([], pa.int64()),
        pa.array([1.5], pa.float16()), pa.array([decimal.Decimal("1.5")]),
    ]  # fmt: skip
    found = [digest(value) for value in values]
    assert len(set(found)) == len(found)
    null = pa.array([1, 7, 3], mask=__import__("numpy").array([False, True, False]))
    assert digest(null) == digest(pa.array([1, None, 3]))


def test_polars_frames_count_by_content() -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"a": [1, 2, None], "b": ["x", "y", "z"]})
    assert digest(frame) == digest(pl.concat([frame[:1], frame[1:]]))
    values = [frame, frame[:2], frame.rename({"a": "c"}), frame["a"], frame.cast({"a": pl.Int32})]
    assert len({digest(value) for value in values}) == len(values)
    with pytest.raises(UnhashableArgument, match=r"result of collect\(\)"):
        digest(frame.lazy())


def test_images_count_by_pixels(tmp_path: pathlib.Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    image = image_module.new("RGB", (4, 3), "red")
    image.save(tmp_path / "a.png")
    assert digest(image) == digest(image_module.open(tmp_path / "a.png"))
    palette = image.quantize(2)
    other = palette.copy()
    other.putpalette([1, 2, 3] * 2)
    values = [
        image, image.convert("L"), image.convert("P"), image.rotate(90, expand=True), palette,
        other,
        image_module.new("RGB", (4, 3), "blue"), image_module.new("1", (4, 3)),
    ]  # fmt: skip
    assert len({digest(value) for value in values}) == len(values)


def test_pydantic_models_count_by_fields() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Query(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        text: str
        limit: int = 3
        _private: int = pydantic.PrivateAttr(default_factory=lambda: random.randrange(10**9))

    class Names(pydantic.RootModel[list[str]]):
        pass

    assert digest(Query(text="a")) == digest(Query(text="a", limit=3))
    values = [Query(text="a"), Query(text="b"), Query(text="a", more=1), Names(["a"]), Names(["b"])]
    assert len({digest(value) for value in values}) == len(values)


def test_attrs_classes_count_by_fields() -> None:
    attrs = pytest.importorskip("attrs")

    @attrs.define
    class Query:
        text: str
        limit: int = 3

    assert digest(Query("a")) == digest(Query("a", 3)) != digest(Query("b"))
    with pytest.raises(UnhashableArgument, match=r"a\.limit is of type"):
        key_of(add, Query("a", Client()))


def test_tensors_count_by_values() -> None:
    np = pytest.importorskip("numpy")

    class Tensor:
        """The part of a tensor of torch that a key needs."""

        def __init__(self, values: Any, odd: bool = False) -> None:
            self.values, self.odd = np.asarray(values), odd
            self.dtype = f"torch.{self.values.dtype}"
            self.shape = self.values.shape

        def detach(self) -> Tensor:
            return self

        cpu = contiguous = detach

        def reshape(self, size: int) -> Tensor:
            return Tensor(self.values.reshape(size))

        def view(self, dtype: Any) -> Tensor:
            return Tensor(self.values.view(dtype))

        def numpy(self) -> Any:
            if self.odd:
                raise TypeError("no such dtype")
            return self.values

    Tensor.__module__, Tensor.__qualname__ = "torch", "Tensor"
    assert digest(Tensor([1.0, 2.0])) == digest(Tensor([1.0, 2.0])) != digest(Tensor([[1.0, 2.0]]))
    assert digest(Tensor([1.0])) != digest(Tensor(np.array([1.0], "f4")))
    fake = types.ModuleType("torch")
    fake.uint8 = np.uint8  # type: ignore[attr-defined]
    before = sys.modules.get("torch")
    sys.modules["torch"] = fake
    try:
        assert digest(Tensor([1.0], odd=True)) != digest(Tensor([2.0], odd=True))
    finally:
        if before is None:
            del sys.modules["torch"]
        else:
            sys.modules["torch"] = before
