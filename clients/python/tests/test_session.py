"""`Session`: a rerun in two calls, changes inside values, two tabs, history."""

from __future__ import annotations

import copy
import csv
import datetime
import enum
import io
import json
import logging
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprise_client import (
    AsyncClient,
    Client,
    InvalidRequest,
    NotFound,
    Session,
    StateConflict,
)
from reprise_client.limits import MAX_STATE_VALUE_BYTES
from reprise_client.session_state import StatePatch, TrackedState, checked_json, merge_patch


def attempts(client: Client) -> int:
    return int(client.statistics()["attempts"])


def state_of(client: Client, name: str) -> dict[str, Any]:
    return client.get_state(name)["state"]


# A rerun.


def test_a_rerun_costs_one_call_to_open_and_one_to_save(client: Client, name: str) -> None:
    session = client.session(name, defaults={"volume": 0.8, "tracks": []})
    assert attempts(client) == 0
    assert session["volume"] == 0.8
    assert session["tracks"] == [] and "volume" in session and len(session) == 2
    assert list(session.history) == []
    assert attempts(client) == 1

    session["volume"] = 0.5
    session["tracks"].append("intro")
    item = session.history.append({"prompt": "calm"}, kind="generation")
    session.history.rate(item["id"], 5, "fine")
    assert session.save() is True
    assert attempts(client) == 2
    assert session.save() is True  # Nothing changed.
    assert attempts(client) == 2

    again = client.session(name)
    assert dict(again) == {"volume": 0.5, "tracks": ["intro"]}
    assert again.history[0]["data"] == {"prompt": "calm", "rating": 5, "comment": "fine"}
    assert again.history[0]["kind"] == "generation"
    assert attempts(client) == 3


def test_only_what_changed_is_sent(client: Client, name: str) -> None:
    with client.session(name, defaults={"a": 1, "b": {"x": [1]}, "c": "text"}) as state:
        state["a"] = 2
    session = client.session(name)
    assert session["b"] == {"x": [1]} and session["c"] == "text"
    assert not session.is_changed
    session["a"] = 2  # The same value.
    assert not session.is_changed
    session["a"] = 2.0  # Another value for JSON.
    session["b"]["x"].append(2)
    assert session.changes() == {
        "set": {"a": 2.0, "b": {"x": [1, 2]}}, "set_default": {}, "delete": [],
        "delete_prefixes": [], "history": 0,
    }
    session.discard()
    assert dict(session) == {"a": 2, "b": {"x": [1]}, "c": "text"} and not session.is_changed


def test_values_that_are_not_read_are_not_compared() -> None:
    class Untouchable(dict[str, Any]):
        def items(self) -> Any:
            raise AssertionError("it was read")

    state = TrackedState({"large": Untouchable(a=1), "small": 1})
    state.set("small", 2)
    assert state.patch().set == {"small": b"2"}


def test_values_that_are_watched_stay_watched_after_a_save(client: Client, name: str) -> None:
    session = client.session(name, defaults={"tracks": []})
    tracks = session["tracks"]
    tracks.append(1)
    session.save()
    assert not session.is_changed
    tracks.append(2)
    assert session.is_changed
    session.save()
    assert state_of(client, name) == {"tracks": [1, 2]}


def test_the_order_of_keys_belongs_to_a_value(client: Client, name: str) -> None:
    with client.session(name, defaults={"o": {"a": 1, "b": 2}}) as state:
        state["o"]["a"] = state["o"].pop("a")
    assert list(client.session(name)["o"]) == ["b", "a"]


