"""The categorical distribution over the codes of a discrete tokenizer."""

from __future__ import annotations

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
        logits = self.logits(features).float()
        nats: Tensor = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
        return nats.view(targets.shape)

    def log_prob(self, features: Tensor, targets: Tensor, generator: KeyedGenerator | None = None) -> Tensor:
        """Exact, see :meth:`CellDistribution.log_prob`."""
        return -self.loss(features, targets)

    def sample(
        self, features: Tensor, generator: KeyedGenerator, sampling: CellSampling, schedule: list[Tensor] | None = None
    ) -> Tensor:
        """Inverts the cumulative distribution at one uniform number per cell."""
        probabilities = self.probabilities(features, sampling)
        uniform = to_device(generator.uniform(probabilities.shape[1]), probabilities.device).unsqueeze(-1)
        cumulative = probabilities.cumsum(-1)
        # The first code with a cumulative probability above u · total; codes of probability 0 are never sampled.
        drawn: Tensor = (cumulative > uniform * cumulative[..., -1:]).int().argmax(-1)
        return drawn

    def probabilities(self, features: Tensor, sampling: CellSampling) -> Tensor:
        """The distribution that :meth:`sample` uses, not normalized, for features (B, L, D): (B, L, V) float32."""
        logits = self.logits(features).float()
        if sampling.temperature == 0:
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).float()
        return _filtered(logits / sampling.temperature, sampling)

    def belief(
        self, features: Tensor, generator: KeyedGenerator, sampling: CellSampling, schedule: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Most likely code and entropy in nats, (B, L) each."""
        log_probabilities = self.logits(features).float().log_softmax(-1)
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
