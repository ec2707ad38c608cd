"""The command line: a table of commands, each imported when it is used."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence

from heptapod import __version__
from heptapod.distributed.errors import REPORTED_ERRORS, TerminatedError, one_line, out_of_memory
from heptapod.utils.extensions import take_imports
from heptapod.utils.interrupts import INTERRUPTED, end_quietly_during_imports, interrupt_command
from heptapod.utils.messages import nearest, quoted

COMMANDS = {
    "demo": ("demo:demo", "train on real digits, sample 1,000 and score them: from nothing to pictures in minutes"),
    "train-tokenizer": ("train:train_tokenizer", "train the tokenizer of a recipe (images <-> token grid)"),
    "import-tokenizer": ("tokenize:import_tokenizer", "convert a published tokenizer"),
    "evaluate-tokenizer": ("evaluate_tokenizer:evaluate_tokenizer", "measure how well a tokenizer reconstructs"),
    "tokenize": ("tokenize:tokenize", "encode a set of images once, into a cache that training reads"),
    "train": ("train:train", "train the model of a recipe, and its tokenizer first if none is given"),
    "export": ("export:export", "convert a checkpoint of a run into a model"),
    "plan": ("plan:plan", "estimate the cost of training a recipe: FLOPs, memory, time, storage"),
    "sample": ("sample:sample", "generate images with a trained model"),
    "edit": ("edit:edit", "repaint, continue or vary an image with a trained model; the rest stays as it is"),
    "studio": ("studio:studio", "serve a page that shows a model's predictions while it samples, and edits images"),
    "ablate": ("ablate:ablate", "compare heads, orders, densities and distributions for equal time and equal steps"),
    "likelihood": ("likelihood:likelihood", "likelihood of images under a model, and their most likely class"),
    "probe": ("probe:probe", "measure what a model has learned: simple classifiers on its hidden states"),
    "reference": ("reference:reference", "measure real images once, for evaluate to compare samples with"),
    "evaluate": ("evaluate:evaluate", "measure generated images: Fréchet and kernel distance, precision, ..."),
    "bench": ("bench:bench", "measure speed on this machine, next to the usual methods"),
    "doctor": ("doctor:doctor", "show what is installed, how fast this machine is and what it could train"),
    "info": ("info:info", "describe a model, tokenizer, cache, run or checkpoint"),
}
"""Module and function of each command, and its description."""

DISTRIBUTED = {"train", "train-tokenizer", "tokenize", "evaluate", "reference", "sample", "likelihood"}
"""Commands that several processes (torchrun) can share."""

NO_TORCH = (
    "PyTorch is not installed: pip install torch --index-url https://download.pytorch.org/whl/cpu for the CPU, or pip "
    "install torch (on Linux with several gigabytes of CUDA)"
)
RESUMES = {"demo", "train", "train-tokenizer", "tokenize", "ablate"}
"""Commands that continue their work when they are run again."""

HELP = ("-h", "--help")
USAGE_ERROR = 2
PIPE_CLOSED = 141
TERMINATED = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0; 2 for a user's mistake or a limit of the machine; 130 or 143 if the command was stopped from outside; 141 if
        nobody reads its output any more.
    """
    try:
        code = _main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has seen enough, as head has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    if arguments is None:
        gc.freeze()  # the exiting interpreter then does not traverse torch's objects, which takes 0.3 seconds
    return code


def _main(arguments: Sequence[str] | None) -> int:
    if arguments is None:
        end_quietly_during_imports()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else USAGE_ERROR
    if arguments[0] == "--version":
        print(f"heptapod {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        hint = nearest(arguments[0], list(COMMANDS)) or f"; commands: {', '.join(COMMANDS)}"
        return _print_error(f"unknown command {quoted(arguments[0])}{hint}")
    if any(word in HELP for word in arguments[1:]):
        return _help_of(arguments[0], arguments[1:])
    return _run(arguments[0], arguments[1:])


def _help_of(command: str, arguments: list[str]) -> int:
    """Prints the options of a command, on rank 0; nothing imports torch for it."""
    if os.environ.get("RANK", "0") != "0":
        return 0
    try:
        _function(command)(take_imports(arguments))
    except SystemExit:  # the help is printed
        return 0
    except BrokenPipeError:
        raise
    except REPORTED_ERRORS as error:
        return _print_error(one_line(error))
    return 0


def _function(command: str) -> Callable[[list[str]], None]:
    module, _, name = COMMANDS[command][0].partition(":")
    function: Callable[[list[str]], None] = getattr(importlib.import_module(f"heptapod.cli.{module}"), name)
    return function


def _run(command: str, arguments: list[str]) -> int:
    if importlib.util.find_spec("torch") is None:
        return _print_error(NO_TORCH)
    from heptapod.distributed import process_group
    from heptapod.utils.logging import command_output, logger

    with warnings.catch_warnings(), command_output():
        warnings.simplefilter("module", UserWarning)  # each warning once
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a checkpoint of one process
        warnings.showwarning = lambda message, *_, **__: logger.warning(str(message))
        try:
            if command not in DISTRIBUTED:
                process_group.require_single_process(command)
            run = _function(command)
            interrupt_command()
            run(take_imports(arguments))
        except SystemExit as stop:  # the help is printed, or another rank reports the error
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except (KeyboardInterrupt, TerminatedError) as stop:
            if process_group.launched_rank_and_world_size()[0] == 0:
                again = "; run the same command again to resume" if command in RESUMES else ""
                logger.info(str(stop) or f"interrupted{again}")
            return INTERRUPTED if isinstance(stop, KeyboardInterrupt) else TERMINATED
        except BrokenPipeError:
            raise
        except REPORTED_ERRORS as error:
            return _fail(one_line(error))
        except (MemoryError, RuntimeError) as error:
            if (message := out_of_memory(error)) is None:
                raise
            return _fail(message)
    return 0


def _fail(message: str) -> int:
    """Prints one line on standard error, on rank 0 only; HEPTAPOD_TRACEBACK=1 raises the error instead."""
    from heptapod.distributed import process_group
    from heptapod.distributed.coordination import REPORT_SECONDS

    if os.environ.get("HEPTAPOD_TRACEBACK"):
        raise
    if process_group.launched_rank_and_world_size()[0] == 0:
        return _print_error(message)
    time.sleep(REPORT_SECONDS)
    return USAGE_ERROR


def _print_error(message: str) -> int:
    print(f"heptapod: error: {message}", file=sys.stderr)
    return USAGE_ERROR


def _help() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: heptapod COMMAND [OPTIONS]    (heptapod COMMAND --help lists the options)",
            "",
            "Image generation by language modeling: causal attention, the whole 2D grid predicted at every step,",
            "no classifier-free guidance.",
            "",
            *(f"  {name:<{width}}  {description}" for name, (_, description) in COMMANDS.items()),
            "",
            "Every command takes --imports my_head.py: a file or module (several with commas) that registers custom",
            "heads, distributions or tokenizers (docs/extending.md).",
        ]
    )
