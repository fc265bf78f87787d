"""Kills in the middle of writes: some rounds of what `make test-faults` does fifty times."""

import os
import sys

from conftest import ROOT

sys.path.insert(0, os.path.join(ROOT, "Tests", "Faults"))

import kill_rounds  # noqa: E402


def test_nothing_acknowledged_is_lost(tmp_path):
    assert kill_rounds.run(tmp_path, rounds=3, seed=1) > 0
