"""Benchmarks of this machine: the cost of sampling and training, compared with the usual methods."""
