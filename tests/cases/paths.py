"""Where the inputs that once failed are: ``../shared/cases`` of the repository, or the folder HEPTAPOD_CASES names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def case(name: str) -> Path:
    """A folder or file of the cases; skips the test where it is missing (the inputs are not part of the repository)."""
    folder = Path(os.environ.get("HEPTAPOD_CASES") or REPOSITORY.parent / "shared" / "cases")
    if not (folder / name).exists():
        pytest.skip(f"{folder / name} is missing; set HEPTAPOD_CASES to the folder of the cases")
    return folder / name
