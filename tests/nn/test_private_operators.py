"""Without torch's private operators, public ones give the same values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from heptapod.distributed import process_group
from heptapod.nn import layers
from heptapod.training.optim import lerp_all_


def test_a_linear_layer_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "ONEDNN", False)
    monkeypatch.delattr(torch.ops.mkldnn, "_linear_pointwise", raising=False)
    x, weight = torch.randn(3, 8), torch.randn(5, 8)
    with torch.inference_mode():
        assert torch.equal(layers.linear(x, weight), F.linear(x, weight))


def test_the_moving_average_without_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    def moved() -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        starts, ends = ([torch.randn(n, 7, generator=generator) for n in (1, 64)] for _ in range(2))
        lerp_all_(starts, ends, 0.013)
        return starts

    expected = moved()
    monkeypatch.delattr(torch, "_foreach_lerp_")
    assert all(torch.equal(a, b) for a, b in zip(expected, moved(), strict=True))


def test_the_store_of_the_processes_without_the_private_name(monkeypatch: pytest.MonkeyPatch) -> None:
    store = torch.distributed.HashStore()
    monkeypatch.delattr(torch.distributed.distributed_c10d, "_get_default_store")
    with pytest.raises(RuntimeError, match="no process group"):
        process_group.shared_store()
    monkeypatch.setattr(process_group, "_store", store)
    assert process_group.shared_store() is store
