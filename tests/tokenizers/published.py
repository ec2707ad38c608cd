"""Published state dicts, imitated: names, shapes and forward passes written from the published architectures.

Nothing here comes from the package, so that it can be tested against it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]
WIDTHS = [128, 128, 256, 256, 512]


# ---- Published names and shapes, written from the published architectures --------------------------------------------


def conv(name: str, inputs: int, outputs: int, size: int = 3, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (outputs, inputs, size, size)}
    return shapes | {f"{name}.bias": (outputs,)} if bias else shapes


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def residual(name: str, inputs: int, outputs: int) -> Shapes:
    shapes = norm(f"{name}.norm1", inputs) | conv(f"{name}.conv1", inputs, outputs)
    shapes |= norm(f"{name}.norm2", outputs) | conv(f"{name}.conv2", outputs, outputs)
    return shapes | conv(f"{name}.nin_shortcut", inputs, outputs, 1) if inputs != outputs else shapes


def attention(name: str, width: int) -> Shapes:
    shapes = norm(f"{name}.norm", width)
    for layer in ("q", "k", "v", "proj_out"):
        shapes |= conv(f"{name}.{layer}", width, width, 1)
    return shapes


def middle_names(is_mar: bool) -> list[str]:
    return ["mid.block_1", "mid.attn_1", "mid.block_2"] if is_mar else ["mid.0", "mid.1", "mid.2"]


def middle(network: str, is_mar: bool) -> Shapes:
    first, between, second = (f"{network}.{name}" for name in middle_names(is_mar))
    return residual(first, 512, 512) | attention(between, 512) | residual(second, 512, 512)


def ldm_shapes(is_mar: bool) -> Shapes:
    """MAR's KL-16 (66,456,019 numbers), or LlamaGen's VQ-16 (71,883,403 and a buffer)."""
    level, block = ("down", "block") if is_mar else ("conv_blocks", "res")
    latent = 16 if is_mar else 256
    shapes = conv("encoder.conv_in", 3, 128)
    width = 128
    for i, outputs in enumerate(WIDTHS):
        for j in range(2):
            shapes |= residual(f"encoder.{level}.{i}.{block}.{j}", width, outputs)
            width = outputs
            if i == 4:
                shapes |= attention(f"encoder.{level}.{i}.attn.{j}", width)
        if i < 4:
            shapes |= conv(f"encoder.{level}.{i}.downsample.conv", width, width)
    shapes |= middle("encoder", is_mar) | norm("encoder.norm_out", 512)
    shapes |= conv("encoder.conv_out", 512, 2 * latent if is_mar else latent)
    shapes |= conv("decoder.conv_in", latent, 512) | middle("decoder", is_mar)
    for step, outputs in enumerate(reversed(WIDTHS)):
        name = f"decoder.up.{4 - step}" if is_mar else f"decoder.conv_blocks.{step}"
        for j in range(3):
            shapes |= residual(f"{name}.{block}.{j}", width, outputs)
            width = outputs
            if step == 0 and not is_mar:
                shapes |= attention(f"{name}.attn.{j}", width)
        if step < 4:
            shapes |= conv(f"{name}.upsample.conv", width, width)
    shapes |= norm("decoder.norm_out", 128) | conv("decoder.conv_out", 128, 3)
    if is_mar:
        return shapes | conv("quant_conv", 32, 32, 1) | conv("post_quant_conv", 16, 16, 1)
    shapes |= conv("quant_conv", 256, 8, 1) | conv("post_quant_conv", 8, 256, 1)
    return shapes | {"quantize.embedding.weight": (16384, 8), "quantize.codebook_used": (65536,)}


def maskgit_residual(name: str, inputs: int, outputs: int) -> Shapes:
    shapes = norm(f"{name}.norm1", inputs) | conv(f"{name}.conv1", inputs, outputs, bias=False)
    shapes |= norm(f"{name}.norm2", outputs) | conv(f"{name}.conv2", outputs, outputs, bias=False)
    return shapes | conv(f"{name}.nin_shortcut", outputs, outputs, 1, False) if inputs != outputs else shapes


def maskgit_shapes() -> Shapes:
    """54,515,587 numbers."""
    shapes = conv("encoder.conv_in", 3, 128, bias=False)
    width = 128
    for i, outputs in enumerate(WIDTHS):
        for j in range(2):
            shapes |= maskgit_residual(f"encoder.down.{i}.block.{j}", width, outputs)
            width = outputs
    for network in ("encoder", "decoder"):
        for j in range(2):
            shapes |= maskgit_residual(f"{network}.mid.{j}", 512, 512)
    shapes |= norm("encoder.norm_out", 512) | conv("encoder.conv_out", 512, 256, 1)
    shapes |= conv("decoder.conv_in", 256, 512)
    for i in (4, 3, 2, 1, 0):
        for j in range(2):
            shapes |= maskgit_residual(f"decoder.up.{i}.block.{j}", width, WIDTHS[i])
            width = WIDTHS[i]
        if i:
            shapes |= conv(f"decoder.up.{i}.upsample_conv", width, width)
    shapes |= norm("decoder.norm_out", 128) | conv("decoder.conv_out", 128, 3)
    return shapes | {"quantize.embedding.weight": (1024, 256)}


def taef2_shapes(has_pool: bool = True, latent: int = 32) -> tuple[Shapes, Shapes]:
    """Encoder and decoder."""

    def block(name: str, is_deep: bool = False) -> Shapes:
        shapes: Shapes = {}
        for i in (0, 2, 4):
            shapes |= conv(f"{name}.conv.{i}", 64, 64)
        if is_deep and has_pool:
            shapes |= conv(f"{name}.pool.0", 64, 256, 1, False) | norm(f"{name}.pool.1", 256)
            shapes |= conv(f"{name}.pool.3", 256, 64, 1, False)
        return shapes

    encoder, decoder = conv("0", 3, 64) | conv("14", 64, latent), conv("1", latent, 64) | conv("19", 64, 3)
    for i in (2, 6, 10):
        encoder |= conv(str(i), 64, 64, bias=False)
    for i in (1, 3, 4, 5, 7, 8, 9, 11, 12, 13):
        encoder |= block(str(i), i > 10)
    for i in (7, 12, 17):
        decoder |= conv(str(i), 64, 64, bias=False)
    for i in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18):
        decoder |= block(str(i), i < 6)
    return encoder, decoder


def random_state(shapes: Shapes) -> State:
    """Half precision weights under which signals neither vanish nor grow."""
    generator = torch.Generator().manual_seed(1)
    state: State = {}
    for name, shape in shapes.items():
        scale = 0.1 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[1:]))
        offset = 1 if "norm" in name.split(".")[-2] and name.endswith("weight") else 0
        state[name] = (torch.randn(shape, generator=generator) * scale + offset).half()
    return state


def blank_state(shapes: Shapes) -> State:
    """Zeros that take no space, not even in a torch file."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


