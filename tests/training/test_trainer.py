from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorProperties, TensorStorageMetadata

from heptapod.data import Batch
from heptapod.distributed.errors import InterruptedRunError, NonFiniteLossError, TerminatedError
from heptapod.training.checkpoint import (
    CheckpointWriter,
    checkpoints,
    find_checkpoint,
    flat,
    load_checkpoint,
    problem_of,
    read_checkpoint,
    tensor_shapes,
)
from heptapod.training.config import TrainConfig
from heptapod.training.optim import EMA, build_optimizer, learning_rate
from heptapod.training.outcomes import StepOutcomes
from heptapod.training.task import LossOutput
from heptapod.training.trainer import Trainer
from heptapod.utils.files import read_tensors

CONFIG = TrainConfig(
    steps=12, batch_size=4, learning_rate=0.05, warmup_steps=3, precision="float32", ema_decay=0.9, log_every=1,
    eval_every=4, preview_every=6, save_every=3, keep_last=2,
)  # fmt: skip


class Points:
    """32 numbered points of the plane y = 3x."""

    labels = torch.arange(32)
    names = [f"point {i}" for i in range(32)]
    is_slow = False

    def __len__(self) -> int:
        return 32

    def items(self, indices: Tensor, keys: list[tuple[int, int, int]]) -> Tensor:
        return indices.float().unsqueeze(1) / 32


class Line:
    """The smallest task there is: fits y = 3x + 1."""

    name = "line"
    selects_best = True

    def __init__(self, poison: str | None = None) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.module = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
        self.train_items = Points()
        self.poison = poison
        self.after: list[tuple[Any, int]] = []
        self.seen: list[str] = []

    @property
    def averaged(self) -> nn.Module:
        return self.module

    @property
    def parts(self) -> list[nn.Module]:
        return [self.module]

    def prepare(self, batch: Batch, step: int) -> Batch:
        return batch

    def losses(self, batch: Batch, step: int) -> LossOutput:
        self.seen += batch.names
        out = self.module(batch.items)
        loss = (out - (3 * batch.items + 1)).square().mean(1)
        if self.poison in batch.names:
            loss = loss * float("nan")
        return LossOutput(loss, {"largest": loss.detach()}, torch.ones(()) * len(batch.names))

    def after_step(self, statistics: Any, step: int) -> dict[str, Tensor]:
        self.after.append((float(statistics), step))
        return {"counted": statistics}

    def evaluate(self, module: nn.Module, max_images: int) -> dict[str, float]:
        x = torch.linspace(0, 1, 16).unsqueeze(1)
        return {"val_loss": float((module(x) - (3 * x + 1)).square().mean())}

    def preview(self, module: nn.Module) -> Image.Image:
        return Image.new("RGB", (4, 4))

    def export(self, module: nn.Module, folder: Path, metadata: dict[str, str]) -> None:
        from heptapod.utils.files import write_tensors

        write_tensors(folder / "model.safetensors", module.state_dict(), metadata)


def run(folder: Path, config: TrainConfig = CONFIG, task: Line | None = None, seed: int = 0) -> dict[str, float]:
    return Trainer(task or Line(), config, folder, seed, torch.device("cpu")).run()


def final_bytes(folder: Path) -> dict[str, bytes]:
    """Everything a run ends with: its last checkpoint, its best and its last weights."""
    tensors = flat(read_checkpoint(checkpoints(folder / "checkpoints")[-1]))
    assert {name.partition("/")[0] for name in tensors} == {"model", "ema", "optimizer"}
    for name in ("best", "last"):
        tensors |= {f"{name}/{key}": t for key, t in read_tensors(folder / name / "model.safetensors").items()}
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


