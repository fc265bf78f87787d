"""The dashboard in a real browser: with data, without any, and with the server gone."""

import os
import random
import re
import shutil
import sqlite3
import subprocess
import time
import urllib.parse

import pytest

from conftest import Server

selenium = pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import TimeoutException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs Debian's packages chromium and chromium-driver")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en-GB",
                     f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1360,1000"]:
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(30)
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver):
    """The browser in its initial state; a test's changes to it are undone."""
    driver.execute_cdp_cmd("Network.enable", {})
    yield driver
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    driver.get("about:blank")


def open_page(browser, server, fragment="#refresh=0"):
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(f"http://{server.host}:{server.port}/dashboard/{fragment}")
    wait(browser, lambda: "Updated" in text(browser, "status"))


def wait(browser, condition, seconds=15):
    WebDriverWait(browser, seconds, poll_frequency=0.1).until(lambda _: condition())


def plain(text):
    return text.replace("\u00a0", " ").replace("−", "-")


def text(browser, id):
    return plain(browser.find_element(By.ID, id).text)


def find(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def rows(browser, id):
    """A section's table as a dictionary for each row, by the headings of its columns."""
    heads = [plain(head.text).rstrip(" ↑↓") for head in browser.find_elements(By.CSS_SELECTOR, f"#{id} thead th")]
    lines = browser.find_elements(By.CSS_SELECTOR, f"#{id} tbody tr")
    return [dict(zip(heads, (plain(cell.text) for cell in line.find_elements(By.CSS_SELECTOR, "th, td"))))
            for line in lines]


def row(browser, id, name):
    return next(each for each in rows(browser, id) if next(iter(each.values())).splitlines()[0] == name)


def seconds(value):
    """As the page writes it: three significant digits."""
    size, unit = next((size, unit) for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")) if value >= size * 0.9995)
    value /= size
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {unit}"


def is_out(browser):
    return find(browser, "#outage").is_displayed()


def console(browser):
    """The errors that the page caused in the browser."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def asked(browser):
    """The paths requested since the page was opened."""
    names = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    return [re.sub(r"^http://[^/]+|\?.*", "", name) for name in names if name.startswith("http")]


def refreshes(browser):
    return asked(browser).count("/v1/metrics/summary")


def screenshot(browser, name):
    """Saved in the folder SCREENSHOTS, for people to look at."""
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(os.path.join(folder, name + ".png"))


def fill(server):
    source = random.Random(5)
    samples = []
    for number in range(200):
        for variant, median in (("original", 2.0), ("optimized", 0.05)):
            samples.append({"kind": "timing", "name": "quality_scoring", "variant": variant,
                            "duration_seconds": median * source.uniform(0.9, 1.1),
                            "cache": "hit" if variant == "optimized" else "miss"})
    samples += [{"kind": "timing", "name": "<b>model & load</b>", "duration_seconds": 1.5}] * 6
    samples.append({"kind": "timing", "name": "<b>model & load</b>", "duration_seconds": 1.5, "outcome": "error"})
    samples.append(
        {"kind": "memory", "name": "melodai", "rss_bytes": 157_000_000, "vms_bytes": 1_100_000_000, "percent": 2})
    assert server.json("POST", "/v1/samples", {"samples": samples}) == {"accepted": 408}
    server.request("PUT", "/v1/cache/scores/entries/a", b"x" * 1234)
    for key in ("a", "a", "a", "b"):
        server.request("GET", f"/v1/cache/scores/entries/{key}")
    server.json("PUT", "/v1/sessions/tab-7", {"state": {"prompt": "calm", "seed": 1}})
    server.json("POST", "/v1/sessions/tab-7/history", {"kind": "generation", "data": 1})


def test_it_shows_the_figures(server, browser):
    fill(server)
    open_page(browser, server)
    summary = server.json("GET", "/v1/metrics/summary")
    timing = next(each for each in summary["timings"] if each["name"] == "quality_scoring")
    # Variants, hits and misses are not mixed unless the user chooses so.
    parts = {f"{part['variant']} · {part['cache']}": part for part in timing["parts"]}
    assert set(parts) == {"original · miss", "optimized · hit"}
    for name, part in parts.items():
        shown = next(each for each in rows(browser, "operations")
                     if each["Operation"].split("\n") == ["quality_scoring", name])
        assert (shown["Count"], shown["Errors"]) == ("200", "0")
        assert shown["Hit rate"] == ("100 %" if part["cache"] == "hit" else "0 %")
        for column in ("p50", "p90", "p95", "p99", "Max"):
            assert shown[column] == seconds(part[f"{column.lower()}_seconds"])
    Select(find(browser, "[data-do=split]")).select_by_value("together")
    wait(browser, lambda: "split=together" in browser.current_url)
    shown = row(browser, "operations", "quality_scoring")
    assert (shown["Count"], shown["Errors"], shown["Hit rate"]) == ("400", "0", "50.0 %")
    for column in ("p50", "p90", "p95", "p99", "Max"):
        assert shown[column] == seconds(timing[f"{column.lower()}_seconds"])
    # Names are text, whatever they look like.
    assert row(browser, "operations", "<b>model & load</b>")["Errors"] == "1"
    assert browser.find_elements(By.CSS_SELECTOR, "#operations b") == []

    assert "quality_scoring over time" in text(browser, "detail")
    chart = find(browser, "#detail svg[role=img]").get_attribute("aria-label")
    assert seconds(timing["p50_seconds"]) in plain(chart) and "400 samples" in plain(chart)
    for shape in ("outer", "inner", "stroke"):
        assert find(browser, f"#detail path.{shape}").get_attribute("d").startswith("M")

    compared = row(browser, "comparison", "quality_scoring")
    item = summary["comparison"]["items"][0]
    low, high = (-bound for bound in reversed(item["confidence_interval_percent"]["p50"]))
    assert compared["Improvement"].replace("\n", " ") == (
        f"faster by {-item['change_percent']['p50']:.1f} % (95 % CI {low:.1f}–{high:.1f} %)")
    assert compared["Original (original)"].startswith(seconds(item["baseline"]["p50_seconds"]))
    assert compared["Optimized (optimized)"].endswith("200 samples")

    scores = row(browser, "cache", "scores")
    assert scores["Hit rate"] == "75.0 %" and scores["Misses"] == "1\n1 absent" and scores["Size"] == "1.23 kB"
    melodai = row(browser, "memory", "melodai")
    assert (melodai["RSS"], melodai["VMS"], melodai["Share"]) == ("157 MB", "1.10 GB", "2.0 %")
    assert row(browser, "memory", "reprise")
    assert "1 session with 2 keys" in text(browser, "sessions")
    assert row(browser, "sessions", "tab-7")["Keys"] == "2"
    assert row(browser, "history", "generation")["Share"] == "100 %"
    assert row(browser, "runs", "cache_expiry")["Why"] == "startup"
    for figure in ("407", "1 error", "75.0 %"):
        assert figure in text(browser, "tiles")
    for image in browser.find_elements(By.CSS_SELECTOR, "svg:not([aria-hidden])"):
        assert image.get_attribute("role") == "img" and image.get_attribute("aria-label")
    for moment in browser.find_elements(By.TAG_NAME, "time"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", moment.get_attribute("datetime"))
    assert console(browser) == []
    screenshot(browser, "full")


def cache_totals(browser):
    """Hits and misses in the tile, and the totals of the table."""
    tile = next(each for each in browser.find_elements(By.CSS_SELECTOR, "#tiles .tile") if "hit rate" in each.text)
    found = re.search(r"(\d+) hits? · (\d+) miss", plain(tile.text))
    shown = rows(browser, "cache")
    return ([int(part) for part in found.groups()] if found else [0, 0],
            [sum(int(each[name].splitlines()[0]) for each in shown) for name in ("Hits", "Misses")])


def test_counts_are_those_of_the_range(server, browser, tmp_path):
    """Events of some hours ago are in no tile, table or chart of the last hour, and in all of those of a day."""
    def bucket():
        return int(time.time()) // 300

    began = bucket()
    try:
        check_counts_of_the_range(server, browser)
    except (AssertionError, TimeoutException):
        # If one of the chart's buckets has ended meanwhile, the last look-up is in one that is over. The next lasts
        # five minutes.
        if bucket() == began:
            raise
        (tmp_path / "again").mkdir()
        other = Server(tmp_path / "again")
        try:
            check_counts_of_the_range(other, browser)
        finally:
            other.kill()


def check_counts_of_the_range(server, browser):
    fill(server)
    server.json("POST", "/v1/maintenance/cleanup", {})
    assert server.stop() == 0
    # Everything but the newest is three hours old, as if it had been written then.
    connection = sqlite3.connect(server.database)
    for table in ("cache_activity", "maintenance_activity"):
        connection.execute(f"UPDATE {table} SET start_ms = start_ms - 3 * 3600000")
    connection.execute("UPDATE maintenance_activity SET rows_removed = 777 WHERE task = 'space'")
    connection.commit()
    connection.close()
    server.start()
    server.request("GET", "/v1/cache/scores/entries/b")
    open_page(browser, server)
    assert cache_totals(browser) == ([0, 1], [0, 1])
    assert "0 %" in text(browser, "tiles") and "777" not in text(browser, "tiles")
    find(browser, "[name=range][value='21600']").click()
    wait(browser, lambda: cache_totals(browser) == ([3, 2], [3, 2]))
    assert "777" in text(browser, "tiles")
    label = plain(find(browser, "#cache svg[role=img]").get_attribute("aria-label"))
    assert "60.0 % of 5 look-ups" in label
    # Two buckets have look-ups, with a gap between them; the last one is not over.
    path = find(browser, "#cache path.s0").get_attribute("d")
    assert path.count("M") == 2
    assert len(browser.find_elements(By.CSS_SELECTOR, "#cache rect.volume")) == 2
    assert len(browser.find_elements(By.CSS_SELECTOR, "#cache rect.volume.partial")) >= 1
    find(browser, "#cache details summary").click()
    wait(browser, lambda: "(so far)" in text(browser, "cache"))
    assert console(browser) == []


def test_namespaces_that_are_not_named_are_summed_up(server, browser):
    for number in range(52):
        server.request("PUT", f"/v1/cache/n{number}/entries/k", b"x")
        server.request("GET", f"/v1/cache/n{number}/entries/k")
    server.request("GET", "/v1/cache/n51/entries/k")
    open_page(browser, server)
    shown = rows(browser, "cache")
    assert shown[0]["Namespace"] == "n51" and shown[-1]["Namespace"] == "all others"
    assert len(shown) == 51 and shown[-1]["Hits"] == "2"
    assert "The 50 busiest of 52" in text(browser, "cache")
    assert cache_totals(browser) == ([53, 0], [53, 0])


def test_it_asks_once_per_refresh(server, browser):
    fill(server)
    open_page(browser, server, "#refresh=5")
    assert sorted(asked(browser)) == [
        "/dashboard/script.js", "/dashboard/style.css", "/v1/diagnostics", "/v1/metrics/summary"]
    find(browser, "#now").click()
    wait(browser, lambda: refreshes(browser) == 2)
    wait(browser, lambda: refreshes(browser) == 3, seconds=8)
    Select(find(browser, "#refresh")).select_by_value("0")
    find(browser, "[name=range][value='900']").click()
    wait(browser, lambda: refreshes(browser) == 4)
    # Choosing what is drawn sends no request.
    find(browser, "[data-do=pick][data-value^='<b>']").click()
    Select(find(browser, "[data-do=memory]")).select_by_value("percent")
    assert refreshes(browser) == 4
    files = browser.execute_script(
        "return ['navigation', 'resource'].flatMap((type) => performance.getEntriesByType(type))"
        ".filter((e) => e.name.includes('/dashboard/')).reduce((sum, e) => sum + e.encodedBodySize, 0)")
    assert 10_000 < files < 100_000
    assert console(browser) == []


def test_it_says_what_to_send_when_it_is_empty(server, browser):
    open_page(browser, server)
    for id in ("operations", "comparison", "cache", "sessions", "history"):
        command = find(browser, f"#{id} code").text
        assert f"'http://{server.host}:{server.port}/v1/" in command
    screenshot(browser, "empty")
    find(browser, "#operations .copy").click()
    wait(browser, lambda: text(browser, "live").startswith(("Copied", "The command is selected")))
    # The commands work as printed, from the top of the page down.
    for code in browser.find_elements(By.CSS_SELECTOR, "main code"):
        answer = subprocess.run(code.text + " -s --fail-with-body", shell=True, capture_output=True, text=True)
        assert answer.returncode == 0, (code.text, answer.stdout)
    find(browser, "#now").click()
    # The name alone is in the command that was shown before, too.
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#operations tbody tr"))
    for id in ("operations", "comparison", "cache", "memory", "sessions", "history", "runs"):
        assert browser.find_elements(By.CSS_SELECTOR, f"#{id} code") == [], id
        assert rows(browser, id), id
    assert "faster by" in text(browser, "comparison")
    assert console(browser) == []


def test_it_says_that_monitoring_is_off(server, browser):
    server.json("PATCH", "/v1/config", {"enable_monitoring": False})
    open_page(browser, server)
    assert "Monitoring is off" in text(browser, "notice")
    subprocess.run(find(browser, "#notice code").text, shell=True, capture_output=True, check=True)
    find(browser, "#now").click()
    wait(browser, lambda: not find(browser, "#notice").is_displayed())


def miss(server, name, key="<i>k</i>"):
    """Sixty look-ups of which none hits, because the entry has expired."""
    path = f"/v1/cache/{name}/entries/{urllib.parse.quote(key, safe='')}"
    server.request("PUT", path, b"x", headers={"Reprise-TTL": "0.001"})
    time.sleep(0.05)
    for _ in range(60):
        assert server.request("GET", path)[0] == 404


def test_it_shows_findings_on_top(server, browser):
    """Only if there is something to do; what to do is one key away, and stays open."""
    open_page(browser, server)
    found = server.json("GET", "/v1/diagnostics")
    assert all(finding["severity"] == "info" or finding["code"] == "disk_nearly_full" for finding in found["findings"])
    if found["status"] == "ok":
        assert not find(browser, "#findings").is_displayed()
    miss(server, "scores")
    find(browser, "#now").click()
    wait(browser, lambda: "expire before" in text(browser, "findings"))
    shown = next(each for each in browser.find_elements(By.CSS_SELECTOR, ".finding.warning") if "expire" in each.text)
    assert re.match(r"▲ Warning Namespace 'scores': entries expire", shown.text)
    # Above all figures.
    assert shown.rect["y"] < find(browser, "#tiles").rect["y"]
    shown.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    wait(browser, lambda: "What to do: " in shown.text)
    wanted = next(finding for finding in server.json("GET", "/v1/diagnostics")["findings"]
                  if finding["code"] == "cache_misses_expired")
    assert wanted["remedy"] in plain(shown.text) and wanted["detail"] in plain(shown.text)
    assert "PUT /v1/cache/scores" in wanted["remedy"]
    screenshot(browser, "findings")
    # A refresh keeps it open; the worst are first and notes are last.
    find(browser, "#now").click()
    wait(browser, lambda: refreshes(browser) == 3)
    wait(browser, lambda: find(browser, "#main").get_attribute("aria-busy") == "false")
    assert shown.get_attribute("open") is not None
    order = [each.get_attribute("class").split()[1] for each in browser.find_elements(By.CSS_SELECTOR, ".finding")]
    assert order == sorted(order, key=["critical", "warning", "info"].index)
    assert console(browser) == []


def test_findings_that_may_not_be_seen_are_left_out(server, browser):
    """As for a token without the scope: the rest of the page is there."""
    miss(server, "scores")
    browser.get("about:blank")
    answer = "(async () => new Response('{}', {status: 403}))()"
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {
        "source": "const real = fetch; window.fetch = (url, options) => "
                  f"String(url).endsWith('/v1/diagnostics') ? {answer} : real(url, options);"})
    try:
        open_page(browser, server)
        wait(browser, lambda: "scope admin" in text(browser, "findings"))
        assert browser.find_elements(By.CSS_SELECTOR, ".finding") == []
        assert row(browser, "cache", "scores")["Misses"].startswith("60")
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    assert console(browser) == []


def test_it_shows_an_outage_and_recovers(server, browser):
    """By itself, although automatic refresh is off."""
    fill(server)
    open_page(browser, server)
    server.process.kill()
    server.process.wait()
    find(browser, "#now").click()
    wait(browser, lambda: is_out(browser))
    outage = text(browser, "outage-text")
    assert re.search(r"has not answered since \d\d?:\d\d:\d\d", outage)
    assert "Retrying automatically" in outage
    assert re.search(r"figures below are those of \d\d?:\d\d:\d\d", outage)
    assert find(browser, "#outage-text").get_attribute("role") == "alert"
    assert "Not connected" in text(browser, "status") and "Not answering" in browser.title
    # Known data stays, and whatever needs no answer still works.
    assert row(browser, "operations", "quality_scoring")["Count"] == "200"
    find(browser, "[data-do=pick][data-value^='<b>']").click()
    assert "model & load" in find(browser, "#detail h3").text
    wait(browser, lambda: "next try in" in text(browser, "outage-next"))
    screenshot(browser, "outage")
    tries = refreshes(browser)
    wait(browser, lambda: refreshes(browser) > tries + 1, seconds=20)
    # The same outage is not read out again with each retry.
    assert text(browser, "outage-text") == outage
    server.flags = (*server.flags, "--port", str(server.port))
    server.start()
    wait(browser, lambda: not is_out(browser), seconds=20)
    assert "Updated" in text(browser, "status") and browser.title == "Reprise"
    assert text(browser, "live") == "The service is answering again."
    # The browser itself reports failed requests; the page adds no errors.
    assert [each for each in console(browser) if "net::ERR_CONNECTION_REFUSED" not in each] == []


def test_it_paints_before_its_data_arrives(server, browser):
    """The page renders with nothing but its files: headings, controls and placeholders."""
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/v1/metrics/summary*"]})
    browser.get(f"http://{server.host}:{server.port}/dashboard/")
    assert [head.text for head in browser.find_elements(By.TAG_NAME, "h2")] == [
        "Operations", "Comparison of variants", "Cache", "Memory", "Sessions and their state", "History",
        "Cleanup runs", "Requests to this service"]
    assert browser.find_elements(By.CSS_SELECTOR, "main .loading")
    wait(browser, lambda: is_out(browser))
    assert "There are no figures yet" in text(browser, "outage-text")
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    wait(browser, lambda: not is_out(browser), seconds=20)
    assert browser.find_elements(By.CSS_SELECTOR, "main .loading") == []


def test_a_link_shows_the_same(server, browser):
    fill(server)
    server.json("POST", "/v1/samples", {"kind": "timing", "name": "a", "duration_seconds": 1, "variant": "third"})
    open_page(
        browser, server,
        "#range=86400&refresh=60&operation=%3Cb%3Emodel+%26+load%3C%2Fb%3E&sort=name&memory=percent"
        "&baseline=optimized&candidate=original")
    assert find(browser, "[name=range]:checked").get_attribute("value") == "86400"
    assert find(browser, "#refresh").get_attribute("value") == "60"
    assert "model & load" in find(browser, "#detail h3").text
    assert find(browser, "#operations [aria-sort]").get_attribute("aria-sort") == "ascending"
    assert find(browser, "[data-do=memory]").get_attribute("value") == "percent"
    assert row(browser, "comparison", "quality_scoring")["Improvement"].startswith("slower by ")
    # Comparing a variant with itself is pointless: the two are swapped.
    Select(find(browser, "[data-do=baseline]")).select_by_value("original")
    wait(browser, lambda: "faster by" in text(browser, "comparison"))
    assert "baseline=original&candidate=optimized" in browser.current_url
    # Impossible values are ignored.
    open_page(browser, server, "#range=1&refresh=x&operation=nothing&baseline=%07&candidate=b&memory=y")
    assert find(browser, "[name=range]:checked").get_attribute("value") == "3600"
    assert "quality_scoring" in find(browser, "#detail h3").text


def test_it_works_by_keyboard(server, browser):
    fill(server)
    open_page(browser, server)
    find(browser, "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the figures"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "main"
    # The range is a group of radio buttons, which the arrow keys move through.
    find(browser, "[name=range]:checked").send_keys(Keys.ARROW_RIGHT)
    wait(browser, lambda: refreshes(browser) == 2)
    assert "range=21600" in browser.current_url
    find(browser, "[data-key='sort-name']").send_keys(Keys.ENTER)
    head = find(browser, "#operations [aria-sort]")
    assert head.text.startswith("Operation") and head.get_attribute("aria-sort") == "ascending"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert find(browser, "#operations [aria-sort]").get_attribute("aria-sort") == "descending"
    # A selection is in the link, even if it is what is shown anyway.
    picked = find(browser, ".pick[aria-pressed=true]")
    assert picked.text.split("\n") == ["quality_scoring", "optimized · hit"]
    picked.send_keys(Keys.ENTER)
    assert "operation=quality_scoring" in browser.current_url
    find(browser, ".pick[data-value^='<b>']").send_keys(Keys.ENTER)
    assert "model & load" in find(browser, "#detail h3").text
    assert find(browser, ".pick[data-value^='<b>']").get_attribute("aria-pressed") == "true"
    assert "operation=" in browser.current_url
    # The figures of a chart, for people who cannot see it.
    find(browser, "#detail summary").send_keys(Keys.ENTER)
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#detail details tbody tr"))
    assert "1.50 s" in find(browser, "#detail details tbody").text.replace("\u00a0", " ")
    # A refresh keeps the keyboard focus, and the list unfolded.
    find(browser, ".pick[data-value^='<b>']").send_keys("")
    focused = browser.switch_to.active_element
    server.json("POST", "/v1/samples", {"kind": "timing", "name": "zzz", "duration_seconds": 1})
    browser.execute_script("document.getElementById('now').click()")
    wait(browser, lambda: "zzz" in text(browser, "operations"))
    assert browser.switch_to.active_element == focused
    assert find(browser, "#detail details").get_attribute("open") is not None
    assert console(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("is_full", [True, False], ids=["full", "empty"])
def test_it_is_readable_on_a_phone(server, browser, scheme, is_full):
    if is_full:
        fill(server)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True})
    open_page(browser, server)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in ground[4:-1].split(",")) / 3
    assert brightness > 200 if scheme == "light" else brightness < 50
    # Charts are drawn for the available width: their text keeps its size.
    for drawn in browser.find_elements(By.CSS_SELECTOR, "svg.chart"):
        width, box = drawn.get_dom_attribute("width"), drawn.get_dom_attribute("viewBox").split()
        assert width == box[2] and float(width) < 360
    # The comparison of variants can be read without scrolling sideways.
    for cell in browser.find_elements(By.CSS_SELECTOR, "#comparison td"):
        assert cell.rect["x"] >= 0 and cell.rect["x"] + cell.rect["width"] <= 360
    screenshot(browser, f"phone-{scheme}-{'full' if is_full else 'empty'}")


def test_it_is_served_small_and_alone(server):
    total = 0
    for path, kind in (("", "text/html"), ("style.css", "text/css"), ("script.js", "text/javascript")):
        status, headers, body = server.request("GET", "/dashboard/" + path)
        assert status == 200 and headers["Content-Type"].startswith(kind)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        again = server.request("GET", "/dashboard/" + path, headers={"If-None-Match": headers["ETag"]})
        assert again[0] == 304 and again[2] == b""
        hosts = body.replace(b"http://www.w3.org/2000/svg", b"")
        assert b"http://" not in hosts and b"https://" not in hosts
        total += len(body)
    assert total < 100_000
    assert server.request("GET", "/dashboard")[0] == 308
