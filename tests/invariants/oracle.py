"""A small model trained on an enumerated distribution, and what it is from that truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from heptapod.configs.objective import ObjectiveConfig
from heptapod.configs.sampling import SamplingConfig
from heptapod.evaluation.zero_shot import zero_shot
from heptapod.likelihood import negative_log_likelihood
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.objective import draw_token_order
from heptapod.sampling import sample_tokens
from heptapod.training.config import TrainConfig
from heptapod.utils.random import KeyedGenerator, Stream
from tests.invariants.enumerated import Enumerated
from tests.invariants.fit import fit

KINDS = ("cross", "global")
SEED = 0
STATES = 4096
POSTERIORS = 512


@dataclass(frozen=True)
class Training:
    """How a model is trained on fresh samples."""

    steps: int = 1300
    ema_decay: float = 0.99
    prefixes: int | Literal["all"] = 4
    """Prefixes per image of a global head; a cross head has all of them."""

    def objective(self, kind: str) -> ObjectiveConfig:
        """Of a head of a kind."""
        if kind == "cross":
            config = ObjectiveConfig("random", far_cells=1.0, far_weight=1.0, label_dropout=0.0)
        else:
            config = ObjectiveConfig("random", self.prefixes, "all", label_dropout=0.0)
        return config.for_head(kind)


@dataclass(frozen=True)
class Figures:
    """What a trained model is from the truth, by exact probabilities of states drawn from it. In nats."""

    entropy: float
    """The true entropy of a state, mean over the classes."""
    nll: float
    """The model's mean negative log-likelihood of a state, in random order: the entropy and KL(p || model)."""
    marginal_kl: float
    """Mean KL (true marginal || prediction) over random prefixes of every length and all their unread cells."""
    posterior_kl: float
    """Mean KL (exact posterior of the classes || zero-shot posterior)."""
    agreement: float
    """Share of states to which both posteriors give the same class; a toss-up (odds below e^0.5) may differ."""
    mass: float
    """Mean of p_model / p over the states, an estimate of Σ_x p_model(x)."""
    mass_error: float
    """Standard error of that estimate."""

    @property
    def excess(self) -> float:
        """KL(p || model) as a share of the entropy."""
        return self.nll / self.entropy - 1


def train(kind: str, truth: Enumerated, training: Training, seed: int = SEED) -> HeptapodModel:
    """A model with a head of a kind, trained on fresh samples."""
    # A small network for many steps: a wider one has more to estimate from as many samples.
    config = ModelConfig(width=32, depth=2, num_heads=2, head=HeadConfig(kind, 2))
    model = build_model(config, truth.grid, truth.classes, seed)
    settings = TrainConfig(
        steps=training.steps,
        batch_size=128,
        learning_rate=1e-2,
        weight_decay=0.0,
        beta2=0.99,
        ema_decay=training.ema_decay,
    )
    generator = torch.Generator().manual_seed(1 + seed)
    return fit(model, training.objective(kind), settings, lambda count: truth.sample(count, generator)[::2])


def measure(model: HeptapodModel, truth: Enumerated) -> Figures:
    """The figures of a trained model."""
    labels, numbers, states = truth.sample(STATES, torch.Generator().manual_seed(2))
    nll = negative_log_likelihood(model, states, labels, "random", batch_size=512).double() * truth.grid.num_cells
    log_ratio = -nll - truth.log_p[labels, numbers]
    ratio = log_ratio.exp()
    posterior_kl, agreement = compare_posteriors(model, truth, numbers[:POSTERIORS])
    return Figures(
        entropy=truth.entropy(),
        nll=truth.entropy() - float(log_ratio.mean()),  # of lower variance than the mean of the likelihoods
        marginal_kl=marginal_kl(model, truth, per_length=24),
        posterior_kl=posterior_kl,
        agreement=agreement,
        mass=float(ratio.mean()),
        mass_error=float(ratio.std()) / len(ratio) ** 0.5,
    )


def marginal_kl(model: HeptapodModel, truth: Enumerated, per_length: int) -> float:
    """Mean KL (true marginal || prediction) over random prefixes of every length and all their unread cells."""
    total, count, num_cells = 0.0, 0, truth.grid.num_cells
    for t in range(num_cells):
        labels, _, states = truth.sample(per_length, torch.Generator().manual_seed(100 + t))
        keys = [(7, t, i) for i in range(per_length)]
        order = draw_token_order("random", num_cells, KeyedGenerator(Stream.EVALUATION, keys))
        with torch.no_grad():
            read = model.read(states.gather(1, order[:, :t]), order[:, :t], labels)
            features = model.predict(read, order[:, t:])
            predicted = model.distribution.logits(features).log_softmax(-1).double()
        for row in range(per_length):
            p = truth.marginals(int(labels[row]), states[row], order[row, :t])[order[row, t:]].clamp(min=1e-12)
            total += float((p * (p.log() - predicted[row])).sum())
            count += num_cells - t
    return total / count


def compare_posteriors(model: HeptapodModel, truth: Enumerated, numbers: Tensor) -> tuple[float, float]:
    """See :class:`Figures`: the mean KL of the two posteriors, and their agreement."""
    exact = truth.log_p[:, numbers].T.log_softmax(1)
    found = zero_shot(model, truth.states[numbers], token_order="random", batch_size=512).log_softmax(1)
    agree = (found.argmax(1) == exact.argmax(1)) | ((exact[:, 0] - exact[:, 1]).abs() < 0.5)
    return float((exact.exp() * (exact - found)).sum(1).mean()), float(agree.double().mean())


def pair_error(model: HeptapodModel, truth: Enumerated, count: int, batch: int = 1000) -> float:
    """Largest difference between the pair marginals of samples and the exact ones, over all pairs of cells and values.

    Args:
        model: the trained model.
        truth: the exact distribution.
        count: samples, as many of every class. Cells are filled one by one in random order.
        batch: samples at a time.
    """
    config = SamplingConfig(token_order="random")
    labels = torch.arange(count) % truth.classes
    drawn = [
        sample_tokens(model, labels[first : first + batch], range(first, min(first + batch, count)), config)
        for first in range(0, count, batch)
    ]
    found = torch.nn.functional.one_hot(torch.cat(drawn), truth.grid.vocabulary_size).double()
    pairs = torch.einsum("snv,smw->nvmw", found, found) / count
    exact = torch.stack([truth.pair_marginals(c) for c in range(truth.classes)]).mean(0)
    return float((pairs - exact).abs().max())
