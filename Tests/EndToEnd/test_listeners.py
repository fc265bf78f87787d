"""Where the server listens: HTTP, HTTPS with HTTP/1.1 and HTTP/2, Unix domain sockets, all at once."""

import http.client
import json
import os
import signal
import socket
import ssl
import stat
import struct
import subprocess
import time

import pytest

from conftest import BINARY, certificate, environment, run


@pytest.fixture
def pair(tmp_path):
    return certificate(tmp_path)


class Process:
    """A server with any listeners; `urls` are what it says it listens on."""

    def __init__(self, folder, *flags, **variables):
        self.log_path = str(folder / "log")
        self.database = str(folder / "listeners.db")
        arguments = [BINARY, "serve", "--database", self.database]
        if "--port" not in flags:
            arguments += ["--port", "0"]
        self.flags = flags
        with open(self.log_path, "a") as log:
            self.process = subprocess.Popen(
                [*arguments, *flags], stdout=subprocess.PIPE, stderr=log, text=True, env=environment(**variables))
        count = 1 + sum("tls_port" in flag for flag in flags) + sum("unix_socket" in flag for flag in flags)
        self.urls = []
        for _ in range(count):
            line = self.process.stdout.readline()
            assert line.startswith("listening on "), self.log
            self.urls.append(line.removeprefix("listening on ").strip())

    @property
    def log(self):
        return open(self.log_path).read()

    def port(self, scheme):
        return int(next(url for url in self.urls if url.startswith(scheme + "://")).rsplit(":", 1)[1])

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=20)


@pytest.fixture
def begin(tmp_path):
    running = []

    def begin(*flags, **variables):
        running.append(Process(tmp_path, *flags, **variables))
        return running[-1]

    yield begin
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def settings(**values):
    return [argument for name, value in values.items() for argument in ("--set", f"{name}={value}")]


def curl(*arguments):
    return subprocess.run(["curl", "-sS", "--max-time", "20", *arguments], capture_output=True, text=True)


def version(*arguments):
    return curl("-o", "/dev/null", "-w", "%{http_version} %{response_code}", *arguments).stdout


