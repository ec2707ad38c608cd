"""What the layers of a model make of whole images, one vector per image and layer, without the label.

Shape legend: B batch, M images, N cells, S prefixes per image, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from heptapod.configs.grid import TokenOrder
from heptapod.grid import tokens_at
from heptapod.models.heads import CrossHead, GlobalHead, LocalHead, NextTokenHead
from heptapod.models.heptapod import HeptapodModel
from heptapod.objective import draw_token_order
from heptapod.utils.logging import Progress
from heptapod.utils.random import KeyedGenerator, Stream

Pool = Callable[[Tensor, int], Tensor]
"""Pools the output of a layer for B images to (B, D)."""


def layer_names(model: HeptapodModel) -> list[str]:
    """The layers that can be probed, from the input on: embedding, backbone.1 … K and norm, head.1 … H and norm."""
    return [name for name, *_ in _layers(model)]


def reading_order(trained: TokenOrder) -> Literal["raster", "random"]:
    """The order in which images are read: raster if the model knows it, for then all images are read alike."""
    return "random" if trained == "random" else "raster"


def check_unlabeled(num_classes: int, label_dropout: float | None) -> None:
    """Checks that a model was also trained without labels.

    Args:
        num_classes: classes the model is conditioned on; 0 for none.
        label_dropout: how often it was trained without the label; None if that is not known.

    Raises:
        ValueError: saying what to do instead.
    """
    if not num_classes or label_dropout:
        return
    if label_dropout is None:
        raise ValueError(
            "label_dropout: not known of this model, and a probe must not be given the label; if it was trained "
            "without labels some of the time, write how often as label_dropout into its config.json"
        )
    raise ValueError(
        "label_dropout: 0 given, so the model was never trained without the label, which a probe must not be given; "
        "train with --objective.label_dropout 0.1, or on images without labels"
    )


@torch.no_grad()
def layer_features(
    model: HeptapodModel,
    tokens: Tensor,
    token_order: TokenOrder = "raster",
    layers: Collection[str] | None = None,
    batch_size: int = 64,
    title: str | None = None,
) -> dict[str, Tensor]:
    """The mean of each layer's hidden states over an image's tokens; the label is never given.

    All N tokens are read, in raster order if the model was trained on it (``raster``, ``mixed``), else in a random one
    fixed per image number. A backbone layer is pooled over h_1..h_N (h_0, after no token, is the same for all images).
    A head is asked what the likelihood asks it, the next cell at each of the N prefixes, and pooled over these queries,
    none of which follows the last token. The global head, which goes over the whole grid for a single prefix, is asked
    once instead, after all tokens, and pooled over the cells.

    Args:
        model: of any kind of head; the layers of a custom head are left out.
        tokens: (M, N) int64 or (M, N, C) float32.
        token_order: the order(s) the model was trained on.
        layers: which of :func:`layer_names`; None for all.
        batch_size: images at a time; the result does not depend on it except for rounding.
        title: title of the progress bar; None shows none.

    Returns:
        (M, D) float32 on the CPU for each layer, from the input on.

    Raises:
        ValueError: for an unknown layer.
    """
    names = layer_names(model)
    if unknown := [layer for layer in layers or () if layer not in names]:
        raise ValueError(f"layers: {unknown[0]} given, must be among {', '.join(names)}")
    selected = [name for name in names if layers is None or name in layers]
    device, order_kind = model.token_embedding.weight.device, reading_order(token_order)
    features = {name: torch.empty(len(tokens), model.config.width) for name in selected}
    with Progress(title or "", len(tokens), shown=bool(title)) as bar, torch.autocast(device.type, enabled=False):
        for rows in torch.arange(len(tokens)).split(batch_size):
            generator = KeyedGenerator(Stream.EVALUATION, [(0, number) for number in rows.tolist()])
            order = draw_token_order(order_kind, tokens.shape[1], generator).to(device)
            with _pooled_outputs(model, len(rows), selected) as pooled:
                _read_and_ask(model, tokens[rows].to(device), order, any(name.startswith("head") for name in selected))
            for name in selected:
                features[name][rows] = pooled[name].float().cpu()
            bar.advance(len(rows))
    return features


def _read_and_ask(model: HeptapodModel, tokens: Tensor, order: Tensor, ask: bool) -> None:
    """Runs the backbone over all tokens and, if requested, the head over its queries; hooks collect the outputs."""
    states = model.read(tokens_at(tokens, order), order, None)
    if not ask:
        return
    N = order.shape[1]
    if isinstance(model.head, GlobalHead):
        model.head(states, torch.full((1, 1), N, device=order.device), order.unsqueeze(1))
    else:
        before = dataclasses.replace(states, hidden=states.hidden[:, :-1], cells=states.cells[:, :-1])
        model.head(before, torch.arange(N, device=order.device).unsqueeze(0), order.unsqueeze(-1))


@contextmanager
def _pooled_outputs(model: HeptapodModel, batch: int, selected: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Pools the outputs of the selected layers while the block runs; the hooks are removed at its end."""
    pooled: dict[str, Tensor] = {}

    def keep(name: str, pool: Pool, states: Tensor) -> None:
        pooled[name] = pool(states, batch)

    handles = [
        module.register_forward_pre_hook(lambda _, inputs, name=name, pool=pool: keep(name, pool, inputs[0]))
        if takes_input
        else module.register_forward_hook(lambda _, __, output, name=name, pool=pool: keep(name, pool, output))
        for name, module, pool, takes_input in _layers(model)
        if name in selected
    ]
    try:
        yield pooled
    finally:
        for handle in handles:
            handle.remove()


def _layers(model: HeptapodModel) -> list[tuple[str, nn.Module, Pool, bool]]:
    """Name, module and pooling of each layer; the last says whether its input is meant and not its output."""
    blocks = list(model.backbone.blocks)
    layers: list[tuple[str, nn.Module, Pool, bool]] = [("embedding", blocks[0], _after_condition, True)]
    layers += [(f"backbone.{i}", block, _after_condition, False) for i, block in enumerate(blocks, 1)]
    layers.append(("backbone.norm", model.backbone.norm, _after_condition, False))
    head = model.head
    if isinstance(head, LocalHead):
        layers += [(f"head.{i}", block, _middle, False) for i, block in enumerate(head.self_blocks, 1)]
    elif isinstance(head, GlobalHead | CrossHead | NextTokenHead):
        layers += [(f"head.{i}", block, _all, False) for i, block in enumerate(head.blocks, 1)]
    else:
        return layers
    return [*layers, ("head.norm", head.norm, _all, False)]


def _after_condition(states: Tensor, batch: int) -> Tensor:
    """(B, 1 + N, D) -> (B, D) without h_0."""
    return states[:, 1:].mean(1)


def _all(states: Tensor, batch: int) -> Tensor:
    """(B, …, D) -> (B, D)."""
    return states.reshape(batch, -1, states.shape[-1]).mean(1)


def _middle(windows: Tensor, batch: int) -> Tensor:
    """(B·S, window², D) -> (B, D): the next cell is the middle of its window."""
    return _all(windows[:, windows.shape[1] // 2], batch)