# ---- Forward passes with functions only, on published names ----------------------------------------------------------


def run_conv(state: State, name: str, x: Tensor, **options: int) -> Tensor:
    weight, bias = state[f"{name}.weight"].float(), state.get(f"{name}.bias")
    return F.conv2d(x, weight, None if bias is None else bias.float(), padding=weight.shape[-1] // 2, **options)


def run_norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, state[f"{name}.weight"].float(), state[f"{name}.bias"].float(), 1e-6)


def run_residual(state: State, name: str, x: Tensor, of_change: bool = False) -> Tensor:
    change = run_conv(state, f"{name}.conv1", F.silu(run_norm(state, f"{name}.norm1", x)))
    change = run_conv(state, f"{name}.conv2", F.silu(run_norm(state, f"{name}.norm2", change)))
    if f"{name}.nin_shortcut.weight" in state:
        x = run_conv(state, f"{name}.nin_shortcut", change if of_change else x)
    return x + change


def run_attention(state: State, name: str, x: Tensor) -> Tensor:
    normal = run_norm(state, f"{name}.norm", x)
    q, k, v = (run_conv(state, f"{name}.{layer}", normal).flatten(2) for layer in "qkv")
    weights = torch.einsum("bci,bcj->bij", q, k).div(math.sqrt(x.shape[1])).softmax(-1)
    mixed = torch.einsum("bij,bcj->bci", weights, v).view_as(x)
    return x + run_conv(state, f"{name}.proj_out", mixed)


