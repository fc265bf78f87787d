"""Values to bytes and back: each codec writes one format and names it by its content type.

`AutoCodec` chooses the format by the type of the value, and refuses what a format would change: a
tuple does not come back from JSON, so it is not written as JSON. Formats that can run code when
they are read (pickle) are only used with a secret, and only read when the signature is right.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import math
import pickle
import struct
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple, Protocol, runtime_checkable

__all__ = [
    "Arrow", "AutoCodec", "Codec", "Encoded", "Json", "Numpy", "Raw", "SignedPickle", "Text",
    "Undecodable", "Unencodable", "Wav", "WavCodec",
]  # fmt: skip

BYTES_TYPE = "application/octet-stream"
TEXT_TYPE = "text/plain; charset=utf-8"
JSON_TYPE = "application/json"
NUMPY_TYPE = "application/x-npy"
#: A scalar of numpy, written as an array without dimensions.
NUMPY_SCALAR_TYPE = "application/x-npy; kind=scalar"
ARROW_TYPE = "application/vnd.apache.arrow.stream"
WAV_TYPE = "audio/wav"
PICKLE_TYPE = "application/vnd.reprise.signed-pickle"

#: The shortest secret, in bytes.
MIN_SECRET_BYTES = 16
#: The deepest nesting of lists and dicts that is written as JSON, in levels.
MAX_JSON_DEPTH = 100
#: The most bytes of samples in a WAV file, whose sizes have 32 bits.
MAX_WAV_BYTES = (1 << 32) - 64
#: The highest rate of a WAV file, in samples a second: the bytes a second have 32 bits.
MAX_WAV_RATE = ((1 << 32) - 1) // 8

#: The first bytes of a signed pickle; the last one is its version.
_PICKLE_MAGIC = b"RPK1"
_SIGNATURE_BYTES = 32
#: Keeps these signatures apart from others that the app makes with the same secret.
_SIGNATURE_LABEL = b"reprise signed pickle 1\0"
#: Python 3.8 and later read it.
_PICKLE_PROTOCOL = 5
#: The key of the schema's metadata that says what the table was.
_ARROW_KIND = b"reprise.kind"
#: The key for the positions of columns of Python objects, which pandas 3 would read as text.
_ARROW_OBJECTS = b"reprise.objects"


class Unencodable(TypeError):
    """A codec cannot write a value so that it comes back as it was. The text says what to do."""


class Undecodable(ValueError):
    """Stored bytes are not what their content type says, or may not be read."""


class Encoded(NamedTuple):
    """A value as it is stored."""

    body: bytes | memoryview
    content_type: str


@runtime_checkable
class Codec(Protocol):
    """Writes and reads values.

    `context` is the place of the value, such as its namespace and key. A codec that signs binds
    the value to it; others leave it aside.
    """

    def encode(self, value: Any, *, context: bytes = b"") -> Encoded:
        """The value as bytes. Raises `Unencodable`, and nothing else, for what it cannot keep."""
        ...

    def decode(self, body: bytes, content_type: str, *, context: bytes = b"") -> Any:
        """The value again. Raises `Undecodable`, and nothing else, for bytes it cannot read."""
        ...


class AutoCodec:
    """Chooses the format by the type of the value.

    | value | content type |
    | --- | --- |
    | bytes, bytearray, memoryview (come back as bytes) | `application/octet-stream` |
    | str | `text/plain; charset=utf-8` |
    | None, bool, int of 64 bits, finite float, list, dict with text keys | `application/json` |
    | numpy array or scalar, without Python objects | `application/x-npy` |
    | pandas DataFrame, Series; pyarrow Table | `application/vnd.apache.arrow.stream` |
    | `Wav` | `audio/wav` |
    | all others, with a secret | `application/vnd.reprise.signed-pickle` |

    Reading goes by the content type; bytes of a type that is not in the table come back as they
    are. `pickle_secret` has at least `MIN_SECRET_BYTES` bytes, else `ValueError`. All processes
    of the app need the same one. Without it nothing is pickled and nothing is unpickled.
    """

    def __init__(self, pickle_secret: bytes | str | None = None) -> None:
        self._pickle = None if pickle_secret is None else SignedPickle(pickle_secret)

    def encode(self, value: Any, *, context: bytes = b"") -> Encoded:
        codec = _codec_of(value)
        problem: Unencodable | None = None
        if codec is not None:
            try:
                return codec.encode(value)
            except Unencodable as error:
                problem = error
        if self._pickle is not None:
            return self._pickle.encode(value, context=context)
        if problem is None:
            problem = Unencodable(f"A value of type {_type_name(value)} has no format.")
        raise Unencodable(
            f"{problem} Return data that JSON can keep, or bytes, text, an array or a dataframe; "
            "or pass a codec= that writes it; or set pickle_secret= so that it can be stored as "
            "a signed pickle."
        ) from problem.__cause__

    def decode(self, body: bytes, content_type: str, *, context: bytes = b"") -> Any:
        media, parameters = _parse(content_type)
        if media == PICKLE_TYPE:
            if self._pickle is None:
                raise Undecodable(
                    "The stored value is a pickle, which is only read when its signature is "
                    "right. Set pickle_secret= to the secret that it was written with."
                )
            return self._pickle.decode(body, content_type, context=context)
        codec = _READERS.get(media, _RAW)
        if codec is _TEXT and parameters.get("charset", "utf-8").lower() not in _UTF8:
            codec = _RAW
        return codec.decode(body, content_type)


class Raw:
    """Bytes as they are. bytearray and memoryview come back as bytes."""

    def __init__(self, content_type: str = BYTES_TYPE) -> None:
        self._content_type = content_type

    def encode(self, value: Any, *, context: bytes = b"") -> Encoded:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise Unencodable(f"Raw() takes bytes, not {_type_name(value)}.")
        # A copy, because the caller can change a bytearray before it is sent.
        return Encoded(bytes(value), self._content_type)

    def decode(self, body: bytes, content_type: str, *, context: bytes = b"") -> Any:
        return bytes(body)


class Text:
    """Text in UTF-8."""

    def encode(self, value: Any, *, context: bytes = b"") -> Encoded:
        if type(value) is not str:
            raise Unencodable(f"Text() takes str, not {_type_name(value)}.")
        try:
            return Encoded(value.encode("utf-8"), TEXT_TYPE)
        except UnicodeEncodeError as error:
            raise Unencodable(
                f"The text has half a surrogate pair at position {error.start}, "
                "which UTF-8 cannot keep."
            ) from error

    def decode(self, body: bytes, content_type: str, *, context: bytes = b"") -> Any:
        _expect("Text", content_type, "text/plain")
        try:
            return str(body, "utf-8")
        except UnicodeDecodeError as error:
            raise Undecodable(f"The stored text is not UTF-8 ({error}).") from error


class Json:
    """JSON, for values that come back exactly as they were.

    These are None, bool, int of 64 bits with sign, finite float, str, list, and dict whose keys
    are str, of exactly these types, nested up to `MAX_JSON_DEPTH` levels.
    """

    def encode(self, value: Any, *, context: bytes = b"") -> Encoded:
        problem = _json_problem(value, 0)
        if problem is not None:
            steps, reason = problem
            raise Unencodable(f"JSON cannot keep value{''.join(reversed(steps))}: {reason}.")
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return Encoded(text.encode("utf-8"), JSON_TYPE)
        except UnicodeEncodeError as error:
            raise Unencodable(
                "JSON cannot keep the value: a text in it has half a surrogate pair."
            ) from error

    def decode(self, body: bytes, content_type: str, *, context: bytes = b"") -> Any:
        _expect("Json", content_type, JSON_TYPE)
        try:
            return json.loads(str(body, "utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise Undecodable(f"The stored value is not JSON ({error}).") from error


class Numpy:
    """A numpy array or scalar in the `.npy` format, without Python objects.

    Dtype, shape and memory order come back. The array is writable. A `numpy.memmap` comes back as
    an array.
    """

    def encode(self, value: Any, *, context: bytes = b"") -> Encoded:
        numpy = sys.modules.get("numpy")
        scalar = numpy is not None and isinstance(value, numpy.generic)
        if numpy is None or not (scalar or type(value) in (numpy.ndarray, numpy.memmap)):
            raise Unencodable(f"Numpy() takes a numpy array, not {_type_name(value)}.")
        array = numpy.asarray(value)
        if array.dtype.hasobject or array.dtype.char == "T":
            raise Unencodable(
                f"An array of dtype {array.dtype} holds Python objects, which .npy cannot keep "
                "without pickle; convert it with astype()."
            )
        sink = io.BytesIO()
        try:
            numpy.save(sink, array, allow_pickle=False)
        except Exception as error:
            raise Unencodable(f"Numpy could not write the array ({error}).") from error
        return Encoded(sink.getbuffer(), NUMPY_SCALAR_TYPE if scalar else NUMPY_TYPE)

    def decode(self, body: bytes, content_type: str, *, context: bytes = b"") -> Any:
        parameters = _expect("Numpy", content_type, NUMPY_TYPE)
        try:
            npy: Any = import_module("numpy.lib.format")
        except ImportError as error:
            raise Undecodable("The stored value is an array: install numpy.") from error
        stream = io.BytesIO(body)
        try:
            array = npy.read_array(stream, allow_pickle=False)
        except Exception as error:
            # The header is a Python literal, so garbage in it fails in many ways.
            raise Undecodable(f"The stored value is not an .npy array ({error}).") from error
        if stream.read(1):
            raise Undecodable("The stored value has bytes after the end of its .npy array.")
        return array[()] if parameters.get("kind") == "scalar" else array


class Arrow:
    """A pandas DataFrame or Series, or a pyarrow Table, as an Arrow IPC stream.

    Needs the extra `reprise-client[arrow]`. Values, dtypes, index and column labels come back.
    A missing value in a column of Python objects comes back as None, and the `freq` of an index is
    left out. A column of Python objects other than text, bytes, decimals and dates is refused,
    because Arrow would change the objects.
    """

    def encode(self, value: Any, *, context: bytes = b"") -> Encoded:
        kind = _arrow_kind(value)
        if kind is None:
            raise Unencodable(
                f"Arrow() takes a pandas DataFrame or Series or a pyarrow Table, "
                f"not {_type_name(value)}."
            )
        try:
            pyarrow: Any = import_module("pyarrow")
        except ImportError as error:
            raise Unencodable(
                f"To store a {_type_name(value)}, install reprise-client[arrow]."
            ) from error
        try:
            table = value if kind == "table" else _to_arrow(value, kind, pyarrow)
            metadata = {**(table.schema.metadata or {}), _ARROW_KIND: kind.encode()}
            if kind != "table":
                metadata[_ARROW_OBJECTS] = json.dumps(_object_columns(value)).encode()
            table = table.replace_schema_metadata(metadata)
            sink = pyarrow.BufferOutputStream()
            with pyarrow.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
        except Unencodable:
            raise
        except Exception as error:
            # Arrow and pandas raise a dozen types for what they cannot convert.
            raise Unencodable(f"Arrow cannot keep the {_type_name(value)} ({error}).") from error
        return Encoded(memoryview(sink.getvalue()), ARROW_TYPE)

    def decode(self, body: bytes, content_type: str, *, context: bytes = b"") -> Any:
        _expect("Arrow", content_type, ARROW_TYPE)
        try:
            pyarrow: Any = import_module("pyarrow")
        except ImportError as error:
            raise Undecodable(
                "The stored value is a table: install reprise-client[arrow]."
            ) from error
        try:
            table = pyarrow.ipc.open_stream(pyarrow.py_buffer(body)).read_all()
            # The stream comes from elsewhere: offsets that point outside would be read as they are.
            table.validate(full=True)
            metadata = dict(table.schema.metadata or {})
            kind = metadata.pop(_ARROW_KIND, b"table").decode()
            objects = json.loads(metadata.pop(_ARROW_OBJECTS, b"[]"))
            table = table.replace_schema_metadata(metadata or None)
            return table if kind == "table" else _from_arrow(table, kind, objects)
        except Exception as error:
            raise Undecodable(f"The stored value is not an Arrow stream ({error}).") from error


@dataclass(frozen=True, eq=False)
class Wav:
    """Sound: `samples` of one channel as `(n,)` or of one or two as `(n, channels)`.

    `samples` is a numpy array: int16, or float32 or float64 (written with 32 bits) where full
    scale is -1 to 1. `rate` is in samples a second, from 1 to `MAX_WAV_RATE`.
    """

    samples: Any
    rate: int


class WavCodec:
    """A `Wav` as a WAV file: 16-bit PCM for int16, 32-bit float for float samples.

    It comes back with int16 or float32 samples, and with the shape `(n,)` for one channel.
    """

    def encode(self, value: Any, *, context: bytes = b"") -> Encoded:
        if not isinstance(value, Wav):
            raise Unencodable(f"WavCodec() takes a Wav, not {_type_name(value)}.")
        rate = value.rate
        if type(rate) is not int or not 1 <= rate <= MAX_WAV_RATE:
            raise Unencodable(f"The rate of a Wav is an int from 1 to {MAX_WAV_RATE}, not {rate}.")
        samples = value.samples
        shape: tuple[int, ...] = getattr(samples, "shape", ())
        channels = shape[1] if len(shape) == 2 else 1
        if len(shape) not in (1, 2) or channels not in (1, 2):
            raise Unencodable(
                "The samples of a Wav are a numpy array of shape (n,) or (n, 2), "
                f"not {_type_name(samples)} of shape {tuple(shape)}."
            )
        dtype = samples.dtype
        if dtype.kind == "i" and dtype.itemsize == 2:
            data = samples.astype("<i2").tobytes()
        elif dtype.kind == "f" and dtype.itemsize in (4, 8):
            data = samples.astype("<f4").tobytes()
        else:
            raise Unencodable(
                f"The samples of a Wav are int16, float32 or float64, not {dtype}; "
                "convert them with astype()."
            )
        if len(data) > MAX_WAV_BYTES:
            raise Unencodable(f"A Wav has at most {MAX_WAV_BYTES} bytes of samples.")
        write = _write_pcm if dtype.kind == "i" else _write_float
        return Encoded(write(data, channels, rate), WAV_TYPE)

    def decode(self, body: bytes, content_type: str, *, context: bytes = b"") -> Any:
        _expect("WavCodec", content_type, WAV_TYPE)
        try:
            numpy: Any = import_module("numpy")
        except ImportError as error:
            raise Undecodable("The stored value is sound: install numpy.") from error
        try:
            tag, channels, rate, bits, data = _read_wav(bytes(body))
        except (struct.error, KeyError) as error:
            raise Undecodable("The stored value is not a WAV file, or it is cut off.") from error
        dtype = {(1, 16): "<i2", (3, 32): "<f4"}.get((tag, bits))
        if dtype is None or channels < 1 or rate < 1 or len(data) % (channels * bits // 8):
            raise Undecodable(
                f"The stored sound has {channels} channels of {bits} bits in format {tag}; 16-bit "
                "PCM and 32-bit float are read. Get the file itself with codec=Raw()."
            )
        samples = numpy.frombuffer(data, dtype).astype(dtype[1:])
        return Wav(samples if channels == 1 else samples.reshape(-1, channels), rate)


class SignedPickle:
    """Any value that pickle can write, signed with a secret of the app.

    The signature (HMAC-SHA-256) covers the pickle and `context`, so a value is only read by who
    has the secret, and only in its place. `secret` has at least `MIN_SECRET_BYTES` bytes (text
    counts in UTF-8), else `ValueError`. It is not encrypted: the service can see the data.
    """

    def __init__(self, secret: bytes | str) -> None:
        if not isinstance(secret, (bytes, str)):
            raise TypeError(f"The secret is bytes or str, not {_type_name(secret)}.")
        raw = secret.encode("utf-8") if isinstance(secret, str) else secret
        if len(raw) < MIN_SECRET_BYTES:
            raise ValueError(
                f"The secret for signed pickles has {len(raw)} bytes and needs at least "
                f"{MIN_SECRET_BYTES}. Make one with secrets.token_hex(32)."
            )
        self._secret = raw

    def encode(self, value: Any, *, context: bytes = b"") -> Encoded:
        try:
            payload = pickle.dumps(value, protocol=_PICKLE_PROTOCOL)
        except Exception as error:
            # Classes raise what they like in `__reduce__` and `__getstate__`.
            raise Unencodable(
                f"A value of type {_type_name(value)} cannot be pickled ({error}). Return data "
                "that can be, or pass a codec= that writes it."
            ) from error
        signature = self._signature(payload, context)
        return Encoded(b"".join((_PICKLE_MAGIC, signature, payload)), PICKLE_TYPE)

    def decode(self, body: bytes, content_type: str, *, context: bytes = b"") -> Any:
        _expect("SignedPickle", content_type, PICKLE_TYPE)
        start = len(_PICKLE_MAGIC) + _SIGNATURE_BYTES
        view = memoryview(body)
        if len(view) <= start or bytes(view[: len(_PICKLE_MAGIC)]) != _PICKLE_MAGIC:
            raise Undecodable("The stored value is not a signed pickle of a known version.")
        payload = view[start:]
        given = bytes(view[len(_PICKLE_MAGIC) : start])
        if not hmac.compare_digest(given, self._signature(payload, context)):
            raise Undecodable(
                "The signature of the stored pickle is wrong: it was written with another secret "
                "or for another key, or it was changed. It was not read."
            )
        try:
            return pickle.loads(payload)
        except Exception as error:
            # Code of the app's classes runs here, and their modules may be gone.
            raise Undecodable(f"The stored pickle cannot be read ({error!r}).") from error

    def _signature(self, payload: bytes | memoryview, context: bytes) -> bytes:
        mac = hmac.new(self._secret, _SIGNATURE_LABEL, hashlib.sha256)
        # The length keeps apart where the context ends and the pickle starts.
        mac.update(struct.pack(">Q", len(context)))
        mac.update(context)
        mac.update(payload)
        return mac.digest()


_RAW, _TEXT, _JSON, _NUMPY, _ARROW, _WAV = Raw(), Text(), Json(), Numpy(), Arrow(), WavCodec()
_READERS: dict[str, Codec] = {
    "text/plain": _TEXT,
    JSON_TYPE: _JSON,
    NUMPY_TYPE: _NUMPY,
    ARROW_TYPE: _ARROW,
    WAV_TYPE: _WAV,
}
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_WRITERS: dict[type, Codec] = {
    bytes: _RAW,
    bytearray: _RAW,
    memoryview: _RAW,
    str: _TEXT,
    Wav: _WAV,
    **dict.fromkeys((type(None), bool, int, float, list, dict), _JSON),
}


def _codec_of(value: Any) -> Codec | None:
    codec = _WRITERS.get(type(value))
    if codec is not None:
        return codec
    numpy = sys.modules.get("numpy")
    if numpy is not None and (
        type(value) in (numpy.ndarray, numpy.memmap) or isinstance(value, numpy.generic)
    ):
        return _NUMPY
    return _ARROW if _arrow_kind(value) is not None else None


def _type_name(value: object) -> str:
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


def _parse(content_type: str) -> tuple[str, dict[str, str]]:
    media, *rest = content_type.split(";")
    pairs = (parameter.partition("=") for parameter in rest)
    parameters = {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
    return media.strip().lower(), parameters


def _expect(codec: str, content_type: str, expected: str) -> dict[str, str]:
    """The parameters of the content type, which must be the expected one."""
    media, parameters = _parse(content_type)
    if media != expected:
        raise Undecodable(
            f"The stored value is {content_type or 'without a content type'}, and {codec}() reads "
            f"{expected}. Read it with the codec that it was written with, or with AutoCodec()."
        )
    return parameters


def _json_problem(value: Any, depth: int) -> tuple[list[str], str] | None:
    """Why JSON would change the value, with the path to the place, innermost step first."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return None
    if kind is int:
        if -(1 << 63) <= value < 1 << 63:
            return None
        return [], "an int beyond 64 bits is changed by many readers"
    if kind is float:
        return None if math.isfinite(value) else ([], f"{value} is not a number of JSON")
    if kind is not list and kind is not dict:
        became = {"tuple": "a tuple comes back as a list"}.get(kind.__name__)
        return [], became or f"it has no {_type_name(value)}"
    if depth >= MAX_JSON_DEPTH:
        return [], f"it is nested deeper than {MAX_JSON_DEPTH} levels"
    for step, item in enumerate(value) if kind is list else value.items():
        if kind is dict and type(step) is not str:
            return [], f"the key {step!r:.60} comes back as text"
        problem = _json_problem(item, depth + 1)
        if problem is not None:
            problem[0].append(f"[{step!r:.60}]")
            return problem
    return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _arrow_kind(value: Any) -> str | None:
    """What the value is for Arrow. A named series and one without a name come back differently."""
    kind = type(value)
    pandas = sys.modules.get("pandas")
    if pandas is not None and kind is pandas.DataFrame:
        return "frame"
    if pandas is not None and kind is pandas.Series:
        return "series" if value.name is not None else "unnamed"
    pyarrow = sys.modules.get("pyarrow")
    return "table" if pyarrow is not None and kind is pyarrow.Table else None


