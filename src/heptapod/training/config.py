"""Settings of the training loop."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Literal

from pydantic import Field

from heptapod.configs.tokenizers import MAX_STEPS
from heptapod.utils.config import settings

MAX_BATCH = 1 << 20
"""Images of a step, at most."""
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Images = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Batch = Annotated[int, Field(ge=1, le=MAX_BATCH)]


@settings
class TrainConfig:
    """The training loop: duration, optimizer, precision, and intervals of evaluation and checkpoints."""

    steps: Steps = 1000
    """Optimizer steps; without effect where minutes is set."""
    minutes: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Train for this time in place of a number of steps, evaluations, previews and checkpoints included: the learning
    rate follows the clock. The weights then depend on the speed of the machine."""
    batch_size: Batch = 64
    """Images per optimizer step."""
    accumulation: Batch = 1
    """Micro-batches an optimizer step is split into, to save memory; a divisor of the batch size."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 3e-3
    """Peak learning rate."""
    warmup_steps: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 50
    """Steps of linear warm-up."""
    final_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Learning rate at the end of the cosine, as a share of the peak."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.02
    """AdamW weight decay, on matrices only (not on norms, biases and embeddings)."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """AdamW decay of the second moment."""
    grad_clip: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    """Largest norm of the gradient; 0 for no clipping."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass: float32, bfloat16 autocast, or auto: bfloat16 on a GPU or CPU that has it,
    float32 elsewhere; a resumed run keeps what it began with. Weights are float32 in all."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the weights' moving average, which is what is evaluated and sampled; it warms up
    as (1+n)/(10+n). 0 for none."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several processes (torchrun) share the work: ddp (every process holds all weights) or fsdp (weights,
    gradients, optimizer and moving average are spread over them)."""
    activation_checkpointing: bool = False
    """Keep only the input of every block for the backward pass and compute the block again there: less memory for
    about a third more computing."""
    compile: bool | Literal["auto"] = "auto"
    """torch.compile every block, which takes a minute at the first step (a CPU needs a C++ compiler). auto: for the
    blocks of a model on a GPU that Triton supports, in a training of at least 2,000 steps or 20 minutes."""
    flex_attention: bool = False
    """Skip the blocks of 128×128 in the mask of a cross or group head that are empty (FlexAttention; needs a GPU and
    compile). For grids of 1,024 cells or more with prefixes_per_image: all."""
    timeout: Annotated[float, Field(gt=0, le=1e7)] = 600.0
    """Seconds a process waits for the others before it gives up."""
    log_every: Steps = 20
    """Steps between lines of metrics.jsonl."""
    eval_every: Steps = 250
    """Steps between evaluations on held-out images."""
    eval_images: Images = 512
    """Held-out images used for them (at most)."""
    preview_every: Steps = 500
    """Steps between sample grids."""
    save_every: Steps = 250
    """Steps between checkpoints."""
    resume: Steps | Literal["latest"] = "latest"
    """Resume from the checkpoint of this step, or from the newest complete one; without any, a run begins."""
    keep_last: Annotated[int, Field(ge=1, le=1000)] = 2
    """Checkpoints kept (best and last weights are kept besides)."""
    tensorboard: bool = False
    """Also write TensorBoard event files (needs the extra 'tensorboard')."""

    def __post_init__(self) -> None:
        if self.tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise ValueError("tensorboard: true given, but it is not installed: pip install 'heptapod[tensorboard]'")
        if self.batch_size % self.accumulation:
            raise ValueError(f"accumulation: {self.accumulation} given, must divide batch_size ({self.batch_size})")


CHANGEABLE_ON_RESUME = {
    *("log_every", "preview_every", "save_every", "keep_last", "tensorboard"),
    *("strategy", "accumulation", "activation_checkpointing", "compile", "flex_attention", "timeout", "resume"),
}
"""Settings that may change when a run is resumed: they do not change the weights (or their rounding only, and the
masks of model.dropout)."""


@settings
class ProbeConfig:
    """Probes of the model at every evaluation (see `heptapod probe`); its weights do not depend on them."""

    images: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 0
    """Random labeled training images that the probes learn the classes from; 0 for no probes."""
    test_images: Images = 1000
    """Held-out images tested on (at most)."""
