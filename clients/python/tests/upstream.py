"""Runs the test suites of the libraries that the adapters plug into, with our adapters.

    python tests/upstream.py [cachelib | flask-caching | dogpile | django | requests-cache] …

Each suite comes from the source distribution of a pinned version, which pip downloads and whose
hash is checked, into `build/upstream`; the second run needs no network. The release binary is
that of `REPRISE_BINARY`, or the one in `.build/release`. The files in `tests/suites` name our
classes; they are copied beside the tests of the library. Nothing of a library is kept elsewhere.

Prints a table, and the reason for every test that is excluded. Exits with 1 if a test fails, if
one is skipped that is not listed here, or if one that is listed is not there.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parents[2]
BUILD = TESTS.parent / "build" / "upstream"
BINARY = os.environ.get("REPRISE_BINARY", str(ROOT / ".build" / "release" / "reprise"))

#: Seconds for one suite, so that a hang is a failure.
SUITE_SECONDS = 240
#: Suites that run at once, on the same service and with namespaces of their own.
PARALLEL = 2

#: What the libraries' tests import beside the library, and what that imports.
TOOLS = (
    "pytest-xprocess==1.0.2", "psutil==7.2.2",
    "pytest-httpbin==2.1.0", "httpbin==0.10.4", "brotlicffi==1.2.1.0", "six==1.17.0",
    "cffi==2.1.1", "pycparser==3.12", "decorator==5.3.1", "requests-mock==1.12.1",
    "rich==15.0.0", "markdown-it-py==4.3.0", "mdurl==0.1.2",
)  # fmt: skip


@dataclass
class Suite:
    """A library and how its tests are run.

    `excluded` has patterns for names of tests, each with the reason why they do not apply.
    """

    name: str
    distribution: str
    version: str
    sha256: str
    run: Callable[[Path, Path], list[str]]
    excluded: Mapping[str, str] = field(default_factory=dict)
    folder: str = "."
    environment: Mapping[str, str] = field(default_factory=dict)
    #: About how long it takes; the longest start first.
    weight: int = 1


@dataclass
class Outcome:
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    output: str = ""


def pytest_arguments(*names: str) -> list[str]:
    return [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider",
            "-p", "no:asyncio", "--no-header", "--tb=short", *names]


def run_cachelib(source: Path, report: Path) -> list[str]:
    shutil.copy(TESTS / "suites" / "cachelib_suite.py", source / "tests" / "test_reprise.py")
    return pytest_arguments(f"--junitxml={report}", "tests/test_reprise.py")


def run_flask_caching(source: Path, report: Path) -> list[str]:
    """The generic tests of backends, and all others that use the app's cache, whose app gets our
    backend."""
    ours = source / "tests_reprise"
    shutil.rmtree(ours, ignore_errors=True)
    shutil.copytree(source / "tests", ours)
    with open(ours / "conftest.py", "a") as conftest:
        conftest.write((TESTS / "suites" / "flask_caching_conftest.py").read_text())
    shutil.copy(TESTS / "suites" / "flask_caching_suite.py", ours / "test_reprise.py")
    names = ("test_reprise", "test_basic_app", "test_cache", "test_memoize", "test_view",
             "test_templates", "test_signals", "test_subclassing")
    return pytest_arguments(f"--junitxml={report}", "--import-mode=prepend",
                            *(f"tests_reprise/{name}.py" for name in names))


def run_dogpile(source: Path, report: Path) -> list[str]:
    shutil.copy(TESTS / "suites" / "dogpile_suite.py",
                source / "tests" / "cache" / "test_reprise.py")
    return pytest_arguments(f"--junitxml={report}", "-o", "addopts=", "-o",
                            "python_files=test_*.py", "-p", "no:warnings",
                            "tests/cache/test_reprise.py")


def run_django(source: Path, report: Path) -> list[str]:
    return [sys.executable, "-B", str(TESTS / "suites" / "django_suite.py"),
            str(source / "tests")]


def run_requests_cache(source: Path, report: Path) -> list[str]:
    shutil.copy(TESTS / "suites" / "requests_cache_suite.py",
                source / "tests" / "integration" / "test_reprise.py")
    return pytest_arguments(f"--junitxml={report}", "-o", "addopts=",
                            "tests/integration/test_reprise.py")


SUITES = (
    Suite(
        "cachelib", "cachelib", "0.17.0",
        "f3c7dc8d3c1132ab699681ffdf8a52d341d9425ac1401c538cf0b1d87b1677c8", run_cachelib, weight=4,
        excluded={
            r"\.test_(threshold|threshold_zero_defaults_to_500|prune_old_entries)\b":
                "tests of SimpleCache's own parameter `threshold`; the number of entries is "
                "limited by the namespace's policy",
        },
    ),
    Suite(
        "flask-caching", "Flask-Caching", "2.5.1",
        "f75b451fde3faac0e278da72263818134deca8c4ba6bb07b9b3b238991368dae", run_flask_caching,
        excluded={
            r"\.test_(init_app_multi_apps|app_redis_cache_backend_url_\w+|cache_unlink)$":
                "tests of Flask-Caching's own backend for Redis, which need a Redis server",
        },
    ),
    Suite(
        "dogpile", "dogpile.cache", "1.5.0",
        "849c5573c9a38f155cd4173103c702b637ede0361c12e864876877d0cd125eec", run_dogpile, weight=5,
    ),
    Suite(
        "django", "Django", "5.2.19",
        "ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1", run_django,
        excluded={
            r"\.test_(cull|zero_cull|cull_delete_when_store_empty)$":
                "culling in the client by MAX_ENTRIES: the number of entries is limited by the "
                "namespace's policy, so Django's setting is not used, as with Django's backends "
                "for Redis and Memcached",
        },
    ),
    Suite(
        "requests-cache", "requests-cache", "1.3.3",
        "79b72d5ac5143992d1836ad78f4d8e65666061dd44e220548caab3723089826b", run_requests_cache,
        environment={"USE_PYTEST_HTTPBIN": "true"}, weight=3,
    ),
)


def fetched(suite: Suite) -> Path:
    """The unpacked source distribution."""
    installed = importlib.metadata.version(suite.distribution)
    if installed != suite.version:
        raise SystemExit(
            f"{suite.distribution} {installed} is installed, and the suite is that of "
            f"{suite.version}: install that, or change SUITES in {Path(__file__).name}.")
    archives = BUILD / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[-_.]+", "_", suite.distribution).lower()
    archive = archives / f"{stem}-{suite.version}.tar.gz"
    if not archive.exists() or digest(archive) != suite.sha256:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:",
             "--dest", str(archives), f"{suite.distribution}=={suite.version}"],
            check=True)
    if digest(archive) != suite.sha256:
        raise SystemExit(f"{archive.name} does not have the expected SHA-256")
    folder = BUILD / suite.name
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:
            tar.extractall(folder)
    return next(folder.iterdir())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tools() -> Path:
    """A folder with what the tests import, apart from the environment that runs them."""
    name = hashlib.sha256(" ".join((*TOOLS, sys.version)).encode()).hexdigest()[:12]
    folder = BUILD / f"tools-{name}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target",
                        str(folder), *TOOLS], check=True)
        (folder / "complete").touch()
    return folder


@contextmanager
def service() -> Iterator[str]:
    """A service with a database of its own."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("REPRISE_")}
    with tempfile.TemporaryDirectory(prefix="reprise-upstream-") as folder:
        with open(Path(folder) / "log", "w") as log:
            process = subprocess.Popen(
                [BINARY, "serve", "--port", "0", "--database", f"{folder}/upstream.db"],
                stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                raise SystemExit(f"{BINARY} does not start: {(Path(folder) / 'log').read_text()}")
            yield line.split()[-1]
        finally:
            process.terminate()
            process.wait(20)


def run(suite: Suite, url: str, libraries: Path) -> Outcome:
    source = fetched(suite)
    report = BUILD / f"{suite.name}.xml"
    report.unlink(missing_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("REPRISE_")},
        "REPRISE_SUITE_URL": url, "PYTHONPATH": str(libraries), "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0", **suite.environment,
    }
    started = time.monotonic()
    try:
        done = subprocess.run(
            suite.run(source, report), cwd=source / suite.folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SUITE_SECONDS)
        output, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        output = said.decode() if isinstance(said, bytes) else said
        code = -1
    outcome = read_report(report) if report.exists() else read_lines(output)
    outcome.seconds = time.monotonic() - started
    outcome.output = output
    if code == -1:
        outcome.failed.append(f"not finished after {SUITE_SECONDS} s")
    elif code != 0 and not outcome.failed:
        outcome.failed.append(f"ended with {code}")
    elif outcome.passed == 0:
        outcome.failed.append("no test ran")
    judge(suite, outcome)
    return outcome