def _to_arrow(value: Any, kind: str, pyarrow: Any) -> Any:
    pandas = sys.modules["pandas"]
    if kind == "frame":
        frame = value
    else:
        frame = value.to_frame() if kind == "series" else value.to_frame("value")
    levels = _levels(frame.index)
    columns = [frame.iloc[:, position] for position in range(frame.shape[1])]
    for column in (*columns, *levels):
        if column.dtype == object:
            content = pandas.api.types.infer_dtype(column, skipna=True)
            if content not in ("string", "bytes", "decimal", "date", "empty"):
                raise Unencodable(
                    f"Arrow cannot keep {column.name!r}, a column of Python objects ({content}); "
                    "give it a dtype with astype()."
                )
    labels = frame.columns
    if labels.nlevels == 1 and labels.inferred_type.startswith("mixed"):
        raise Unencodable(f"Arrow cannot keep {_type_name(value)} with labels of several types.")
    table = pyarrow.Table.from_pandas(frame)
    # What pandas keeps of labels and dtypes shows in an empty frame already.
    empty = _from_arrow(table.slice(0, 0), "frame", _object_columns(value))
    same = (
        empty.columns.equals(frame.columns)
        and empty.columns.dtype == frame.columns.dtype
        and list(empty.columns.names) == list(frame.columns.names)
        and list(empty.dtypes) == list(frame.dtypes)
        # A range is kept by its bounds, which do not fit the empty frame.
        and (
            isinstance(frame.index, pandas.RangeIndex)
            or list(empty.index.names) == list(frame.index.names)
        )
        and [level.dtype for level in _levels(empty.index)] == [level.dtype for level in levels]
    )
    if not same:
        raise Unencodable(
            f"Arrow cannot keep the labels or dtypes of the {_type_name(value)}; use text as "
            "column labels."
        )
    return table