def test_mapping_methods(client: Client, name: str) -> None:
    session = client.session(name, defaults={"a": 1, "b": 2, "temp_x": 3, "temp_y": 4})
    assert session.pop("a") == 1 and session.get("a") is None and session.pop("a", 9) == 9
    session.update(c=[1], d=None)
    assert session.setdefault("c", []) == [1]
    session.setdefault("e", []).append(1)
    with pytest.raises(KeyError):
        del session["a"]
    with pytest.raises(KeyError):
        session["a"]
    assert sorted(session.delete_prefix("temp_", keep=["temp_y"])) == ["temp_x"]
    session.save()
    expected = {"b": 2, "c": [1], "d": None, "e": [1], "temp_y": 4}
    assert state_of(client, name) == expected == session.copy() == dict(session)
    session.clear()
    session.save()
    assert state_of(client, name) == {} and len(session) == 0


def test_a_deletion_by_prefix_takes_keys_that_were_not_seen(client: Client, name: str) -> None:
    session = client.session(name, defaults={"temp_a": 1})
    assert session["temp_a"] == 1
    client.patch_state(name, set={"temp_other": 1, "other": 1})
    session.delete_prefix("temp_")
    session["temp_a"] = 1  # Set again after it, to what it was.
    session.save()
    assert state_of(client, name) == {"temp_a": 1, "other": 1}


def test_defaults_are_set_only_where_absent(client: Client, name: str) -> None:
    shared: dict[str, Any] = {"list": []}
    first, second = client.session(name), client.session(name)
    assert len(first) == len(second) == 0
    assert first.initialize_defaults({"k": 1, **shared}) == {"k", "list"}
    assert first.initialize_defaults({"k": 2}) == set()
    first["list"].append("mine")
    assert shared == {"list": []}
    second["k"] = 3
    second.save()
    first.save()
    assert state_of(client, name) == {"k": 3, "list": ["mine"]}
    assert first["k"] == 1 and first.refresh() and first["k"] == 3


def test_an_id_is_made_here(client: Client) -> None:
    session = client.session()
    assert len(session.id) == 32 and int(session.id, 16) >= 0
    assert attempts(client) == 0
    session["a"] = 1
    session.save()
    assert state_of(client, session.id) == {"a": 1}
    assert client.session().id != session.id


def test_options_of_a_new_session(client: Client, name: str) -> None:
    client.set_template(name, {"from_template": 1})
    session = client.session(name, template=name, ttl=datetime.timedelta(minutes=5),
                             metadata={"who": "me"}, max_history_items=2)
    assert session["from_template"] == 1
    stored = client.get_session(name)
    assert (stored["ttl_seconds"], stored["metadata"], stored["template"]) == (
        300, {"who": "me"}, name)
    for number in range(4):
        session.history.append(number)
    session.save()
    assert [item["data"] for item in session.history] == [3, 2]
    assert client.session(client.session().id, ttl=None)._opening_body() == b'{"ttl_seconds":null}'
    with pytest.raises(InvalidRequest, match="not a session template"):
        client.session(template="absent-" + name)["a"]
    for wrong in ({"ttl": 0}, {"template": "a b"}, {"session_id": "a/b"}, {"session_id": ".."},
                  {"defaults": {"": 1}}):
        with pytest.raises(ValueError):
            client.session(**wrong)  # type: ignore[arg-type]


# The end of a block.


def test_a_block_that_raises_is_saved_too(client: Client, name: str) -> None:
    class Rerun(BaseException):
        """As front ends end a rerun."""

    with pytest.raises(Rerun), client.session(name) as state:
        state["a"] = 1
        raise Rerun
    assert state_of(client, name) == {"a": 1}


def test_an_error_of_the_save_does_not_hide_that_of_the_block(
    client: Client, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError), client.session(name) as state:
        state["a"] = []
        state["a"].append({1})
        raise ZeroDivisionError
    assert "could not be saved after ZeroDivisionError" in caplog.text
    with pytest.raises(TypeError, match="set"), client.session(name) as state:
        state["a"] = []
        state["a"].append({1})


# What can be stored.


