"""The files in deploy/ agree with the image and the program, and the binary works as they start it."""

import ctypes.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest
import yaml

from conftest import BINARY, ROOT, Server, environment, run

DEPLOY = os.path.join(ROOT, "deploy")
TOKEN = "a configured token that is long enough"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
# What the kubelet sends by itself; 10.0.0.7 stands for the pod's address.
KUBELET = {"Host": "10.0.0.7:8080", "User-Agent": "kube-probe/1.37", "Accept": "*/*", "Connection": "close"}


def text(*path):
    with open(os.path.join(ROOT, *path)) as file:
        return file.read()


def manifest(name):
    return yaml.safe_load(text("deploy", "kubernetes", name))


STATEFUL_SET = manifest("statefulset.yaml")
POD = STATEFUL_SET["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
PROBES = [CONTAINER[name] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
DOCKERFILE = text("Dockerfile").split("\nFROM ")[-1]
COMPOSE = yaml.safe_load(text("compose.yaml"))["services"]["reprise"]


def image_variables():
    return dict(re.findall(r"(REPRISE_\w+)=(\S+)", DOCKERFILE))


def unit():
    """The unit's settings: each name with its values, in order."""
    values = {}
    for line in text("deploy", "systemd", "reprise.service").splitlines():
        if re.match(r"\w+=", line):
            name, value = line.split("=", 1)
            values.setdefault(name, []).append(value)
    return values


def default(setting):
    return re.search(rf"^  {setting} \(default: (\S+?)[ )]", run("help", "serve").stdout, re.M).group(1)


@pytest.mark.parametrize("path", [
    "Dockerfile", "compose.yaml", "docs/operations.md",
    *(os.path.relpath(os.path.join(folder, name), ROOT) for folder, _, names in os.walk(DEPLOY) for name in names)])
def test_every_variable_is_a_setting(path):
    settings = {name.upper() for name in re.findall(r"^  (\w+) \(default: ", run("help", "serve").stdout, re.M)}
    assert "CACHE_TTL_SECONDS" in settings
    others = {"ADMIN_TOKEN_FILE", "CONFIG", "URL", "TOKEN"}
    assert set(re.findall(r"\bREPRISE_([A-Z_]*[A-Z])", text(path))) <= settings | others


def test_the_pod_fits_the_image():
    user = int(re.search(r"--uid (\d+)", DOCKERFILE).group(1))
    group = int(re.search(r"--gid (\d+)", DOCKERFILE).group(1))
    context = POD["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (user, group, group)
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert mounts["data"] == re.search(r"^VOLUME (\S+)$", DOCKERFILE, re.M).group(1)
    assert os.path.dirname(image_variables()["REPRISE_DATABASE"]) == mounts["data"]
    assert STATEFUL_SET["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    assert CONTAINER["image"] == f"reprise:{run('--version').stdout.strip()}"
    [secret] = [volume["secret"] for volume in POD["volumes"] if volume["name"] == "admin-token"]
    example = manifest("secret.example.yaml")
    assert secret["secretName"] == example["metadata"]["name"]
    [key] = example["stringData"]
    assert {"name": "REPRISE_ADMIN_TOKEN_FILE", "value": f"{mounts['admin-token']}/{key}"} in CONTAINER["env"]


def test_the_pod_meets_the_restricted_pod_security_standard():
    context = {**POD["securityContext"], **CONTAINER["securityContext"]}
    assert context["runAsNonRoot"] is True and context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert POD["automountServiceAccountToken"] is False and POD["enableServiceLinks"] is False


def test_ports_and_paths_exist():
    [port] = CONTAINER["ports"]
    assert str(port["containerPort"]) == default("port") == re.search(r"^EXPOSE (\d+)$", DOCKERFILE, re.M).group(1)
    [service] = manifest("service.yaml")["spec"]["ports"]
    assert service["port"] == port["containerPort"]
    monitor = manifest("prometheus-operator/servicemonitor.yaml")["spec"]["endpoints"][0]
    assert monitor["port"] == service["name"]
    [ingress] = manifest("networkpolicy.yaml")["spec"]["ingress"]
    used = {service["targetPort"], ingress["ports"][0]["port"], *(probe["httpGet"]["port"] for probe in PROBES)}
    assert used == {port["name"]}
    paths = yaml.safe_load(text("openapi.yaml"))["paths"]
    for path in [monitor["path"], *(probe["httpGet"]["path"] for probe in PROBES)]:
        assert "get" in paths[path]


def test_labels_select_the_pod():
    labels = STATEFUL_SET["spec"]["template"]["metadata"]["labels"]
    service = manifest("service.yaml")
    assert STATEFUL_SET["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert manifest("networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"] == labels
    monitor = manifest("prometheus-operator/servicemonitor.yaml")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert STATEFUL_SET["spec"]["serviceName"] == service["metadata"]["name"]


def test_there_is_time_to_stop():
    graces = [
        POD["terminationGracePeriodSeconds"], int(unit()["TimeoutStopSec"][0]),
        int(COMPOSE["stop_grace_period"].removesuffix("s"))]
    assert set(graces) == {30} and float(default("shutdown_timeout_seconds")) <= 10


def test_the_limits_are_the_same_everywhere():
    limits = [CONTAINER["resources"]["limits"]["memory"], *unit()["MemoryMax"], COMPOSE["mem_limit"]]
    assert limits == ["1024Mi", "1024M", "1024m"]
    connections = int(re.search(r"\| connections \| (\d+);", text("README.md")).group(1))
    assert int(unit()["LimitNOFILE"][0]) > connections + 1000


def test_kustomization_names_the_manifests():
    named = manifest("kustomization.yaml")["resources"]
    found = [name for name in os.listdir(os.path.join(DEPLOY, "kubernetes")) if name.endswith(".yaml")]
    assert sorted(named) == sorted(set(found) - {"kustomization.yaml", "secret.example.yaml"})


def test_the_prometheus_rule_holds_the_alerts():
    printed = subprocess.run([os.path.join(DEPLOY, "kubernetes", "prometheus-operator", "rules.sh")],
                             capture_output=True, text=True, check=True, timeout=60).stdout
    rule = yaml.safe_load(printed)
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(text("docs", "prometheus-alerts.yaml"))


@pytest.fixture
def serve(tmp_path):
    """Starts servers with the token in a file and the variables that a test chooses."""
    (tmp_path / "admin_token").write_text(TOKEN + "\n")
    servers = []

    def serve(variables, *flags, of=Server):
        servers.append(of(tmp_path, *flags, variables={
            **variables, "REPRISE_ADMIN_TOKEN_FILE": str(tmp_path / "admin_token")}))
        return servers[-1]

    yield serve
    for server in servers:
        server.kill()


def probe(server, http_get, **headers):
    """What the kubelet does; the fields of the manifest replace its own."""
    own = {field["name"]: field["value"] for field in http_get.get("httpHeaders", [])}
    return server.request("GET", http_get["path"], headers={**KUBELET, **headers, **own})[0]


@pytest.mark.parametrize("hosts", ["", "reprise.example"])
def test_the_kubelet_finds_the_server_ready(serve, hosts):
    given = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
    server = serve({**image_variables(), **given, **({"REPRISE_ALLOWED_HOSTS": hosts} if hosts else {})})
    assert server.host == "0.0.0.0"
    assert [probe(server, item["httpGet"]) for item in PROBES] == [200, 200, 200]
    # Prometheus cannot send another host than the address it connects to.
    assert server.request("GET", "/metrics", headers={**KUBELET, **BEARER})[0] == (421 if hosts else 200)
    assert server.stop() == 0
    log = [json.loads(line) for line in server.log.splitlines()]
    assert not [line for line in log if line["level"] in ("warning", "error", "critical")]


def test_prometheus_is_let_in_by_the_address_of_the_pod(serve):
    server = serve({**image_variables(), "REPRISE_ALLOWED_HOSTS": "reprise.example,10.0.0.7"})
    assert server.request("GET", "/metrics", headers={**KUBELET, **BEARER})[0] == 200


def test_the_secret_of_the_example_opens_nothing(tmp_path):
    [value] = manifest("secret.example.yaml")["stringData"].values()
    (tmp_path / "token").write_text(value)
    refused = run("serve", "--port", "0", "--database", str(tmp_path / "test.db"),
                  **{**image_variables(), "REPRISE_ADMIN_TOKEN_FILE": str(tmp_path / "token")})
    assert refused.returncode == 78 and "REPRISE_ADMIN_TOKEN_FILE" in refused.stderr and "is empty" in refused.stderr


# MARK: The unit's confinement

# Becomes a program that may only make the system calls of a list: argv is the list and the command.
CONFINE = r"""
import ctypes, json, os, sys
ALLOW, KILL, REFUSE_FAMILY = 0x7FFF0000, 0x80000000, 0x00050000 | 97
EQUAL, AF_NETLINK = 4, 16
class Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]
library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(KILL)))
def rule(action, number, *comparisons):
    array = (Comparison * len(comparisons))(*comparisons)
    assert library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(comparisons), array) == 0
for name in json.loads(sys.argv[1]):
    number = library.seccomp_syscall_resolve_name(name.encode())
    if name != "socket" and number >= 0:
        rule(ALLOW, number)
socket = library.seccomp_syscall_resolve_name(b"socket")
for family in json.loads(sys.argv[2]):
    rule(ALLOW, socket, Comparison(0, EQUAL, family, 0))
# The C library looks for addresses this way, and does without.
rule(REFUSE_FAMILY, socket, Comparison(0, EQUAL, AF_NETLINK, 0))
# PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN; kernels before 6.3 do not know it.
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
assert library.seccomp_load(context) == 0
os.execv(sys.argv[3], sys.argv[3:])
"""


def system_calls(*filters):
    """The system calls that the values of SystemCallFilter= leave, by systemd's own list."""
    groups, current = {}, None
    listing = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True,
                             check=True, timeout=60).stdout
    for line in listing.splitlines():
        if line.startswith("@"):
            current = groups.setdefault(line.strip(), [])
        elif current is not None and (name := line.strip()) and not name.startswith("#"):
            current.append(name)

    def members(name):
        return set().union(*map(members, groups[name])) if name in groups else {name}

    left = members("@default")
    for value in filters:
        named = set().union(*map(members, value.lstrip("~").split()))
        left = left - named if value.startswith("~") else left | named
    # Only as root does SQLite give a file that it creates an owner, and the unit's user is not root.
    return left | ({"fchown"} if os.geteuid() == 0 else set())


def confined(filters, families, *command):
    """The command line that runs a command under the system calls and families of sockets that the values allow."""
    numbers = [getattr(socket, name) for name in families]
    return [sys.executable, "-c", CONFINE, json.dumps(sorted(system_calls(*filters))), json.dumps(numbers), *command]


needs_tools = pytest.mark.skipif(
    not shutil.which("systemd-analyze") or not ctypes.util.find_library("seccomp"),
    reason="needs systemd-analyze and libseccomp, from Debian's package systemd")


class ConfinedServer(Server):
    """A server under the system calls, families of sockets and memory protection that the unit allows."""

    def spawn(self):
        values = unit()
        [families] = values["RestrictAddressFamilies"]
        with open(self.log_path, "a") as log:
            self.process = subprocess.Popen(
                confined(values["SystemCallFilter"], families.split(), BINARY, "serve", "--port", "0", *self.flags),
                stdout=subprocess.PIPE, stderr=log, text=True, env=environment(**self.variables))


@needs_tools
def test_the_unit_lets_the_server_work(serve, tmp_path):
    assert unit()["MemoryDenyWriteExecute"] == ["yes"]
    variables = dict(value.replace("%S/reprise", str(tmp_path)).replace("%d", str(tmp_path)).split("=", 1)
                     for value in unit()["Environment"])
    server = serve(variables, of=ConfinedServer)
    assert server.host == "127.0.0.1"
    assert server.request("GET", "/health/ready")[0] == 200
    assert server.request("PUT", "/v1/cache/n/entries/large", os.urandom(1 << 20), BEARER)[0] == 201
    assert server.request("GET", "/v1/cache/n/entries/large", headers=BEARER)[0] == 200
    body = {**BEARER, "Content-Type": "application/json"}
    assert server.request("POST", "/v1/maintenance/cleanup", "{}", body)[0] == 200
    query = json.dumps({"query": "SELECT * FROM cache_stats ORDER BY namespace"})
    assert server.request("POST", "/v1/sql", query, body)[0] == 200
    assert b"process_start_time_seconds 1" in server.request("GET", "/metrics", headers=BEARER)[2]
    assert server.stop() == 0
    assert " error " not in server.log and " warning " not in server.log
    assert os.path.exists(tmp_path / "reprise.db")


@needs_tools
def test_a_system_call_that_is_not_allowed_ends_the_process(tmp_path):
    """What the test before relies on."""
    command = confined(["@system-service", "~@network-io"], [], BINARY, "serve", "--port", "0", "--database",
                       str(tmp_path / "test.db"))
    ended = subprocess.run(command, capture_output=True, env=environment(), timeout=30)
    assert ended.returncode == -signal.SIGSYS


# MARK: The script


@needs_tools
@pytest.mark.parametrize("name, pattern, replacement, message", [
    ("systemd/reprise.service", "RestrictRealtime=", "RestrictRealTime=", "Unknown key"),
    ("systemd/reprise.service", "ProtectSystem=strict\n", "", "more exposed"),
    ("kubernetes/statefulset.yaml", "replicas: 1", "replica: 1", "replica"),
    ("kubernetes/service.yaml", "kind: Service", "kind: Servise", "Servise"),
])
def test_check_deploy_refuses_what_is_wrong(tmp_path, name, pattern, replacement, message):
    for path in ["deploy", "scripts"]:
        shutil.copytree(os.path.join(ROOT, path), tmp_path / path)
    (tmp_path / "Tests").mkdir()
    for path in ["Tests/requirements.txt", "Tests/constraints.txt"]:
        shutil.copy(os.path.join(ROOT, path), tmp_path / path)
    os.symlink(os.path.join(ROOT, ".venv"), tmp_path / ".venv")
    changed = (tmp_path / "deploy" / name).read_text().replace(pattern, replacement)
    assert changed != text("deploy", name)
    (tmp_path / "deploy" / name).write_text(changed)
    checked = subprocess.run(["scripts/check-deploy.sh"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert checked.returncode == 1 and message in checked.stderr, checked.stderr
