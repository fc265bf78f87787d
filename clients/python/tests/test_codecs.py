"""Codecs: what comes back is what was stored, and what would not is refused."""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import hmac
import io
import json
import math
import pickle
import struct
import sys
import threading
import wave
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprise_client import codecs
from reprise_client.codecs import (
    Arrow,
    AutoCodec,
    Codec,
    Encoded,
    Json,
    Numpy,
    Raw,
    SignedPickle,
    Text,
    Undecodable,
    Unencodable,
    Wav,
    WavCodec,
)

SECRET = "0123456789abcdef"
property_test = settings(derandomize=True, deadline=None, max_examples=200, database=None)
auto = AutoCodec()
signing = AutoCodec(pickle_secret=SECRET)

PICKLE = "application/vnd.reprise.signed-pickle"
ARROW = "application/vnd.apache.arrow.stream"


def back(value: Any, codec: Codec = auto) -> Any:
    encoded = codec.encode(value)
    return codec.decode(bytes(encoded.body), encoded.content_type)


class Account:
    def __init__(self, name: str) -> None:
        self.name = name


class Trap:
    """Unpickling it is noticed."""

    sprung = False

    def __reduce__(self) -> tuple[Any, ...]:
        return spring, ()


def spring() -> None:
    Trap.sprung = True


def signed(payload: bytes, secret: str = SECRET, context: bytes = b"") -> bytes:
    """A signed pickle as it is described, written without the codec."""
    message = b"reprise signed pickle 1\0" + struct.pack(">Q", len(context)) + context + payload
    return b"RPK1" + hmac.new(secret.encode(), message, hashlib.sha256).digest() + payload


@pytest.mark.parametrize(
    ("value", "content_type", "body"),
    [
        (b"ab", "application/octet-stream", b"ab"),
        (bytearray(b"ab"), "application/octet-stream", b"ab"),
        (memoryview(b"abcd")[::2], "application/octet-stream", b"ac"),
        ("é", "text/plain; charset=utf-8", "é".encode()),
        (None, "application/json", b"null"),
        (True, "application/json", b"true"),
        (1, "application/json", b"1"),
        (-0.5, "application/json", b"-0.5"),
        ({"é": [1, {}]}, "application/json", '{"é":[1,{}]}'.encode()),
    ],
)
def test_the_type_chooses_the_format(value: Any, content_type: str, body: bytes) -> None:
    assert auto.encode(value) == Encoded(body, content_type)
    assert bytes(auto.encode(value).body) == body


def test_a_secret_changes_no_format_of_plain_data() -> None:
    for value in (b"a", "a", None, [1], {"a": 1.5}):
        assert signing.encode(value) == auto.encode(value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@property_test
@given(json_values | st.binary())
def test_plain_data_comes_back_exactly(value: Any) -> None:
    assert repr(back(value)) == repr(value)
    assert repr(back(value, signing)) == repr(value)


any_values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.integers() | st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@property_test
@given(any_values)
def test_any_data_comes_back_exactly_or_is_refused(value: Any) -> None:
    assert repr(back(value, signing)) == repr(value)
    try:
        assert repr(back(value)) == repr(value)
    except Unencodable:
        pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((1, 2), "a tuple comes back as a list"),
        ([1, {"a": (2,)}], r"value\[1\]\['a'\]: a tuple comes back as a list"),
        ({1: 2}, "the key 1 comes back as text"),
        ({"a": {None: 2}}, r"value\['a'\]: the key None comes back as text"),
        ([math.nan], r"value\[0\]: nan is not a number of JSON"),
        (-math.inf, "-inf is not a number"),
        ([b"a"], "it has no bytes"),
        ({1, 2}, "it has no set"),
        (1 << 63, "beyond 64 bits"),
        (-(1 << 63) - 1, "beyond 64 bits"),
        ("\ud800", "half a surrogate"),
        (["\ud83d", "\ude00"], "half a surrogate"),
        (decimal.Decimal(1), "it has no decimal.Decimal"),
    ],
)
def test_what_json_would_change_is_refused(value: Any, message: str) -> None:
    with pytest.raises(Unencodable, match=message):
        Json().encode(value)
    with pytest.raises(Unencodable, match=r"pickle_secret="):
        auto.encode(value)
    assert signing.encode(value).content_type == PICKLE
    assert repr(back(value, signing)) == repr(value)


def test_nested_and_circular_data_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Unencodable, match="deeper than 100 levels"):
        auto.encode(loop)
    deep: list[Any] = []
    for _ in range(99):
        deep = [deep]
    assert back(deep) == deep
    with pytest.raises(Unencodable):
        auto.encode([deep])


