"""State dicts: names without what wrappers add to them, and values that are finite."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

logger = logging.getLogger(__name__)

COMPILED = "_orig_mod"
"""What torch.compile names the module that it wraps."""
WRAPPED = (COMPILED, "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that only wrappers use. DistributedDataParallel and DataParallel use ``module``."""


class NonFiniteError(ValueError):
    """What a model computes is infinite or not a number; the message names the cause."""


def is_wrapper(module: nn.Module) -> bool:
    """Whether a module is the wrapper of torch.compile, DistributedDataParallel or DataParallel."""
    return isinstance(module, DistributedDataParallel | DataParallel) or COMPILED in module._modules


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside the wrappers, if there are any."""
    while is_wrapper(module):
        (module,) = module.children()
    return module


def plain_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """The state dict of a module, by the names that it has without wrappers of it or of any part of it."""
    wrappers = {
        tuple(filter(None, path.split(".")))
        for path, part in module.named_modules(remove_duplicate=False)
        if is_wrapper(part)
    }

    def plain(name: str) -> str:
        parts = name.split(".")
        return ".".join(part for i, part in enumerate(parts) if tuple(parts[:i]) not in wrappers)

    return {plain(name): tensor for name, tensor in module.state_dict().items()}


def plain_name(name: str) -> str:
    """A name without the parts that only wrappers use."""
    return ".".join(part for part in name.split(".") if part not in WRAPPED)


def without_prefix(needed: AbstractSet[str], tensors: Mapping[str, Tensor], source: Path | str) -> dict[str, Tensor]:
    """Tensors by the needed names, if all their names have a prefix, or parts that a wrapper added; else as they are.

    What is left out of the names is logged.

    Raises:
        ValueError: if the needed tensors have a prefix that others have not, or two have the same name without it.
    """
    if not needed or tensors.keys() >= set(needed):
        return dict(tensors)
    for dropped in (WRAPPED, (*WRAPPED, "module")):
        names = {name: ".".join(part for part in name.split(".") if part not in dropped) for name in tensors}
        if needed <= set(names.values()):
            found = {part for name in tensors for part in name.split(".") if part in dropped}
            return _renamed(tensors, names, " and ".join(f"'{part}.'" for part in sorted(found)), source)
    prefix = _common_prefix(needed, tensors)
    if prefix is None:
        return dict(tensors)
    others = [name for name in tensors if not name.startswith(prefix)]
    if others:
        raise ValueError(
            f"{source}: the tensors that are needed have the prefix '{prefix}', and {len(others):,} others, such as "
            f"{others[0]}, have not; give a file of the first only"
        )
    return _renamed(tensors, {name: name.removeprefix(prefix) for name in tensors}, f"'{prefix}'", source)


def _common_prefix(needed: AbstractSet[str], tensors: Mapping[str, Tensor]) -> str | None:
    """The prefix under which all needed names are found, if there is one."""
    longest = max(needed, key=len)
    prefixes = [name.removesuffix(longest) for name in tensors if name.endswith(f".{longest}")]
    return next((p for p in prefixes if all(p + name in tensors for name in needed)), None)


def _renamed(
    tensors: Mapping[str, Tensor], names: Mapping[str, str], left_out: str, source: Path | str
) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if names[name] in renamed:
            raise ValueError(f"{source}: holds {names[name]} twice, once with {left_out} in its name")
        renamed[names[name]] = tensor
    logger.info(f"{source}: {left_out} is left out of the names of its tensors")
    return renamed


def check_finite_weights(tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Checks that no weight is infinite or not a number.

    Raises:
        ValueError: naming the first tensor with such a value.
    """
    if (name := non_finite(tensors)) is not None:
        raise ValueError(
            f"{source}: {name} holds values that are infinite or not a number (NaN); the weights are spoiled"
        )


def non_finite_error(what: str, module: nn.Module, dtype: torch.dtype, also: str = "") -> NonFiniteError:
    """The error to raise for results of a module that are not finite.

    Args:
        what: the results.
        module: what computed them.
        dtype: its precision.
        also: what else may be the cause if its weights are finite.
    """
    if name := non_finite(module.state_dict()):
        return NonFiniteError(
            f"{what} not finite: {name} of its weights holds values that are infinite or not a number"
        )
    return NonFiniteError(f"{what} not finite: numbers are too large for {dtype}{also}")


@torch.no_grad()
def non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first tensor with a value that is infinite or not a number."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            low, high = torch.aminmax(tensor)  # one pass; not a number if any value is not
            if not (low.isfinite() and high.isfinite()):
                return name
    return None
