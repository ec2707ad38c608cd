"""Memory told without allocating, against that of real steps on the CPU."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from heptapod.nn.layers import Block
from heptapod.nn.rotary import forget_tables
from heptapod.tools.planning.budget import Budget, MemoryOption
from heptapod.tools.planning.fake import Kernels, checkpoint_blocks, meta_model
from heptapod.tools.planning.memory import LiveBytes, MemoryModel, StepMemory, Variant
from heptapod.tools.planning.training_setup import TrainingSetup
from tests.tools.planning.steps import KINDS, real_batch, real_loss, real_model, training_setup

IMAGES = 3
FLOAT32 = ["--train.precision", "float32"]
SHALLOW = ["--model.depth", "2", "--model.head.depth", "1"]
SHARED = ["--train.batch_size", "16", "--train.accumulation", "2"]


def real_step(what: TrainingSetup, checkpointing: bool = False, accumulates: bool = False) -> StepMemory:
    """What :class:`MemoryModel` tells, of tensors with contents."""
    model = real_model(what)
    if checkpointing:
        checkpoint_blocks(model)
    forget_tables()  # of angles: they are made in the step that is planned
    with LiveBytes(model.parameters()) as live:
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(lambda p: live.gradient(p.grad))
            if accumulates:
                parameter.grad = torch.zeros_like(parameter)
                live.gradient(parameter.grad)
        gradients = live.bytes
        batch = real_batch(what, model, IMAGES)
        loss = real_loss(what, model, batch)
        held = live.bytes - gradients
        loss.backward()
    return StepMemory(held, live.peak, live.gradients_at_peak)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_without_contents_is_a_real_one(kind: str, precision: str) -> None:
    what = training_setup(kind, "--train.precision", precision, *SHALLOW)
    planned, real = MemoryModel(what).step(Variant(IMAGES, kernels="cpu")), real_step(what)
    assert planned.activations == pytest.approx(real.activations, rel=1e-9)  # to the byte
    assert planned.peak == pytest.approx(real.peak, rel=1e-9)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_accumulation_and_checkpointing_are_real(checkpointing: bool) -> None:
    what = training_setup("global", *FLOAT32)
    planned = MemoryModel(what).step(Variant(IMAGES, checkpointing, accumulates=True, kernels="cpu"))
    real = real_step(what, checkpointing, accumulates=True)
    assert planned.activations == pytest.approx(real.activations, rel=1e-9)
    assert planned.peak == pytest.approx(real.peak, rel=1e-9)
    gradients = 4 * sum(p.numel() for p in meta_model(what).parameters())
    assert planned.gradients_at_peak == real.gradients_at_peak == gradients


def saved_bytes(what: TrainingSetup) -> int:
    """Bytes that a real step keeps for its backward pass, by autograd's own hooks: each storage once, no parameter."""
    model = real_model(what)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        real_loss(what, model, real_batch(what, model, IMAGES))
    return sum(storage.nbytes() for storage in saved.values())


