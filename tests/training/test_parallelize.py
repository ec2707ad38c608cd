"""Which parts of a module are compiled."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from heptapod.models import HeadConfig, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.nn.layers import Block
from heptapod.tokenizers import VQConfig, VQTokenizer
from heptapod.training import parallelize
from heptapod.training.config import TrainConfig
from heptapod.training.parallelize import Parallel, parts_to_compile
from heptapod.utils import machine
from tests.small import CODES

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("triton", [True, False])
def test_a_model_is_compiled_by_block_where_triton_is(triton: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: object() if triton else None)
    monkeypatch.setattr(machine.shutil, "which", lambda name: name)
    model = build_model(ModelConfig(width=16, depth=2, num_heads=1, head=HeadConfig("cross", 1)), CODES, 3, 0)
    parts = parts_to_compile(model, TrainConfig(), GPU)
    assert len(parts) == (3 if triton else 0)
    assert all(isinstance(part, Block) for part in parts)
    assert parts_to_compile(model, TrainConfig(), CPU) == []
    assert len(parts_to_compile(model, TrainConfig(compile=True), CPU)) == 3
    assert parts_to_compile(model, TrainConfig(compile=False), GPU) == []


def test_a_tokenizer_is_compiled_whole_and_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallelize, "compiles_by_default", lambda kind: True)
    tokenizer = VQTokenizer(VQConfig(width=8, codebook_size=16, code_width=4))
    assert parts_to_compile(tokenizer, TrainConfig(), GPU) == []
    assert parts_to_compile(tokenizer, TrainConfig(compile=True), GPU) == [tokenizer]


def test_no_c_compiler_and_nothing_is_compiled_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert not machine.compiles_by_default("cuda")


@pytest.mark.parametrize(("head", "message"), [
    ("cross", "needs a GPU and compile; the device is cpu, and the blocks are not compiled"),
    ("next_token", "applies to models with a cross or group head only"),
])  # fmt: skip
def test_flex_attention_is_refused_where_it_does_not_apply(head: str, message: str) -> None:
    model = build_model(ModelConfig(width=16, depth=1, num_heads=1, head=HeadConfig(head, 1)), CODES, 3, 0)
    with pytest.raises(ValueError, match=f"flex_attention: true given, but it {message}"):
        Parallel(SimpleNamespace(module=model), TrainConfig(flex_attention=True), CPU)  # type: ignore[arg-type]
