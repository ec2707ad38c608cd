SETTINGS = [
    r"0\.3 million parameters",
    r"float32: 1e-4 on logits|within 1% of the true entropy|within 0\.02 nats of the exact marginals",  # of tests
]