@pytest.mark.parametrize("kernels", ["cpu", "gpu"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_by_autograds_hooks(kind: str, kernels: Kernels) -> None:
    what = training_setup(kind, *FLOAT32, *SHALLOW)
    planned = MemoryModel(what).step(Variant(IMAGES, kernels=kernels))
    assert planned.activations == pytest.approx(saved_bytes(what), rel=0.1)


def test_all_that_is_held_is_within_a_tenth() -> None:
    """Weights, gradients, optimizer, average and saved tensors of a real step, counted tensor by tensor."""
    what = training_setup("cross", "--train.batch_size", str(IMAGES))
    model = real_model(what)
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    real_loss(what, model, real_batch(what, model, IMAGES)).backward()
    optimizer.step()
    held = [p for part in (model, average) for p in part.parameters()]
    held += [p.grad for p in model.parameters() if p.grad is not None]
    held += [value for state in optimizer.state.values() for value in state.values()]
    real = sum(tensor.nbytes for tensor in held) + saved_bytes(what)

    budget = Budget(what, gpus=1, kernels="cpu")
    planned = budget.memory(budget.configured_option)
    gradients = planned.weights
    sum_of_parts = planned.weights + gradients + planned.optimizer + planned.average
    assert sum_of_parts + budget.step(budget.configured_option).activations == pytest.approx(real, rel=0.1)
    assert planned.weights == sum(p.nbytes for p in model.parameters())
    assert planned.optimizer == pytest.approx(sum(v.nbytes for s in optimizer.state.values() for v in s.values()), 0.01)


def test_live_bytes_counts_storages() -> None:
    existing = torch.zeros(7)
    with LiveBytes([existing]) as live:
        view = existing[2:].view(5)
        assert (live.bytes, live.peak) == (0, 0)
        first = torch.ones(100)
        second = first + 1
        part = second[:10]
        assert live.bytes == 800
        del first, second
        assert live.bytes == 400, "a view keeps its storage"
        del part
        third = torch.ones(50)
        live.gradient(third)
        assert (live.bytes, live.gradients, live.peak, live.gradients_at_peak) == (200, 200, 800, 0)
        existing.add_(1)
        assert live.bytes == 200
    del view, third


def test_attention_on_a_gpu_keeps_no_squares() -> None:
    """Activations of fused kernels grow with the tokens, not with their square; plain products would give 16 times."""
    small, large = (
        MemoryModel(training_setup("next_token", *SHALLOW, side=side)).step(Variant(8)).activations for side in (8, 16)
    )
    assert 3.5 < large / small < 4.1


def test_bfloat16_and_checkpointing_save_memory() -> None:
    narrow, wide = (
        MemoryModel(training_setup("cross", "--train.precision", p, *SHALLOW)) for p in ("bfloat16", "float32")
    )
    assert narrow.step(Variant(16)).activations < 0.85 * wide.step(Variant(16)).activations
    plain, checkpointed = narrow.step(Variant(16)), narrow.step(Variant(16, checkpointing=True))
    assert checkpointed.activations < 0.35 * plain.activations
    assert checkpointed.activations < checkpointed.peak < plain.peak


def test_memory_is_linear_in_the_images() -> None:
    model = MemoryModel(training_setup("cross", *SHALLOW))
    two, four, six = (model.step(Variant(images)).activations for images in (2, 4, 6))
    assert six - four == four - two > 0


def test_fsdp_shares_and_gathers() -> None:
    what = training_setup("cross", *SHALLOW, *SHARED, *FLOAT32)
    budget = Budget(what, gpus=4)
    ddp = budget.memory(MemoryOption("ddp", False, 2))
    fsdp = budget.memory(MemoryOption("fsdp", False, 2))
    model = meta_model(what)
    blocks = [sum(p.numel() for p in block.parameters()) for block in model.modules() if isinstance(block, Block)]
    total = sum(p.numel() for p in model.parameters())
    outside = total - sum(blocks)
    assert ddp.weights == 4 * total
    assert fsdp.weights == fsdp.average == fsdp.optimizer // 2 == total
    assert ddp.gradients == 4 * total
    assert fsdp.gradients == total + 4 * outside, "its shard, and those of the root group before they are reduced"
    assert ddp.shared == 4 * total, "the buckets of DistributedDataParallel"
    assert fsdp.shared == 4 * outside + (4 + 4 + 4) * max(blocks)
    assert fsdp.evaluation == 5 * total + 4 * total, "the averaged weights are gathered"
    assert ddp.evaluation == 5 * 4 * total + 4 * total
    assert Budget(what, gpus=1).memory(MemoryOption("fsdp", False, 2)) == Budget(what, gpus=1).memory(
        MemoryOption("ddp", False, 2)
    )
    assert fsdp.peak == max(fsdp.training, fsdp.evaluation)
    in_bfloat16 = Budget(training_setup("cross", *SHALLOW, *SHARED), gpus=4).memory(MemoryOption("fsdp", False, 2))
    assert in_bfloat16.shared == 4 * outside + (2 + 2 + 4) * max(blocks)


def test_without_an_average() -> None:
    what = training_setup("cross", "--train.ema_decay", "0", *SHALLOW)
    memory = Budget(what, gpus=1).memory(MemoryOption("ddp", False, 1))
    assert memory.average == 0
    assert memory.evaluation == 4 * memory.weights


def test_the_smallest_accumulation_that_fits() -> None:
    what = training_setup("cross", "--train.batch_size", "48", *SHALLOW)
    budget = Budget(what, gpus=2)
    assert budget.accumulations == [1, 2, 3, 4, 6, 8, 12, 24]
    way = budget.configured_option
    peaks = [budget.memory(dataclasses.replace(way, accumulation=n)).peak for n in budget.accumulations]
    assert peaks[1:] == sorted(peaks[1:], reverse=True)
    for wanted in (1, 3, 24):
        gib = budget.memory(dataclasses.replace(way, accumulation=wanted)).peak / 0.9 / 2**30 * (1 + 1e-6)
        found = budget.smallest_accumulation(way, gib)
        assert found is not None
        assert found.accumulation == wanted
    assert budget.smallest_accumulation(way, 1e-6) is None
    assert budget.remedies(1e-6) == []
    tight = 0.99 * peaks[-1] / 0.9 / 2**30
    remedies = budget.remedies(tight)
    assert all(way.checkpointing or way.strategy == "fsdp" for way in remedies)
    assert remedies
    assert all(budget.fits(way, tight) for way in remedies)
    assert remedies[0].settings().startswith("--train.accumulation ")


@pytest.mark.parametrize(
    ("batch", "accumulation", "gpus", "message"),
    [
        (48, 2, 5, "train.batch_size: 48 given, must be divisible by 5 GPUs times 2 .*nearest batch_size is 50$"),
        (48, 16, 8, "nearest batch_size is 128, the nearest accumulation 6"),
        (48, 8, 8, "nearest batch_size is 64, the nearest accumulation 6"),
        (64, 1, 0, "gpus: 0 given"),
    ],
)
def test_a_batch_that_cannot_be_shared(batch: int, accumulation: int, gpus: int, message: str) -> None:
    what = training_setup("cross", "--train.batch_size", str(batch), "--train.accumulation", str(accumulation))
    with pytest.raises(ValueError, match=message):
        Budget(what, gpus)