def read_report(report: Path) -> Outcome:
    """What pytest wrote."""
    outcome = Outcome()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            if name not in outcome.failed:
                outcome.failed.append(name)
        elif skipped is not None:
            outcome.skipped[name] = skipped.get("message") or ""
        else:
            outcome.passed += 1
    return outcome


def read_lines(output: str) -> Outcome:
    """What `django_suite.py` wrote."""
    outcome = Outcome()
    for kind, name, reason in re.findall(r"@@ (\w+) (\S+) ?(.*)", output):
        if kind == "passed":
            outcome.passed += 1
        elif kind == "failed":
            outcome.failed.append(name)
        else:
            outcome.skipped[name] = reason
    return outcome


def judge(suite: Suite, outcome: Outcome) -> None:
    """Makes failures of what was skipped without a reason here, and of reasons without a test."""
    used = set()
    for name, reason in list(outcome.skipped.items()):
        patterns = [pattern for pattern in suite.excluded if re.search(pattern, name)]
        if patterns:
            used.update(patterns)
            outcome.skipped[name] = suite.excluded[patterns[0]]
        else:
            outcome.failed.append(f"{name} was skipped: {reason}")
    for pattern in suite.excluded:
        if pattern not in used:
            outcome.failed.append(f"no test is excluded by {pattern!r}")


