from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from heptapod.distributions import DistributionConfig
from heptapod.grid import GridSpec
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model
from tests.extended import EXTENDED, NIGHTLY, nightly_of

HEADS = ["global", "local", "cross", "group", "next_token"]
ORDERS = ["raster", "random", "mixed"]
GRID = GridSpec(4, 5, 7)
VECTORS = GridSpec(4, 5, channels=3)

# The tests are many small steps, on which threads spin more than they help: one each where tests run side by side.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
torch.set_num_threads(int(os.environ.get("HEPTAPOD_TEST_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))))

STALE = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--turn", type=int, metavar="N", help="of the nightly tests, only the entry whose turn N is")


def pytest_report_header(config: pytest.Config) -> list[str]:
    turn = config.getoption("turn")
    return [] if turn is None else [f"nightly test of turn {turn}: {nightly_of(turn)}"]


@pytest.hookimpl(tryfirst=True)  # before ``-m`` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the tests of the table; notes the entries that name no test of the collected files."""
    turn = config.getoption("turn")
    files, seen = set(), set()
    for item in items:
        case = item.nodeid
        names = {case.partition("::")[0], case.partition("[")[0], case}
        files.add(case.partition("::")[0])
        seen |= names
        if names & EXTENDED:
            item.add_marker("extended")
        if names & NIGHTLY:
            item.add_marker("nightly")
    if turn is not None:
        others = NIGHTLY - {nightly_of(turn)}
        items[:] = [item for item in items if not {item.nodeid.partition("[")[0], item.nodeid} & others]
    whole = not any("::" in argument for argument in config.args)
    config.stash[STALE] = sorted(
        entry for entry in (EXTENDED | NIGHTLY) - seen if whole and entry.partition("::")[0] in files
    )


def randomized(model: HeptapodModel, seed: int = 0) -> HeptapodModel:
    """Weights far from initialization, so that every path matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if (parameter.ndim > 1 or not parameter.any()) and not (parameter == 1).all():  # scales stay at 1
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


@pytest.fixture
def make_model() -> Callable[..., HeptapodModel]:
    def make(
        head: str,
        grid: GridSpec = GRID,
        num_classes: int = 3,
        seed: int = 0,
        window: int = 3,
        distribution: str | None = None,
    ) -> HeptapodModel:
        head_config = HeadConfig(head, 2, window if head == "local" else None)  # type: ignore[arg-type]
        kind = distribution or ("categorical" if grid.is_discrete else "flow")
        size = {} if kind == "categorical" else {"mlp_depth": 2, "mlp_width": 24}
        cells = DistributionConfig(kind, **size)  # type: ignore[arg-type]
        config = ModelConfig(width=32, depth=2, num_heads=2, head=head_config, distribution=cells)
        return randomized(build_model(config, grid, num_classes, seed), seed)

    return make


def write_classes(folder: Path, count: int) -> Path:
    """Two classes of ``count`` images of 16×16, brightness by class."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(["dark", "light"]):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 100, (16, 16, 3), dtype=np.uint8) + np.uint8(150 * label)
            Image.fromarray(pixels).save(folder / name / f"{number:02d}.png")
    return folder


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes of 12 images of 16×16, brightness by class."""
    return write_classes(tmp_path / "images", 12)


SHARED_DATA = Path(os.environ.get("HEPTAPOD_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
