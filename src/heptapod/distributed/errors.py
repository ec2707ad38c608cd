"""Errors that end a run, and their one-line messages."""

from __future__ import annotations

import errno
import re


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient became infinite or not a number; the weights are those before the step."""


class LostProcessError(RuntimeError):
    """Another rank is gone, or did not answer in time."""


class TerminatedError(RuntimeError):
    """SIGTERM or SIGHUP was received; the run is saved."""


class InterruptedRunError(KeyboardInterrupt):
    """Ctrl+C was pressed; the run is saved."""


class OtherProcessFailedError(RuntimeError):
    """Another rank has failed, and reports the cause."""


REPORTED_ERRORS = (ValueError, OSError, NonFiniteLossError, LostProcessError)
"""Errors with a one-line message: a user's mistake or a limit of the machine. Others are bugs and show a traceback."""


LONGEST = 580
"""Characters of a message."""


def one_line(error: BaseException) -> str:
    """The message of an error, in one line of at most 580 characters."""
    message = str(error)
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and error.errno is not None:
        message = f"{error.filename or 'file'}: {error.strerror or error}"
        if error.errno == errno.ENOSPC:
            message = f"disk full while writing {error.filename or 'a file'}; everything saved before is intact"
    message = " ".join(message.split())
    return message if len(message) <= LONGEST else f"{message[: LONGEST - 201]}…{message[-200:]}"


def out_of_memory(error: BaseException) -> str | None:
    """The message of an error that memory ran out; None for another error."""
    import torch

    text = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        where = "the GPU's memory"
    elif isinstance(error, MemoryError) or "can't allocate memory" in text:
        where = "the memory of this machine"
    else:
        return None
    asked = re.search(r"(?i)tried to allocate ([\d,.]+ ?\w*)", text)
    size = f", {asked[1]} more were asked for" if asked else ""
    return f"out of memory: this does not fit in {where}{size}; a smaller batch size or model takes less"


def as_lost_process_error(error: Exception) -> Exception:
    """Converts errors of PyTorch's backends for a lost process to :class:`LostProcessError`; returns other errors."""
    import torch.distributed as dist

    text = str(error)
    if not isinstance(error, RuntimeError) or isinstance(error, REPORTED_ERRORS):
        return error
    if not isinstance(error, dist.DistError) and "gloo" not in text and "NCCL" not in text:
        return error
    return LostProcessError(
        f"another process is gone, or did not answer in time (train.timeout): {text.splitlines()[0]}; everything "
        "saved before is intact; run the same command again to resume"
    )
