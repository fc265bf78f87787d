"""Runs the tour of README.md; see run-tour.sh.

The tour is between two comments. Its `sh` blocks run in one shell, in order. A `text` block is the output of the
commands before it; values that differ from run to run (times, request ids) are not compared. A comment makes the server
restart.
"""

import difflib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
README = os.path.join(ROOT, "README.md")
BINARY = os.environ.pop("REPRISE_BINARY", os.path.join(ROOT, ".build", "release", "reprise"))
BEGIN, END, RESTART = "<!-- tour -->", "<!-- end of tour -->", "<!-- restart -->"
DEADLINE_SECONDS = 60

# What may differ, and what replaces it when two outputs are compared.
VARIES = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "INSTANT"),
    (r"(Date|Last-Modified): .*", r"\1: DATE"),
    (r"(Age: |max-age=|ttl=)\d+", r"\1N"),
    (r'("(?:expires_in_seconds|duration_seconds)": ?)[0-9.]+', r"\1N"),
    (r"\d[\d.]* (s|ms|%)(?=[ ),|])", r"N \1"),
    (r"[0-9a-f]{8}…", "ID"),
]


def shorten(text):
    """Shortens ids that people do not compare: those of requests, and the entity tags of JSON answers."""
    text = re.sub(r"(X-Request-Id: |\"request_id\": ?\")([0-9a-f]{8})[0-9a-f]{24}", r"\1\2…", text)
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{24}\b", r"\1…", text)


def comparable(text):
    for pattern, replacement in VARIES:
        text = re.sub(pattern, replacement, text)
    return text.strip()


class Server:
    def __init__(self, folder):
        self.folder, self.port = folder, 0
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [BINARY, "serve", "--port", str(self.port), "--database", os.path.join(self.folder, "reprise.db")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=open(os.path.join(self.folder, "log"), "a"), text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            sys.exit("the server did not start: " + open(os.path.join(self.folder, "log")).read())
        self.url = line.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(DEADLINE_SECONDS) != 0:
            sys.exit(f"the server ended with exit code {self.process.returncode}")


class Shell:
    """One bash for the whole tour, so that variables and the folder carry over."""

    MARK = "\x01end of block\x01"

    def __init__(self, url):
        self.process = subprocess.Popen(
            ["bash", "--norc", "-euo", "pipefail"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env={**os.environ, "REPRISE": url, "LC_ALL": "C.UTF-8"})

    def run(self, block):
        self.process.stdin.write(block + f"\nprintf '%s\\n' '{self.MARK}'\n")
        self.process.stdin.flush()
        output = ""
        while not output.endswith(self.MARK + "\n"):
            line = self.process.stdout.readline()
            if not line:
                return output, self.process.wait()
            output += line
        return output[: -len(self.MARK) - 1].replace("\r", ""), 0

    def end(self):
        self.process.stdin.close()
        self.process.wait(DEADLINE_SECONDS)


def parts(tour):
    """Splits the tour into (kind, text), such that joining the texts gives the tour again."""
    pattern = re.compile(r"^```(sh|text)\n(.*?)^```\n|^" + re.escape(RESTART) + "\n", re.S | re.M)
    position = 0
    for match in pattern.finditer(tour):
        yield "prose", tour[position:match.start()]
        yield match.group(1) or "restart", match.group(2) or match.group(0)
        position = match.end()
    yield "prose", tour[position:]


def run(tour, server, writes):
    """Returns the tour with the output of its commands, and what went wrong."""
    shell = Shell(server.url)
    written, problems, output = "", [], None
    for kind, text in parts(tour):
        if kind == "sh":
            raw, status = shell.run(text)
            output = shorten(raw).strip("\n") + "\n"
            written += f"```sh\n{text}```\n"
            if status:
                problems.append(f"this failed with exit code {status}:\n{text}it printed:\n{raw}")
                break
        elif kind == "text":
            written += f"```text\n{output}```\n"
            if not writes and comparable(output) != comparable(text):
                lines = difflib.unified_diff(
                    comparable(text).splitlines(), comparable(output).splitlines(), "README.md", "printed", lineterm="")
                problems.append("\n".join(lines))
        elif kind == "restart":
            server.stop()
            server.start()
            written += text
        else:
            written += text
    shell.end()
    return written, problems


def check_settings(readme, url):
    """The table of settings must be the program's own list."""
    with urllib.request.urlopen(url + "/v1/config") as answer:
        settings = json.load(answer)["settings"]
    problems = []
    for setting in settings:
        default = json.dumps(setting["default"]).strip('"')
        change = "yes" if setting["mutable"] else "no"
        default = f"`{default}`" if default else ""
        row = f"| `{setting['name']}` | {default} | {setting['unit'] or ''} | {change} | {setting['description']} |"
        row = row.replace("|  |", "| |").replace("|  |", "| |")
        if row not in readme:
            problems.append("README.md lacks this row in its table of settings:\n" + row)
    rows = re.findall(r"^\| `([a-z_]+)` \| (?:`[^`]*` )?\| [a-z]* ?\| (?:yes|no) \|", readme, re.M)
    for name in set(rows) - {setting["name"] for setting in settings}:
        problems.append(f"README.md has the setting {name}, which the program has not")
    return problems


def main():
    writes = "--write" in sys.argv[1:]
    readme = open(README, encoding="utf-8").read()
    before, rest = readme.split(BEGIN)
    tour, after = rest.split(END)
    with tempfile.TemporaryDirectory(prefix="reprise-tour-") as folder:
        server = Server(folder)
        try:
            problems = check_settings(readme, server.url)
            written, more = run(tour, server, writes)
            problems += more
            server.stop()
        finally:
            server.process.kill()
    if writes:
        open(README, "w", encoding="utf-8").write(before + BEGIN + written + END + after)
    if problems:
        sys.exit("\n\n".join(["the tour of README.md does not hold:"] + problems))
    print(f"the tour holds: {sum(kind == 'sh' for kind, _ in parts(tour))} blocks")


main()
