"""Ablations: heads, token orders, supervision densities and distributions, compared at equal steps and equal time."""
