"""The categorical distribution over the codes of a discrete tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heptapod.configs.distributions import CellSampling
from heptapod.distributions.base import CellDistribution, S, register_distribution, to_device
from heptapod.nn.layers import Linear
from heptapod.utils.random import KeyedGenerator


@register_distribution("categorical")
class Categorical(CellDistribution):
    """Softmax over V codes: exact likelihood, sampling by inversion.

    Args:
        width: D, width of the features.
        vocabulary_size: V, number of codes.
    """

    is_discrete = True
    loss_is_likelihood = True
    uncertainty_name = "entropy (nats)"

    def __init__(self, width: int, vocabulary_size: int) -> None:
        super().__init__()
        self.logits = Linear(width, vocabulary_size)

    def loss(self, features: Tensor, targets: Tensor, generator: KeyedGenerator | None = None) -> Tensor:
        """Cross-entropy in nats, see :meth:`CellDistribution.loss`."""
        if targets.is_floating_point():
            raise ValueError(f"tokens: {targets.dtype} given, but this distribution is over codes (int64)")
        logits = self.float32_logits(features)
        nats: Tensor = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
        return nats.view(targets.shape)

    def float32_logits(self, features: Tensor) -> Tensor:
        """Logits (..., V) in float32 of features (..., D): half precision rounds factors and gradients, no logits."""
        weight, bias, device = self.logits.weight, self.logits.bias, features.device.type
        is_autocast = torch.is_autocast_enabled(device)
        if features.dtype == weight.dtype and features.dtype.itemsize >= 4 and not is_autocast:
            exact: Tensor = self.logits(features)
            return exact.float()
        dtype = torch.get_autocast_dtype(device) if is_autocast else weight.dtype
        with torch.autocast(device, enabled=False):
            product: Callable[..., Tensor] = _Float32Product.apply
            return product(features.flatten(0, -2), weight, bias, dtype).view(*features.shape[:-1], -1)

    def log_prob(self, features: Tensor, targets: Tensor, generator: KeyedGenerator | None = None) -> Tensor:
        """Exact, see :meth:`CellDistribution.log_prob`."""
        return -self.loss(features, targets)

    def sample(
        self, features: Tensor, generator: KeyedGenerator, sampling: CellSampling, schedule: list[Tensor] | None = None
    ) -> Tensor:
        """Inverts the cumulative distribution at one uniform number per cell; -1 where the logits are not finite."""
        probabilities = self.probabilities(features, sampling)
        uniform = to_device(generator.uniform(probabilities.shape[1]), probabilities.device).unsqueeze(-1)
        cumulative = probabilities.cumsum(-1)
        # The first code with a cumulative probability above u · total; codes of probability 0 are never sampled.
        drawn = (cumulative > uniform * cumulative[..., -1:]).int().argmax(-1)
        return torch.where(cumulative[..., -1] > 0, drawn, -1)

    def probabilities(self, features: Tensor, sampling: CellSampling) -> Tensor:
        """The distribution that :meth:`sample` uses, not normalized, for features (B, L, D): (B, L, V) float32."""
        logits = self.float32_logits(features)
        if sampling.temperature == 0:
            largest = logits.amax(-1, keepdim=True)  # not a number if any logit is not
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).float().masked_fill(~largest.isfinite(), torch.nan)
        return _filtered(logits / sampling.temperature, sampling)

    def belief(
        self, features: Tensor, generator: KeyedGenerator, sampling: CellSampling, schedule: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Most likely code and entropy in nats, (B, L) each."""
        log_probabilities = self.float32_logits(features).log_softmax(-1)
        entropy = -(log_probabilities.exp() * log_probabilities).sum(-1)
        return log_probabilities.argmax(-1), entropy

    def plan(self, sampling: S) -> S:
        """See :meth:`CellDistribution.plan`."""
        for name, value in (("cell_steps", sampling.cell_steps), ("cell_solver", sampling.cell_solver)):
            if value is not None:
                raise ValueError(f"{name}: {value} given, but this model samples codes, which need no solver")
        if sampling.preset != "default":
            raise ValueError(f"preset: {sampling.preset} given, but this model samples codes, which need no solver")
        return sampling


class _Float32Product(torch.autograd.Function):
    """x Wᵀ + b in float32, of x (M, D) and W (V, D), with gradients computed in a lower precision.

    A GPU multiplies numbers of the lower precision and adds up in float32; a CPU, which has no such product, multiplies
    in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
        """(M, V) float32."""
        low = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(*low)
        ctx.dtypes = x.dtype, weight.dtype, bias.dtype
        if x.device.type == "cuda" and dtype.itemsize < 4:
            return torch.mm(low[0], low[1].T, out_dtype=torch.float32) + bias.float()
        return F.linear(x.float(), weight.float(), bias.float())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of x, W and b, as autocast computes them."""
        x, weight = ctx.saved_tensors
        low, (of_x, of_weight, of_bias) = grad.to(x.dtype), ctx.dtypes
        return (low @ weight).to(of_x), (low.T @ x).to(of_weight), grad.sum(0).to(of_bias), None


def _filtered(logits: Tensor, sampling: CellSampling) -> Tensor:
    """Probabilities after top-k and top-p, not renormalized."""
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        threshold = logits.topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    probabilities = logits.softmax(-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        ranked, index = probabilities.sort(dim=-1, descending=True)
        before = ranked.cumsum(-1) - ranked  # probability of all codes ranked above
        ranked = ranked.masked_fill(before >= sampling.top_p, 0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, index, ranked)
    return probabilities
