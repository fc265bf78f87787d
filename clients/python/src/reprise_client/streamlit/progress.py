"""Progress bars that follow long work: loops, and transfers of large values."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, TypeVar

import streamlit as st

from .. import limits

T = TypeVar("T")

#: Steps that the bar takes when the total is not known, until it is full and starts again.
_UNKNOWN_STEPS = 100


class ProgressBar:
    """A bar on the page, as a context manager; also what `on_progress=` of the client takes.

        with ProgressBar("Uploading") as bar:
            client.put_entry("songs", key, file, on_progress=bar)

    The page is updated `interval_seconds` apart at most, and once when the work ends, so that a
    fast loop is not slowed down. Use it in the thread that runs the script. The bar goes away at
    the end unless `keep` is true.
    """

    def __init__(
        self,
        text: str = "",
        total: float | None = None,
        *,
        keep: bool = False,
        interval_seconds: float = limits.STREAMLIT_PROGRESS_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`text` may contain `{done}`, `{total}` and `{percent}`."""
        if total is not None and total < 0:
            raise ValueError(f"total must be 0 or more, not {total}")
        self._text = text
        self._total = total
        self._keep = keep
        self._interval = interval_seconds
        self._now = now
        self._done: float = 0
        self._shown_at = float("-inf")
        self._bar: Any = None

    def __call__(self, done: float, total: float | None = None) -> None:
        """Shows how much is done, and of how much, if that is known."""
        self._done = done
        if total is not None:
            self._total = total
        if self._now() - self._shown_at >= self._interval:
            self._show()

    def advance(self, count: float = 1) -> None:
        """Shows that so much more is done."""
        self(self._done + count)

    def close(self) -> None:
        """Shows the last state, then removes the bar unless it is kept."""
        if self._bar is None and not self._keep:
            return
        self._show()
        if not self._keep and self._bar is not None:
            self._bar.empty()
            self._bar = None

    def _show(self) -> None:
        self._shown_at = self._now()
        fraction = self._fraction()
        text = _format(self._text, self._done, self._total, fraction)
        if self._bar is None:
            self._bar = st.progress(fraction, text)
        else:
            self._bar.progress(fraction, text)

    def _fraction(self) -> float:
        if self._total is None:
            # Moves, without claiming to know how far it is.
            return (self._done % _UNKNOWN_STEPS) / _UNKNOWN_STEPS
        if self._total == 0:
            return 1.0
        return min(max(self._done / self._total, 0.0), 1.0)

    def __enter__(self) -> ProgressBar:
        self._show()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        elif self._bar is not None and not self._keep:
            # Nothing of the page may hide the exception, or the request to stop or rerun.
            bar, self._bar = self._bar, None
            try:
                bar.empty()
            except Exception:
                pass


def track(
    iterable: Iterable[T],
    total: float | None = None,
    text: str = "",
    *,
    keep: bool = False,
    interval_seconds: float = limits.STREAMLIT_PROGRESS_SECONDS,
) -> Iterator[T]:
    """The items of `iterable`, with a bar that follows them.

    `total` is how many there are; None takes the length of the iterable if it has one. `text` may
    contain `{done}`, `{total}` and `{percent}`.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with ProgressBar(text, total, keep=keep, interval_seconds=interval_seconds) as bar:
        for item in iterable:
            yield item
            bar.advance()


def _format(text: str, done: float, total: float | None, fraction: float) -> str:
    if "{" not in text:
        return text
    values = {"done": f"{done:g}" if done < 1e6 else f"{done:.0f}",
              "total": "?" if total is None else f"{total:.0f}",
              "percent": "?" if total is None else f"{fraction:.0%}"}
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text
