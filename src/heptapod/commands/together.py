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

from heptapod import parallel
from heptapod.shared_work import one_voice


def run_together(function: Callable[..., None], command: str, arguments: list[str]) -> None:
    """Parses arguments and calls a function with them, in the one process or in each of several.

    Several processes share the work through :mod:`heptapod.exchange`. What the function does after the last message is
    the business of the first process alone: the others should return.

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

    with parallel.process_group(), one_voice():
        with _heard_once():
            call = tyro.cli(parsed, prog=f"heptapod {command}", args=arguments, use_underscores=True)
        call()


@contextlib.contextmanager
def _heard_once() -> Iterator[None]:
    """What is printed in this block is printed by the first process only."""
    if parallel.is_main():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def warn_of_idle(count: int, batch_size: int) -> None:
    """Warns where there are fewer batches than processes."""
    batches, processes = math.ceil(count / batch_size), parallel.world_size()
    if batches < processes:
        warnings.warn(
            f"batch_size: {count} images, {batch_size} at a time, are work for {batches} of {processes} processes; the "
            "others have nothing to do",
            stacklevel=3,
        )
