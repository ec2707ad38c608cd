"""Evaluation: generated images, reconstructions, likelihood, and an independent judge of generated digits."""
