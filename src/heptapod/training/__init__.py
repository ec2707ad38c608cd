"""Training: one loop for tokenizers and models, with exact resume."""

from heptapod.distributed.errors import NonFiniteLossError
from heptapod.training.config import ProbeConfig, TrainConfig
from heptapod.training.task import LossOutput, TrainTask
from heptapod.training.trainer import Trainer

__all__ = ["LossOutput", "NonFiniteLossError", "ProbeConfig", "TrainConfig", "TrainTask", "Trainer"]
