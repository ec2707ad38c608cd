"""What training a recipe takes, told without training: parameters, FLOPs, memory, time, storage."""
