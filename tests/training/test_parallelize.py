"""Which parts of a module are compiled."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from heptapod.configs.objective import ObjectiveConfig
from heptapod.models import HeadConfig, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.nn.layers import Block
from heptapod.objective import draw_supervision, objective_loss
from heptapod.tokenizers import VQConfig, VQTokenizer
from heptapod.training import parallelize
from heptapod.training.config import TrainConfig
from heptapod.training.parallelize import Parallel, parts_to_compile
from heptapod.utils import machine
from heptapod.utils.random import KeyedGenerator, Stream
from tests.small import CODES

LONG = TrainConfig(steps=2000)
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("triton", [True, False])
def test_a_model_is_compiled_by_block_where_triton_is(triton: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallelize, "compiles_by_default", lambda device: triton and device.type == "cuda")
    model = build_model(ModelConfig(width=16, depth=2, num_heads=1, head=HeadConfig("cross", 1)), CODES, 3, 0)
    parts = parts_to_compile(model, LONG, GPU)
    assert len(parts) == (3 if triton else 0)
    assert all(isinstance(part, Block) for part in parts)
    assert parts_to_compile(model, LONG, CPU) == []
    assert parts_to_compile(model, TrainConfig(), GPU) == [], "too short to pay off"
    assert len(parts_to_compile(model, TrainConfig(minutes=30.0), GPU)) == len(parts)
    assert len(parts_to_compile(model, TrainConfig(compile=True), CPU)) == 3
    assert parts_to_compile(model, TrainConfig(compile=False), GPU) == []


def test_a_tokenizer_is_compiled_whole_and_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallelize, "compiles_by_default", lambda device: True)
    tokenizer = VQTokenizer(VQConfig(width=8, codebook_size=16, code_width=4))
    assert parts_to_compile(tokenizer, LONG, GPU) == []
    assert parts_to_compile(tokenizer, TrainConfig(compile=True), GPU) == [tokenizer]


@pytest.mark.parametrize("lacks", ["nothing", "triton", "compiler", "headers", "capability"])
def test_what_compilation_needs(lacks: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "Python.h").write_text("")
    include = tmp_path / "empty" if lacks == "headers" else tmp_path
    found = None if lacks == "triton" else object()
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(machine.shutil, "which", lambda name: None if lacks == "compiler" else name)
    monkeypatch.setattr(machine.sysconfig, "get_path", lambda name: str(include))
    capability = (6, 1) if lacks == "capability" else (9, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert machine.compiles_by_default(GPU) is (lacks == "nothing")
    assert not machine.compiles_by_default(CPU)


@pytest.mark.parametrize("head", ["cross", "group", "global", "local", "next_token"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compiled_block_is_one_graph(head: str, checkpointing: bool) -> None:
    """A break would leave the attention of a block out of its compiled part."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = build_model(ModelConfig(width=16, depth=1, num_heads=1, head=HeadConfig(head, 1)), CODES, 3, 0)
    config = TrainConfig(activation_checkpointing=checkpointing)
    Parallel(SimpleNamespace(module=model, losses=None, parts=[model]), config, CPU)  # type: ignore[arg-type]
    blocks = [part for part in model.modules() if isinstance(part, Block)]
    for block in blocks:
        block.compile(backend="eager")
    keys = [(0, 0, 0), (0, 0, 1)]
    supervision = draw_supervision(ObjectiveConfig("random").for_head(head), 4, 5, keys, model.head.window)
    tokens = torch.zeros(2, CODES.num_cells, dtype=torch.long)
    objective_loss(model, tokens, None, supervision, KeyedGenerator(Stream.LOSS, keys)).sum().backward()
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] >= 1
    assert not counters["graph_break"], dict(counters["graph_break"])
    torch._dynamo.reset()


@pytest.mark.parametrize(("head", "message"), [
    ("cross", "needs a GPU and compile; the device is cpu, and the blocks are not compiled"),
    ("next_token", "applies to models with a cross or group head only"),
])  # fmt: skip
def test_flex_attention_is_refused_where_it_does_not_apply(head: str, message: str) -> None:
    model = build_model(ModelConfig(width=16, depth=1, num_heads=1, head=HeadConfig(head, 1)), CODES, 3, 0)
    with pytest.raises(ValueError, match=f"flex_attention: true given, but it {message}"):
        Parallel(SimpleNamespace(module=model), TrainConfig(flex_attention=True), CPU)  # type: ignore[arg-type]