class Colour(enum.IntEnum):
    RED = 1


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(("value", "error", "text"), [
    ((1, 2), TypeError, r"state\['k'\] is a tuple, .* list\(value\)"),
    ({"rate": numpy.float64(1)}, TypeError,
     r"state\['k'\]\['rate'\] is a numpy.float64, .* value.item\(\)"),
    ([{"a": numpy.zeros(2)}], TypeError, r"state\['k'\]\[0\]\['a'\] is a numpy.ndarray, .*tolist"),
    (datetime.datetime(2026, 1, 1), TypeError, "isoformat"),
    (b"bytes", TypeError, "cache"),
    ({1: 2}, TypeError, r"state\['k'\] has the key 1, an int; .* use '1'"),
    (defaultdict(list), TypeError, r"a collections.defaultdict, .* dict\(value\)"),
    (OrderedDict(), TypeError, r"dict\(value\)"),
    (Colour.RED, TypeError, r"Colour, .* value\.value"),
    (object(), TypeError, "what JSON has"),
    (float("nan"), ValueError, r"state\['k'\] is nan"),
    ([float("inf")], ValueError, r"state\['k'\]\[0\] is inf"),
    ("half \ud800", ValueError, "surrogate"),
    (CYCLE, ValueError, "contains itself"),
    ("x" * MAX_STATE_VALUE_BYTES, ValueError, "262,146 bytes"),
])
def test_what_would_not_come_back_is_refused(
    client: Client, name: str, value: Any, error: type[Exception], text: str
) -> None:
    session = client.session(name, defaults={"n": []})
    with pytest.raises(error, match=text):
        session["k"] = value
    assert "k" not in session
    session["n"].append(value)
    session["fine"] = 1
    with pytest.raises(error, match=r"state\['n'\]"):
        session.save()
    session["n"].pop()
    session.save()
    assert state_of(client, name) == {"n": [], "fine": 1}


@pytest.mark.parametrize("key", ["", "x" * 513, "é" * 257, "a\nb", "\x7f", "\ud800"])
def test_keys_are_checked_when_they_are_assigned(client: Client, name: str, key: str) -> None:
    session = client.session(name)
    with pytest.raises(ValueError):
        session[key] = 1
    with pytest.raises(TypeError):
        session[1] = 1  # type: ignore[index]


def test_extreme_keys_and_values_come_back(client: Client, name: str) -> None:
    deep: Any = "bottom"
    for _ in range(100):
        deep = [deep]
    values = {"é" * 256: "\0\u2028😀", "a/b%2F ?#": [2**70, -0.0, 1e300, 5e-324], "deep": deep,
              "long": "x" * (MAX_STATE_VALUE_BYTES - 2), "": {}} | {"e": {"": [None, True]}}
    del values[""]
    with client.session(name) as state:
        state.update(values)
        state.history.append(deep)
    again = client.session(name)
    assert dict(again) == values
    assert str(again["a/b%2F ?#"]) == str(values["a/b%2F ?#"])
    assert again.history[0]["data"] == deep


def test_too_many_keys_are_refused_before_anything_is_sent(client: Client, name: str) -> None:
    session = client.session(name)
    session.update({f"k{number}": number for number in range(1001)})
    with pytest.raises(ValueError, match="1,001 keys"):
        session.save()
    del session["k0"]
    assert session.save()
    assert len(state_of(client, name)) == 1000


# Two tabs.


def test_two_tabs_that_change_different_keys(client: Client, name: str) -> None:
    first = client.session(name, defaults={"a": 1, "b": 1, "c": 1})
    second = client.session(name)
    assert dict(first) == dict(second)
    first["a"] = 2
    second["b"] = 2
    del second["c"]
    first.save()
    second.save()
    assert state_of(client, name) == {"a": 2, "b": 2}
    first["a"] = 3  # The second tab sees it after a refresh, and keeps what it has not saved.
    first.save()
    second["b"] = 5
    assert second["a"] == 1
    second.refresh()
    assert dict(second) == {"a": 3, "b": 5} and second.changes()["set"] == {"b": 5}


