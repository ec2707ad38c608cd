"""The page's types are those of the server's OpenAPI description."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_types_of_the_page_are_up_to_date() -> None:
    script = [sys.executable, "scripts/studio_types.py"]
    types = subprocess.run(script, cwd=ROOT, check=True, capture_output=True, encoding="utf-8").stdout
    assert (ROOT / "web/src/api/types.ts").read_text(encoding="utf-8") == types, "run make web"
    assert "cell_steps?: number | null" in types