def run_level(state: State, name: str, block: str, x: Tensor) -> Tensor:
    j = 0
    while f"{name}.{block}.{j}.conv1.weight" in state:
        x = run_residual(state, f"{name}.{block}.{j}", x)
        if f"{name}.attn.{j}.q.weight" in state:
            x = run_attention(state, f"{name}.attn.{j}", x)
        j += 1
    return x


def run_middle(state: State, network: str, is_mar: bool, x: Tensor) -> Tensor:
    first, between, second = (f"{network}.{name}" for name in middle_names(is_mar))
    return run_residual(state, second, run_attention(state, between, run_residual(state, first, x)))


def ldm_encode(state: State, is_mar: bool, x: Tensor) -> Tensor:
    level, block = ("down", "block") if is_mar else ("conv_blocks", "res")
    x = run_conv(state, "encoder.conv_in", x)
    for i in range(5):
        x = run_level(state, f"encoder.{level}.{i}", block, x)
        if i < 4:  # one row and column of zeros at the far sides
            name = f"encoder.{level}.{i}.downsample.conv"
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), state[f"{name}.weight"].float(), state[f"{name}.bias"].float(), 2)
    x = run_middle(state, "encoder", is_mar, x)
    x = run_conv(state, "encoder.conv_out", F.silu(run_norm(state, "encoder.norm_out", x)))
    return run_conv(state, "quant_conv", x)


def ldm_decode(state: State, is_mar: bool, z: Tensor) -> Tensor:
    x = run_conv(state, "decoder.conv_in", run_conv(state, "post_quant_conv", z))
    x = run_middle(state, "decoder", is_mar, x)
    for step in range(5):
        name = f"decoder.up.{4 - step}" if is_mar else f"decoder.conv_blocks.{step}"
        x = run_level(state, name, "block" if is_mar else "res", x)
        if step < 4:
            x = run_conv(state, f"{name}.upsample.conv", F.interpolate(x, scale_factor=2.0, mode="nearest"))
    return run_conv(state, "decoder.conv_out", F.silu(run_norm(state, "decoder.norm_out", x)))


def maskgit_encode(state: State, x: Tensor) -> Tensor:
    x = run_conv(state, "encoder.conv_in", x)
    for i in range(5):
        for j in range(2):
            x = run_residual(state, f"encoder.down.{i}.block.{j}", x, of_change=True)
        x = F.avg_pool2d(x, 2) if i < 4 else x
    for j in range(2):
        x = run_residual(state, f"encoder.mid.{j}", x, of_change=True)
    return run_conv(state, "encoder.conv_out", F.silu(run_norm(state, "encoder.norm_out", x)))


def maskgit_decode(state: State, z: Tensor) -> Tensor:
    x = run_conv(state, "decoder.conv_in", z)
    for j in range(2):
        x = run_residual(state, f"decoder.mid.{j}", x, of_change=True)
    for i in (4, 3, 2, 1, 0):
        for j in range(2):
            x = run_residual(state, f"decoder.up.{i}.block.{j}", x, of_change=True)
        if i:
            x = run_conv(state, f"decoder.up.{i}.upsample_conv", x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    return run_conv(state, "decoder.conv_out", F.silu(run_norm(state, "decoder.norm_out", x)))


def taef2_block(state: State, name: str, x: Tensor) -> Tensor:
    if f"{name}.pool.0.weight" in state:
        wide = run_conv(state, f"{name}.pool.0", x)
        scale, shift = state[f"{name}.pool.1.weight"].float(), state[f"{name}.pool.1.bias"].float()
        x = x + run_conv(state, f"{name}.pool.3", F.relu(F.group_norm(wide, 4, scale, shift)))
    y = x
    for i in (0, 2, 4):
        y = run_conv(state, f"{name}.conv.{i}", F.relu(y) if i else y)
    return F.relu(x + y)