def test_two_tabs_that_change_the_same_key(client: Client, name: str) -> None:
    first, second = client.session(name, defaults={"a": 1}), client.session(name)
    assert first["a"] == second["a"] == 1
    first["a"], second["a"] = 2, 3
    first.save()
    second.save()
    assert state_of(client, name) == {"a": 3}


def test_a_conflict_is_merged(client: Client, name: str) -> None:
    calls = []

    def merge(
        base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]
    ) -> dict[str, Any]:
        calls.append((base, mine, theirs))
        if len(calls) == 1:  # Another change, between this and the next attempt.
            client.patch_state(name, set={"n": 111})
        return {**theirs, "n": theirs["n"] + mine["n"] - base["n"]}

    session = client.session(name, defaults={"n": 0, "gone": 1}, merge=merge)
    session["n"] += 1
    session.history.append("once")
    client.patch_state(name, set={"n": 100, "other": [1]}, delete=["gone"])
    assert session.save() is True
    assert calls == [({"n": 0, "gone": 1}, {"n": 1, "gone": 1}, {"n": 100, "other": [1]}),
                     ({"n": 100, "other": [1]}, {"n": 101, "other": [1]},
                      {"n": 111, "other": [1]})]
    assert state_of(client, name) == {"n": 112, "other": [1]} == dict(session)
    assert len(client.list_history(name).items) == 1
    session["n"] += 1
    session.save()
    assert state_of(client, name)["n"] == 113 and len(calls) == 2


def test_a_conflict_without_merge(client: Client, name: str) -> None:
    session = client.session(name, defaults={"n": 0}, if_match=True, strict=True)
    session["n"] = 1
    client.patch_state(name, set={"n": 5, "o": 6})
    with pytest.raises(StateConflict, match=name):
        session.save()
    assert state_of(client, name) == {"n": 5, "o": 6} and session.is_changed
    session.refresh()
    assert session["n"] == 1 and session["o"] == 6
    session.save()
    assert state_of(client, name) == {"n": 1, "o": 6}

    session = client.session(name, if_match=True)
    session["n"] = 2
    client.patch_state(name, set={"n": 7, "o": 7})
    assert session.save()
    assert state_of(client, name) == {"n": 2, "o": 7}


def test_a_merge_that_never_ends_is_given_up(client: Client, name: str) -> None:
    def merge(base: Any, mine: Any, theirs: Any) -> Any:
        client.patch_state(name, set={"n": theirs["n"] + 1})
        return {**theirs, "mine": True}

    session = client.session(name, defaults={"n": 0}, merge=merge, strict=True)
    session["mine"] = True
    client.patch_state(name, set={"n": 1})
    with pytest.raises(StateConflict, match="each time"):
        session.save()


# A session that is gone.


def test_a_session_that_is_gone_is_opened_again_with_all_that_is_known(
    client: Client, name: str
) -> None:
    session = client.session(name, defaults={"a": 1, "b": [1]}, ttl=500, metadata={"m": 1})
    session.history.append("old", now=True)
    assert session["a"] == 1
    client.remove_session(name)
    session["a"] = 2
    session.history.append("new")
    before = attempts(client)
    assert session.save()
    assert attempts(client) == before + 2
    assert state_of(client, name) == {"a": 2, "b": [1]}
    assert [item["data"] for item in client.list_history(name).items] == ["new"]
    stored = client.get_session(name)
    assert (stored["ttl_seconds"], stored["metadata"]) == (500, {"m": 1})

    client.remove_session(name)
    assert session.debounce("go", 60) is True and session.debounce("go", 60) is False
    assert state_of(client, name) == {"a": 2, "b": [1]}
    client.remove_session(name)
    assert session.touch()
    assert state_of(client, name) == {"a": 2, "b": [1]}


