"""The default solver of continuous tokens: second order, with one evaluation of the network per step.

It follows the probability flow of x = cos θ · token + sin θ · noise from θ = π/2 (noise) to 0 (token); every schedule
takes this form after scaling. With D, the token that the network expects at θ, it is dx/dθ = (x cos θ − D) / sin θ.
Like DPM-Solver++ (2211.01095) the solver lets D be linear between two levels, and like UniPC (2302.04867) it corrects a
step with the evaluation at its end, which costs nothing. D is linear in cos θ here, not in log(cos θ / sin θ): for
D = p + q cos θ the flow is x = p cos θ + q + c sin θ, which is exact for normals of variance 0 and 1, is smooth at both
ends and so needs no special last step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

LAST_ANGLE = 0.02
"""θ of the last evaluation, if there are enough to come so close to the token."""
ENOUGH_STEPS = 8
POWER = 4
"""Angles are evenly spaced in their fourth root, as the noise levels of 2206.00364 are in their seventh."""
FIRST_SIGNAL = 0.25
"""cos θ of the first evaluation, in units of the second. Pure noise is put in there as it is: at θ = π/2 itself the
network has not been trained, and what it expects of a token with hardly any signal is blown up."""


def multistep_angles(steps: int) -> list[float]:
    """θ of every evaluation, descending, between π/2 and 0."""
    last_angle = LAST_ANGLE * max(1, ENOUGH_STEPS / steps) ** 2
    first, last = (math.pi / 2) ** (1 / POWER), last_angle ** (1 / POWER)
    angles = [(first + (last - first) * i / max(steps - 1, 1)) ** POWER for i in range(steps)]
    second = math.cos(angles[1]) if steps > 1 else 1.0
    return [math.acos(FIRST_SIGNAL * second), *angles[1:]]


def sample_multistep(noise: Tensor, angles: Sequence[float], denoise: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Tokens (..., C) from noise (..., C).

    Args:
        noise: x at θ = π/2.
        angles: θ of every evaluation, descending.
        denoise: the expected token for x and the number of an evaluation.
    """
    starts = [math.pi / 2, *angles[1:]]
    x, token, slope = noise, denoise(noise, 0), noise  # before anything is known: a token of variance 1
    for i, (start, angle) in enumerate(zip(starts, angles, strict=True)):
        last = i + 1 == len(angles)
        end = 0.0 if last else angles[i + 1]
        share = math.sin(end) / math.sin(start)
        weight = math.cos(end) - share * math.cos(start)
        rise = 1 - share - weight * math.cos(angle)
        after = (share * x).add_(token, alpha=weight).add_(slope, alpha=rise)
        if last:
            return after
        expected = denoise(after, i + 1)
        slope = (expected - token) / (math.cos(end) - math.cos(angle))
        x = (share * x).add_(token, alpha=weight).add_(slope, alpha=rise)
        token = expected
    raise ValueError("angles: none given")
