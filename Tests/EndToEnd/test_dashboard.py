"""The dashboard in a real browser: with data, without any, and with the server gone."""

import os
import random
import shutil

import pytest

selenium = pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs Debian's packages chromium and chromium-driver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1280,1600"]:
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(30)
    yield driver
    driver.quit()


def open_page(browser, server, fragment=""):
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(f"http://{server.host}:{server.port}/dashboard/{fragment}")
    wait(browser, lambda: "Updated" in text(browser, "status"))


def wait(browser, condition, seconds=15):
    WebDriverWait(browser, seconds, poll_frequency=0.1).until(lambda _: condition())


def text(browser, id):
    return browser.find_element(By.ID, id).text


def console_errors(browser):
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def screenshot(browser, name):
    """Kept where SCREENSHOTS says, to be looked at."""
    if folder := os.environ.get("SCREENSHOTS"):
        height = browser.execute_script("return document.documentElement.scrollHeight")
        width = browser.execute_script("return document.documentElement.clientWidth")
        browser.set_window_size(width, height + 150)
        browser.save_screenshot(os.path.join(folder, name + ".png"))
        browser.set_window_size(1280, 1600)


def fill(server):
    source = random.Random(5)
    samples = []
    for number in range(200):
        for variant, median in (("original", 2.0), ("optimized", 0.05)):
            samples.append({"kind": "timing", "name": "quality_scoring", "variant": variant,
                            "duration_seconds": median * source.uniform(0.9, 1.1),
                            "cache": "hit" if variant == "optimized" else "miss"})
    samples += [{"kind": "timing", "name": "<b>model & load</b>", "duration_seconds": 1.5}] * 7
    samples.append({"kind": "memory", "name": "melodai", "rss_bytes": 157_000_000, "vms_bytes": 1_100_000_000, "percent": 2})
    assert server.json("POST", "/v1/samples", {"samples": samples}) == {"accepted": 408}
    server.request("PUT", "/v1/cache/scores/entries/a", b"x" * 1234)
    for key in ("a", "a", "a", "b"):
        server.request("GET", f"/v1/cache/scores/entries/{key}")
    server.json("PUT", "/v1/sessions/tab-7", {"state": {"prompt": "calm", "seed": 1}})
    server.json("POST", "/v1/sessions/tab-7/history", {"kind": "generation", "data": 1})


def test_it_shows_the_figures(server, browser):
    fill(server)
    open_page(browser, server)
    operations = text(browser, "operations")
    row = next(line for line in operations.splitlines() if line.startswith("quality_scoring"))
    summary = server.json("GET", "/v1/metrics/summary")
    timing = next(t for t in summary["timings"] if t["name"] == "quality_scoring")
    assert "400" in row
    assert f"{timing['max_seconds']:.2f}".rstrip("0") + " s" in row
    assert "50 %" in row
    # Names are text, whatever they look like.
    assert "<b>model & load</b>" in operations
    comparison = text(browser, "comparison")
    assert "97." in comparison and "faster" in comparison and "200 / 200" in comparison
    assert "75 %" in text(browser, "cache") and "1 absent" in text(browser, "cache") and "1.2 kB" in text(browser, "cache")
    assert "157 MB" in text(browser, "memory") and "reprise" in text(browser, "memory")
    assert "tab-7" in text(browser, "sessions") and "2 keys" in text(browser, "sessions")
    assert "generation" in text(browser, "history")
    assert "cache_expiry" in text(browser, "runs")
    assert "408" not in text(browser, "tiles") and "407" in text(browser, "tiles")
    assert browser.find_elements(By.CSS_SELECTOR, "#detail svg path.stroke, #detail svg circle.dot")
    assert console_errors(browser) == []
    screenshot(browser, "full")


def test_it_asks_once_per_refresh(server, browser):
    fill(server)
    open_page(browser, server, "#range=3600&refresh=0")
    before = requests_to(browser)
    assert before.count("/v1/metrics/summary") == 1
    assert all(path.startswith(("/dashboard/", "/v1/metrics/summary")) for path in before), before
    shown = text(browser, "status")
    browser.find_element(By.ID, "now").click()
    wait(browser, lambda: requests_made(browser) == 2)
    assert shown


