"""The categorical distribution over the codes of a discrete tokenizer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from heptapod.configs.distributions import CellSampling
from heptapod.distributions.base import CellDistribution, S, register_distribution
from heptapod.distributions.cross_entropy import float32_nats, float32_product
from heptapod.nn.layers import Linear
from heptapod.utils.random import KeyedGenerator, to_device


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
        return float32_nats(features.flatten(0, -2), self.logits, targets.flatten()).view(targets.shape)

    def float32_logits(self, features: Tensor) -> Tensor:
        """Logits (..., V) in float32 of features (..., D): half precision rounds factors and gradients, no logits."""
        return float32_product(features, self.logits)

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
