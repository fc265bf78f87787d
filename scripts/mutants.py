#!/usr/bin/env python3
"""Shows which defects the tests would not notice: docs/design/mutants.md.

Tests/Mutants/*.toml lists small defects in the sources. Each is applied to a copy of the repository separately, and the
tests that should notice it are run. One that no test notices survives, and shows a gap in the tests. Results are kept
next to the copy, so an interrupted run continues where it stopped; any change to the repository runs all of them again.

Exit status: 0 if every mutant was killed, 1 if one survived, 2 if one could not be judged.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LISTS = os.path.join(ROOT, "Tests", "Mutants")

# A first build compiles all dependencies. A test that hangs because of a mutant has noticed it.
BUILD_SECONDS = 3600
TEST_SECONDS = 300

KILLED, SURVIVED, TIMED_OUT = "killed", "SURVIVED", "timed out"
DOES_NOT_COMPILE = "does not compile"
JUDGED = (KILLED, SURVIVED, TIMED_OUT)


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: str

    @property
    def digest(self):
        return hashlib.sha256(json.dumps(dataclasses.astuple(self)).encode()).hexdigest()


def read_lists():
    """All mutants, in the order of the files, so that neighbours share what must be compiled."""
    mutants, errors = [], []
    for name in sorted(os.listdir(LISTS)):
        if not name.endswith(".toml"):
            continue
        with open(os.path.join(LISTS, name), "rb") as file:
            document = tomllib.load(file)
        if not document.get("mutant"):
            errors.append(f"{name}: the list is empty")
        for entry in document.get("mutant", []):
            try:
                mutants.append(Mutant(**{**entry, "name": f"{name.removesuffix('.toml')}: {entry['name']}"}))
            except TypeError as error:
                errors.append(f"{name}: {entry.get('name')}: {error}")
    names = [mutant.name for mutant in mutants]
    errors += [f"{name}: two mutants have this name" for name in sorted({n for n in names if names.count(n) > 1})]
    return mutants, errors


def mutated(mutant, root):
    """The text of the mutant's file with the defect in it."""
    path = os.path.join(root, mutant.file)
    if not os.path.isfile(path):
        raise ValueError(f"{mutant.name}: there is no file {mutant.file}")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    count = text.count(mutant.old)
    if count != 1:
        raise ValueError(f"{mutant.name}: {mutant.file} contains the old text {count} times, not once")
    if mutant.old == mutant.new:
        raise ValueError(f"{mutant.name}: old and new text are the same")
    return text.replace(mutant.old, mutant.new)


def check(mutants):
    """Errors in the lists: a mutant that no longer applies proves nothing."""
    errors = []
    for mutant in mutants:
        try:
            mutated(mutant, ROOT)
            re.compile(mutant.tests)
        except (ValueError, re.error) as error:
            errors.append(str(error))
    return errors


class Copy:
    """A copy of the repository with its own build products."""

    def __init__(self, path):
        self.path = path
        self.results_path = os.path.join(path, ".build", "mutants.json")
        self.digest = self.update()
        self.results = {}
        if os.path.exists(self.results_path):
            with open(self.results_path, encoding="utf-8") as file:
                stored = json.load(file)
            if stored["repository"] == self.digest:
                self.results = stored["results"]

    def update(self):
        """Updates the copy from the repository. Files that are the same keep their time stamps, so that they are not
        compiled again.

        Returns a digest of all files.
        """
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
            capture_output=True, text=True).stdout.split("\0")
        names = sorted(name for name in listed if name and os.path.isfile(os.path.join(ROOT, name)))
        digest = hashlib.sha256()
        for name in names:
            with open(os.path.join(ROOT, name), "rb") as file:
                content = file.read()
            # The lists themselves may grow without invalidating earlier results.
            if not name.startswith("Tests/Mutants/"):
                digest.update(f"{name}\0{len(content)}\0".encode() + content)
            self.write(name, content)
            shutil.copymode(os.path.join(ROOT, name), os.path.join(self.path, name))
        for folder in ("Sources", "Tests", "Migrations"):
            for parent, _, files in os.walk(os.path.join(self.path, folder)):
                for file in files:
                    path = os.path.join(parent, file)
                    if os.path.relpath(path, self.path) not in names:
                        os.remove(path)
        return digest.hexdigest()

    def write(self, name, content):
        path = os.path.join(self.path, name)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                if file.read() == content:
                    return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)

    def keep(self, mutant, outcome, seconds):
        self.results[mutant.name] = {"digest": mutant.digest, "outcome": outcome, "seconds": round(seconds)}
        os.makedirs(os.path.dirname(self.results_path), exist_ok=True)
        with open(self.results_path + ".new", "w", encoding="utf-8") as file:
            json.dump({"repository": self.digest, "results": self.results}, file, indent=1)
        os.replace(self.results_path + ".new", self.results_path)

    def known(self, mutant):
        result = self.results.get(mutant.name)
        return result["outcome"] if result and result["digest"] == mutant.digest else None

    def run(self, command, seconds):
        """Runs a command in the copy, and ends everything it started when its time is up.

        Returns its exit code, or None if its time was up, and what it printed.
        """
        environment = {"SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH": "16", **os.environ}
        process = subprocess.Popen(
            command, cwd=self.path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True)
        try:
            output, _ = process.communicate(timeout=seconds)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return None, output
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise

    def build(self):
        return self.run(["swift", "build", "--build-tests"], BUILD_SECONDS)

    def test(self, pattern):
        return self.run(["swift", "test", "--skip-build", "--filter", pattern], TEST_SECONDS)

    def judge(self, mutant):
        """The outcome of a mutant."""
        with open(os.path.join(self.path, mutant.file), "rb") as file:
            original = file.read()
        try:
            self.write(mutant.file, mutated(mutant, self.path).encode())
            code, output = self.build()
            if code != 0:
                return DOES_NOT_COMPILE, output
            code, output = self.test(mutant.tests)
            return {0: SURVIVED, None: TIMED_OUT}.get(code, KILLED), output
        finally:
            self.write(mutant.file, original)


