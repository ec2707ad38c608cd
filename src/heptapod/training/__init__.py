"""Training: one loop for tokenizers and models, with exact resume."""
