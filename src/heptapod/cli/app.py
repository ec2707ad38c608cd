"""The command line: one table, command -> function."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence

from heptapod import __version__
from heptapod.cli.ablate import ablate
from heptapod.cli.bench import bench
from heptapod.cli.demo import demo
from heptapod.cli.edit import edit
from heptapod.cli.evaluate import evaluate
from heptapod.cli.evaluate_tokenizer import evaluate_tokenizer
from heptapod.cli.export import export
from heptapod.cli.info import info
from heptapod.cli.likelihood import likelihood
from heptapod.cli.plan import plan
from heptapod.cli.probe import probe
from heptapod.cli.reference import reference
from heptapod.cli.sample import sample
from heptapod.cli.studio import studio
from heptapod.cli.tokenize import import_tokenizer, tokenize
from heptapod.cli.train import train, train_tokenizer
from heptapod.distributed import process_group
from heptapod.distributed.coordination import REPORT_SECONDS
from heptapod.distributed.errors import REPORTED_ERRORS, TerminatedError, one_line
from heptapod.utils.extensions import take_imports
from heptapod.utils.logging import say

COMMANDS: dict[str, tuple[Callable[[list[str]], None], str]] = {
    "demo": (
        demo,
        "train on real digits, sample 1,000 and have them judged: from nothing to pictures in minutes",
    ),
    "train-tokenizer": (train_tokenizer, "train the tokenizer of a recipe (images <-> token grid)"),
    "import-tokenizer": (import_tokenizer, "convert a published tokenizer"),
    "evaluate-tokenizer": (evaluate_tokenizer, "measure how well a tokenizer reconstructs"),
    "tokenize": (tokenize, "encode a set of images once, into a cache that training reads"),
    "train": (train, "train the model of a recipe, and its tokenizer first where none is given"),
    "export": (export, "make a model of any checkpoint of a run"),
    "plan": (plan, "tell what training a recipe takes before it is trained: FLOPs, memory, time, storage"),
    "sample": (sample, "generate images with a trained model"),
    "edit": (edit, "repaint, continue or vary an image with a trained model, the rest kept as it is"),
    "studio": (studio, "serve a page on which one sees what a model believes while it draws, asks it and edits"),
    "ablate": (ablate, "compare heads, orders, densities and distributions for equal time and at equal steps"),
    "likelihood": (likelihood, "how likely images are to a trained model, and which class makes them most likely"),
    "probe": (probe, "measure what a model has learned: classes told from its hidden states by simple means"),
    "reference": (reference, "measure real images once, for evaluate to compare samples with"),
    "evaluate": (
        evaluate,
        "measure how good generated images are: Fréchet and kernel distance, precision, ...",
    ),
    "bench": (bench, "measure sampling on this machine, beside the usual ways to do it"),
    "info": (info, "tell what a model, tokenizer, cache, run or checkpoint holds"),
}

SHARED = {"train", "train-tokenizer", "tokenize", "evaluate", "reference", "sample", "likelihood"}
"""Commands that several processes (torchrun) can do together."""

USAGE_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, 2 for a user's mistake or a machine's limit, 130 or 143 when stopped from outside."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else USAGE_ERROR
    if arguments[0] == "--version":
        print(f"heptapod {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        return _fail(f"unknown command {arguments[0]!r}; commands: {', '.join(COMMANDS)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("module", UserWarning)  # each warning once
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a checkpoint of one process
            warnings.showwarning = _show_warning
            if arguments[0] not in SHARED:
                process_group.require_single_process(arguments[0])
            COMMANDS[arguments[0]][0](take_imports(arguments[1:]))
    except SystemExit as stop:  # help was shown, or the argument parser has said what is wrong
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        say("interrupted (training goes on from its last checkpoint when the same command is given again)")
        return INTERRUPTED
    except TerminatedError as stop:
        if process_group.launched_rank_and_world_size()[0] == 0:
            say(str(stop))
        return TERMINATED
    except REPORTED_ERRORS as error:
        return _fail(one_line(error))
    return 0


def _fail(message: str) -> int:
    """One line on standard error, of several processes by the first; HEPTAPOD_TRACEBACK=1 shows where it comes from."""
    if os.environ.get("HEPTAPOD_TRACEBACK") and sys.exc_info()[0] is not None:
        raise
    if process_group.launched_rank_and_world_size()[0] == 0:
        print(f"heptapod: error: {message}", file=sys.stderr)
    else:
        time.sleep(REPORT_SECONDS)
    return USAGE_ERROR


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    say(f"warning: {message}")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: heptapod COMMAND [ARGUMENTS]    (heptapod COMMAND --help explains each)",
            "",
            "Image generation by language modeling: causal attention, the whole 2D grid predicted at every step,",
            "no classifier-free guidance.",
            "",
            *lines,
            "",
            "Every command takes --imports my_head.py: a file or module (several with commas) that registers custom",
            "heads, distributions or tokenizers (docs/extending.md).",
        ]
    )