def number_of_tests(output):
    return max([int(count) for count in re.findall(r"Test run with (\d+) tests?", output)], default=0)


def prepare(copy, mutants):
    """Builds the copy without a mutant, and checks that the tests pass: otherwise every mutant would seem killed."""
    print("building the copy without a mutant", flush=True)
    code, output = copy.build()
    if code != 0:
        sys.exit(f"{output[-4000:]}\nerror: the copy does not build")
    for pattern in sorted({mutant.tests for mutant in mutants}):
        code, output = copy.test(pattern)
        if code != 0 or number_of_tests(output) == 0:
            sys.stderr.write(f"{output[-4000:]}\nerror: without a mutant, no test or a failing one: {pattern}\n")
            sys.exit(2)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="\n\n".join(__doc__.split("\n\n")[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="only list the mutants")
    parser.add_argument("--check", action="store_true", help="only check that each mutant still applies")
    parser.add_argument("--only", metavar="PATTERN", default="", help="only mutants whose names match this expression")
    parser.add_argument("--again", action="store_true", help="also rerun mutants with a known outcome")
    parser.add_argument("--verbose", action="store_true", help="print the end of each mutant's test output")
    parser.add_argument(
        "--copy", metavar="FOLDER", default=os.path.join(ROOT, ".build", "mutants"),
        help="where the copy and its build products are (default: .build/mutants)")
    options = parser.parse_args()

    mutants, errors = read_lists()
    errors += check(mutants)
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    if errors:
        return 2
    if options.check:
        print(f"{len(mutants)} mutants apply")
        return 0
    mutants = [mutant for mutant in mutants if re.search(options.only, mutant.name)]
    if not mutants:
        print("error: no mutant has a matching name", file=sys.stderr)
        return 2
    if os.path.realpath(options.copy) == os.path.realpath(ROOT):
        print("error: the copy cannot be the repository itself", file=sys.stderr)
        return 2

    if options.list:
        for mutant in mutants:
            print(f"{mutant.name}\n    {mutant.file}, by {mutant.tests}")
        return 0
    copy = Copy(os.path.abspath(options.copy))
    todo = [mutant for mutant in mutants if options.again or copy.known(mutant) not in JUDGED]
    if todo:
        prepare(copy, todo)
    for number, mutant in enumerate(todo, 1):
        started = time.monotonic()
        outcome, output = copy.judge(mutant)
        took = time.monotonic() - started
        copy.keep(mutant, outcome, took)
        print(f"{number:3} of {len(todo)}  {took:4.0f} s  {outcome:16}  {mutant.name}", flush=True)
        if options.verbose or outcome == DOES_NOT_COMPILE:
            print(output[-2000:], flush=True)

    outcomes = {mutant.name: copy.known(mutant) for mutant in mutants}
    print()
    for outcome in (KILLED, TIMED_OUT, SURVIVED, DOES_NOT_COMPILE):
        print(f"{sum(found == outcome for found in outcomes.values()):5}  {outcome}")
    for outcome in (SURVIVED, DOES_NOT_COMPILE):
        for name in (name for name, found in outcomes.items() if found == outcome):
            print(f"{outcome}: {name}")
    if DOES_NOT_COMPILE in outcomes.values():
        return 2
    return 1 if SURVIVED in outcomes.values() else 0


if __name__ == "__main__":
    sys.exit(main())