def requests_to(browser):
    script = "return performance.getEntriesByType('resource').map((e) => new URL(e.name)).map((u) => [u.protocol, u.pathname])"
    return [path for protocol, path in browser.execute_script(script) if protocol.startswith("http")]


def requests_made(browser):
    return requests_to(browser).count("/v1/metrics/summary")


def test_it_says_what_to_send_when_it_is_empty(server, browser):
    open_page(browser, server)
    for id, request in (("operations", "/v1/samples"), ("comparison", "variant"), ("cache", "/v1/cache/scores/entries/"),
                        ("sessions", "/v1/sessions/tab-7"), ("history", "/v1/sessions/tab-7/history")):
        assert f"curl -X" in text(browser, id) and request in text(browser, id), id
    # What it says works as it stands.
    command = browser.find_element(By.CSS_SELECTOR, "#operations code").text
    import subprocess
    assert '"accepted":1' in subprocess.run(command, shell=True, capture_output=True, text=True).stdout
    browser.find_element(By.ID, "now").click()
    wait(browser, lambda: "model_load" in text(browser, "operations"))
    assert console_errors(browser) == []
    screenshot(browser, "empty")


def test_it_shows_an_outage_and_recovers(server, browser):
    fill(server)
    open_page(browser, server, "#range=900&refresh=5")
    server.process.kill()
    server.process.wait()
    browser.find_element(By.ID, "now").click()
    wait(browser, lambda: browser.find_element(By.ID, "outage").is_displayed())
    assert "does not answer" in text(browser, "outage")
    assert "Not connected" in text(browser, "status")
    # What was known stays.
    assert "quality_scoring" in text(browser, "operations")
    screenshot(browser, "outage")
    server.flags = (*server.flags, "--port", str(server.port))
    server.start()
    wait(browser, lambda: not browser.find_element(By.ID, "outage").is_displayed(), seconds=20)
    assert "Updated" in text(browser, "status")
    # Failed requests are told by the browser itself; the page has none of its own.
    assert [e for e in console_errors(browser) if "net::ERR_CONNECTION_REFUSED" not in e] == []


def test_it_paints_before_its_data_arrives(server, browser):
    """The page stands with nothing but its files: headings, controls and places for what comes."""
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/v1/metrics/summary*"]})
    try:
        browser.get("about:blank")
        browser.get(f"http://{server.host}:{server.port}/dashboard/")
        assert [h.text for h in browser.find_elements(By.TAG_NAME, "h2")][:3] == [
            "Operations", "Comparison of variants", "Cache"]
        assert browser.find_elements(By.CLASS_NAME, "loading")
        wait(browser, lambda: browser.find_element(By.ID, "outage").is_displayed())
    finally:
        browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})


def test_it_works_by_keyboard_and_on_a_phone(server, browser):
    fill(server)
    open_page(browser, server, "#refresh=0")
    header = browser.find_element(By.CSS_SELECTOR, "[data-key='sort-name']")
    header.send_keys(Keys.ENTER)
    sorted_by = browser.find_element(By.CSS_SELECTOR, "#operations [aria-sort]")
    assert sorted_by.text.startswith("Operation") and sorted_by.get_attribute("aria-sort") == "ascending"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    sorted_by = browser.find_element(By.CSS_SELECTOR, "#operations [aria-sort]")
    assert sorted_by.get_attribute("aria-sort") == "descending"
    pick = browser.find_element(By.CSS_SELECTOR, "[data-key^='op-<b>']")
    pick.send_keys(Keys.ENTER)
    assert "model & load" in browser.find_element(By.CSS_SELECTOR, "#detail h3").text
    assert "operation=" in browser.current_url
    for image in browser.find_elements(By.CSS_SELECTOR, "svg[role=img]"):
        assert image.get_attribute("aria-label")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True})
    try:
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= 360
        screenshot(browser, "phone")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_has_two_colour_schemes(server, browser, scheme):
    fill(server)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": scheme}]})
    open_page(browser, server)
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in ground[4:-1].split(",")) / 3
    assert (brightness > 200) == (scheme == "light")
    screenshot(browser, scheme)


def test_it_is_small_and_asks_nobody_else(server):
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
