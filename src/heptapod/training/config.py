"""Settings of the training loop."""

from __future__ import annotations

import importlib.util
from typing import Literal

from heptapod.utils.config import settings


@settings
class TrainConfig:
    """The training loop: how long, how fast, what is written when."""

    steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 64
    """Images per optimizer step."""
    accumulation: int = 1
    """Micro-batches an optimizer step is split into, to save memory; a divisor of the batch size."""
    learning_rate: float = 3e-3
    """Peak learning rate."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    final_lr_ratio: float = 0.01
    """Learning rate at the end of the cosine, as a share of the peak."""
    weight_decay: float = 0.02
    """AdamW weight decay, on matrices only (not on norms, biases and embeddings)."""
    beta1: float = 0.9
    """AdamW decay of the first moment."""
    beta2: float = 0.95
    """AdamW decay of the second moment."""
    grad_clip: float = 1.0
    """Largest norm of the gradient; 0 for no clipping."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Arithmetic of the forward pass: float32, or bfloat16 autocast. Weights are float32 in both."""
    ema_decay: float = 0.999
    """Decay of the weights' moving average, which is what is evaluated and sampled; it warms up
    as (1+n)/(10+n). 0 for none."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several processes (torchrun) share the work: ddp (every process holds all weights) or fsdp (weights,
    gradients, optimizer and moving average are spread over them)."""
    activation_checkpointing: bool = False
    """Keep only the input of every block for the backward pass and compute the block again there: less memory for
    about a third more computing."""
    compile: bool = False
    """torch.compile every block (a C++ compiler is needed on CPU; the first step then takes a minute)."""
    timeout: float = 600.0
    """Seconds after which a process that waits in vain for the others gives up."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    eval_every: int = 250
    """Steps between evaluations on held-out images."""
    eval_images: int = 512
    """Held-out images used for them (at most)."""
    preview_every: int = 500
    """Steps between sample grids."""
    save_every: int = 250
    """Steps between checkpoints."""
    resume: int | Literal["latest"] = "latest"
    """Go on from the checkpoint of this step, or from the newest complete one; with none, a run begins."""
    keep_last: int = 2
    """Checkpoints kept (best and last weights are kept besides)."""
    tensorboard: bool = False
    """Also write TensorBoard event files (needs the extra 'tensorboard')."""

    def __post_init__(self) -> None:
        positive = (
            "steps batch_size accumulation learning_rate timeout log_every eval_every eval_images preview_every "
            "save_every keep_last"
        )
        for name in positive.split():
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: {getattr(self, name)} given, must be above 0")
        if self.resume != "latest" and self.resume < 1:
            raise ValueError(f"resume: {self.resume} given, must be a step, or latest")
        for name in ("warmup_steps", "weight_decay", "grad_clip"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: {getattr(self, name)} given, must be at least 0")
        for name in ("beta1", "beta2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} given, must be at least 0 and below 1")
        if self.tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise ValueError("tensorboard: true given, but it is not installed: pip install 'heptapod[tensorboard]'")
        if not 0 <= self.final_lr_ratio <= 1:
            raise ValueError(f"final_lr_ratio: {self.final_lr_ratio} given, must lie between 0 and 1")
        if self.batch_size % self.accumulation:
            raise ValueError(f"accumulation: {self.accumulation} given, must divide batch_size ({self.batch_size})")


CHANGEABLE_ON_RESUME = {
    *("log_every", "preview_every", "save_every", "keep_last", "tensorboard"),
    *("strategy", "accumulation", "activation_checkpointing", "timeout", "resume"),
}
"""Settings that may differ when a run goes on, since they do not change the weights (or their rounding only)."""


@settings
class ProbeConfig:
    """Probes of the model at every evaluation (see `heptapod probe`); its weights do not depend on them."""

    images: int = 0
    """Labeled training images that classes are learned from, drawn at random; 0 for no probes."""
    test_images: int = 1000
    """Held-out images tested on (at most)."""

    def __post_init__(self) -> None:
        if self.images < 0:
            raise ValueError(f"images: {self.images} given, must be at least 0")
        if self.test_images < 1:
            raise ValueError(f"test_images: {self.test_images} given, must be at least 1")
