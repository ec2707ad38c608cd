"""The table of extended tests and what is left for `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import STALE
from tests.extended import EXTENDED

ROOT = Path(__file__).parents[1]


def test_every_entry_of_the_table_names_a_test(request: pytest.FixtureRequest) -> None:
    missing = sorted(entry for entry in EXTENDED if not (ROOT / entry.partition("::")[0]).is_file())
    assert missing + request.config.stash[STALE] == []