def test_a_large_session_that_is_gone(client: Client, name: str) -> None:
    session = client.session(name)
    session.update({f"k{n}": "x" * 250_000 for n in range(31)})
    assert session.save()
    client.remove_session(name)
    for n in range(31):
        session[f"k{n}"] = "y" * 250_000
    session.history.append("new")
    assert session.save()
    assert set(state_of(client, name).values()) == {"y" * 250_000}
    assert len(client.list_history(name).items) == 1


def test_remove(client: Client, name: str) -> None:
    session = client.session(name, defaults={"a": 1})
    session["a"] = 2
    session.save()
    assert session.remove() is True
    with pytest.raises(NotFound):
        client.get_session(name)
    assert session.remove() is True
    assert session["a"] == 1  # It begins anew.


# History.


def test_history_is_a_sequence_with_the_newest_first(client: Client, name: str) -> None:
    session = client.session(name)
    history = session.history
    items = [history.append({"n": n}, kind="k") for n in range(3)]
    assert [item["data"]["n"] for item in history] == [2, 1, 0]
    assert len(history) == 3 and history[0] == items[2] and history[-1] == items[0]
    assert [item["data"]["n"] for item in history[1:]] == [1, 0]
    assert items[1]["id"] in history and items[1] in history and "absent" not in history
    assert history.get(items[1]["id"]) == items[1]
    with pytest.raises(IndexError):
        history[3]
    assert history.append("again", id=items[0]["id"]) == items[0] and len(history) == 3
    history.update(items[0]["id"], {"n": None, "deep": {"a": 1}})
    history.remove(items[1]["id"])
    assert [item["data"] for item in history] == [{"n": 2}, {"deep": {"a": 1}}]
    assert items[0]["data"] == {"n": 0}  # What was handed out is not changed.
    session.save()
    stored = [(item["id"], item["data"]) for item in client.list_history(name).items]
    assert stored == [(item["id"], item["data"]) for item in history]
    history.clear()
    assert len(history) == 0
    history.append("after")
    session.save()
    assert [item["data"] for item in client.session(name).history] == ["after"]
    with pytest.raises(TypeError, match="str; only objects"):
        history.rate(history[0]["id"], 5)
    with pytest.raises(TypeError, match="tuple"):
        history.append((1, 2))
    history.append("dropped")
    session.discard()
    assert [item["data"] for item in history] == ["after"] and not session.is_changed


def test_append_now_sends_only_the_history(client: Client, name: str) -> None:
    session = client.session(name)
    session["a"] = 1
    session.history.append("now", now=True)
    assert [item["data"] for item in client.list_history(name).items] == ["now"]
    assert state_of(client, name) == {} and session.is_changed
    session.save()
    assert state_of(client, name) == {"a": 1}


def test_more_items_than_come_with_the_session(client: Client, name: str, tmp_path: Path) -> None:
    session = client.session(name, max_history_items=2000)
    for n in range(620):
        session.history.append({"n": n, "odd": n % 2 == 1} if n != 7 else "seven", id=f"i{n}")
    before = attempts(client)
    session.save()
    assert attempts(client) == before + 7  # At most 100 changes in one request.

    session = client.session(name)
    before = attempts(client)
    assert len(session.history) == 620 and session.history[0]["id"] == "i619"
    assert attempts(client) == before + 1
    assert session.history[619]["id"] == "i0" and session.history[-2]["id"] == "i1"
    assert attempts(client) == before + 2
    assert [item["id"] for item in session.history] == [f"i{n}" for n in range(619, -1, -1)]

    lazily = client.session(name, history=False)
    assert len(lazily) == 0 and lazily._items is None
    lazily.history.append("newest", id="newest")
    lazily.history.rate("i3", 4)
    lazily.history.remove("i4")
    assert lazily.history[0]["data"] == "newest"
    for format in ("json", "ndjson", "csv"):
        fresh = client.session(name)
        fresh.history.append("newest", id="newest")
        fresh.history.rate("i3", 4)
        fresh.history.remove("i4")
        path = tmp_path / f"history.{format}"
        assert fresh.history.export(path, format) == 620
        text = path.read_text()
        if format == "csv":
            rows = list(csv.DictReader(io.StringIO(text)))
            assert rows[0]["data"] == "newest" and rows[1]["data.n"] == "619"
            assert [row["data.rating"] for row in rows if row["id"] == "i3"] == ["4"]
            ids = [row["id"] for row in rows]
        else:
            items = (json.loads(text) if format == "json"
                     else [json.loads(line) for line in text.splitlines()])
            assert [item["data"] for item in items if item["id"] == "i3"][0]["rating"] == 4
            ids = [item["id"] for item in items]
        assert ids == ["newest", *(f"i{n}" for n in range(619, -1, -1) if n != 4)]
    file = io.StringIO()
    assert client.session(name).history.export(file, "ndjson") == 620
    assert list(tmp_path.glob(".export-*")) == []
    with pytest.raises(ValueError, match="xml"):
        session.history.export(file, "xml")  # type: ignore[arg-type]


