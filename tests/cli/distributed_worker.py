"""Runs commands in this process's share of a group, one after another; started by test_together.py, once per process.

Argument: a JSON list of tasks: ``arguments`` of a command, or ``blocks`` to exchange; which process it ``fails_in`` and
``how``; the ``port`` to meet at. Writes what came of each to rankR.json.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from heptapod.cli import main
from heptapod.distributed import collectives, process_group
from heptapod.evaluation.features import CallableFeatures
from tests.cli.test_evaluate_command import colors  # sets the number of threads as the tests do

RANK = int(os.environ["RANK"])


def failing(how: str | None, images: Tensor) -> Tensor:
    if how == "value":
        raise ValueError("colors: cannot see")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return colors(images)


def run(task: dict[str, Any]) -> dict[str, Any]:
    os.environ["MASTER_PORT"] = str(task["port"])
    if "blocks" in task:
        with process_group.init_process_group():
            return {"blocks": blocks(task["blocks"])}
    how = task.get("how") if task.get("fails_in") == RANK else None

    def extractor(*_: Any) -> CallableFeatures:
        return CallableFeatures("colors", 6, lambda x: failing(how, x), lambda features: features[:, :4] * 9, 4)

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr("heptapod.evaluation.features.open_extractor", extractor)
        patch.setattr("heptapod.distributed.coordination.REPORT_SECONDS", 1.0)
        patch.setattr("heptapod.utils.logging.SECONDS_BETWEEN_LINES", 0)
        code = main(task["arguments"])
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def blocks(count: int) -> Any:
    """Tensors of other shapes and types in each block, in order; and what the first process has, in all of them."""
    mine = collectives.blocks_of_rank([torch.full((number, 2), number) for number in range(count)])
    found = collectives.gather_blocks([{"long": block, "half": block[:1].half()} for block in mine])
    seen = [(block["long"].tolist(), str(block["half"].dtype)) for block in found]
    told = collectives.broadcast_tensors({"told": torch.tensor([count])} if RANK == 0 else None)
    return seen, told["told"].tolist(), collectives.main_process_first(lambda: RANK)


if __name__ == "__main__":
    results: list[dict[str, Any]] = []
    for task in json.loads(sys.argv[1]):
        results.append(run(task))
        Path(f"rank{RANK}.json").write_text(json.dumps(results))