def _object_columns(value: Any) -> list[int]:
    dtypes = [value.dtype] if value.ndim == 1 else list(value.dtypes)
    return [position for position, dtype in enumerate(dtypes) if dtype == object]


def _levels(index: Any) -> list[Any]:
    # Without names, because a level named 0 would be taken for the first.
    unnamed = index.set_names([None] * index.nlevels)
    return [unnamed.get_level_values(level) for level in range(index.nlevels)]


def _from_arrow(table: Any, kind: str, objects: list[int]) -> Any:
    frame = table.to_pandas()
    for position in objects:
        column = frame.iloc[:, position]
        if column.dtype != object:
            frame.isetitem(position, column.astype(object))
    if kind == "frame":
        return frame
    series = frame.iloc[:, 0]
    return series.rename(None) if kind == "unnamed" else series


def _write_pcm(data: bytes, channels: int, rate: int) -> bytes:
    import wave

    sink = io.BytesIO()
    with wave.open(sink, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(data)
    return sink.getvalue()


def _write_float(data: bytes, channels: int, rate: int) -> bytes:
    """A WAV file of format 3 (IEEE float), which the module `wave` does not write.

    Formats other than PCM have the size of their extension and a `fact` chunk with the number of
    frames: "Multimedia Data Standards Update", Microsoft, 1994.
    """
    frame = 4 * channels
    form = struct.pack("<HHIIHHH", 3, channels, rate, rate * frame, frame, 32, 0)
    chunks = b"".join((
        b"fmt ", struct.pack("<I", len(form)), form,
        b"fact", struct.pack("<II", 4, len(data) // frame),
        b"data", struct.pack("<I", len(data)), data,
    ))  # fmt: skip
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def _read_wav(body: bytes) -> tuple[int, int, int, int, memoryview]:
    """Format, channels, rate, bits and samples. Raises `struct.error` or `KeyError`."""
    if body[:4] != b"RIFF" or body[8:12] != b"WAVE":
        raise KeyError("RIFF")
    view = memoryview(body)
    chunks: dict[bytes, memoryview] = {}
    start = 12
    while start + 8 <= len(body) and b"data" not in chunks:
        name, size = struct.unpack_from("<4sI", body, start)
        if start + 8 + size > len(body):
            raise KeyError(name)
        chunks[name] = view[start + 8 : start + 8 + size]
        start += 8 + size + size % 2  # A chunk starts at an even place.
    form = chunks[b"fmt "]
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", form)
    if tag == 0xFFFE:  # Extensible: the format is the start of an identifier further on.
        (tag,) = struct.unpack_from("<H", form, 24)
    return tag, channels, rate, bits, chunks[b"data"]
