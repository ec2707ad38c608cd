"""Errors that end a run, and how an error is told in a line."""

from __future__ import annotations

import errno

import torch.distributed as dist


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient became infinite or not a number; the weights are those before the step."""


class LostProcessError(RuntimeError):
    """Another process cannot be reached any more, or did not answer in time."""


class TerminatedError(RuntimeError):
    """SIGTERM came; what was done so far is saved."""


class OtherProcessFailedError(RuntimeError):
    """Another process has failed, and says why."""


REPORTED_ERRORS = (ValueError, OSError, NonFiniteLossError, LostProcessError)
"""Errors that are told in a line: a user's mistake, or a limit of the machine. Others are ours, with a traceback."""


def one_line(error: BaseException) -> str:
    """What an error says, in one line."""
    message = str(error)
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and error.errno is not None:
        message = f"{error.filename or 'file'}: {error.strerror or error}"
        if error.errno == errno.ENOSPC:
            message = f"disk full while writing {error.filename or 'a file'}; what was saved before is intact"
    return " ".join(message.split())


def as_lost_process_error(error: Exception) -> Exception:
    """An error, or if it is what PyTorch's backends report when a process is gone, a :class:`LostProcessError`."""
    text = str(error)
    if not isinstance(error, RuntimeError) or isinstance(error, REPORTED_ERRORS):
        return error
    if not isinstance(error, dist.DistError) and "gloo" not in text and "NCCL" not in text:
        return error
    return LostProcessError(
        f"another process is gone, or did not answer in time (train.timeout): {text.splitlines()[0]}; what was saved "
        "before is intact, and the same command goes on from there"
    )
