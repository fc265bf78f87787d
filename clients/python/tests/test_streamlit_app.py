"""Apps that use the package: in Streamlit's own test bench, and in a browser on two replicas."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Service
from reprise_client import Client

streamlit = pytest.importorskip("streamlit", reason="Streamlit is not installed")

from streamlit.testing.v1 import AppTest  # noqa: E402

from reprise_client.streamlit import (  # noqa: E402
    cli,
    install,
    installation,
    status,
    tab,
    uninstall,
)

APPS = Path(__file__).parent / "apps"
SECRET = "0123456789abcdef0123456789abcdef"
SECONDS = 60.0


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def app(source: str) -> AppTest:
    return AppTest.from_string(
        "import streamlit as st\nimport reprise_client.streamlit as reprise\n" + source,
        default_timeout=SECONDS)


@pytest.fixture
def here(shared_service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Apps use the shared service; nothing of an earlier test is installed."""
    monkeypatch.setenv("REPRISE_URL", shared_service.url)
    uninstall(wait_seconds=0)
    tab._tabs.clear()
    yield shared_service.url
    uninstall(wait_seconds=0)


def texts(test: AppTest) -> list[str]:
    assert not test.exception, test.exception
    return [each.value for each in test.text]


def in_address(test: AppTest) -> str:
    """The id in the address; older versions of Streamlit give a list."""
    value = test.query_params["session"]
    return value if isinstance(value, str) else value[0]


# The session of a tab.


def test_a_tab_has_a_session_that_its_address_finds_again(here, client):
    source = """
state = reprise.session(defaults={"tempo": 120})
if st.button("Faster"):
    state["tempo"] += 1
st.text(state["tempo"])
"""
    first = app(source).run()
    assert texts(first) == ["120"]
    session_id = in_address(first)
    assert re.fullmatch("[0-9a-f]{32}", session_id)
    first.button[0].click().run()
    assert texts(first) == ["121"]
    assert in_address(first) == session_id
    assert client.get_state(session_id)["state"] == {"tempo": 121}
    # A reload: nothing is left of the tab but its address.
    second = app(source)
    second.query_params["session"] = session_id
    assert texts(second.run()) == ["121"]
    assert texts(app(source).run()) == ["120"], "another tab has another session"


def test_a_widget_follows_the_session(here, client):
    source = """
state = reprise.session(defaults={"tempo": 120})
st.session_state.setdefault("tempo", state["tempo"])
state["tempo"] = st.slider("Tempo", 60, 180, key="tempo")
"""
    test = app(source).run()
    for tempo in (122, 124, 121):
        test.slider[0].set_value(tempo).run()
        assert client.get_state(in_address(test))["state"] == {"tempo": tempo}
    again = app(source)
    again.query_params["session"] = in_address(test)
    assert again.run().slider[0].value == 121


@pytest.mark.parametrize("given", ["", "short", "A" * 32, "a" * 33, "../" * 8, "a" * 31 + "\n"])
def test_a_malformed_id_is_replaced(here, given):
    test = app("st.text(reprise.session().id)")
    test.query_params["session"] = given
    (found,) = texts(test.run())
    assert re.fullmatch("[0-9a-f]{32}", found)
    assert in_address(test) == found


def test_a_change_of_page_keeps_the_session(here):
    test = app("st.text(reprise.session().id)").run()
    before = texts(test)
    del test.query_params["session"]
    assert texts(test.run()) == before
    assert in_address(test) == before[0]


def test_a_rerun_costs_two_calls(here, client):
    source = """
from reprise_client.streamlit.installation import default_client
before = default_client().statistics()["calls"]
for number in range(5):
    reprise.session()["count"] = number
reprise.session(defaults={"other": 1})
st.text(default_client().statistics()["calls"] - before)
st.text(default_client().statistics()["calls"])
"""
    test = app(source).run()
    during, total = (int(each) for each in texts(test))
    assert during == 1
    assert installation.default_client().statistics()["calls"] == total + 1
    assert client.get_state(in_address(test))["state"] == {"count": 4, "other": 1}


