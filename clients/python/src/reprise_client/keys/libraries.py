"""The rules of numpy, pandas, pyarrow, polars, Pillow, torch, and of classes with fields.

Nothing is imported here. The app imported what its values belong to.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from .content import (
    FIELDS, Failure, Sink, State, as_text, encode, encode_dict, encode_items, encode_part,
    item_step, record, register, text, type_name,
)  # fmt: skip
from .standard import encode_zone

#: Arrays that are not in row order are copied in pieces of about this size, in bytes.
COPY_BYTES = 1 << 23


# Numpy.


def _numpy_dtype(dtype: Any, out: Sink) -> None:
    if dtype.names is not None:
        out.write(b"{%d:" % len(dtype.names))
        for name in dtype.names:
            out.write(text(name))
            _numpy_dtype(dtype.fields[name][0], out)
    elif dtype.subdtype is not None:
        out.write(b"(" + text(repr(dtype.shape)))
        _numpy_dtype(dtype.base, out)
    else:
        out.write(text(dtype.str if dtype.char != "T" else str(dtype)))


def _numpy_dtype_value(value: Any, out: Sink, state: State) -> None:
    out.write(b"\x01")
    _numpy_dtype(value, out)


def _numpy_scalar(value: Any, out: Sink, state: State) -> None:
    out.write(b"\x02")
    _numpy_array(sys.modules["numpy"].asarray(value), out, state)


def _numpy_array(value: Any, out: Sink, state: State) -> None:
    numpy = sys.modules["numpy"]
    out.write(b"\x03")
    if type(value) not in (numpy.ndarray, numpy.memmap):
        out.write(b"<" + text(type_name(type(value))))
        if isinstance(value, numpy.ma.MaskedArray):
            # What is under the mask has no meaning.
            _numpy_array(numpy.ma.getmaskarray(value).view(numpy.ndarray), out, state)
            _numpy_array(value.filled().view(numpy.ndarray), out, state)
            return
        encode_dict(value, out, state)
    array = value.view(numpy.ndarray)
    out.write(text(repr(array.shape)))
    _numpy_dtype(array.dtype, out)
    _numpy_content(array, out, state)


def _numpy_content(array: Any, out: Sink, state: State) -> None:
    numpy = sys.modules["numpy"]
    dtype = array.dtype
    if dtype.names is not None:
        # Field by field: the bytes between fields have no meaning.
        for name in dtype.names:
            _numpy_content(array[name], out, state)
    elif dtype.hasobject or dtype.char == "T":
        state.count(array, array.size)
        encode_items(array.ravel(order="C").tolist(), out, state)
    elif array.nbytes == 0:
        return
    elif dtype.char in "gG" and numpy.finfo(dtype).nmant == 63:
        # An 80-bit number in 16 bytes: the last 6 have no meaning.
        flat = numpy.ascontiguousarray(array).reshape(-1)
        raw = flat.view(numpy.uint8).reshape(-1, numpy.dtype(numpy.longdouble).itemsize)
        out.buffer(memoryview(numpy.ascontiguousarray(raw[:, :10]).reshape(-1)))
    elif array.flags.c_contiguous:
        out.buffer(memoryview(array.reshape(-1).view(numpy.uint8)))
    else:
        step = max(1, COPY_BYTES // max(1, array.nbytes // len(array)))
        for start in range(0, len(array), step):
            piece = numpy.ascontiguousarray(array[start : start + step])
            out.buffer(memoryview(piece.reshape(-1).view(numpy.uint8)))


def _numpy_random_state(value: Any, out: Sink, state: State) -> None:
    out.write(b"\x05")
    encode_part(".get_state()", value.get_state(legacy=False), out, state)


# Pandas.


def _pandas_values(values: Any, out: Sink, state: State) -> None:
    """Writes the values of a column or an index: its dtype and its content."""
    dtype = values.dtype
    out.write(b"\x10" + text(str(dtype)) + b"%d:" % len(values))
    content: Any
    if hasattr(dtype, "categories"):
        out.write(b"T" if dtype.ordered else b"F")
        _pandas_index(dtype.categories, out, state)
        content = values.array.codes
    elif type(dtype).__module__.partition(".")[0] == "numpy":
        content = values.to_numpy()
    elif hasattr(dtype, "tz"):
        # Its name is that of the zone; moments are compared in UTC.
        content = values.array.tz_convert("UTC").tz_localize(None).to_numpy()
    elif hasattr(dtype, "numpy_dtype") and hasattr(values.array, "_mask"):
        encode(values.array.isna(), out, state)
        content = values.array.to_numpy(dtype=dtype.numpy_dtype, na_value=0)
    else:
        content = values.astype(object).tolist()
    encode(content, out, state)


def _pandas_index(value: Any, out: Sink, state: State) -> None:
    out.write(b"\x11")
    names = list(value.names)
    encode_part(".names", names, out, state)
    if len(names) > 1 or hasattr(value, "levels"):
        out.write(b"M%d:" % len(names))
        # Without names, because a level named 0 would be taken for the first.
        unnamed = value.set_names([None] * len(names))
        for level in range(len(names)):
            _pandas_values(unnamed.get_level_values(level), out, state)
    elif type(value).__name__ == "RangeIndex":
        out.write(b"R")
        encode((value.start, value.stop, value.step), out, state)
    else:
        out.write(b"I")
        encode_part(".index", value, out, state, _pandas_values)


def _pandas_series(value: Any, out: Sink, state: State) -> None:
    out.write(b"\x12" + text(type(value).__name__))
    encode_part(".name", value.name, out, state)
    _pandas_index(value.index, out, state)
    _pandas_values(value, out, state)


def _pandas_frame(value: Any, out: Sink, state: State) -> None:
    out.write(b"\x13" + text(type(value).__name__))
    _pandas_index(value.columns, out, state)
    _pandas_index(value.index, out, state)
    for position, name in enumerate(value.columns):
        encode_part(item_step(name), value.iloc[:, position], out, state, _pandas_values)


def _pandas_moment(value: Any, out: Sink, state: State) -> None:
    """Timestamp, Timedelta and NaT: nanoseconds count, which the datetime rules do not see."""
    out.write(b"\x14" + text(type(value).__name__) + text(getattr(value, "unit", "")))
    out.write(text(value.isoformat()))
    encode_zone(getattr(value, "tzinfo", None), out, state, value)


# Arrow and polars.


def _arrow_column(column: Any, out: Sink, state: State) -> None:
    """Writes a column of Arrow. How it is cut into chunks does not count."""
    types = sys.modules["pyarrow"].types
    out.write(b"\x20" + text(str(column.type)) + b"%d:" % len(column))
    if types.is_dictionary(column.type):
        _arrow_column(column.cast(column.type.value_type), out, state)
        return
    width = getattr(column.type, "bit_width", 0) if types.is_primitive(column.type) else 0
    if width not in (8, 16, 32, 64):
        state.count(column, len(column))
        encode_items(column.to_pylist(), out, state)
        return
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    for chunk in chunks:
        _arrow_buffer(chunk.is_valid().cast("uint8"), 1, out)
    for chunk in chunks:
        # A null's bytes have no meaning, so they become zero.
        _arrow_buffer(chunk.view(f"int{width}").fill_null(0), width // 8, out)


def _arrow_buffer(array: Any, size: int, out: Sink) -> None:
    data = memoryview(array.buffers()[1] or b"").cast("B")
    out.buffer(data[array.offset * size : (array.offset + len(array)) * size])


def _arrow_table(value: Any, out: Sink, state: State) -> None:
    out.write(b"\x21" + text(type(value).__name__) + b"%d:" % value.num_columns)
    _arrow_schema(value.schema, out, state)
    for name, column in zip(value.schema.names, value.columns):
        encode_part(item_step(name), column, out, state, _arrow_column)


def _arrow_schema(value: Any, out: Sink, state: State) -> None:
    out.write(b"\x22" + text(value.to_string(show_field_metadata=False)))
    encode(dict(value.metadata or {}), out, state)


def _polars_series(value: Any, out: Sink, state: State) -> None:
    out.write(b"\x30" + text(str(value.dtype)))
    encode_part(".name", value.name, out, state)
    encode_part(".to_list()", value.to_list(), out, state)


def _polars_frame(value: Any, out: Sink, state: State) -> None:
    out.write(b"\x31%d:" % value.width)
    for column in value.get_columns():
        _polars_series(column, out, state)


def _lazy_frame(value: Any, out: Sink, state: State) -> NoReturn:
    raise Failure(value, "it is a query that did not run; pass the result of collect()")


# Images and tensors.


def _image(value: Any, out: Sink, state: State) -> None:
    out.write(b"\x40" + text(value.mode) + text(repr(value.size)))
    data = value.tobytes()
    # Read after `tobytes`, which loads a lazily opened file.
    encode(value.getpalette() if value.mode in ("P", "PA") else None, out, state)
    encode(value.info.get("transparency"), out, state)
    out.write(b"%d:" % len(data))
    out.buffer(data)


def _tensor(value: Any, out: Sink, state: State) -> None:
    """A tensor of torch. Its device and its gradient do not count."""
    out.write(b"\x41" + text(str(value.dtype)) + text(repr(tuple(value.shape))))
    plain = value.detach().cpu()
    try:
        array = plain.numpy()
    except TypeError:
        # Numpy has no such dtype (bfloat16), so the bytes stand for it.
        array = plain.contiguous().reshape(-1).view(sys.modules["torch"].uint8).numpy()
    encode(array, out, state)


# attrs, msgspec, Pydantic, and its version 1.
FIELDS["__attrs_attrs__"] = lambda kind: [field.name for field in kind.__attrs_attrs__]
FIELDS["__struct_fields__"] = lambda kind: kind.__struct_fields__
FIELDS["__pydantic_validator__"] = lambda kind: kind.model_fields
FIELDS["__fields_set__"] = lambda kind: kind.__fields__

register({
    "numpy.random._generator.Generator": record(b"\x04", "bit_generator.state"),
    "numpy.random.mtrand.RandomState": _numpy_random_state,
    "numpy.random.bit_generator.BitGenerator": record(b"\x61", "state"),
    "numpy.random.bit_generator.SeedSequence": record(b"\x62", "state"),
    "pandas._libs.missing.NAType pandas.api.typing.NAType": record(b"1", named=True),
    "pandas.Interval pandas._libs.interval.Interval": record(
        b"\x63", "left", "right", "closed"
    ),
    "pandas._libs.tslibs.period._Period": record(b"\x64", "ordinal", "freqstr"),
    "pyarrow.lib.Schema": _arrow_schema,
    "pyarrow.lib.DataType": as_text(b"\x65"),
    "polars.dataframe.frame.DataFrame": _polars_frame,
    "polars.series.series.Series": _polars_series,
    "polars.lazyframe.frame.LazyFrame": _lazy_frame,
})  # fmt: skip
# Pandas gave its classes shorter names in version 3.
register({
    "numpy.generic": _numpy_scalar,
    "numpy.ndarray": _numpy_array,
    "numpy.dtype": _numpy_dtype_value,
    "pandas.DataFrame pandas.core.frame.DataFrame": _pandas_frame,
    "pandas.Series pandas.core.series.Series": _pandas_series,
    "pandas.Index pandas.core.indexes.base.Index": _pandas_index,
    "pandas._libs.tslibs.timestamps._Timestamp": _pandas_moment,
    "pandas._libs.tslibs.timedeltas._Timedelta": _pandas_moment,
    "pandas._libs.tslibs.nattype._NaT": _pandas_moment,
    "pyarrow.lib.Table pyarrow.lib.RecordBatch": _arrow_table,
    "pyarrow.lib.Array pyarrow.lib.ChunkedArray": _arrow_column,
    "PIL.Image.Image": _image,
    "torch.Tensor": _tensor,
}, families=True)  # fmt: skip