def test_without_a_secret_objects_are_refused_with_the_ways_out() -> None:
    with pytest.raises(Unencodable) as caught:
        auto.encode(Account("a"))
    text = str(caught.value)
    assert "test_codecs.Account" in text and "JSON" in text
    assert "codec=" in text and "pickle_secret=" in text
    assert isinstance(caught.value, TypeError)
    assert issubclass(Undecodable, ValueError)


def test_subclasses_do_not_lose_their_type() -> None:
    class Name(str):
        pass

    with pytest.raises(Unencodable):
        auto.encode(Name("a"))
    with pytest.raises(Unencodable):
        auto.encode([Name("a")])


def test_unknown_content_types_give_the_bytes() -> None:
    for content_type in ("image/png", "", "text/html", "text/plain; charset=latin-1", "a;b;=c"):
        assert auto.decode(b"\xff", content_type) == b"\xff"
    assert auto.decode(b"[1]", 'Application/JSON; Charset="utf-8"') == [1]
    assert auto.decode(b"a", "text/plain") == "a"


BINARY_TYPES = ["application/x-npy", "application/x-npy; kind=scalar", ARROW, "audio/wav", PICKLE]


@property_test
@given(st.sampled_from([*BINARY_TYPES, "application/json"]), st.binary(max_size=200))
def test_garbage_is_undecodable(content_type: str, body: bytes) -> None:
    for codec in (auto, signing):
        try:
            codec.decode(body, content_type)
        except Undecodable:
            continue
        assert content_type == "application/json"
        json.loads(body)


@property_test
@given(st.integers(0, 10**6), st.integers(0, 255), st.integers(0, 10**6))
def test_damaged_values_are_undecodable_or_well_formed(place: int, byte: int, cut: int) -> None:
    np = pytest.importorskip("numpy")
    pytest.importorskip("pyarrow")
    pd = pytest.importorskip("pandas")
    for value in (
        np.arange(6).reshape(2, 3),
        Wav(np.arange(6, dtype="i2"), 8000),
        Wav(np.arange(6, dtype="f4"), 8000),
        pd.DataFrame({"a": [1, 2], "b": ["x", None]}),
    ):
        encoded = auto.encode(value)
        body = bytearray(encoded.body)
        body[place % len(body)] = byte
        for damaged in (bytes(body), bytes(encoded.body)[: cut % len(body)]):
            try:
                auto.decode(damaged, encoded.content_type)
            except Undecodable:
                pass


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"NaN", b"[Infinity]", b"[" * 10**6])
def test_what_is_not_json_is_undecodable(body: bytes) -> None:
    with pytest.raises(Undecodable, match="not JSON"):
        auto.decode(body, "application/json")
    with pytest.raises(Undecodable, match="not UTF-8"):
        auto.decode(b"\xff", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        (Json(), [1]), (Raw(), b"a"), (Text(), "a"), (SignedPickle(SECRET), {1, 2}),
        (AutoCodec(), [1]),
    ],
)  # fmt: skip
def test_explicit_codecs(codec: Codec, value: Any) -> None:
    assert isinstance(codec, Codec)
    assert back(value, codec) == value
    assert codec.decode(bytes(codec.encode(value, context=b"x").body),
                        codec.encode(value).content_type, context=b"x") == value  # fmt: skip


def test_explicit_codecs_refuse_other_types() -> None:
    for codec in (Raw(), Text(), Numpy(), Arrow(), WavCodec()):
        with pytest.raises(Unencodable, match=r"\(\) takes .*, not int"):
            codec.encode(1)
    for other in (Text(), Json(), Numpy(), Arrow(), WavCodec(), SignedPickle(SECRET)):
        with pytest.raises(Undecodable, match=r"stored value is image/png, and \w+\(\) reads "):
            other.decode(b"", "image/png")
    assert Raw("image/png").encode(b"a") == Encoded(b"a", "image/png")


def test_raw_bytes_are_a_copy() -> None:
    value = bytearray(b"ab")
    body = auto.encode(value).body
    value[0] = 0
    assert body == b"ab"


# Numpy