@pytest.mark.parametrize(("ending", "is_wrong"), [
    ("st.stop()", False),
    ("st.rerun() if not st.session_state.setdefault('again', False) and "
     "not st.session_state.update(again=True) else None", False),
    ("1 / 0", True),
])
def test_it_is_saved_however_the_rerun_ends(here, client, ending, is_wrong):
    source = f"""
def change():
    state = reprise.session()
    state["seen"] = state.get("seen", 0) + 1
    state.history.append({{"seen": state["seen"]}})
change()
{ending}
"""
    test = app(source).run()
    assert bool(test.exception) == is_wrong
    session_id = in_address(test)
    seen = 2 if "rerun" in ending else 1
    assert client.get_state(session_id)["state"] == {"seen": seen}
    assert len(client.list_history(session_id).items) == seen


def test_each_rerun_reads_it_anew(here, client):
    test = app('st.text(reprise.session(defaults={"tempo": 120})["tempo"])').run()
    assert texts(test) == ["120"]
    client.set_state_value(in_address(test), "tempo", 99)
    assert texts(test.run()) == ["99"]


def test_a_block_saves_at_its_end(here, client):
    source = """
with reprise.session() as state:
    state["a"] = 1
from reprise_client.streamlit.installation import default_client
st.text(default_client().get_state(state.id)["state"])
"""
    assert texts(app(source).run()) == ["{'a': 1}"]


def test_outside_of_a_script_it_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"streamlit run.*client\.session\(id\)"):
        tab.session()


def test_without_the_service_the_tab_goes_on(service, monkeypatch):
    monkeypatch.setenv("REPRISE_URL", service.url)
    source = """
state = reprise.session(defaults={"count": 0})
if st.button("Count"):
    state["count"] += 1
st.text(state["count"])
reprise.performance_dashboard(run_every=None)
"""
    test = app(source).run()
    session_id = in_address(test)
    service.kill()
    test.button[0].click().run()
    test.button[0].click().run()
    assert texts(test) == ["2"]
    service.start()
    client = Client(service.url, timeout=10)
    until(lambda: client.get_state(session_id)["state"] == {"count": 2})


# The cache in an app. The test bench makes a new runtime for each rerun.

CACHED = """
import uuid
reprise.install(namespace={namespace!r}, secret={secret!r})
@st.cache_data({options})
def compute(x):
    return uuid.uuid4().hex
if st.button("Clear"):
    compute.clear()
st.text(compute(1))
st.text(compute(2))
"""


def cached(namespace: str, options: str = 'persist="disk"', secret: str = SECRET) -> AppTest:
    return app(CACHED.format(namespace=namespace, options=options, secret=secret))


def restart() -> None:
    """Loses everything that a restart of the process loses."""
    uninstall()
    streamlit.runtime.caching.cache_data_api._data_caches._function_caches.clear()


def test_decorated_functions_survive_a_restart(here, name, client):
    before = texts(cached(name).run())
    assert len(set(before)) == 2
    assert texts(cached(name).run()) == before
    found = status()
    assert found["stored"] == 2 and found["hits"] == 2 and found["misses"] == 2
    restart()
    assert texts(cached(name).run()) == before
    assert status()["hits"] == 2 and status()["misses"] == 0
    restart()
    assert set(texts(cached(name, secret=SECRET[::-1]).run())).isdisjoint(before)
    assert status()["rejected"] == 2


def test_streamlit_knows_what_the_copies_take(here, name):
    from streamlit.runtime.caching import cache_data_api

    texts(cached(name).run())
    assert status()["copies"] == 2
    assert cache_data_api._data_caches.get_stats()


def test_clear_is_seen_by_all(here, name):
    test = cached(name).run()
    before = texts(test)
    test.button[0].click().run()
    assert set(texts(test)).isdisjoint(before)
    restart()
    assert texts(cached(name).run()) == texts(test)


@pytest.mark.parametrize("options", ["", 'persist="disk", scope="session"', 'scope="session"'])
def test_what_is_not_to_be_shared_is_not(here, name, client, options):
    from reprise_client.streamlit import versions

    if "scope" in options and not versions.layout().has_scopes:
        pytest.skip("this Streamlit has no scopes")
    texts(cached(name, options).run())
    assert client.list_entries(name).items == []