def test_optimize(client: Client, name: str) -> None:
    session = client.session(name, defaults={"a": 1, "temp_x": 1, "temp_current_generation": 1})
    session["cache_y"] = 1
    result = session.optimize()
    assert sorted(result["keys_removed"]) == ["cache_y", "temp_x"]
    assert dict(session) == {"a": 1, "temp_current_generation": 1} == state_of(client, name)
    assert not session.is_changed
    session["temp_keep"] = 1
    assert session.optimize(keep=["temp_keep"])["keys_removed"] == ["temp_current_generation"]
    assert dict(session) == {"a": 1, "temp_keep": 1}


# asyncio.


async def test_the_same_for_asyncio(shared_service: Any, name: str) -> None:
    async with AsyncClient(shared_service.url, timeout=10) as client:
        session = client.session(name, defaults={"tracks": []})
        with pytest.raises(RuntimeError, match="async with"):
            session["tracks"]
        async with session as state:
            state["tracks"].append(1)
            item = state.history.append({"p": 1})
            state.history.rate(item["id"], 3)
        assert client.statistics()["attempts"] == 2
        again = client.session(name)
        assert await again.open()
        assert dict(again) == {"tracks": [1]}
        assert [item["data"] for item in again.history] == [{"p": 1, "rating": 3}]
        assert await again.debounce("go", 60) and not await again.debounce("go", 60)
        assert await again.touch() and await again.refresh()
        again["temp_x"] = 1
        assert (await again.optimize())["keys_removed"] == ["temp_x"]
        assert await again.remove()


# Properties.

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2**70, 2**70),
                    st.floats(allow_nan=False, allow_infinity=False),
                    st.text(st.characters(codec="utf-8"), max_size=5))
JSON = st.recursive(SCALARS, lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=3)),
    max_leaves=8)
KEYS = st.sampled_from(["a", "b", "temp_c", "temp_d", "ä/%"])


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    kinds = st.sampled_from(["set", "delete", "nested", "nested", "default", "prefix", "save",
                             "reopen", "discard", "move"])
    return [(draw(kinds), draw(KEYS), draw(JSON), draw(st.integers(0, 5)))
            for _ in range(draw(st.integers(1, 12)))]


def containers(value: Any) -> list[Any]:
    found = []
    if isinstance(value, (dict, list)):
        found.append(value)
        for inner in value.values() if isinstance(value, dict) else value:
            found.extend(containers(inner))
    return found


def change(value: Any, new: Any, number: int) -> None:
    """Changes something inside a value, always the same for equal values."""
    places = containers(value)
    if not places:
        return
    place = places[number % len(places)]
    if isinstance(place, list):
        if place and number % 2:
            place.pop(number % len(place))
        else:
            place.append(copy.deepcopy(new))
    elif place and number % 2:
        place.pop(sorted(place)[number % len(place)])
    else:
        place["new"] = copy.deepcopy(new)


