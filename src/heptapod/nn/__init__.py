"""Layers: linear maps, attention, rotary positions and the KV cache."""