def test_functions_decorated_before_are_shared_from_then_on(here, name, client):
    test = app(f"""
import uuid
@st.cache_data(persist="disk")
def compute_{name.replace("-", "_")}():
    return uuid.uuid4().hex
compute = compute_{name.replace("-", "_")}
compute()
reprise.install(namespace={name!r}, secret={SECRET!r})
compute()
""").run()
    assert not test.exception
    assert len(client.list_entries(name).items) == 1


def test_clearing_everything(here, name, client):
    test = app(CACHED.format(namespace=name, options='persist="disk"', secret=SECRET)
               + 'if st.button("All"): st.cache_data.clear()')
    test.run()
    assert len(client.list_entries(name).items) == 2
    test.button[1].click().run()
    assert not test.exception
    assert client.list_entries(name).items == []


# Progress and the dashboard.


def test_a_bar_follows_a_loop(here):
    from reprise_client.streamlit.progress import ProgressBar

    test = app("""
assert list(reprise.track([1, 2, 3], text="{done} of {total}")) == [1, 2, 3]
list(reprise.track(iter("abcd"), total=8, text="kept {percent}", keep=True))
list(reprise.track((), keep=True, text="nothing"))
list(reprise.track(iter("abc"), keep=True, text="{done} of {total}"))
""").run()
    assert not test.exception
    bars = [(each.proto.text, each.proto.value) for each in test.get("progress")]
    assert bars == [("kept 50%", 50), ("nothing", 100), ("3 of ?", 3)]
    with pytest.raises(ValueError, match="0 or more"):
        ProgressBar(total=-1)


def test_a_bar_is_updated_now_and_then(monkeypatch):
    from reprise_client.streamlit import progress

    shown: list[float] = []

    class Bar:
        def progress(self, fraction: float, text: str) -> None:
            shown.append(fraction)

        def empty(self) -> None:
            shown.append(-1)

    def start(fraction: float, text: str) -> Bar:
        shown.append(fraction)
        return Bar()

    monkeypatch.setattr(progress.st, "progress", start)
    clock = [0.0]
    with progress.ProgressBar(interval_seconds=1, now=lambda: clock[0]) as bar:
        for count in range(1, 101):
            clock[0] += 0.1
            bar(count, 100)
    assert shown[0] == 0 and shown[-2:] == [1.0, -1]
    assert 8 <= len(shown) <= 14
    shown.clear()
    with pytest.raises(ZeroDivisionError), progress.ProgressBar(total=2) as bar:
        raise ZeroDivisionError
    assert shown == [0, -1]


def test_a_bar_follows_a_transfer(here, name):
    test = app(f"""
from reprise_client import Client
with reprise.ProgressBar("{{percent}}", keep=True) as bar:
    Client().put_entry({name!r}, "a", b"x" * 1_000_000, on_progress=bar)
""").run()
    assert not test.exception
    (bar,) = test.get("progress")
    assert (bar.proto.text, bar.proto.value) == ("100%", 100)


def everything(test: AppTest) -> str:
    assert not test.exception, test.exception
    return "\n".join(str(each.value) for kind in ("markdown", "caption", "metric", "warning",
                                                  "error", "text")
                     for each in test.get(kind) if hasattr(each, "value"))


def test_the_dashboard_shows_the_figures(service, monkeypatch, name):
    monkeypatch.setenv("REPRISE_URL", service.url)
    client = Client(service.url, timeout=10)
    client.request("POST", "/v1/samples", json={"samples": [
        {"kind": "timing", "name": "render|<b>*x*", "duration_seconds": 0.25},
        {"kind": "memory", "name": "studio", "rss_bytes": 200 * 1024 * 1024,
         "vms_bytes": 1, "percent": 1}]})
    client.put_entry(name, "a", b"x")
    client.get_entry(name, "a")
    test = app('reprise.session()["a"] = 1\nreprise.performance_dashboard(run_every=None)').run()
    test.run()
    shown = everything(test)
    assert r"| render\|\<b\>\*x\* | 1 | 250 ms | 250 ms |" in shown
    assert "| studio | 200.0 MiB | 200.0 MiB |" in shown
    assert "100%" in shown
    assert "This session: 1 keys" in shown
    assert len(test.sidebar.get("metric")) == 2
    service.kill()
    shown = everything(test.run())
    assert "not available at the moment" in shown