class Stop(Exception):
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Breaks training off when a step begins, as a kill would."""
    original = Trainer._train_step

    def breaking(self: Trainer, asked_to_stop: bool) -> tuple[dict[str, float], bool]:
        if self.step == step:
            raise Stop
        return original(self, asked_to_stop)

    monkeypatch.setattr(Trainer, "_train_step", breaking)


def test_a_run_leaves_what_it_should(tmp_path: Path) -> None:
    figures = run(tmp_path)
    assert figures["step"] == 12
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000009", "step-00000012"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    assert [line["step"] for line in lines if "val_loss" in line] == [4, 8, 12]
    assert lines[-1]["val_loss"] == figures["val_loss"]
    assert all(line["counted"] == 4 for line in lines if "loss" in line)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step-00000006.png", "step-00000012.png"]
    assert figures["best_val_loss"] == min(line["val_loss"] for line in lines if "val_loss" in line)
    assert lines[0]["loss"] > lines[-2]["loss"]


@pytest.mark.parametrize("stop", [1, 4, 7, 10])
def test_resume_is_bit_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    run(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_at(patch, stop)
        run(tmp_path / "broken")
    figures = run(tmp_path / "broken")
    assert final_bytes(tmp_path / "broken") == final_bytes(tmp_path / "whole")
    steps = [json.loads(line)["step"] for line in (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps), "no step is logged twice"
    assert steps.count(12) == 2
    assert figures["step"] == 12


def test_seed_decides(tmp_path: Path) -> None:
    run(tmp_path / "a", seed=0)
    run(tmp_path / "b", seed=1)
    assert final_bytes(tmp_path / "a") != final_bytes(tmp_path / "b")


def test_accumulation_changes_nothing_but_rounding(tmp_path: Path) -> None:
    run(tmp_path / "one")
    task = Line()
    run(tmp_path / "four", TrainConfig(**{**vars_of(CONFIG), "accumulation": 4}), task)
    one, four = (read_tensors(tmp_path / name / "last" / "model.safetensors") for name in ("one", "four"))
    assert all(torch.allclose(one[name], four[name], atol=1e-5) for name in one)
    assert task.after == [(4.0, step) for step in range(12)]


def vars_of(config: TrainConfig) -> dict[str, Any]:
    from heptapod.utils.config import to_dict

    return to_dict(config)


def test_non_finite_loss_stops_before_the_update(tmp_path: Path) -> None:
    seen = Line()
    run(tmp_path / "clean", task=seen)
    victim = seen.seen[4 * 6 + 2]  # an image of the seventh step ...
    first = seen.seen.index(victim) // 4  # ... or of an earlier one
    task = Line(poison=victim)
    with pytest.raises(NonFiniteLossError, match=f"step {first + 1}: loss nan") as error:
        run(tmp_path / "bad", task=task)
    assert victim in str(error.value)
    assert all(torch.isfinite(p).all() for p in task.module.parameters())


def test_a_non_finite_loss_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    seen = Line()
    run(tmp_path / "clean", task=seen)
    victim = next(name for name in seen.seen[16:32] if name not in seen.seen[:16])  # of the fifth step or a later one
    step = seen.seen.index(victim) // 4 + 1
    with pytest.raises(NonFiniteLossError, match=rf"step {step}: .* the checkpoint of step \d is intact"):
        run(tmp_path / "bad", task=Line(poison=victim))
    last = checkpoints(tmp_path / "bad" / "checkpoints")[-1]
    assert problem_of(last) is None
    assert all(tensor.isfinite().all() for tensor in flat(read_checkpoint(last)).values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    class Spoiled(Line):
        def after_step(self, statistics: Any, step: int) -> dict[str, Tensor]:
            if step == 5:
                with torch.no_grad():
                    self.module[0].weight[0] = float("inf")
            return super().after_step(statistics, step)

    with pytest.raises(NonFiniteLossError, match="step 6: weights .* not saved, the checkpoint of step 3 is intact"):
        run(tmp_path, task=Spoiled())
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000003"]


def delay(patch: pytest.MonkeyPatch) -> None:
    """Checks the outcome of a step when the next one is queued, as on a GPU."""
    patch.setattr("heptapod.training.trainer.StepOutcomes", lambda delayed: StepOutcomes(True))


RARE = dataclasses.replace(CONFIG, log_every=99, save_every=99, eval_every=99, preview_every=99)
"""A step's outcome is checked when the next one is queued, and not to log, save or evaluate."""


def test_a_delayed_outcome_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for config in (CONFIG, RARE):
        run(tmp_path / "plain", config)
        with monkeypatch.context() as patch:
            delay(patch)
            run(tmp_path / "delayed", config)
        assert final_bytes(tmp_path / "delayed") == final_bytes(tmp_path / "plain")
        plain, delayed = ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("plain", "delayed"))
        for one, other in zip(map(json.loads, plain), map(json.loads, delayed), strict=True):
            assert {**one, "seconds": 0} == {**other, "seconds": 0}
        for name in ("plain", "delayed"):
            shutil.rmtree(tmp_path / name)


