"""What the solvers draw from exact networks: spread, correlations, weights of a mixture, temperature.

The first tests take the presets as they are shipped: nothing but the kind of the distribution and the preset is set.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from heptapod.distributions import CellSampling
from heptapod.distributions.diffusion import MAX_LEVEL, NUM_LEVELS, SIGNAL
from heptapod.sampling import SamplingConfig
from tests.distributions.exact import GivenNoise, Normals, draws, exact_distribution, mean_and_covariance

KINDS = ("diffusion", "flow")
PRESETS = ("default", "fast")
SPREAD_ERROR = {"default": 0.02, "fast": 0.05}
"""Relative error of the standard deviations and absolute error of the correlations."""
CORRELATIONS = torch.tensor([[1.0, 0.8, -0.3], [0.8, 1.0, 0.1], [-0.3, 0.1, 1.0]])
NORMALS = {
    "diagonal": Normals.one([0.3, 1.0, 0.7]),
    "wide": Normals.one([0.15, 1.5, 1.2]),
    "correlated": Normals.one([0.3, 1.0, 0.7], correlations=CORRELATIONS),
    "correlated, off center": Normals.one([0.4, 1.2, 0.6], [1.5, -1.0, 0.5], CORRELATIONS),
}
MIXTURES = {
    "two narrow": Normals(
        torch.tensor([0.3, 0.7]), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.01, 0.01]).view(2, 1, 1)
    ),
    "three": Normals(
        torch.tensor([0.2, 0.5, 0.3]),
        torch.tensor([[-1.5, 0.5], [0.0, -0.6], [1.3, 0.4]]),
        torch.stack([0.01 * torch.eye(2), 0.06 * torch.eye(2), torch.tensor([[0.04, 0.03], [0.03, 0.04]])]),
    ),
    "far": Normals(torch.tensor([0.15, 0.85]), torch.tensor([[-2.5], [0.5]]), torch.tensor([0.04, 0.09]).view(2, 1, 1)),
}


def deviations_and_correlations(covariance: Tensor) -> tuple[Tensor, Tensor]:
    stds = covariance.diagonal().sqrt()
    return stds, covariance / stds.outer(stds)


@pytest.mark.parametrize("name", NORMALS)
@pytest.mark.parametrize("kind", KINDS)
def test_presets_draw_the_normal_that_was_learnt(kind: str, name: str) -> None:
    """Also at every temperature: the standard deviations times T, the mean as it is."""
    truth = NORMALS[name]
    distribution = exact_distribution(kind, truth)
    assert set(distribution.presets) == set(PRESETS)
    true_stds, true_correlations = deviations_and_correlations(truth.covariances[0].double())
    for preset in PRESETS:
        mean, covariance = mean_and_covariance(distribution, SamplingConfig(preset=preset))
        stds, correlations = deviations_and_correlations(covariance)
        bound = SPREAD_ERROR[preset]
        print(f"{kind}, {name}, {preset}: {(stds / true_stds - 1).tolist()}, mean {(mean - truth.means[0]).tolist()}")
        assert (stds / true_stds - 1).abs().max() <= bound
        assert (correlations - true_correlations).abs().max() <= bound
        assert ((mean - truth.means[0]) / true_stds).abs().max() <= bound
        for temperature in (0.5, 0.7, 1.2):
            cooled = mean_and_covariance(distribution, SamplingConfig(preset=preset, temperature=temperature))
            assert torch.allclose(cooled[1], temperature**2 * covariance, rtol=1e-4, atol=1e-5)
            assert torch.allclose(cooled[0], mean, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_presets_draw_20_000_tokens_of_a_normal(kind: str) -> None:
    """The same by random numbers, as images are drawn; their own error is 0.5% of the standard deviation."""
    truth = NORMALS["diagonal"]
    for preset in PRESETS:
        for temperature in (0.7, 1.0):
            tokens = draws(exact_distribution(kind, truth), SamplingConfig(preset=preset, temperature=temperature))
            ratio = tokens.std(0) / (temperature * truth.covariances[0].diagonal().sqrt())
            assert (ratio - 1).abs().max() <= SPREAD_ERROR[preset], (preset, temperature, ratio)


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_presets_draw_the_weights_of_a_mixture(kind: str, name: str) -> None:
    """20,000 tokens, assigned to the nearest component; cooler and warmer ones as a solver of many steps draws them."""
    truth = MIXTURES[name]
    distribution = exact_distribution(kind, truth)

    def found(sampling: SamplingConfig) -> Tensor:
        tokens = draws(distribution, sampling)
        return torch.cdist(tokens, truth.means).argmin(1).bincount(minlength=len(truth.weights)) / len(tokens)

    for preset in PRESETS:
        assert (found(SamplingConfig(preset=preset)) - truth.weights).abs().max() <= 0.02, preset
    for temperature in (0.5, 1.2):
        fine = found(SamplingConfig(temperature=temperature, cell_solver="multistep", cell_steps=100))
        for preset in PRESETS:
            weights = found(SamplingConfig(preset=preset, temperature=temperature))
            assert (weights - fine).abs().max() <= 0.02, (preset, temperature)


@pytest.mark.parametrize(
    ("kind", "solver", "steps", "bound"),
    [
        ("diffusion", "multistep", 40, 0.002),
        ("diffusion", "ancestral", 250, 0.02),
        ("diffusion", "ancestral", MAX_LEVEL + 1, 0.02),
        ("diffusion", "ddim", 250, 0.02),
        ("flow", "multistep", 40, 0.002),
        ("flow", "heun", 25, 0.02),
        ("flow", "euler", 250, 0.02),
    ],
)
def test_temperature_scales_the_spread_in_every_solver(kind: str, solver: str, steps: int, bound: float) -> None:
    """Temperature 0.7 draws N(2, 0.35²) from N(2, 0.5²): the variance times T², exactly."""
    distribution = exact_distribution(kind, Normals.one([0.5], [2.0]))
    sampling = {"cell_solver": solver, "cell_steps": steps}
    mean, variance = mean_and_covariance(distribution, CellSampling(**sampling))  # type: ignore[arg-type]
    assert abs(float(mean) - 2) <= 0.02
    assert abs(float(variance.sqrt()) - 0.5) <= bound
    for temperature in (0.0, 0.5, 0.7, 1.2):
        cooled = CellSampling(temperature=temperature, **sampling)  # type: ignore[arg-type]
        of_mean, of_variance = mean_and_covariance(distribution, cooled)
        assert abs(float(of_variance - temperature**2 * variance)) <= 1e-5
        assert abs(float(of_mean - mean)) <= 1e-4


@pytest.mark.parametrize(
    ("kind", "solvers"), [("flow", ("multistep", "heun", "euler")), ("diffusion", ("multistep", "ddim"))]
)
def test_solvers_approach_one_solution(kind: str, solvers: tuple[str, ...]) -> None:
    """Four times the steps: less than half the error in first order, less than a tenth in second."""
    distribution = exact_distribution(kind, MIXTURES["three"])

    def draw(solver: str, steps: int) -> Tensor:
        return draws(distribution, CellSampling(cell_solver=solver, cell_steps=steps), 2000)  # type: ignore[arg-type]

    fine = draw("multistep", 500)
    coarse: dict[str, float] = {}
    for solver in solvers:
        error = [float((draw(solver, steps) - fine).abs().mean() / fine.std()) for steps in (10, 40)]
        print(f"{kind}, {solver}: {error}")
        assert error[1] < (0.5 if solver in ("euler", "ddim") else 0.1) * error[0]
        assert error[1] < (0.03 if solver in ("euler", "ddim") else 0.001)
        coarse[solver] = error[0]
    assert "heun" not in coarse or coarse["heun"] < 0.3 * coarse["euler"]


@pytest.mark.parametrize("kind", KINDS)
def test_multistep_agrees_with_the_solver_of_diffusers(kind: str) -> None:
    """With many steps, token by token, DPM-Solver++ of second order; with few, ours is nearer to that."""
    diffusers = pytest.importorskip("diffusers")
    truth = MIXTURES["three"]
    distribution = exact_distribution(kind, truth)
    options = {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"}
    if kind == "flow":
        options |= {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    else:
        options["trained_betas"] = (1 - SIGNAL / torch.cat([SIGNAL.new_ones(1), SIGNAL[:-1]])).tolist()
    noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))

    def theirs(steps: int) -> Tensor:
        scheduler = diffusers.DPMSolverMultistepScheduler(**options)
        scheduler.set_timesteps(steps)
        x = noise.clone()
        for step, time in enumerate(scheduler.timesteps):
            level = scheduler.sigmas[step] if kind == "flow" else time / NUM_LEVELS
            output = distribution.mlp(x, [level], [])[:, :2]
            x = scheduler.step(output, time, x).prev_sample
        return x

    def ours(steps: int) -> Tensor:
        sampling = CellSampling(cell_solver="multistep", cell_steps=steps)
        with torch.no_grad():
            return distribution.sample(torch.zeros(1, len(noise), 4), GivenNoise(noise), sampling)[0]

    fine = theirs(500)
    assert (ours(200) - fine).abs().mean() < 0.003
    for steps in (8, 12):
        errors = [float((draw(steps) - fine).abs().mean()) for draw in (ours, theirs)]
        print(f"{kind}, {steps} evaluations: {errors[0]:.4f} (diffusers {errors[1]:.4f})")
        assert errors[0] < errors[1]