def test_the_dashboard_shows_findings_to_who_may_see_them(tmp_path, monkeypatch):
    from reprise_client.streamlit import dashboard

    service = Service(tmp_path)
    try:
        admin = Client(service.url, timeout=10)
        monkeypatch.setattr(type(admin), "get_diagnostics", lambda self: {"findings": [
            {"severity": "warning", "title": "Disk", "remedy": "Make room"},
            {"severity": "info", "title": "Nothing", "remedy": ""}]})
        monkeypatch.setenv("REPRISE_URL", service.url)
        source = "reprise.performance_dashboard(run_every=None, sidebar=False)"
        test = app(source).run()
        assert [each.value for each in test.warning] == ["**Disk**  \nMake room"]
        monkeypatch.undo()
        monkeypatch.setenv("REPRISE_URL", service.url)
        root = admin.create_token("root", ["admin"])["token"]
        reader = Client(service.url, token=root, timeout=10).create_token("app", ["read"])
        monkeypatch.setenv("REPRISE_TOKEN", reader["token"])
        dashboard._seen.clear()
        test = app(source).run()
        assert not test.exception and not test.warning
        assert len(test.metric) == 2
        other = Client(service.url, token=root, timeout=10).create_token(
            "other", ["read"], namespaces=["other"])
        monkeypatch.setenv("REPRISE_TOKEN", other["token"])
        test = app("reprise.performance_dashboard()").run()
        assert "may not see the figures" in everything(test)
    finally:
        service.stop()


# The command.


def test_the_command_explains_itself(capsys, monkeypatch):
    assert cli.main(["--help"]) == 0
    assert "REPRISE_PICKLE_SECRET" in capsys.readouterr().out
    assert cli.main([]) == 2
    assert "Usage" in capsys.readouterr().err
    assert cli.main(["--version"]) == 0
    assert f"streamlit {streamlit.__version__}" in capsys.readouterr().out
    assert cli.main(["run", "app.py"]) == 1
    assert "A secret is needed" in capsys.readouterr().err
    monkeypatch.setattr(streamlit, "__version__", "9.9")
    assert cli.main(["run", "app.py"]) == 1
    assert "9.9 is not among the versions" in capsys.readouterr().err


def test_without_streamlit_everything_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "streamlit", None)
    assert cli.main(["run", "app.py"]) == 1
    assert "pip install 'reprise-client[streamlit]'" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError, match="reprise-client.streamlit"):
        install(trust_service=True)


def test_streamlit_is_imported_when_it_is_needed():
    code = ("import sys, reprise_client.streamlit as package, reprise_client.streamlit.cli\n"
            "assert 'streamlit' not in sys.modules and package.status()['installed'] is False\n"
            "assert 'streamlit' not in sys.modules and set(package.__all__) <= set(dir(package))")
    subprocess.run([sys.executable, "-B", "-c", code], check=True, timeout=SECONDS)


def test_the_command_is_installed():
    project = (APPS.parents[1] / "pyproject.toml").read_text()
    assert 'reprise-streamlit = "reprise_client.streamlit.cli:main"' in project


def test_the_command_passes_the_rest_on(here, capsys, monkeypatch):
    monkeypatch.setenv("REPRISE_TRUST_SERVICE", "1")
    with pytest.raises(SystemExit) as exit:
        cli.main(["run", "--no-such-option"])
    assert exit.value.code == 2
    assert "no-such-option" in capsys.readouterr().err
    assert status()["installed"]
    uninstall()
    with pytest.raises(SystemExit) as exit:
        cli.main(["run", "--help"])
    assert exit.value.code == 0
    assert not status()["installed"]