def test_arrays_come_back_with_dtype_shape_and_order() -> None:
    np = pytest.importorskip("numpy")
    base = np.arange(12.0).reshape(3, 4)
    arrays = [
        base, np.asfortranarray(base), base[::2, ::-1], base.astype(">i4"), np.array(1.5),
        np.zeros((0, 3)), np.array(["a", "bc"]), np.array(["2026-01-02"], "M8[D]"), base > 3,
        np.array([(1, 2.0)], [("a", "i4"), ("é", "f8", (2,))]), base.astype("c8"),
        np.array([np.nan, -0.0, np.inf]),
    ]  # fmt: skip
    for array in arrays:
        encoded = auto.encode(array)
        assert encoded.content_type == "application/x-npy"
        found = auto.decode(bytes(encoded.body), encoded.content_type)
        assert type(found) is np.ndarray and found.flags.writeable
        assert found.dtype == array.dtype and found.shape == array.shape
        assert found.tobytes() == array.tobytes()
    assert back(np.asfortranarray(base)).flags.f_contiguous
    assert np.load(io.BytesIO(auto.encode(base).body)).tolist() == base.tolist()


def test_scalars_of_numpy_come_back_as_scalars() -> None:
    np = pytest.importorskip("numpy")
    for value in (np.float64(1.5), np.int8(1), np.bool_(True), np.str_("a"), np.datetime64(1, "s")):
        found = back(value)
        assert type(found) is type(value) and found == value
        assert found.dtype == value.dtype


def test_arrays_of_objects_are_refused_or_pickled() -> None:
    np = pytest.importorskip("numpy")
    array = np.array([None, "a"], object)
    with pytest.raises(Unencodable, match="dtype object holds Python objects"):
        auto.encode(array)
    assert back(array, signing).tolist() == [None, "a"]
    masked = np.ma.masked_array([1, 2], [True, False])
    with pytest.raises(Unencodable):
        auto.encode(masked)
    assert back(masked, signing).mask.tolist() == [True, False]


def test_an_array_with_a_pickle_in_it_is_not_read() -> None:
    np = pytest.importorskip("numpy")
    sink = io.BytesIO()
    np.save(sink, np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(Undecodable):
        signing.decode(sink.getvalue(), "application/x-npy")
    assert not Trap.sprung
    with pytest.raises(Undecodable, match="after the end"):
        auto.decode(bytes(auto.encode(np.arange(3)).body) + b"x", "application/x-npy")
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        huge, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)}
    )
    with pytest.raises(Undecodable):
        auto.decode(huge.getvalue(), "application/x-npy")


# Arrow


def frames() -> list[Any]:
    pd = pytest.importorskip("pandas")
    np = pytest.importorskip("numpy")
    base = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "é", None], "c": [1.5, None, -0.0]})
    return [
        base, base.iloc[:0], base.set_index("b"), base.set_index(["a", "b"]), base[["a"]],
        base.rename(index={0: 7}), base.astype({"a": "Int64", "b": "category"}), pd.DataFrame(),
        pd.DataFrame({1: [1], 2: [2]}), pd.DataFrame(np.ones((2, 2))),
        pd.DataFrame({"t": pd.date_range("2026", periods=2, tz="Europe/Paris")}),
        pd.DataFrame({"t": pd.to_timedelta([1, 2], "s"), "b": [True, False]}),
        pd.DataFrame({"d": [dt.date(2026, 1, 2), None], "n": [decimal.Decimal("1.5"), None]}),
        pd.DataFrame({"p": pd.period_range("2026", periods=2)}), base.astype({"b": object}),
        pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])),
        pd.DataFrame({"x": ["a"]}, dtype="string"), base[::-1], pd.DataFrame({"b": [b"a", None]}),
        base.rename_axis(index="row", columns="column"),
    ]  # fmt: skip


def test_dataframes_come_back() -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for frame in frames():
        encoded = auto.encode(frame)
        assert encoded.content_type == ARROW
        found = auto.decode(bytes(encoded.body), encoded.content_type)
        pd.testing.assert_frame_equal(found, frame, check_freq=False)
        for name in frame.columns:
            if frame.columns.is_unique:
                series = frame[name]
                pd.testing.assert_series_equal(back(series), series, check_freq=False)


def test_series_keep_their_name_or_have_none() -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for name in (None, "a", "value", 3):
        series = pd.Series([1, 2], index=["x", "y"], name=name)
        pd.testing.assert_series_equal(back(series), series)
    found = back(pd.DataFrame({"a": [1.5, 2.5]}))
    found.loc[0, "a"] = 9.0
    assert found["a"].tolist() == [9.0, 2.5]
    found = back(pd.Series([1.5, 2.5]))
    found[0] = 9.0
    assert found.tolist() == [9.0, 2.5]