@settings(max_examples=60, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps())
def test_what_is_saved_is_what_the_local_dict_holds(
    client: Client, steps: list[tuple[Any, ...]]
) -> None:
    session = client.session()
    model: dict[str, Any] = {}
    saved: dict[str, Any] = {}
    for kind, key, value, number in steps:
        if kind == "set":
            session[key], model[key] = copy.deepcopy(value), copy.deepcopy(value)
        elif kind == "delete":
            session.pop(key, None)
            model.pop(key, None)
        elif kind == "nested" and key in model:
            change(session[key], value, number)
            change(model[key], value, number)
        elif kind == "default":
            session.setdefault(key, value)
            model.setdefault(key, copy.deepcopy(value))
        elif kind == "prefix":
            session.delete_prefix("temp_", keep=["temp_d"] if number % 2 else [])
            for name in [n for n in model if n.startswith("temp_")]:
                if not (number % 2 and name == "temp_d"):
                    del model[name]
        elif kind in ("save", "reopen"):
            session.save()
            saved = copy.deepcopy(model)
            if kind == "reopen":
                session = client.session(session.id)
        elif kind == "discard":
            session.discard()
            model = copy.deepcopy(saved)
        elif kind == "move" and key in model and number:
            # The very same object at another key.
            session["b"] = copy.deepcopy(session[key])
            model["b"] = copy.deepcopy(model[key])
        assert json.dumps(session.copy(), sort_keys=True) == json.dumps(model, sort_keys=True)
    session.save()
    assert not session.is_changed
    again = client.session(session.id)
    assert json.dumps(again.copy(), sort_keys=True) == json.dumps(model, sort_keys=True)


@st.composite
def patches(draw: st.DrawFn) -> StatePatch:
    values = st.dictionaries(KEYS, SCALARS.map(lambda v: json.dumps(v).encode()), max_size=3)
    return StatePatch(set=draw(values), delete=draw(st.lists(KEYS, max_size=2)),
                      prefixes=draw(st.sampled_from([[], [], ["temp_"], ["a"]])),
                      defaults=draw(values))


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(KEYS, SCALARS, max_size=5), patches(), patches())
def test_two_patches_in_one_have_the_same_effect(
    values: dict[str, Any], first: StatePatch, second: StatePatch
) -> None:
    apart, together = dict(values), dict(values)
    first.apply(apart)
    second.apply(apart)
    both = first.then(second)
    assert both is not None
    both.apply(together)
    assert {k: repr(v) for k, v in apart.items()} == {k: repr(v) for k, v in together.items()}


@settings(max_examples=100, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, SCALARS, max_size=5), patches())
def test_a_patch_does_here_what_it_does_at_the_service(
    client: Client, values: dict[str, Any], patch: StatePatch
) -> None:
    id = client.create_session(state=values)["id"]
    local = dict(values)
    patch.apply(local)
    client.request("PATCH", f"/v1/sessions/{id}/state", body=patch.body(),
                   headers={"Content-Type": "application/json"})
    assert {k: repr(v) for k, v in state_of(client, id).items()} == {
        k: repr(v) for k, v in local.items()}


@pytest.mark.parametrize(("target", "patch", "result"), [
    # The examples of RFC 7396, appendix A.
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
])
def test_merge_patch(target: Any, patch: Any, result: Any) -> None:
    before = copy.deepcopy(target)
    assert merge_patch(target, patch) == result and target == before


def test_checked_json_is_compact() -> None:
    assert checked_json({"ä": [1, 2.5, None, True]}, "it") == '{"ä":[1,2.5,null,true]}'.encode()


def test_the_session_says_what_it_is(client: Client, name: str) -> None:
    session = client.session(name)
    assert repr(session) == f"Session({name!r}, not opened yet)"
    assert isinstance(session, Session) and session == {} and session.version is not None
    assert repr(session) == f"Session({name!r}, 0 keys)"
    assert session.statistics()["pending"] == 0 and session.pending == 0
    logging.getLogger("reprise_client").debug("%r", session.history)
