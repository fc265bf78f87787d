"""Who gets in: tokens, wrong tokens, and pages of other sites. Against the real binary, and with a real browser."""

import base64
import http.server
import json
import os
import re
import shutil
import socket
import threading

import pytest

from conftest import Server, race, run

ADMIN = "a configured token that is long enough"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def make_token(server, name, scopes, as_token=None, **more):
    headers = {"Content-Type": "application/json", **(bearer(as_token) if as_token else {})}
    status, _, body = server.request(
        "POST", "/v1/tokens", json.dumps({"name": name, "scopes": scopes, **more}), headers)
    assert status == 201, body
    return json.loads(body)


def raw(server, text, seconds=5):
    """Sends bytes and reads until the server closes or is silent."""
    with socket.create_connection((server.host, server.port), timeout=seconds) as connection:
        connection.sendall(text.encode())
        connection.settimeout(seconds)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
                if b"\r\n\r\n" in answer:
                    break
        except TimeoutError:
            pass
        return answer.decode("latin-1")


def test_no_open_server_on_a_network(tmp_path):
    database = str(tmp_path / "test.db")
    arguments = ["serve", "--host", "0.0.0.0", "--port", "0", "--database", database]
    assert run(*arguments, "--set", "authentication=required").returncode == 78
    refused = run(*arguments)
    assert refused.returncode == 78
    for remedy in ["reprise token create", "REPRISE_ADMIN_TOKEN_FILE", "--host 127.0.0.1", "authentication"]:
        assert remedy in refused.stderr
    both = run(*arguments, REPRISE_ADMIN_TOKEN="x" * 32, REPRISE_ADMIN_TOKEN_FILE="/dev/null")
    assert both.returncode == 78 and "x" * 32 not in both.stderr
    flag = run(*arguments, "--set", "admin_token=abc")
    assert flag.returncode == 78 and "REPRISE_ADMIN_TOKEN_FILE" in flag.stderr


def test_an_admin_token_must_be_usable(tmp_path):
    database = ["serve", "--port", "0", "--database", str(tmp_path / "test.db")]
    long = run(*database, REPRISE_ADMIN_TOKEN="x" * 513)
    assert long.returncode == 78 and "512 bytes" in long.stderr and "xxxx" not in long.stderr
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "lines").write_text("x" * 32 + "\n" + "y" * 32)
    (tmp_path / "spaced").write_text("x" * 20 + "\t" + "y" * 20)
    (tmp_path / "binary").write_bytes(b"\xff" * 40)
    for name, reason in [("empty", "is empty"), ("lines", "several lines"), ("binary", "is not text"),
                         ("none", "No such file"), ("", "Is a directory"), ("spaced", "must be")]:
        refused = run(*database, REPRISE_ADMIN_TOKEN_FILE=f"{tmp_path}/{name}")
        assert refused.returncode == 78 and "REPRISE_ADMIN_TOKEN_FILE" in refused.stderr, refused.stderr
        assert reason in refused.stderr and "xxxx" not in refused.stderr, refused.stderr
    server = Server(tmp_path, variables={"REPRISE_ADMIN_TOKEN": "short"})
    assert "short enough to be guessed" in server.log
    server.stop()