def test_dataframes_that_arrow_would_change_are_refused_or_pickled() -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    refused = [
        pd.DataFrame({"a": [[1], [2]]}), pd.DataFrame({"a": [{"x": 1}, {"y": 2}]}),
        pd.DataFrame({"a": [1, "x"]}), pd.DataFrame({"a": pd.Series([1, 2], dtype=object)}),
        pd.DataFrame({"a": [Account("a")]}), pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame([[1, 2]], columns=["a", 1]), pd.DataFrame({"a": [1j]}),
        pd.DataFrame({"a": [True, None]}, dtype=object), pd.DataFrame({"a": [(1, 2)]}),
    ]  # fmt: skip
    for frame in refused:
        with pytest.raises(Unencodable, match=r"Arrow cannot keep .*pickle_secret="):
            auto.encode(frame)
        if not isinstance(frame.iloc[0, 0], Account):
            pd.testing.assert_frame_equal(back(frame, signing), frame)


def test_tables_come_back_as_tables() -> None:
    pa = pytest.importorskip("pyarrow")
    pd = pytest.importorskip("pandas")
    table = pa.table({"a": [1, None], "b": [[1], [2, 3]]})
    for value in (table, table.replace_schema_metadata({"k": "v"}), pa.table({}),
                  pa.Table.from_pandas(pd.DataFrame({"a": [1]}))):  # fmt: skip
        found = back(value)
        assert isinstance(found, pa.Table)
        assert found.equals(value, check_metadata=True)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert auto.decode(sink.getvalue(), ARROW).equals(table)


def test_without_pyarrow_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1]})
    body = bytes(auto.encode(frame).body)

    def refuse(name: str, *args: Any) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(codecs, "import_module", refuse)
    with pytest.raises(Unencodable, match=r"install reprise-client\[arrow\]"):
        auto.encode(frame)
    with pytest.raises(Undecodable, match=r"install reprise-client\[arrow\]"):
        auto.decode(body, ARROW)
    for content_type in ("application/x-npy", "audio/wav"):
        with pytest.raises(Undecodable, match="install numpy"):
            auto.decode(b"", content_type)
    assert back(frame, signing).equals(frame)


