"""``heptapod export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from heptapod.utils.arguments import parse_function


def export(arguments: list[str]) -> None:
    """Parses arguments and exports."""
    parse_function(export_run, "export", arguments)()


def export_run(
    run: tyro.conf.Positional[str],
    out: str,
    step: Annotated[int, Field(ge=0)] | None = None,
    weights: Literal["ema", "model"] = "ema",
) -> None:
    """Converts a checkpoint of a run, written by any number of processes, to a model folder (one safetensors file).

    Training itself exports the weights with the lowest held-out loss (RUN/best) and the final ones (RUN/last).

    Args:
        run: Run folder of heptapod train.
        out: Folder to write.
        step: Step of the checkpoint; the newest complete one if left out.
        weights: ema for the moving average, model for the trained weights.
    """
    from heptapod.inference.pipeline import Heptapod
    from heptapod.training.checkpoint import read_checkpoint, step_of
    from heptapod.utils.files import check_folder, load_strictly

    check_folder(Path(out))
    path = _checkpoint(Path(run) / "checkpoints", step)
    heptapod = Heptapod.from_pretrained(run)
    tensors = read_checkpoint(path, [weights])
    if weights not in tensors:
        raise ValueError(f"weights: {weights} given, but {path} holds none (train.ema_decay is 0); give model")
    load_strictly(heptapod.model, tensors[weights], path)
    heptapod.metadata = {"step": str(step_of(path)), "weights": weights}
    heptapod.save_pretrained(out)
    print(f"model: {out}, {weights} of step {step_of(path):,}")


def _checkpoint(folder: Path, step: int | None) -> Path:
    """A complete checkpoint of a step, or the newest one.

    Raises:
        FileNotFoundError, ValueError: if there is none.
    """
    from heptapod.training.checkpoint import checkpoints, problem_of, step_of

    paths = checkpoints(folder)
    if not paths:
        raise FileNotFoundError(f"{folder}: no checkpoints there")
    if step is None:
        complete = [path for path in paths if problem_of(path) is None]
        if not complete:
            raise ValueError(f"{folder}: none of {len(paths)} checkpoint(s) is complete")
        return complete[-1]
    chosen = [path for path in paths if step_of(path) == step]
    if not chosen:
        raise ValueError(
            f"step: {step} given, but there are checkpoints of {', '.join(str(step_of(p)) for p in paths)}"
        )
    if problem := problem_of(chosen[0]):
        raise ValueError(f"step: {step} given, but its checkpoint {problem}")
    return chosen[0]