def test_a_delayed_non_finite_loss_changes_no_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delay(monkeypatch)
    seen = Line()
    run(tmp_path / "clean", task=seen)
    victim = next(name for name in seen.seen[16:32] if name not in seen.seen[:16])  # of the fifth step or a later one
    bad = seen.seen.index(victim) // 4
    before: list[dict[str, Tensor]] = []
    task, original = Line(poison=victim), Trainer._train_step

    def observed(self: Trainer, asked_to_stop: bool) -> tuple[dict[str, float], bool]:
        before.append({name: tensor.clone() for name, tensor in self.module.state_dict().items()})
        return original(self, asked_to_stop)

    monkeypatch.setattr(Trainer, "_train_step", observed)
    with pytest.raises(NonFiniteLossError, match=f"step {bad + 1}: loss nan") as error:
        run(tmp_path / "bad", RARE, task)
    assert victim in str(error.value)
    assert len(before) == bad + 2, "noticed when the next step was queued"
    after = task.module.state_dict()
    assert not any(torch.equal(before[bad - 1][name], after[name]) for name in after), "good steps change the weights"
    assert all(torch.equal(before[bad][name], after[name]) for name in after)


def test_a_delayed_request_to_stop_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delay(monkeypatch)
    original = Trainer._train_step

    def signalling(self: Trainer, asked_to_stop: bool) -> tuple[dict[str, float], bool]:
        if self.step == 5:
            signal.raise_signal(signal.SIGTERM)
        return original(self, asked_to_stop)

    monkeypatch.setattr(Trainer, "_train_step", signalling)
    with pytest.raises(TerminatedError):
        run(tmp_path, RARE)
    (last,) = checkpoints(tmp_path / "checkpoints")
    assert last.name == "step-00000008", "requested in step 6, sent with step 7, read when step 8 is queued"


def test_a_held_out_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    class Blind(Line):
        def evaluate(self, module: nn.Module, max_images: int) -> dict[str, float]:
            return {"val_loss": float("nan")}

    with pytest.raises(NonFiniteLossError, match="step 4: held-out loss nan; the checkpoint of step 3 is intact"):
        run(tmp_path, task=Blind())
    assert not (tmp_path / "best").exists()


def test_bfloat16_keeps_weights_in_float32(tmp_path: Path) -> None:
    run(tmp_path / "plain")
    run(tmp_path / "bf16", TrainConfig(**{**vars_of(CONFIG), "precision": "bfloat16"}))
    plain, bf16 = (read_tensors(tmp_path / name / "last" / "model.safetensors") for name in ("plain", "bf16"))
    assert all(tensor.dtype == torch.float32 for tensor in bf16.values())
    assert any(not torch.equal(plain[name], bf16[name]) for name in plain)
    assert all(torch.allclose(plain[name], bf16[name], atol=0.05) for name in plain)


