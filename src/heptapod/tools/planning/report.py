"""A plan as a table in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from heptapod.tools.planning.budget import MemoryOption
from heptapod.tools.planning.gpus import GIB
from heptapod.tools.planning.plan import Plan
from heptapod.tools.planning.training_setup import describe_grid

Row = tuple[str, str]


def print_plan(plan: Plan) -> None:
    """Prints a plan, its verdict and its assumptions."""
    console = Console(width=None)
    table = Table(show_header=False, title=_title(plan), title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for rows in (_model(plan), _flops(plan), _memory(plan), _time(plan), _sampling(plan), _storage(plan)):
        for name, value in rows:
            table.add_row(name, value)
        table.add_section()
    console.print(table, markup=False)
    for line in verdict(plan):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for assumption in plan.setup.assumed:
        console.print(f"assumed: {assumption}", markup=False, highlight=False, soft_wrap=True)


def verdict(plan: Plan) -> list[str]:
    """Whether the recipe fits the memory, and the options that would fit."""
    memory, gpu = plan.memory, plan.hardware.gpu
    peak, usable = gib(memory.at_peak.peak), gib(memory.usable)
    if memory.fits:
        lines = [f"It fits: {peak} of {usable} usable memory ({gpu.name}, {gpu.memory_gib:g} GiB)."]
        own = plan.setup.recipe.train.accumulation
        if memory.largest is not None and memory.largest.accumulation < own:
            larger = images(memory.micro_batch * own // memory.largest.accumulation)
            lines.append(
                f"--train.accumulation {memory.largest.accumulation} ({larger} per micro-batch) also fits and uses "
                "a GPU better."
            )
        return lines
    lines = [f"It does not fit: a GPU needs {peak} of {usable} usable memory ({gpu.name}, {gpu.memory_gib:g} GiB)."]
    if not memory.remedies:
        return [*lines, "No option fits: use a smaller model, a smaller batch or a larger GPU."]
    lines.append("Options that fit, each with its smallest accumulation:")
    return [
        *lines,
        *(f"  {option.settings()}  ({_micro_batch(plan, option)} per micro-batch)" for option in memory.remedies),
    ]


def _micro_batch(plan: Plan, option: MemoryOption) -> str:
    return images(plan.setup.recipe.train.batch_size // (plan.hardware.gpus * option.accumulation))


def _title(plan: Plan) -> str:
    hardware = plan.hardware
    name = plan.setup.recipe.out.rpartition("/")[2]
    return f"{name} on {hardware.gpus} × {hardware.gpu.name}, at {hardware.utilization:.0%} of its peak"


def _model(plan: Plan) -> list[Row]:
    parts = ", ".join(f"{name} {count:,}" for name, count in plan.parameters.items() if name != "total")
    classes = f"{plan.setup.num_classes:,} classes" if plan.setup.num_classes else "no classes"
    return [
        ("parameters", f"{plan.parameters['total']:,}"),
        ("", parts),
        ("grid", f"{describe_grid(plan.setup.grid)}, {classes}"),
    ]


def _flops(plan: Plan) -> list[Row]:
    flops, train = plan.flops, plan.setup.recipe.train
    parts = ", ".join(f"{name} {part.total / flops.total:.0%}" for name, part in flops.parts.items())
    rows = [
        (
            "FLOPs per image",
            f"{short(flops.total)} (forward {short(flops.forward)}, backward {short(flops.backward)}; {parts})",
        )
    ]
    if flops.recomputed:
        rows.append(("", f"and {short(flops.recomputed)} recomputed (activation checkpointing)"))
    return [*rows, ("FLOPs per step", f"{short(flops.total * train.batch_size)} for {train.batch_size:,} images")]


def _memory(plan: Plan) -> list[Row]:
    memory, at = plan.memory, plan.memory.at_peak
    train = plan.setup.recipe.train
    one_batch = train.accumulation == 1
    rows = [
        (
            "memory of a GPU",
            f"{gib(at.peak)} at the peak ({train.strategy}, accumulation {train.accumulation}, "
            f"{images(memory.micro_batch)} per micro-batch, {train.precision})",
        ),
        ("  weights", gib(at.weights)),
        ("  gradients", gib(at.gradients) + (", allocated while activations are freed" if one_batch else "")),
        ("  optimizer", gib(at.optimizer)),
        ("  EMA", gib(at.average)),
    ]
    if at.shared:
        rows.append(("  communication", gib(at.shared)))
    rows.append(("  activations", f"{gib(at.activations)}, with the temporary tensors at the peak"))
    rows.append(
        (
            "  saved for backward",
            f"{gib(memory.activations_without_checkpointing)}, or "
            f"{gib(memory.activations_with_checkpointing)} with activation_checkpointing",
        )
    )
    rows.append(("  evaluation", gib(at.evaluation)))
    return rows


def _time(plan: Plan) -> list[Row]:
    time, train = plan.time, plan.setup.recipe.train
    rows = [
        ("speed", f"{time.images_per_second:,.0f} images/s, {time.tokens_per_second:,.0f} tokens/s"),
        (
            "training",
            f"{time.days:,.3g} days for {train.steps:,} steps ({time.epochs:,.3g} epochs), "
            f"{time.gpu_hours:,.4g} GPU-hours" + _cost(time.dollars),
        ),
    ]
    if time.model_flops_utilization < plan.hardware.utilization:
        rows.append(("", f"model FLOPs utilization {time.model_flops_utilization:.0%}, because blocks are recomputed"))
    return rows


def _sampling(plan: Plan) -> list[Row]:
    sampling = plan.sampling
    flops = sampling.flops
    shares = ", ".join(
        f"{name} {getattr(flops, name) / flops.total:.0%}" for name in ("backbone", "head", "distribution")
    )
    return [
        ("sampling", f"{short(flops.total)}FLOPs per image in {flops.steps} steps ({shares})"),
        ("", f"{sampling.images:,} images: {sampling.gpu_hours:,.3g} GPU-hours in bfloat16" + _cost(sampling.dollars)),
    ]


def _storage(plan: Plan) -> list[Row]:
    stored = plan.storage
    views = f" in {stored.cache_views} views" if stored.cache_views > 1 else ""
    return [
        (
            "token cache",
            f"{gib(stored.cache)} for {stored.cache_images:,} images{views} ({stored.bytes_per_token} bytes per token)",
        ),
        ("checkpoint", gib(stored.checkpoint)),
        ("exported model", gib(stored.export)),
    ]


def _cost(dollars: float | None) -> str:
    return "" if dollars is None else f", ${dollars:,.0f}" if dollars >= 100 else f", ${dollars:,.2f}"


def images(count: int) -> str:
    """A number of images with its noun."""
    return f"{count:,} image{'s' if count > 1 else ''}"


def gib(count: float) -> str:
    """Bytes in KiB, MiB or GiB."""
    for unit, size in (("GiB", GIB), ("MiB", 2**20)):
        if count >= 0.1 * size:
            return f"{count / size:,.2f} {unit}"
    return f"{count / 2**10:,.1f} KiB"


def short(count: float) -> str:
    """A large number with its prefix: 1.23 T."""
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {prefix}"
    return f"{count:,.0f} "
