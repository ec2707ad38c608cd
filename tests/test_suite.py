"""The table of extended tests and what is left for `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest

from heptapod.cli.app import COMMANDS
from tests.conftest import STALE
from tests.extended import EXTENDED
from tests.test_docs import commands

ROOT = Path(__file__).parents[1]


def test_every_entry_of_the_table_names_a_test(request: pytest.FixtureRequest) -> None:
    missing = sorted(entry for entry in EXTENDED if not (ROOT / entry.partition("::")[0]).is_file())
    assert missing + request.config.stash[STALE] == []


def test_make_test_runs_every_command() -> None:
    """By the pages of the docs: no command is only in the extended part."""
    used = {line.split()[1] for line in commands() if line.startswith("heptapod ")}
    assert set(COMMANDS) <= used
    pages = "tests/test_docs.py"
    assert not EXTENDED & {pages, f"{pages}::test_every_heptapod_command_runs"}
