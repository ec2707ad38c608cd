"""The cost of training a recipe, computed without training: parameters, FLOPs, memory, time, storage."""
