"""``heptapod doctor``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import tyro

from heptapod.utils.arguments import parse_function


def doctor(arguments: list[str]) -> None:
    """Parses arguments and examines the machine."""
    parse_function(examine_machine, "doctor", arguments)()


def examine_machine(
    device: str = "auto",
    out: str = "runs",
    as_json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(name="json")] = False,
) -> None:
    """Shows what is installed, what this machine has, and how fast it is.

    Versions, device, memory and free disk, the speed of matrix products by dtype, the extras that are not installed,
    and how many steps of three recipes' models a training of 30 minutes makes here, measured by a few of them.

    Args:
        device: auto, cpu, cuda, ...
        out: Folder where runs would be written; its disk is examined.
        as_json: Print JSON for programs instead of a table.
    """
    from heptapod.distributed.device import resolve_device
    from heptapod.tools.doctor import examine

    found = examine(resolve_device(device), Path(out))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    import rich.table
    from rich.console import Console

    table = rich.table.Table(show_header=False)
    for key, value in rows(found):
        table.add_row(key, value)
    Console(width=None).print(table, markup=False)


def rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The table of :func:`heptapod.tools.doctor.examine`: names and texts."""
    versions, machine = found["versions"], found["machine"]
    lines = [
        ("versions", ", ".join(f"{name} {value}" for name, value in versions.items() if value)),
        ("processor", f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} thread(s)"),
        ("device", _device(machine)),
        ("memory", _gib(machine["memory_gib"])),
        ("free disk", _gib(machine["free_disk_gib"])),
        ("torch.compile", "compiles long trainings by default" if machine["compiles_blocks"] else "off by default"),
    ]
    for dtype, speed in found["gflops"].items():
        text = "no instructions for it: many times slower than float32" if speed is None else f"{speed:,.0f} GFLOP/s"
        lines.append((f"matrix products, {dtype}", text))
    missing = found["missing_extras"]
    lines += [
        (f"extra {extra!r}", f"lacks {', '.join(names)}: pip install 'heptapod[{extra}]'")
        for extra, names in missing.items()
    ] or [("extras", "all installed")]
    return lines + [(f"30 minutes of {name}", _training(one)) for name, one in found["training"].items()]


def _training(one: dict[str, Any]) -> str:
    if "error" in one:
        return f"failed: {one['error']}"
    model = f"{one['parameters'] / 1e6:.1f}M parameters, {one['cells']} cells"
    return (
        f"{one['steps']:,} steps of the model, {one['share_of_recipe']:.0%} of the recipe's ({model}, "
        f"{one['images_per_second']:,.1f} images/s in {one['precision']})"
    )


def _gib(size: float | None) -> str:
    return "unknown" if size is None else f"{size:.1f} GiB"


def _device(machine: dict[str, Any]) -> str:
    if "gpus" not in machine:
        return str(machine["device"])
    return (
        f"{machine['gpus']} × {machine['device']}, {machine['free_gpu_memory_gib']:.1f} of "
        f"{machine['gpu_memory_gib']:.1f} GiB free"
    )