def test_the_configured_token_opens(tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text(ADMIN + "\n")
    server = Server(tmp_path, "--host", "0.0.0.0", variables={"REPRISE_ADMIN_TOKEN_FILE": str(secret)})
    try:
        server.host = "127.0.0.1"
        assert server.request("GET", "/health/ready")[0] == 200
        assert server.request("GET", "/v1/config")[0] == 401
        assert server.request("GET", "/v1/config", headers=bearer(ADMIN))[0] == 200
    finally:
        server.stop()


def test_tokens_survive_and_stay_revoked(server):
    admin = make_token(server, "admin", ["admin"])["token"]
    kept = make_token(server, "kept", ["read"], admin)
    gone = make_token(server, "gone", ["read"], admin)
    assert server.request("GET", "/v1/sessions", headers=bearer(kept["token"]))[0] == 200
    assert server.request("DELETE", f"/v1/tokens/{gone['id']}", headers=bearer(admin))[0] == 204
    server.kill()
    server.start()
    assert server.request("GET", "/v1/sessions")[0] == 401
    assert server.request("GET", "/v1/sessions", headers=bearer(kept["token"]))[0] == 200
    assert server.request("GET", "/v1/sessions", headers=bearer(gone["token"]))[0] == 401
    server.stop()
    server.start()
    listed = json.loads(server.request("GET", "/v1/tokens", headers=bearer(admin))[2])["items"]
    assert {each["name"] for each in listed} == {"admin", "kept"}
    assert all(each["last_used_at"] for each in listed)


def test_racing_first_tokens(server):
    """Of many who make the first token at the same time, those who come later need one already."""
    def make(index):
        status, _, body = server.request(
            "POST", "/v1/tokens", json.dumps({"name": f"t{index}", "scopes": ["admin"]}),
            {"Content-Type": "application/json"})
        return status, body

    answers = race(16, make)
    assert {status for status, _ in answers} <= {201, 401}
    token = next(json.loads(body)["token"] for status, body in answers if status == 201)
    listed = json.loads(server.request("GET", "/v1/tokens", headers=bearer(token))[2])["items"]
    assert len(listed) == sum(status == 201 for status, _ in answers)


def test_nobody_is_invited_who_will_be_refused(server):
    admin = make_token(server, "admin", ["admin"])["token"]
    reader = make_token(server, "reader", ["read"], admin)["token"]

    def first_line(*fields):
        lines = ["PUT /v1/cache/x/entries/y HTTP/1.1", f"Host: localhost:{server.port}", "Content-Length: 1000000",
                 "Expect: 100-continue", *fields, "", ""]
        return raw(server, "\r\n".join(lines)).split("\r\n")[0]

    assert first_line(f"Authorization: Bearer {admin}") == "HTTP/1.1 100 Continue"
    assert first_line() == "HTTP/1.1 401 Unauthorized"
    assert first_line(f"Authorization: Bearer {reader}") == "HTTP/1.1 403 Forbidden"
    assert first_line(f"Authorization: Bearer {admin}", "Origin: http://evil.example") == "HTTP/1.1 403 Forbidden"
    # Each is counted once, although it is decided twice: about 100 Continue, and about the answer.
    metrics = server.request("GET", "/metrics", headers=bearer(admin))[2].decode()
    counts = dict(re.findall(r'reprise_access_refused_total\{reason="(\w+)"\} (\d+)', metrics))
    assert (counts["missing"], counts["scope"], counts["origin"]) == ("1", "1", "1")


def test_other_hosts_are_refused(server):
    def status(host):
        return int(raw(server, f"GET /health/live HTTP/1.1\r\nHost: {host}\r\n\r\n").split()[1])

    assert [status(host) for host in ["localhost", "127.0.0.1:1", "[::1]", "a.localhost"]] == [200] * 4
    assert [status(host) for host in ["evil.example", f"evil.example:{server.port}", "10.0.0.1"]] == [421] * 3


def test_secrets_are_nowhere(tmp_path):
    server = Server(tmp_path, "--log-level", "trace", variables={"REPRISE_ADMIN_TOKEN": ADMIN})
    try:
        made = make_token(server, "reader", ["read", "admin"], ADMIN)
        secret = made["token"].split("_")[2]
        headers = bearer(made["token"])
        wrong = "rpr_" + made["id"] + "_" + "0" * 64
        assert server.request("GET", "/v1/config", headers=bearer(wrong))[0] == 401
        answers = [server.request("GET", path, headers=headers)[2] for path in
                   ["/v1/config", "/v1/tokens", "/v1/tokens/self", "/metrics", "/v1/maintenance/runs", "/v1/backups",
                    "/v1/diagnostics", "/v1/metrics/summary"]]
        for table in ["access_tokens", "runtime_settings", "sqlite_schema"]:
            status, _, body = server.request(
                "POST", "/v1/sql", json.dumps({"query": f"SELECT * FROM {table}"}),
                {"Content-Type": "application/json", **headers})
            answers.append(body)
            if table == "access_tokens":
                assert status == 422
        server.request("GET", "/v1/cache/none/entries/none", headers=headers)
        server.stop()
        with open(server.log_path, "rb") as log:
            answers.append(log.read())
        for name in os.listdir(tmp_path):
            if (tmp_path / name).is_file():
                answers.append((tmp_path / name).read_bytes())
        for text in [secret, ADMIN, "0" * 64]:
            assert not any(text.encode() in answer for answer in answers), text
    finally:
        server.kill()


def test_wrong_tokens_get_slower(server):
    admin = make_token(server, "admin", ["admin"])["token"]
    assert all(status in (401, 429) for status in race(
        48, lambda index: server.request("GET", "/v1/config", headers=bearer("guess" + str(index)))[0]))
    status, fields, _ = server.request("GET", "/v1/config", headers=bearer(admin))
    assert status == 200
    metrics = server.request("GET", "/metrics", headers=bearer(admin))[2].decode()
    counts = dict(re.findall(r'reprise_access_refused_total\{reason="(\w+)"\} (\d+)', metrics))
    assert int(counts["invalid"]) + int(counts["attempts"]) >= 48


# A real browser

needs_browser = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs Debian's packages chromium and chromium-driver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--host-resolver-rules=MAP rebound.example 127.0.0.1",
                     f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(30)
    driver.set_script_timeout(20)
    yield driver
    driver.quit()


@pytest.fixture
def elsewhere():
    """An empty page of another origin: the same machine, another port."""
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title>")

        def log_message(self, *_):
            pass

    pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{pages.server_address[1]}"
    pages.shutdown()
    pages.server_close()


FETCH = """
const [url, options, done] = arguments;
fetch(url, options).then(async (answer) => done({status: answer.status, type: answer.type, text: await answer.text()}),
                         (error) => done({error: String(error)}));
"""

# What the page of another site would store: a page whose script reads what the service holds.
EVIL = "<!doctype html><title>safe</title><script>document.title = 'script ran at ' + location.origin</script>"


@needs_browser
def test_pages_of_other_origins_change_nothing(server, browser, elsewhere):
    from selenium.webdriver.support.ui import WebDriverWait

    origin = f"http://127.0.0.1:{server.port}"
    batch = json.dumps({"operations": [
        {"op": "set", "key": "page", "base64": base64.b64encode(EVIL.encode()).decode(), "content_type": "text/html"}]})
    browser.get(elsewhere)
    # Without asking: a type that forms may send, and none at all. With asking: JSON.
    for options in [{"mode": "no-cors", "headers": {"Content-Type": "text/plain"}},
                    {"mode": "no-cors", "headers": {}},
                    {"mode": "cors", "headers": {"Content-Type": "application/json"}}]:
        browser.execute_async_script(FETCH, f"{origin}/v1/cache/x/batch", {"method": "POST", "body": batch, **options})
    browser.execute_async_script(FETCH, f"{origin}/v1/sessions", {"method": "POST", "mode": "no-cors"})
    # The form of a page, sent by navigation.
    browser.execute_script(
        "const form = document.createElement('form'); form.method = 'post'; form.enctype = 'text/plain';"
        "form.action = arguments[0]; document.body.append(form); form.submit();", f"{origin}/v1/sessions")
    WebDriverWait(browser, 15).until(lambda _: str(server.port) in browser.current_url)
    assert server.request("GET", "/v1/cache/x/entries/page")[0] == 404
    assert json.loads(server.request("GET", "/v1/sessions")[2])["items"] == []
    # It cannot read either.
    server.request("PUT", "/v1/cache/x/entries/secret", b"secret", {"Content-Type": "text/plain"})
    browser.get(elsewhere)
    answer = browser.execute_async_script(FETCH, f"{origin}/v1/cache/x/entries/secret", {})
    assert "error" in answer


@needs_browser
def test_a_stored_page_does_not_run_on_the_origin_of_the_service(server, browser):
    server.request("PUT", "/v1/cache/x/entries/page", EVIL.encode(), {"Content-Type": "text/html"})
    browser.get(f"http://127.0.0.1:{server.port}/v1/cache/x/entries/page")
    assert browser.title == "safe"


@needs_browser
def test_a_rebound_name_reads_nothing(server, browser):
    server.request("PUT", "/v1/cache/x/entries/secret", b"secret", {"Content-Type": "text/plain"})
    browser.get(f"http://rebound.example:{server.port}/v1/cache/x/entries/secret")
    assert "host_not_allowed" in browser.page_source


@needs_browser
def test_allowed_origins_work(tmp_path, browser, elsewhere):
    server = Server(tmp_path, "--set", f"allowed_origins={elsewhere}")
    try:
        origin = f"http://127.0.0.1:{server.port}"
        browser.get(elsewhere)
        answer = browser.execute_async_script(
            FETCH, f"{origin}/v1/sessions",
            {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": '{"id": "from-a-page"}'})
        assert answer["status"] == 201 and json.loads(answer["text"])["id"] == "from-a-page"
    finally:
        server.stop()


@needs_browser
def test_the_dashboard_asks_for_a_token(server, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def text(id):
        return browser.find_element(By.ID, id).text

    def wait(condition):
        WebDriverWait(browser, 15, poll_frequency=0.1).until(lambda _: condition())

    def enter(token):
        field = browser.find_element(By.ID, "token")
        field.clear()
        field.send_keys(token + "\n")

    admin = make_token(server, "admin", ["admin"])["token"]
    reader = make_token(server, "reader", ["read"], admin)
    limited = make_token(server, "limited", ["read"], admin, namespaces=["x"])["token"]
    page = f"http://127.0.0.1:{server.port}/dashboard/#refresh=0"
    browser.get(page)
    wait(lambda: "needs a token" in text("access-text"))
    enter("rpr_wrong")
    wait(lambda: "not valid" in text("access-text"))
    enter(limited)
    wait(lambda: "only the cache namespaces x" in text("access-text"))
    enter(reader["token"])
    wait(lambda: "Updated" in text("status"))
    assert not browser.find_element(By.ID, "access").is_displayed()
    stored = browser.execute_script("return [JSON.stringify(localStorage), document.cookie, location.href]")
    assert not any(reader["token"] in each for each in stored)
    browser.refresh()
    wait(lambda: "Updated" in text("status"))
    # Another tab has to ask again.
    browser.switch_to.new_window("tab")
    browser.get(page)
    wait(lambda: "needs a token" in text("access-text"))
    browser.close()
    browser.switch_to.window(browser.window_handles[0])
    server.request("DELETE", f"/v1/tokens/{reader['id']}", headers=bearer(admin))
    browser.find_element(By.ID, "now").click()
    wait(lambda: "not valid" in text("access-text"))
    enter(admin)
    wait(lambda: "Updated" in text("status"))
    browser.find_element(By.ID, "leave").click()
    wait(lambda: "needs a token" in text("access-text"))


# The command

def test_commands_have_the_admin_token_of_their_own_server(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s" * 40)
    server = Server(tmp_path, variables={"REPRISE_ADMIN_TOKEN_FILE": str(secret)})
    other = f"http://127.0.0.1:{server.port}"
    try:
        settings = ["--port", str(server.port), "--database", server.database]
        assert run("token", "list", *settings).returncode == 1
        assert run("token", "list", *settings, REPRISE_ADMIN_TOKEN_FILE=str(secret)).returncode == 0
        # Whoever is named by a URL may be somebody else.
        asked = run("token", "list", "--url", other, REPRISE_ADMIN_TOKEN_FILE=str(secret))
        assert asked.returncode == 1 and "did not accept the token" in asked.stderr
    finally:
        server.stop()


def test_it_is_said_when_nobody_is_an_admin(tmp_path):
    database = ["--database", str(tmp_path / "test.db")]
    first = run("token", "create", "reader", *database)
    assert first.returncode == 0 and "no lasting token has the scope admin" in first.stderr
    assert run("token", "create", "owner", "--scope", "admin", *database).stderr == ""
    assert run("token", "create", "reader", *database).stderr == ""
    os.remove(tmp_path / "test.db")
    server = Server(tmp_path)
    try:
        port = ["--port", str(server.port)]
        locked = run("token", "create", "reader", *port)
        assert locked.returncode == 0 and "no lasting token has the scope admin" in locked.stderr
    finally:
        server.stop()


def test_tokens_by_command(tmp_path):
    database = ["--database", str(tmp_path / "test.db")]

    def command(*arguments, **variables):
        return run("token", *arguments, *database, **variables)

    missing = command("list")
    assert missing.returncode == 1 and "no database" in missing.stderr and not os.path.exists(tmp_path / "test.db")
    # Without a server: on the file.
    made = command("create", "first", "--scope", "admin")
    assert made.returncode == 0 and re.fullmatch(r"rpr_[0-9a-f]{16}_[0-9a-f]{64}\n", made.stdout), made.stderr
    admin = made.stdout.strip()
    wrong = command("create", "bad", "--scope", "root")
    assert wrong.returncode == 1 and "read, write, admin" in wrong.stderr
    server = Server(tmp_path)
    try:
        # Beside a server: over HTTP.
        port = ["--port", str(server.port)]
        refused = command("list", *port)
        assert refused.returncode == 1 and "token" in refused.stderr
        limited = command("create", "melodai", "--scope", "write", "--namespace", "models*", "--expires-in", "60", *port,
                          REPRISE_TOKEN=admin)
        assert limited.returncode == 0, limited.stderr
        token = limited.stdout.strip()
        assert server.request("PUT", "/v1/cache/models-2/entries/x", b"x", bearer(token))[0] == 201
        assert server.request("PUT", "/v1/cache/others/entries/x", b"x", bearer(token))[0] == 403
        secret = tmp_path / "secret"
        secret.write_text(admin + "\n")
        listed = command("list", "--token-file", str(secret), *port)
        assert "melodai" in listed.stdout and "models*" in listed.stdout and token not in listed.stdout
        revoked = command("revoke", token, *port, REPRISE_TOKEN=admin)
        assert revoked.returncode == 0 and token.split("_")[2] not in revoked.stdout, revoked.stderr
        assert server.request("GET", "/v1/cache/models-2/entries/x", headers=bearer(token))[0] == 401
        gone = command("revoke", token.split("_")[1], *port, REPRISE_TOKEN=admin)
        assert gone.returncode == 1 and "no token" in gone.stderr
    finally:
        server.stop()
    # The flags of a server that does not run are no reason to look for another.
    assert json.loads(command("list", "--json", "--port", str(server.port)).stdout)["items"][0]["name"] == "first"
    assert json.loads(command("list", "--json").stdout)["items"][0]["name"] == "first"
    assert command("revoke", admin.split("_")[1]).returncode == 0
    assert json.loads(command("list", "--json").stdout)["items"] == []
