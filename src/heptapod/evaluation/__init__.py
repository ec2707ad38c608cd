"""Evaluation: likelihood, and an independent judge of generated digits."""
