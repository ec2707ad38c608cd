"""Tools around training: benchmarks, ablations and planning."""