def test_the_command_clears_the_shared_cache(here, client, name, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("REPRISE_STREAMLIT_NAMESPACE", name)
    client.put_entry(name, "a", b"x")
    with pytest.raises(SystemExit) as exit:
        cli.main(["cache", "clear"])
    assert exit.value.code == 0
    assert "Removed 1 cached values" in capsys.readouterr().out
    assert client.list_entries(name).items == []
    monkeypatch.setenv("REPRISE_URL", "http://127.0.0.1:9")
    assert cli.main(["cache", "clear"]) == 1
    assert "was not cleared" in capsys.readouterr().err


# Two replicas and a browser.

needs_browser = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs Debian's packages chromium and chromium-driver")


class Studio:
    """One replica of the app, always at the same port."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._environment = {
            **{name: value for name, value in os.environ.items()
               if not name.startswith(("REPRISE_", "STREAMLIT_"))},
            "HOME": str(folder), "REPRISE_URL": url, "REPRISE_PICKLE_SECRET": SECRET,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-B", "-m", "reprise_client.streamlit.cli", "run",
                 str(APPS / "studio.py"), "--server.port", str(self.port),
                 "--server.address", "127.0.0.1", "--server.headless", "true",
                 "--server.fileWatcherType", "none", "--browser.gatherUsageStats", "false"],
                stdout=log, stderr=log, env=self._environment, cwd=self.folder)
        until(self._is_ready)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            with urllib.request.urlopen(f"{self.url}_stcore/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)


class Browser:
    """A headless Chromium, and what the tests do on the page."""

    def __init__(self, folder: Path) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for argument in ["--headless=new", "--no-sandbox", "--disable-gpu",
                         "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}",
                         "--window-size=1200,1400", "--disable-background-networking"]:
            options.add_argument(argument)
        driver = webdriver.ChromeService(
            shutil.which("chromedriver"), env={**os.environ, "HOME": str(folder)})
        self.driver = webdriver.Chrome(options=options, service=driver)
        self.driver.set_page_load_timeout(SECONDS)

    def open(self, url: str) -> None:
        self.driver.get("about:blank")
        self.driver.get(url)
        self.settle()

    def reload(self) -> None:
        self.driver.refresh()
        self.settle()

    @property
    def text(self) -> str:
        shown: str = self.driver.execute_script(
            "return document.body ? document.body.innerText : ''")
        return shown

    @property
    def query(self) -> str:
        return str(self.driver.current_url).partition("?")[2]

    def settle(self) -> None:
        """Waits until the script has run to its end, and nothing on the page says otherwise."""
        until(lambda: "the end" in self.text and not self.driver.execute_script(
            "return document.querySelector('[data-test-script-state=\"running\"]')"))
        self.check()

    def check(self) -> None:
        """No exception is on the page."""
        wrong = self.driver.execute_script(
            "return [...document.querySelectorAll('[data-testid=stException]')]"
            ".map((each) => each.innerText)")
        assert wrong == []

    def value(self, name: str) -> str | None:
        found = re.search(rf"{name} (?:is|are) \[?([^\]\n]*)\]?", self.text)
        return found.group(1) if found else None

    def expect(self, *, rerun: bool = False, **values: str | None) -> None:
        """Waits until the page shows these; with `rerun`, runs the script again meanwhile."""
        def is_shown() -> bool:
            if all(self.value(name) == value for name, value in values.items()):
                return True
            if rerun:
                self.click("Again")
            return False

        try:
            until(is_shown)
        except AssertionError:
            raise AssertionError(f"{values} is not in:\n{self.text}") from None
        self.check()

    def expect_other(self, name: str, old: str | None) -> str:
        """Waits until the page shows another value than the old one."""
        found: str = until(lambda: (value := self.value(name)) not in (None, "", old) and value)
        self.check()
        return found

    def click(self, label: str) -> None:
        def is_clicked() -> bool:
            from selenium.common.exceptions import WebDriverException
            try:
                self.driver.find_element(
                    "xpath", f"//button[.//*[normalize-space(text())='{label}']]").click()
            except WebDriverException:
                return False  # It is being drawn anew.
            return True

        until(is_clicked)

    def write(self, label: str, text: str) -> None:
        from selenium.webdriver.common.keys import Keys

        field = self.driver.find_element("css selector", f"input[aria-label='{label}']")
        field.send_keys(Keys.CONTROL + "a")
        field.send_keys(text + Keys.ENTER)

    def press(self, selector: str, *keys: str) -> None:
        self.driver.find_element("css selector", selector).send_keys(*keys)


@pytest.fixture
def studios(service: Service, tmp_path: Path) -> Iterator[tuple[Studio, Studio]]:
    first = Studio(tmp_path / "first", service.url)
    try:
        second = Studio(tmp_path / "second", service.url)
        try:
            yield first, second
        finally:
            second.stop()
    finally:
        first.stop()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    pytest.importorskip("selenium", reason="selenium is not installed")
    folder = tmp_path / "browser"
    folder.mkdir()
    browser = Browser(folder)
    yield browser
    browser.driver.quit()


@needs_browser
def test_two_replicas_and_a_browser(service, studios, browser):
    from selenium.webdriver.common.keys import Keys

    first, second = studios
    browser.open(first.url)
    query = until(lambda: browser.query)
    assert re.fullmatch("session=[0-9a-f]{32}", query)
    browser.write("Prompt", "calm")
    browser.expect(prompt="calm")
    browser.press("[role=slider], input[type=range]", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    browser.expect(tempo="122")
    browser.click("Keep")
    browser.expect(kept="calm")
    result = browser.value("result")

    # The rerun of a fragment saves as well, whichever way it has come by the session.
    check = Client(service.url, timeout=10)
    session_id = query.partition("=")[2]
    for button, count, other in (("Count", 1, 0), ("Other", 1, 1), ("Count", 2, 1)):
        browser.click(button)
        browser.expect(count=str(count))

        def is_saved(count: int = count, other: int = other) -> bool:
            state = check.get_state(session_id)["state"]
            return (state["count"], state["other"]) == (count, other)

        until(is_saved)

    # Another replica has everything, and computes nothing again.
    browser.open(second.url + "?" + query)
    browser.expect(tempo="122", prompt="calm", kept="calm", result=result)
    assert browser.query == query
    browser.reload()
    browser.expect(tempo="122", prompt="calm", kept="calm", result=result)

    # A restart loses nothing, whether the page is opened anew or waits for it.
    second.stop()
    second.start()
    browser.open(second.url + "?" + query)
    browser.expect(tempo="122", prompt="calm", kept="calm", result=result)

    # Another tab has a session of its own, and shares the cache.
    browser.open(first.url)
    browser.expect(tempo="120", prompt="", kept="")
    assert browser.query != query
    browser.write("Prompt", "calm")
    browser.expect(result=result)

    # What one replica clears, the other does not use for longer than it says.
    browser.click("Forget")
    cleared = browser.expect_other("result", result)
    browser.open(second.url + "?" + query)
    browser.expect(rerun=True, result=cleared)

    # It answers no more: the app goes on, slower for a moment.
    service.hold()
    browser.write("Prompt", "slow")
    browser.expect(prompt="slow")
    until(lambda: (browser.value("result") or "").startswith("slow/"))
    service.go_on()

    # The service ends in the middle: the app goes on.
    service.kill()
    browser.write("Prompt", "wild")
    browser.expect(prompt="wild")
    until(lambda: (browser.value("result") or "").startswith("wild/"))
    wild = browser.value("result")
    browser.click("Keep")
    browser.expect(kept="wild, calm")
    browser.click("Again")
    browser.settle()
    browser.expect(prompt="wild", kept="wild, calm", result=wild)
    assert "not available at the moment" in browser.text

    # It is back: what was kept meanwhile arrives, without anybody doing anything.
    service.start()

    def has_arrived() -> bool:
        state = check.get_state(session_id)["state"]
        return (state == {"tempo": 122, "prompt": "wild", "count": 2, "other": 1}
                and len(check.list_history(session_id).items) == 2
                and len(check.list_entries("streamlit").items) == 3)

    until(has_arrived, 120)
    until(lambda: "not available at the moment" not in browser.text)
    browser.check()
    browser.open(first.url + "?" + query)
    browser.expect(tempo="122", prompt="wild", kept="wild, calm", result=wild)
    for studio in studios:
        assert os.path.dirname(tab.__file__) not in studio.log(), studio.log()