def main() -> int:
    names = sys.argv[1:] or [suite.name for suite in SUITES]
    unknown = set(names) - {suite.name for suite in SUITES}
    if unknown:
        print(f"There is no suite {', '.join(sorted(unknown))}; there are "
              f"{', '.join(suite.name for suite in SUITES)}.")
        return 2
    libraries = tools()
    outcomes: dict[str, Outcome] = {}
    chosen = [suite for suite in SUITES if suite.name in names]
    with service() as url:
        # They mostly wait for something to expire, so several at once take little longer.
        with ThreadPoolExecutor(PARALLEL) as pool:
            runs = {suite.name: pool.submit(run, suite, url, libraries)
                    for suite in sorted(chosen, key=lambda suite: -suite.weight)}
        for name, outcome in ((suite.name, runs[suite.name].result()) for suite in chosen):
            outcomes[name] = outcome
            if outcome.failed:
                print(outcome.output[-20_000:])
    print(f"{'suite':<16}{'version':<10}{'passed':>8}{'excluded':>10}{'failed':>8}{'seconds':>9}")
    for suite in chosen:
        outcome = outcomes[suite.name]
        print(f"{suite.name:<16}{suite.version:<10}{outcome.passed:>8}"
              f"{len(outcome.skipped):>10}{len(outcome.failed):>8}{outcome.seconds:>9.0f}")
    for suite in chosen:
        reasons: dict[str, list[str]] = {}
        for name, reason in outcomes[suite.name].skipped.items():
            short = re.sub(r"\[.*", "", name.rpartition(".")[2])
            reasons.setdefault(reason, []).append(short)
        for reason, tests in reasons.items():
            print(f"\n{suite.name}, excluded: {', '.join(sorted(set(tests)))}\n    {reason}")
        for name in outcomes[suite.name].failed:
            print(f"\n{suite.name}, failed: {name}")
    return 1 if any(outcome.failed for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
