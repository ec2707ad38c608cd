"""The table of extended tests and what is left for `make test`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from heptapod.cli.app import COMMANDS
from tests.conftest import STALE
from tests.extended import EXTENDED, NIGHTLY, TURNS, nightly_of
from tests.test_docs import commands

ROOT = Path(__file__).parents[1]


def test_every_entry_of_the_table_names_a_test(request: pytest.FixtureRequest) -> None:
    missing = sorted(entry for entry in EXTENDED | NIGHTLY if not (ROOT / entry.partition("::")[0]).is_file())
    assert missing + request.config.stash[STALE] == []


def test_every_nightly_test_has_its_turn() -> None:
    assert {nightly_of(turn) for turn in range(1000, 1000 + len(TURNS))} == set(TURNS)
    assert set(TURNS) <= NIGHTLY
    assert not EXTENDED & NIGHTLY


def test_a_turn_selects_one_nightly_test() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", "nightly"]
    files = sorted({entry.partition("::")[0] for entry in NIGHTLY})
    done = subprocess.run([*command, "--turn=5", *files], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if "::" in line] == [nightly_of(5)]


def test_make_test_runs_every_command() -> None:
    """By the pages of the docs: no command is only in the extended part."""
    used = {line.split()[1] for line in commands() if line.startswith("heptapod ")}
    assert set(COMMANDS) <= used
    pages = "tests/test_docs.py"
    assert not EXTENDED & {pages, f"{pages}::test_every_heptapod_command_runs"}
