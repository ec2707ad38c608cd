"""Benchmarks that anyone can run: what sampling costs, beside the usual ways to do it."""