def served_name(port):
    """The subject of the certificate that is served."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        with context.wrap_socket(raw) as secure:
            pem = ssl.DER_cert_to_PEM_cert(secure.getpeercert(True))
    text = subprocess.run(["openssl", "x509", "-noout", "-subject"], input=pem, capture_output=True, text=True).stdout
    return text.strip().split("CN = ")[1]


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)


def test_http_https_and_a_socket_at_once(begin, pair, tmp_path):
    path = str(tmp_path / "r.sock")
    server = begin(*settings(tls_certificate_file=pair[0], tls_key_file=pair[1], tls_port=0, unix_socket=path))
    assert [url.split(":")[0] for url in server.urls] == ["http", "https", "unix"]
    plain, secure = server.port("http"), server.port("https")
    trust = ["--cacert", pair[0], "--resolve", f"localhost:{secure}:127.0.0.1"]
    assert version(f"http://127.0.0.1:{plain}/health/ready") == "1.1 200"
    assert version(*trust, f"https://localhost:{secure}/health/ready") == "2 200"
    assert version(*trust, "--http1.1", f"https://localhost:{secure}/health/ready") == "1.1 200"
    assert version("--unix-socket", path, "http://localhost/health/ready") == "1.1 200"
    # What one of them stored, the others have.
    value = os.urandom(3_000_000)
    (tmp_path / "value").write_bytes(value)
    upload = ["-T", str(tmp_path / "value"), "-o", "/dev/null", "-w", "%{response_code}"]
    assert curl(*trust, *upload, f"https://localhost:{secure}/v1/cache/n/entries/k").stdout == "201"
    for arguments in ([*trust, f"https://localhost:{secure}"], [f"http://127.0.0.1:{plain}"],
                      ["--unix-socket", path, "http://localhost"], [*trust, "--http1.1", f"https://localhost:{secure}"]):
        url = arguments[-1] + "/v1/cache/n/entries/k"
        assert curl(*arguments[:-1], "-o", str(tmp_path / "copy"), url).returncode == 0
        assert (tmp_path / "copy").read_bytes() == value
    assert server.stop() == 0
    assert not os.path.exists(path)


def test_a_certificate_makes_the_only_port_secure(begin, pair):
    server = begin(*settings(tls_certificate_file=pair[0], tls_key_file=pair[1]))
    assert [url.split(":")[0] for url in server.urls] == ["https"]
    port = server.port("https")
    assert version("-k", f"https://127.0.0.1:{port}/health/ready") == "2 200"
    plain = curl(f"http://127.0.0.1:{port}/health/ready")
    assert "This port speaks HTTPS" in plain.stdout
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"\0\1\2 neither")
        assert connection.recv(1000)[:1] in (b"", b"\x15")
    assert curl("-k", "--tls-max", "1.1", f"https://127.0.0.1:{port}/health/ready").returncode != 0


def test_http2_carries_problems_and_many_requests(begin, pair, tmp_path):
    server = begin(*settings(tls_certificate_file=pair[0], tls_key_file=pair[1]))
    base = f"https://127.0.0.1:{server.port('https')}"
    missing = curl("-k", "-D", "-", f"{base}/v1/cache/n/entries/none").stdout
    assert missing.startswith("HTTP/2 404") and '"code":"cache_miss"' in missing and "date:" in missing
    large = tmp_path / "large"
    large.write_bytes(bytes(70 << 20))
    assert version("-k", "-T", str(large), f"{base}/v1/cache/n/entries/large") == "2 413"
    config = tmp_path / "urls"
    config.write_text("".join(
        f'url = "{base}/v1/cache/n/entries/none{i}"\noutput = "/dev/null"\n' for i in range(500)))
    done = curl("-k", "--parallel", "--parallel-max", "100", "-w", "%{http_version} %{response_code}\n", "-K", str(config))
    assert done.stdout == "2 404\n" * 500


@pytest.mark.parametrize("wrong, named", [
    (dict(tls_certificate_file="C"), "tls_key_file"),
    (dict(tls_key_file="K"), "tls_certificate_file"),
    (dict(tls_port=0), "tls_certificate_file"),
    (dict(tls_certificate_file="C", tls_key_file="/none"), "/none"),
    (dict(tls_certificate_file="/none", tls_key_file="K"), "/none"),
    (dict(tls_certificate_file="K", tls_key_file="K"), "tls_certificate_file"),
    (dict(tls_certificate_file="C", tls_key_file="C"), "tls_key_file"),
    (dict(tls_certificate_file="C", tls_key_file="OTHER"), "tls_key_file"),
])
def test_half_a_pair_is_refused_with_a_remedy(pair, tmp_path, wrong, named):
    other = certificate(tmp_path, "other", "other-")
    files = {"C": pair[0], "K": pair[1], "OTHER": other[1]}
    values = {name: files.get(value, value) for name, value in wrong.items()}
    result = run("serve", "--port", "0", "--database", str(tmp_path / "t.db"), *settings(**values))
    assert result.returncode == 78 and named in result.stderr, result.stderr
    assert not os.path.exists(tmp_path / "t.db")


@pytest.mark.parametrize("notice", ["change", "SIGHUP"])
def test_a_renewed_certificate_is_served_without_a_restart(begin, pair, tmp_path, notice):
    server = begin(*settings(tls_certificate_file=pair[0], tls_key_file=pair[1]))
    port = server.port("https")
    assert served_name(port) == "localhost"
    open_connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=ssl._create_unverified_context())
    open_connection.request("GET", "/health/ready")
    assert open_connection.getresponse().read()
    renewed = certificate(tmp_path, "renewed", "new-")
    # The certificate alone does not fit the key; the old pair stays until the key is there.
    os.replace(renewed[0], pair[0])
    if notice == "SIGHUP":
        server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "is not used" in server.log)
    assert served_name(port) == "localhost"
    os.replace(renewed[1], pair[1])
    if notice == "SIGHUP":
        server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: served_name(port) == "renewed")
    assert server.log.count("is not used") == 1
    open_connection.request("GET", "/health/ready")
    assert open_connection.getresponse().status == 200


def test_only_its_user_can_open_the_socket(begin, tmp_path):
    path = str(tmp_path / "r.sock")
    old = os.umask(0)
    try:
        server = begin(*settings(unix_socket=path))
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert server.urls[1] == f"unix:{path}"


def test_the_socket_of_a_killed_server_is_replaced(begin, tmp_path):
    path = str(tmp_path / "r.sock")
    first = begin(*settings(unix_socket=path))
    first.process.kill()
    first.process.wait()
    assert stat.S_ISSOCK(os.lstat(path).st_mode)
    begin(*settings(unix_socket=path))
    assert version("--unix-socket", path, "http://localhost/health/ready") == "1.1 200"


def test_what_is_not_its_own_is_left_alone(begin, tmp_path):
    path = str(tmp_path / "r.sock")
    server = begin(*settings(unix_socket=path))

    def refused(at):
        result = run("serve", "--port", "0", "--database", str(tmp_path / "other.db"), *settings(unix_socket=at))
        assert result.returncode == 1 and "unix_socket" in result.stderr, result.stderr

    refused(path)
    assert version("--unix-socket", path, "http://localhost/health/ready") == "1.1 200"
    text = tmp_path / "file"
    text.write_text("kept")
    refused(str(text))
    assert text.read_text() == "kept"
    link = tmp_path / "link"
    link.symlink_to(text)
    refused(str(link))
    assert link.is_symlink() and text.read_text() == "kept"
    refused(str(tmp_path / ("x" * 120)))
    refused(str(tmp_path / "missing" / "r.sock"))
    assert server.stop() == 0


def test_a_failed_listener_leaves_no_socket_behind(begin, server, tmp_path):
    path = str(tmp_path / "r.sock")
    result = run("serve", "--port", str(server.port), "--database", str(tmp_path / "o.db"), *settings(unix_socket=path))
    assert result.returncode == 1 and str(server.port) in result.stderr
    assert not os.path.exists(path)


def test_the_commands_find_the_server_by_every_listener(begin, pair, tmp_path):
    path = str(tmp_path / "r.sock")
    tls = settings(tls_certificate_file=pair[0], tls_key_file=pair[1])
    server = begin(*tls, *settings(tls_port=0, unix_socket=path))
    plain, secure = server.port("http"), server.port("https")
    assert run("health", "--port", str(plain)).returncode == 0
    assert run("health", "--port", str(secure), *tls).returncode == 0
    assert run("health", *settings(unix_socket=path)).returncode == 0
    assert run("health", "--url", f"unix:{path}").returncode == 0
    assert run("health", REPRISE_URL=f"http://127.0.0.1:{plain}/").returncode == 0
    assert run("health", "--url", f"https://localhost:{secure}", "--ca-file", pair[0]).returncode == 0
    # Another certificate than its own, another authority, another name.
    other = certificate(tmp_path, "other", "other-")
    strangers = settings(tls_certificate_file=other[0], tls_key_file=other[1])
    assert run("health", "--port", str(secure), *strangers).returncode == 1
    assert run("health", "--url", f"https://localhost:{secure}").returncode == 1
    assert run("health", "--url", f"https://localhost:{secure}", "--ca-file", other[0]).returncode == 1
    assert run("health", "--url", f"https://127.0.0.1:{secure}", "--ca-file", pair[0]).returncode == 1
    assert run("health", "--url", "ftp://localhost").returncode == 78
    assert run("health", "--port", "0").returncode == 78


def test_sql_asks_a_server_by_its_url(begin, tmp_path):
    path = str(tmp_path / "r.sock")
    begin(*settings(unix_socket=path))
    query = "SELECT 1 AS one, 2.0 AS two, NULL AS none, 'a,b' AS text, x'00ff' AS bytes"
    nowhere = ["--database", str(tmp_path / "none.db")]
    for form in ([], ["--csv"]):
        local = run("sql", *form, "--database", str(tmp_path / "listeners.db"), query)
        remote = run("sql", *form, *nowhere, "--url", f"unix:{path}", query)
        assert (remote.returncode, remote.stdout) == (0, local.stdout), remote.stderr
    answer = json.loads(run("sql", "--json", *nowhere, "--url", f"unix:{path}", query).stdout)
    assert answer["rows"] == [[1, 2.0, None, "a,b", {"base64": "AP8="}]]
    wrong = run("sql", *nowhere, "--url", f"unix:{path}", "SELEC 1")
    assert wrong.returncode == 1 and "SELEC" in wrong.stderr


def test_all_listeners_finish_their_requests_at_shutdown(begin, pair, tmp_path):
    path = str(tmp_path / "r.sock")
    server = begin(*settings(tls_certificate_file=pair[0], tls_key_file=pair[1], tls_port=0, unix_socket=path))
    head = b"PUT /v1/cache/n/entries/%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n"
    plain = socket.create_connection(("127.0.0.1", server.port("http")), timeout=20)
    secure = ssl._create_unverified_context().wrap_socket(
        socket.create_connection(("127.0.0.1", server.port("https")), timeout=20))
    local = socket.socket(socket.AF_UNIX)
    local.settimeout(20)
    local.connect(path)
    # A handshake that is never finished must not hold up the end.
    stuck = socket.create_connection(("127.0.0.1", server.port("https")), timeout=20)
    connections = {b"plain": plain, b"secure": secure, b"local": local}
    for name, connection in connections.items():
        connection.sendall(head % name + b"x" * 100_000)
    time.sleep(0.3)
    server.process.terminate()
    time.sleep(0.3)
    for connection in connections.values():
        connection.sendall(b"x" * 100_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 201")
        connection.close()
    assert server.process.wait(timeout=20) == 0
    assert "cut off" not in server.log
    stuck.close()


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def read_frame(source):
    """Kind, flags, stream and payload of the next frame; None at the end."""
    head = source.read(9)
    if len(head) < 9:
        return None
    length, stream = int.from_bytes(head[:3], "big"), int.from_bytes(head[5:], "big")
    return head[3], head[4], stream, source.read(length)


def http2(port):
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(["h2"])
    client = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20))
    assert client.selected_alpn_protocol() == "h2"
    client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
    return client


def head_frame(stream, path, flags=5):
    """HEADERS of a GET, without compression."""
    fields = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", "localhost")]
    block = b"".join(
        bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields)
    return frame(1, flags, stream, block)


def test_http2_streams_are_bounded(begin, pair):
    server = begin(*settings(tls_certificate_file=pair[0], tls_key_file=pair[1]))
    client = http2(server.port("https"))
    source = client.makefile("rb")
    kind, _, _, payload = read_frame(source)
    limits = {int.from_bytes(payload[i:i + 2], "big"): int.from_bytes(payload[i + 2:i + 6], "big")
              for i in range(0, len(payload), 6)}
    # SETTINGS with MAX_CONCURRENT_STREAMS and MAX_HEADER_LIST_SIZE.
    assert (kind, limits[3], limits[6]) == (4, 100, 32 * 1024)
    client.sendall(b"".join(head_frame(stream, "/health/live", 5) for stream in range(1, 100, 2)))
    answered = set()
    while len(answered) < 50:
        kind, flags, stream, _ = read_frame(source)
        if kind in (0, 1) and flags & 1:
            answered.add(stream)
    client.close()


def test_streams_that_are_opened_and_reset_end_the_connection(begin, pair):
    server = begin(*settings(tls_certificate_file=pair[0], tls_key_file=pair[1]))
    client = http2(server.port("https"))
    source = client.makefile("rb")
    try:
        for stream in range(1, 2001, 2):
            client.sendall(head_frame(stream, "/v1/cache") + frame(3, 0, stream, b"\0\0\0\x08"))
    except OSError:
        pass
    codes = []
    try:
        while found := read_frame(source):
            if found[0] == 7:
                codes.append(int.from_bytes(found[3][4:8], "big"))
    except OSError:
        pass
    # GOAWAY: ENHANCE_YOUR_CALM.
    assert codes == [11]
    assert version("-k", f"https://127.0.0.1:{server.port('https')}/health/ready") == "2 200"
