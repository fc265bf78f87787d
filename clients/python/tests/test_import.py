"""Importing costs nothing, and type checkers see what the methods return."""

from __future__ import annotations

import importlib.resources
import re
import subprocess
import sys
from pathlib import Path

import pytest

import reprise_client


def run(code: str, *flags: str) -> str:
    result = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True,
                            timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


#: Notes what is opened from now on, but for the modules themselves.
WATCH = """
import sys, os, threading
noted = []
def note(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.fork", "_thread.start")):
        noted.append((event, arguments))
    elif event == "open" and not str(arguments[0]).endswith((".py", ".pyc", ".so", ".pth", ".zip")):
        noted.append((event, arguments))
sys.addaudithook(note)
"""

#: Modules that are too heavy for an import that may never be used.
HEAVY = ("asyncio", "ssl", "socket", "json", "http.client", "urllib.request", "httptools",
         "threading", "pickle", "numpy", "pandas", "streamlit", "pyarrow", "requests",
         "dataclasses",
         "inspect", "subprocess", "logging")


def test_importing_opens_nothing_and_takes_little() -> None:
    out = run(f"""
import sys, typing, importlib, collections.abc
before = set(sys.modules)
{WATCH.replace(", threading", "")}
import reprise_client
assert noted == [], noted
print(*sorted(set(sys.modules) - before))
""")
    taken = set(out.split())
    assert not {name for name in taken if name.split(".")[0] != "reprise_client"
                and name in HEAVY}, taken
    assert {name for name in taken if name.startswith("reprise_client")} == {
        "reprise_client", "reprise_client._version"}


@pytest.mark.parametrize("module", ["client", "operations", "errors", "models", "transfers",
                                    "http.sync", "http.aio", "limits"])
def test_importing_a_module_opens_nothing(module: str) -> None:
    run(f"{WATCH}\nimport reprise_client.{module}\nassert noted == [], noted\n"
        "assert threading.active_count() == 1\n"
        "assert not {'numpy', 'pandas', 'streamlit', 'pyarrow', 'requests'} & set(sys.modules)")


def test_making_a_client_opens_nothing() -> None:
    run(f"""{WATCH}
from reprise_client import Client, AsyncClient
import platform
noted.clear()
Client("https://reprise.example.com", token="t")
AsyncClient("unix:/run/reprise.sock")
assert noted == [], noted
assert threading.active_count() == 1
""")


def test_everything_that_is_named_is_there() -> None:
    run("""
from reprise_client import *
import reprise_client
assert set(reprise_client.__all__) == {"__version__", *reprise_client._HOME}
for name in reprise_client.__all__:
    assert getattr(reprise_client, name) is globals()[name], name
assert set(reprise_client.__all__) <= set(dir(reprise_client))
assert issubclass(NotFound, ProblemError) and issubclass(TimedOut, TransportError)
try:
    reprise_client.absent
except AttributeError as error:
    assert "absent" in str(error)
else:
    raise AssertionError
""")


def test_the_package_is_typed() -> None:
    assert importlib.resources.files(reprise_client).joinpath("py.typed").is_file()


SAMPLE = '''
from __future__ import annotations

import asyncio
import io

from reprise_client import *
from reprise_client import AsyncCache, AsyncClient, Cache, Client, NotFound
from reprise_client.models import HistoryItem, Page, Metadata, SQLRows
from reprise_client.operations import Entry, Stored


def blocking(client: Client) -> bytes:
    reveal_type(client.get_entry("a", "b"))
    reveal_type(client.list_entries("a", limit=5))
    reveal_type(client.run_sql("SELECT 1"))
    reveal_type(client.head_entry("a", "b"))
    stored: Stored = client.put_entry("a", "b", io.BytesIO(b""), ttl_seconds=None)
    page: Page[Metadata] = client.list_entries("a")
    for item in client.stream_history("s"):
        reveal_type(item)
    for metadata in client.items(client.list_entries, "a"):
        reveal_type(metadata)
    try:
        entry: Entry = client.get_entry("a", "b", byte_range=(0, None))
        return entry.body
    except NotFound as miss:
        print(miss.problem["reason"], stored.etag, page.next_cursor)
        return b""


async def waiting(client: AsyncClient) -> SQLRows:
    call = reveal_type(client.get_entry("a", "b"))
    entry = await call
    reveal_type(entry)
    await asyncio.gather(client.touch_session("s"), client.get_state("s"))
    async for metadata in client.items(client.list_entries, "a"):
        reveal_type(metadata)
    async with client:
        return await client.run_sql("SELECT 1")


def wrong(client: Client, other: AsyncClient) -> None:
    client.get_entry("a")  # type: ignore[call-arg]
    client.get_entry("a", 1)  # type: ignore[arg-type]
    client.get_entry("a", "b", tll=1)  # type: ignore[call-arg]
    client.set_policy("a", eviction="random")  # type: ignore[arg-type]
    Client("http://a", tokn="x")  # type: ignore[call-arg]
    other.get_entry("a", "b").body  # type: ignore[attr-defined]
    client.cache("q", tll=5)  # type: ignore[call-arg]
    client.session("a", default={})  # type: ignore[call-arg]
    client.monitor(varient="x")  # type: ignore[call-arg]
    other.cache("q", tll=5)  # type: ignore[call-arg]
    other.session("a", default={})  # type: ignore[call-arg]
    other.monitor(varient="x")  # type: ignore[call-arg]
    Cache(client, "q", tll=5)  # type: ignore[call-arg]
    AsyncCache(other, "q", tll=5)  # type: ignore[call-arg]
'''

REVEALED = [
    r"reprise_client\.operations\.Entry",
    r"reprise_client\.models\.Page\[TypedDict\(.*'hit_count': int",
    r"TypedDict\(.*'columns': list\[str\]",
    r"reprise_client\.http\.message\.Headers",
    r"TypedDict\(.*'session_id': str",
    r"TypedDict\(.*'hit_count': int",
    r"typing\.Coroutine\[Any, Any, reprise_client\.operations\.Entry\]",
    r"reprise_client\.operations\.Entry",
    r"TypedDict\(.*'hit_count': int",
]


def test_type_checkers_see_both_clients(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    path = tmp_path / "sample.py"
    path.write_text(SAMPLE)
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir",
         str(tmp_path / "cache"), "--python-version", "3.10", str(path)],
        capture_output=True, text=True, timeout=300, cwd=tmp_path)
    notes = [line.split('Revealed type is "')[1] for line in result.stdout.splitlines()
             if "Revealed type" in line]
    assert result.returncode == 0, result.stdout
    assert len(notes) == len(REVEALED)
    for note, expected in zip(notes, REVEALED):
        assert re.match(expected, note), (note, expected)
