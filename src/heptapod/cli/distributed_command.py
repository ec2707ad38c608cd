"""A command that several processes (torchrun) do together: bad arguments and failures are told once, and end all."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import tyro

from heptapod.distributed import process_group
from heptapod.distributed.coordination import report_failure_once


def run_distributed(function: Callable[..., None], command: str, arguments: list[str]) -> None:
    """Parses arguments and calls a function with them, in the one process or in each of several.

    Several processes share the work through :mod:`heptapod.distributed.collectives`. After the last collective only the
    main process continues; the others should return.

    Args:
        function: its parameters are the arguments, described by its docstring.
        command: its name, for the usage.
        arguments: of the command line.

    Raises:
        SystemExit: in several processes, for whatever ends them; it has been told.
    """

    @functools.wraps(function)
    def parsed(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(function, *args, **kwargs)

    with process_group.init_process_group(), report_failure_once():
        with _silence_other_ranks():
            call = tyro.cli(parsed, prog=f"heptapod {command}", args=arguments, use_underscores=True)
        call()


@contextlib.contextmanager
def _silence_other_ranks() -> Iterator[None]:
    """What is printed in this block is printed by the first process only."""
    if process_group.is_main_process():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def warn_if_ranks_idle(count: int, batch_size: int) -> None:
    """Warns where there are fewer batches than processes."""
    batches, processes = math.ceil(count / batch_size), process_group.world_size()
    if batches < processes:
        warnings.warn(
            f"batch_size: {count} images, {batch_size} at a time, are work for {batches} of {processes} processes; the "
            "others have nothing to do",
            stacklevel=3,
        )
