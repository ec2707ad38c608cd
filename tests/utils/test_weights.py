from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from heptapod.utils.files import load_strictly
from heptapod.utils.weights import NonFiniteError, non_finite_error, plain_state_dict, unwrapped, without_prefix


def network() -> nn.Sequential:
    return nn.Sequential(OrderedDict(inner=nn.Sequential(OrderedDict(module=nn.Linear(2, 2))), out=nn.Linear(2, 1)))


NAMES = {"inner.module.weight", "inner.module.bias", "out.weight", "out.bias"}


def eager(module: nn.Module) -> nn.Module:
    compiled = torch.compile(module, backend="eager")
    assert isinstance(compiled, nn.Module)
    return compiled


def test_wrappers_are_taken_off() -> None:
    plain = network()
    assert unwrapped(plain) is plain
    assert unwrapped(eager(DataParallel(plain))) is plain
    assert plain_state_dict(plain).keys() == NAMES, "a part may be called module"
    assert plain_state_dict(DataParallel(eager(plain))).keys() == NAMES
    plain.inner, plain.out = eager(plain.inner), DataParallel(plain.out)
    assert plain.state_dict().keys() == {
        *("inner._orig_mod.module.weight", "inner._orig_mod.module.bias", "out.module.weight", "out.module.bias")
    }
    assert plain_state_dict(eager(plain)).keys() == NAMES


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("module.{}", "'module.'"),
        ("_orig_mod.{}", "'_orig_mod.'"),
        ("_orig_mod.module.{}", "'_orig_mod.' and 'module.'"),
        ("first_stage_model.{}", "'first_stage_model.'"),
        ("model.vae.{}", "'model.vae.'"),
    ],
)
def test_a_prefix_is_left_out_and_said(name: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heptapod")
    module, state = nn.Linear(2, 2), nn.Linear(2, 2).state_dict()
    load_strictly(module, {name.format(key): tensor for key, tensor in state.items()}, "a.pt")
    assert torch.equal(module.weight, state["weight"])
    assert caplog.messages == [f"a.pt: {said} is left out of the names of its tensors"]


def test_names_that_fit_are_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heptapod")
    load_strictly(network(), network().state_dict(), "a.pt")
    assert not caplog.messages


def test_a_prefix_of_some_names_is_found_and_said() -> None:
    state = {f"first_stage_model.{name}": tensor for name, tensor in network().state_dict().items()}
    others = {f"model.{i}": torch.zeros(1) for i in range(1200)}
    expected = "have the prefix 'first_stage_model.', and 1,200 others, such as model.0, have not"
    with pytest.raises(ValueError, match=expected):
        load_strictly(network(), state | others, "a.pt")
    twice = {"module.weight": torch.zeros(1), "_orig_mod.module.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="holds weight twice, once with '_orig_mod.' and 'module.'"):
        without_prefix({"weight"}, twice, "a.pt")
    with pytest.raises(ValueError, match=r"another architecture: lacks inner\.module\.bias.*; has unknown a"):
        load_strictly(network(), {"a": torch.zeros(1)}, "a.pt")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_spoiled_weights_are_not_loaded(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    module, before = nn.Linear(3, 2), nn.Linear(3, 2).state_dict()
    state: dict[str, Tensor] = {name: tensor.to(dtype) for name, tensor in before.items()}
    state["bias"][1] = value
    with pytest.raises(ValueError, match=r"w\.safetensors: bias holds values that are infinite or not a number"):
        load_strictly(module, state, tmp_path / "w.safetensors")


def test_the_cause_of_what_is_not_finite() -> None:
    module = nn.Linear(2, 2)
    error = non_finite_error("x: is", module, torch.float16)
    assert isinstance(error, NonFiniteError)
    assert str(error) == "x: is not finite: numbers are too large for torch.float16"
    nn.init.constant_(module.bias, torch.nan)
    assert str(non_finite_error("x: is", module, torch.float16)).startswith(
        "x: is not finite: bias of its weights holds"
    )
