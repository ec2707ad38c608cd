"""One of 64 processes that share a model of full size, with tensors that have shapes and no numbers."""

from __future__ import annotations

import json
import sys

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from heptapod.grid import GridSpec
from heptapod.models.heptapod import build_model
from heptapod.training.optim import EMA, build_optimizer
from heptapod.training.parallelize import shard
from heptapod.training.recipe import load_recipe
from heptapod.utils.random import KeyedGenerator, Stream


def main(name: str, processes: int) -> None:
    recipe = load_recipe(name, ["--train.precision", "bfloat16"])
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=processes)
    grid = GridSpec(16, 16, 16384) if name.endswith(("vq", "vq_cross")) else GridSpec(16, 16, channels=16)
    B, S, N = 2, 2, grid.num_cells
    mesh = init_device_mesh("cpu", (processes,))
    with torch.device("meta"):
        model = build_model(recipe.model, grid, 1000, seed=0)
    ema = EMA(model, recipe.train.ema_decay, sharded=True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        total = sum(p.numel() for p in model.parameters())
        shard(model, recipe.train, mesh)
        ema.shard(model)
        optimizer = build_optimizer(model, recipe.train)
        tokens = torch.zeros(B, N, dtype=torch.long) if grid.is_discrete else torch.zeros(B, N, grid.channels)
        labels, order = torch.zeros(B, dtype=torch.long), torch.arange(N).expand(B, N)
        prefixes, targets = torch.zeros(B, S, dtype=torch.long), torch.zeros(B, S, 4, dtype=torch.long)
        generator = KeyedGenerator(Stream.LOSS, [(0, 0, image) for image in range(B)])
        with torch.autocast("cpu", torch.bfloat16):
            losses = model(tokens, labels, order, prefixes, targets, generator)
        losses.mean().backward()
        shares = [p.grad.to_local().numel() for p in model.parameters() if isinstance(p.grad, DTensor)]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ema.update(model, 0)
        moments = [v.to_local().numel() for s in optimizer.state.values() for v in s.values() if isinstance(v, DTensor)]
    facts = {
        "total": total, "with_gradient": len(shares), "parameters": len(list(model.parameters())),
        "share": sum(shares), "moments": sum(moments), "losses": list(losses.shape),
        "ema": sum(t.to_local().numel() for t in ema.tensors.values() if isinstance(t, DTensor)),
    }  # fmt: skip
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