def test_compiled_training_gives_the_same_weights(tmp_path: Path) -> None:
    run(tmp_path / "plain")
    task = Line()
    run(tmp_path / "compiled", TrainConfig(**{**vars_of(CONFIG), "compile": True}), task)
    assert task.module._compiled_call_impl is not None, "the switch does something"
    plain, compiled = (read_tensors(tmp_path / name / "last" / "model.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    assert all(torch.allclose(plain[name], compiled[name], atol=1e-5) for name in plain)


def test_learning_rate_schedule() -> None:
    config = TrainConfig(steps=110, warmup_steps=10, learning_rate=1.0, final_lr_ratio=0.1)
    assert [learning_rate(config, step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert learning_rate(config, 60) == pytest.approx(0.55)
    assert learning_rate(config, 110) == pytest.approx(0.1)


def test_weight_decay_is_for_matrices() -> None:
    module = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    decayed, free = build_optimizer(module, TrainConfig(weight_decay=0.1)).param_groups
    assert [id(p) for p in decayed["params"]] == [id(module[1].weight)]
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert len(free["params"]) == 4


def test_ema_warms_up() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    ema = EMA(module, 0.99)
    nn.init.ones_(module.weight)
    ema.update(module, 0)
    assert float(ema.tensors["weight"]) == pytest.approx(0.9)  # decay (1 + 0) / (10 + 0)
    for step in range(1, 5):
        ema.update(module, step)
    expected = 1.0
    for step in range(5):
        expected *= (1 + step) / (10 + step)
    assert float(ema.tensors["weight"]) == pytest.approx(1 - expected)
    with ema.whole() as whole, EMA(module, 0.0).whole() as same:
        assert float(whole.weight) == float(ema.tensors["weight"])
        assert same is module


def save(folder: Path, step: int, value: float = 1.0) -> Path:
    writer = CheckpointWriter(folder, keep_last=9)
    writer.save(step, {"model": {"w": torch.full((300,), value)}}, {"seconds": float(step)})
    writer.wait()
    writer.close()
    return folder / f"step-{step:08d}"


def test_a_checkpoint_is_what_was_there_when_it_was_begun(tmp_path: Path) -> None:
    writer, w = CheckpointWriter(tmp_path, keep_last=2), torch.ones(300)
    for step in (1, 2, 3):
        w.fill_(step)
        writer.save(step, {"model": {"w": w}}, {"seconds": float(step)})
        w.fill_(-1)  # while it is being written
    writer.wait()
    writer.close()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]
    for step, path in zip((2, 3), checkpoints(tmp_path), strict=True):
        assert read_checkpoint(path)["model"]["w"].tolist() == [step] * 300
    into = torch.zeros(300)
    assert load_checkpoint(path, {"model": {"w": into}}).seconds == 3
    assert into.tolist() == [3] * 300
    with pytest.raises(ValueError, match="another architecture: lacks model/v; has unknown model/w"):
        load_checkpoint(path, {"model": {"v": into}})


def test_checkpoints_are_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.filesystem.FileSystem.create_stream", full)
    writer = CheckpointWriter(tmp_path, keep_last=2)
    writer.save(2, {"model": {"w": torch.ones(3)}}, {})
    with pytest.raises(OSError, match="No space left"):
        writer.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert read_checkpoint(tmp_path / "step-00000001")["model"]["w"].sum() == 300


def test_partial_and_damaged_checkpoints_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, damaged, cut, partial, odd = (save(tmp_path, step) for step in (1, 2, 3, 4, 5))
    (odd / "state.json").write_text("{")
    (partial / "state.json").unlink()
    next(cut.glob("*.safetensors")).unlink()
    file = next(damaged.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert find_checkpoint(tmp_path) == whole
    said = caplog.text
    for problem in (
        "5 is damaged (state.json: damaged, not JSON",
        "4 is incomplete (no state.json)",
        "3 is incomplete (shard-00001-model-00001-of-00001.safetensors is missing)",
        "2 is damaged",
    ):
        assert problem in said
    assert checkpoints(tmp_path) == [whole]
    again = save(tmp_path, 3)  # in the place of one that was passed over
    assert find_checkpoint(tmp_path) == again
    shutil.rmtree(again)
    state = json.loads((whole / "state.json").read_text())
    (whole / "state.json").write_text(json.dumps(state).replace("shard", "gone"))
    with pytest.raises(ValueError, match="none of 1 checkpoint"):
        find_checkpoint(tmp_path)
    assert find_checkpoint(tmp_path / "new") is None


def test_a_save_that_fails_ends_training_at_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Patient(Line):
        def after_step(self, statistics: Any, step: int) -> dict[str, Tensor]:
            if trainer.writer._saving is not None:
                trainer.writer._saving.exception(timeout=10)
            return super().after_step(statistics, step)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.filesystem.FileSystem.create_stream", full)
    task = Patient()
    trainer = Trainer(task, CONFIG, tmp_path, 0, torch.device("cpu"))
    with pytest.raises(OSError, match="No space left"):
        trainer.run()
    assert 3 <= len(task.after) <= 4, "begun after three steps, known in the fourth or before the fifth"


def test_a_part_that_is_missing_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    file = next(path.glob("*.safetensors"))
    entries = tensor_shapes(path)
    assert entries == {"model/w": torch.Size([300])}
    chunk = ChunkStorageMetadata(torch.Size([100]), torch.Size([200]))  # rows 100 to 300
    short = TensorStorageMetadata(TensorProperties(torch.float32), torch.Size([300]), [chunk])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("heptapod.training.checkpoint._entries", lambda _: {"model/w": short})
        assert problem_of(path) == f"{path} is incomplete (a part of model/w is missing)"
    assert problem_of(path) is None
    assert file.is_file()


def test_resume_from_an_earlier_step(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    before = final_bytes(tmp_path / "whole")
    with pytest.raises(ValueError, match=r"train\.resume: 5 given, but the steps with a checkpoint .* are: 9, 12"):
        run(tmp_path / "whole", TrainConfig(**{**vars_of(CONFIG), "resume": 5}))
    (tmp_path / "whole" / "training.json").write_text("{}")
    from_nine = TrainConfig(**{**vars_of(CONFIG), "resume": 9, "save_every": 1})
    task = Line()
    run(tmp_path / "whole", from_nine, task)
    assert [step for _, step in task.after] == [9, 10, 11]
    assert final_bytes(tmp_path / "whole") == before
    assert (tmp_path / "whole" / "checkpoints" / "aside-step-00000012").is_dir()
    assert not (tmp_path / "whole" / "training.json").exists(), "what is trained again is not finished"
    task = Line()
    run(tmp_path / "whole", from_nine, task)  # a restart repeats the arguments, and does not go back once more
    assert task.after == []
    with pytest.raises(ValueError, match="are: none"):
        run(tmp_path / "new", TrainConfig(**{**vars_of(CONFIG), "resume": 9}))


class Stopped(Line):
    """Sends this process signals in a step, the fifth by default."""

    def __init__(self, *signals: signal.Signals, at: int = 4) -> None:
        super().__init__()
        self.signals, self.at = signals, at

    def after_step(self, statistics: Any, step: int) -> dict[str, Tensor]:
        for number in self.signals if step == self.at else ():
            signal.raise_signal(number)
        return super().after_step(statistics, step)


@pytest.fixture
def listens() -> Iterator[None]:
    """Signals are obeyed, as in a terminal; a shell's background jobs ignore Ctrl+C, and nohup SIGHUP."""
    handlers = {
        signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL
    }  # fmt: skip
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "error", "name"),
    [
        (signal.SIGTERM, TerminatedError, "SIGTERM"),
        (signal.SIGHUP, TerminatedError, "SIGHUP"),
        (signal.SIGINT, InterruptedRunError, r"Ctrl\+C"),
    ],
)
def test_a_signal_saves_and_ends(
    tmp_path: Path, listens: None, number: signal.Signals, error: type[BaseException], name: str
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(error, match=f"stopped by {name} after step 6, which is saved"):  # obeyed after the next step
        run(tmp_path / "broken", task=Stopped(number))
    assert signal.getsignal(number) is before
    assert checkpoints(tmp_path / "broken" / "checkpoints")[-1].name == "step-00000006"
    run(tmp_path / "broken")
    run(tmp_path / "whole")
    assert final_bytes(tmp_path / "broken") == final_bytes(tmp_path / "whole")


def test_a_signal_in_the_last_step_ends_too(tmp_path: Path, listens: None) -> None:
    with pytest.raises(TerminatedError, match="stopped by SIGTERM after step 12, which is saved"):
        run(tmp_path / "broken", task=Stopped(signal.SIGTERM, at=11))
    run(tmp_path / "broken")
    run(tmp_path / "whole")
    assert final_bytes(tmp_path / "broken") == final_bytes(tmp_path / "whole")


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, listens: None) -> None:
    with pytest.raises(KeyboardInterrupt) as stop:
        run(tmp_path, task=Stopped(signal.SIGINT, signal.SIGINT))
    assert not isinstance(stop.value, InterruptedRunError)
    assert checkpoints(tmp_path / "checkpoints")[-1].name == "step-00000003", "the one before"


def test_torchrun_passes_ctrl_c_on_once_more(tmp_path: Path, listens: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with pytest.raises(InterruptedRunError, match="after step 6, which is saved"):
        run(tmp_path, task=Stopped(signal.SIGINT, signal.SIGINT))


def test_ignored_signals_stay_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert run(tmp_path, task=Stopped(signal.SIGHUP))["step"] == 12
    finally:
        signal.signal(signal.SIGHUP, before)


def test_activation_checkpointing_and_fsdp_are_for_models(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="activation_checkpointing: given for a tokenizer"):
        run(tmp_path, TrainConfig(**{**vars_of(CONFIG), "activation_checkpointing": True}))


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    task = Line()
    task.module = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1))
    with pytest.raises(ValueError, match="another architecture"):
        run(tmp_path, task=task)


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run(tmp_path, TrainConfig(**{**vars_of(CONFIG), "tensorboard": True}))
    assert list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"steps": 0}, "steps: 0"), ({"ema_decay": 1.0}, "ema_decay: 1.0"), ({"accumulation": 3}, "accumulation: 3")],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


def test_a_compiled_module_is_saved_and_resumed_by_its_own_names(tmp_path: Path) -> None:
    def compiled() -> Line:
        task = Line()
        task.module = torch.compile(task.module, backend="eager")  # type: ignore[assignment]
        return task

    run(tmp_path / "plain")
    before = checkpoints(tmp_path / "plain" / "checkpoints")[-1]
    run(tmp_path / "compiled", task=compiled())
    path = checkpoints(tmp_path / "compiled" / "checkpoints")[-1]
    assert tensor_shapes(path) == tensor_shapes(before)
    task = compiled()
    assert run(tmp_path / "compiled", task=task)["step"] == 12
    assert torch.equal(task.module.state_dict()["_orig_mod.0.weight"], read_checkpoint(path)["model"]["0.weight"])
    assert run(tmp_path / "compiled", task=Line())["step"] == 12, "a plain module reads them too"
