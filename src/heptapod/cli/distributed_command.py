"""Runs a command in one process or in several (torchrun), where each error is reported once and ends all of them."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Callable

from heptapod.utils.arguments import HELP, parse_function


def run_distributed(function: Callable[..., None], command: str, arguments: list[str]) -> None:
    """Parses arguments and calls a function with them on every rank.

    Ranks share work through :mod:`heptapod.distributed.collectives`. After the last collective only rank 0 continues;
    the function returns on the others.

    Args:
        function: its parameters are the arguments, described by its docstring.
        command: its name, for the usage.
        arguments: of the command line.

    Raises:
        SystemExit: on ranks whose error another rank reports.
    """
    if any(word in HELP for word in arguments):
        parse_function(function, command, arguments)
    from heptapod.distributed import process_group
    from heptapod.distributed.coordination import report_failure_once

    with process_group.init_process_group(), report_failure_once():
        with contextlib.ExitStack() as stack:
            if not process_group.is_main_process():  # rank 0 prints the help
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            call = parse_function(function, command, arguments)
        call()


def warn_if_ranks_idle(count: int, batch_size: int) -> None:
    """Warns if there are fewer batches than ranks."""
    from heptapod.distributed import process_group

    batches, ranks = math.ceil(count / batch_size), process_group.world_size()
    if batches < ranks:
        warnings.warn(
            f"batch_size: {count} images in batches of {batch_size} are work for {batches} of {ranks} processes; the "
            "others are idle",
            stacklevel=3,
        )
