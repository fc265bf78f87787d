"""`PERFORMANCE_CONFIG`: the five settings of the guide as a mapping over `/v1/config`."""

from __future__ import annotations

import difflib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import limits
from ..errors import NotFound, ProblemError, RepriseError

if TYPE_CHECKING:
    from ..client import Client

log = logging.getLogger("reprise_client")


class _Setting(NamedTuple):
    default: Any
    lowest: float = 0
    highest: float = 0


#: The names, defaults and bounds of the service.
_SETTINGS = {
    "cache_ttl_seconds": _Setting(300, 0.001, 3_153_600_000),
    "max_history_items": _Setting(20, 1, 10_000),
    "memory_cleanup_interval": _Setting(600, 1, 86_400),
    "enable_monitoring": _Setting(True),
    "debounce_delay": _Setting(0.5, 0, 86_400),
}


class PerformanceSettings(MutableMapping[str, Any]):
    """The five settings. Reads are answered from a copy that is read anew every few seconds;
    writes go to the service and are in force there at once, for everybody.

    A value that the service cannot take now, because it does not answer or the token may not
    change settings, is in force in this process; it is sent when the service answers again.
    Names cannot be added or removed: an unknown one is a `KeyError`, and `del` gives a setting its
    configured value again. A value out of bounds is a `ValueError`, one of the wrong type a
    `TypeError`.
    """

    def __init__(
        self, client: Callable[[], Client | None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._now = now
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def forget(self) -> None:
        """Forgets what is known, so that everything is read anew."""
        self._renew_lock()
        self._values: dict[str, Any] = {}
        #: Values that hold in this process only.
        self._overrides: dict[str, Any] = {}
        #: Those among them that are sent when the service answers again.
        self._unsent: set[str] = set()
        #: When the service is asked again.
        self._read_from = -math.inf
        self._retry_seconds = limits.SETTINGS_RETRY_SECONDS
        self._has_warned = False

    def _renew_lock(self) -> None:
        #: Held by who talks to the service.
        self._talking = threading.Lock()

    # Reading.

    def __getitem__(self, name: str) -> Any:
        _setting(name)
        self._refresh()
        return self.known(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_SETTINGS)

    def __len__(self) -> int:
        return len(_SETTINGS)

    def __contains__(self, name: object) -> bool:
        return name in _SETTINGS

    def known(self, name: str) -> Any:
        """The value as last known, without asking the service."""
        default = _setting(name).default
        return self._overrides.get(name, self._values.get(name, default))

    def copy(self) -> dict[str, Any]:
        """The five settings as a dict."""
        self._refresh()
        return {name: self.known(name) for name in _SETTINGS}

    def __repr__(self) -> str:
        return repr({name: self.known(name) for name in _SETTINGS})

    def _refresh(self) -> None:
        if self._now() < self._read_from:
            return
        talking = self._talking
        # Who comes second waits no longer than the first does.
        if not talking.acquire(timeout=limits.SETTINGS_CALL_SECONDS):
            return
        try:
            if self._now() < self._read_from:
                return
            client = self._client()
            if client is None:
                self._read_from = math.inf
                return
            try:
                settings = self._send_unsent(client)
                if settings is None:
                    settings = self._run(client, "list_settings", limits.SETTINGS_CALL_SECONDS)
                self._take(settings)
            except RepriseError as error:
                self._pause(error)
        finally:
            talking.release()

    def _run(self, client: Client, name: str, seconds: float, /, **options: Any) -> Any:
        call: Any = getattr(type(client), name).flow(client, **options)
        call.timeout = seconds
        return client._run(call)

    def _take(self, settings: list[Any]) -> None:
        """Keeps what the service answered."""
        found = {}
        for setting in settings:
            name = setting.get("name")
            if name in _SETTINGS:
                try:
                    found[name] = _checked(name, setting.get("value"))
                except (TypeError, ValueError):
                    continue
        self._values = found
        self._read_from = self._now() + limits.SETTINGS_SECONDS
        self._retry_seconds = limits.SETTINGS_RETRY_SECONDS
        self._has_warned = False

    def _pause(self, error: RepriseError) -> None:
        """Does not ask for a while."""
        seconds = self._retry_seconds
        if isinstance(error, ProblemError) and error.status in (401, 403, 404):
            seconds = limits.MAX_SETTINGS_RETRY_SECONDS
        self._read_from = self._now() + seconds
        self._retry_seconds = min(self._retry_seconds * 2, limits.MAX_SETTINGS_RETRY_SECONDS)
        if not self._has_warned:
            self._has_warned = True
            log.warning("the settings are those that were last known, or the defaults: %s", error)

    # Writing.

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def update(self, *arguments: Any, **options: Any) -> None:
        """Changes several settings, all or none."""
        changes = {name: _checked(name, value)
                   for name, value in dict(*arguments, **options).items()}
        if not changes:
            return
        client = self._client()
        talking = self._talking
        has_lock = talking.acquire(timeout=limits.SETTINGS_WRITE_SECONDS)
        try:
            if client is None:
                self._overrides.update(changes)
                return
            try:
                settings = self._run(client, "change_settings", limits.SETTINGS_WRITE_SECONDS,
                                     **changes)
            except RepriseError as error:
                if isinstance(error, ProblemError) and error.status in (400, 422):
                    raise ValueError(f"the service refuses {changes!r}: {error}") from None
                self._overrides.update(changes)
                self._unsent.update(changes)
                log.warning("%s %s in force in this process only, because the service did not "
                            "take the change: %s", " and ".join(changes),
                            "are" if len(changes) > 1 else "is", error)
            else:
                self._settle(changes)
                self._take(settings)
        finally:
            if has_lock:
                talking.release()

    def _send_unsent(self, client: Client) -> Any:
        """Sends what could not be sent before; the settings as they are then, if they are told."""
        changes = {name: self._overrides[name] for name in sorted(self._unsent)}
        if not changes:
            return None
        try:
            settings = self._run(client, "change_settings", limits.SETTINGS_CALL_SECONDS,
                                 **changes)
        except ProblemError as error:
            if error.status not in (400, 401, 403, 404, 422):
                raise
            # It holds here, and is not sent any more.
            self._unsent.difference_update(changes)
            log.warning("%s: in force in this process only, because the service refuses it: %s",
                        ", ".join(changes), error)
            return None
        self._settle(changes)
        return settings

    def _settle(self, changes: dict[str, Any]) -> None:
        """The service has these values."""
        for name in changes:
            self._overrides.pop(name, None)
            self._unsent.discard(name)

    def __delitem__(self, name: str) -> None:
        _setting(name)
        self._settle({name: None})
        self._values.pop(name, None)
        client = self._client()
        if client is None:
            return
        try:
            call: Any = type(client).drop_setting.flow(client, name)
            call.timeout = limits.SETTINGS_WRITE_SECONDS
            client._run(call)
        except NotFound:
            pass
        except RepriseError as error:
            log.warning("%s could not be reset at the service: %s", name, error)
            return
        self._read_from = -math.inf

    def clear(self) -> None:
        """Gives all settings their configured values again."""
        for name in _SETTINGS:
            del self[name]

    def popitem(self) -> tuple[str, Any]:
        """Raises `TypeError`: settings cannot be removed."""
        raise TypeError("settings cannot be removed; `del` gives one its configured value again")


def _setting(name: str) -> _Setting:
    try:
        return _SETTINGS[name]
    except (KeyError, TypeError):
        pass
    near = difflib.get_close_matches(str(name), _SETTINGS, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_SETTINGS)}"
    raise KeyError(f"{name!r} is not a setting; {hint}")


def _checked(name: str, value: Any) -> Any:
    setting = _setting(name)
    if setting.default is True:
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r:.100}")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r:.100}")
    is_whole = isinstance(value, int) or value.is_integer()
    if name == "max_history_items" and not is_whole:
        raise ValueError(f"{name} must be a whole number, not {value}")
    if not setting.lowest <= value <= setting.highest:
        raise ValueError(f"{name} must be from {setting.lowest:g} to {setting.highest:,}, "
                         f"not {value}")
    return int(value) if is_whole else value


def _client() -> Client | None:
    from .context import current_client

    return current_client()


#: The settings of the guide. Writes go to the service.
PERFORMANCE_CONFIG = PerformanceSettings(_client)


def get_performance_config() -> dict[str, Any]:
    """The five settings as a dict, which can be changed without changing the settings."""
    return PERFORMANCE_CONFIG.copy()
