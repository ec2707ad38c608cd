"""Processes started by torchrun: the process group, collectives, shared work and errors."""