# Sound


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("dtype", ["int16", ">i2", "float32", "float64"])
def test_sound_comes_back(dtype: str, channels: int) -> None:
    np = pytest.importorskip("numpy")
    samples = np.linspace(-1, 1, 10).reshape(-1, channels) * (30000 if "i" in dtype else 1)
    samples = samples.astype(dtype)
    encoded = auto.encode(Wav(samples, 44_100))
    assert encoded.content_type == "audio/wav"
    found = auto.decode(bytes(encoded.body), encoded.content_type)
    assert found.rate == 44_100
    assert found.samples.dtype == ("int16" if "i" in dtype else "float32")
    assert found.samples.shape == ((10,) if channels == 1 else (5, 2))
    assert found.samples.flags.writeable
    assert found.samples.ravel().tolist() == samples.astype(found.samples.dtype).ravel().tolist()
    assert struct.unpack_from("<I", encoded.body, 4)[0] == len(encoded.body) - 8
    if "i" in dtype:
        with wave.open(io.BytesIO(encoded.body)) as reader:
            assert (reader.getnchannels(), reader.getsampwidth()) == (channels, 2)
            assert (reader.getframerate(), reader.getnframes()) == (44_100, 10 // channels)


def test_sound_that_a_file_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    np = pytest.importorskip("numpy")
    ones = np.ones(4, "i2")
    for rate in (0, -1, 1.5, True, 1 << 32):
        with pytest.raises(Unencodable, match="The rate of a Wav is an int from 1 to"):
            WavCodec().encode(Wav(ones, rate))
    for samples in ([1, 2], np.ones((2, 3), "i2"), np.ones((1, 2, 2), "i2"), np.array(1, "i2")):
        with pytest.raises(Unencodable, match=r"numpy array of shape \(n,\) or \(n, 2\)"):
            WavCodec().encode(Wav(samples, 8000))
    for dtype in ("i4", "u2", "f2", "c8", "O"):
        with pytest.raises(Unencodable, match="int16, float32 or float64"):
            WavCodec().encode(Wav(np.ones(4, dtype), 8000))
    monkeypatch.setattr(codecs, "MAX_WAV_BYTES", 7)
    with pytest.raises(Unencodable, match="at most 7 bytes"):
        WavCodec().encode(Wav(ones, 8000))
    assert back(Wav(ones[:0], 8000)).samples.shape == (0,)


def test_sound_of_other_writers_is_read_where_it_can_be() -> None:
    pytest.importorskip("numpy")
    form = struct.pack("<HHIIHH", 0xFFFE, 1, 8000, 16000, 2, 16)
    form += struct.pack("<HHIH14s", 22, 16, 4, 1, b"\0" * 14)
    chunks = b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"fmt " + struct.pack("<I", 40) + form
    chunks += b"data" + struct.pack("<I", 4) + struct.pack("<hh", 1, -2)
    body = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
    assert auto.decode(body, "audio/wav").samples.tolist() == [1, -2]
    sink = io.BytesIO()
    with wave.open(sink, "wb") as writer:
        writer.setparams((1, 3, 8000, 0, "NONE", ""))
        writer.writeframes(b"abc")
    with pytest.raises(Undecodable, match=r"1 channels of 24 bits .* codec=Raw\(\)"):
        auto.decode(sink.getvalue(), "audio/wav")


# Signed pickles


def test_objects_come_back_with_the_secret() -> None:
    encoded = signing.encode(Account("a"))
    assert encoded.content_type == PICKLE
    assert signing.decode(bytes(encoded.body), PICKLE).name == "a"
    assert AutoCodec(SECRET.encode()).decode(bytes(encoded.body), PICKLE).name == "a"
    assert SignedPickle(SECRET).decode(bytes(encoded.body), PICKLE).name == "a"
    assert encoded.body == signed(pickle.dumps(Account("a"), 5))


def test_nothing_is_unpickled_without_the_right_signature() -> None:
    payload = pickle.dumps(Trap())
    bodies = [
        payload, b"", b"RPK1", b"RPK1" + b"\0" * 32, b"RPK1" + b"\0" * 32 + payload,
        signed(payload, "another secret 16"), signed(payload, context=b"other"),
        signed(payload)[:-1], signed(payload) + b"x", b"RPK2" + signed(payload)[4:],
        b"RPK1" + hmac.new(SECRET.encode(), payload, hashlib.sha256).digest() + payload,
    ]  # fmt: skip
    for body in bodies:
        with pytest.raises(Undecodable):
            signing.decode(body, PICKLE)
        with pytest.raises(Undecodable, match="pickle_secret="):
            auto.decode(body, PICKLE)
    with pytest.raises(Undecodable, match="pickle_secret="):
        auto.decode(signed(payload), PICKLE)
    assert not Trap.sprung
    signing.decode(signed(payload), PICKLE)
    assert Trap.sprung
    Trap.sprung = False


@property_test
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_every_changed_byte_is_noticed(place: int, change: int) -> None:
    body = bytearray(signed(pickle.dumps({"a": (1, 2)}, 5)))
    body[place % len(body)] ^= change
    with pytest.raises(Undecodable):
        signing.decode(bytes(body), PICKLE)


def test_a_value_cannot_be_moved_to_another_key() -> None:
    encoded = signing.encode((1, 2), context=b"reports/a")
    assert signing.decode(bytes(encoded.body), PICKLE, context=b"reports/a") == (1, 2)
    for context in (b"", b"reports/b", b"reports/", b"reports/a\0"):
        with pytest.raises(Undecodable, match="for another key"):
            signing.decode(bytes(encoded.body), PICKLE, context=context)


@pytest.mark.parametrize("secret", ["", b"", "short", b"x" * 15, "é" * 7])
def test_short_secrets_are_refused(secret: Any) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        AutoCodec(pickle_secret=secret)
    with pytest.raises(ValueError, match=r"secrets\.token_hex\(32\)"):
        SignedPickle(secret)


def test_a_secret_is_not_shown() -> None:
    with pytest.raises(TypeError, match="The secret is bytes or str, not int"):
        SignedPickle(1234567890123456)  # type: ignore[arg-type]
    assert SECRET not in repr(signing) + repr(SignedPickle(SECRET)) + repr(vars(signing))


def test_what_pickle_cannot_write_is_refused() -> None:
    for value in (threading.Lock(), lambda: 1, (x for x in ())):
        with pytest.raises(Unencodable, match="cannot be pickled"):
            signing.encode(value)


def test_a_pickle_whose_class_is_gone_is_undecodable(monkeypatch: pytest.MonkeyPatch) -> None:
    body = bytes(signing.encode(Account("a")).body)
    monkeypatch.delattr(sys.modules[Account.__module__], "Account")
    with pytest.raises(Undecodable, match="cannot be read"):
        signing.decode(body, PICKLE)
