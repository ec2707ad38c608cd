"""Ablations: what a head, an order, a density or a distribution is worth, at equal steps and at equal time."""
