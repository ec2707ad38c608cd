"""What the studio's API takes and gives: the shapes behind its OpenAPI page.

Nothing is kept between requests. Whoever continues an image sends the cells that are to stay; so every answer can be
asked for again, and memory does not grow with the number of users.

Tokens travel as ``values``: a list of codes, or vectors as base64 of little-endian float32, k × C numbers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from heptapod.distributions.base import Solver
from heptapod.sampling.order import SamplingOrder

MAX_CELLS = 1 << 16
Cell = Annotated[int, Field(ge=0, lt=MAX_CELLS, description="Number of a cell: row · columns + column.")]
Cells = Annotated[list[Cell], Field(max_length=MAX_CELLS, fail_fast=True)]
Codes = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_CELLS, fail_fast=True)]
Values = Annotated[
    Codes | str,
    Field(description="Codes, one per cell; or vectors: base64 of float32 (little-endian), C numbers per cell."),
]
CellsPerStep = Annotated[list[Annotated[int, Field(ge=1, lt=MAX_CELLS)]], Field(max_length=MAX_CELLS, fail_fast=True)]
MOST_FIELDS = 64
Png = Annotated[str, Field(description="A PNG file, base64.")]
Name = Annotated[str, Field(max_length=200)]


class Shape(BaseModel):
    """Unknown fields are refused: a misspelled setting is never ignored."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, values: object) -> object:
        """Each unknown field would be an error of its own."""
        if isinstance(values, dict) and len(values) > MOST_FIELDS:
            raise ValueError(f"{len(values)} fields given, at most {MOST_FIELDS} are read")
        return values


class CellSampling(Shape):
    """How one cell is drawn; what is left out is as the model was saved with. There is no guidance."""

    temperature: float | None = Field(None, ge=0, le=100)
    top_k: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    top_p: float | None = Field(None, gt=0, le=1)
    preset: Literal["default", "fast"] | None = None
    cell_solver: Solver | None = None
    cell_steps: Annotated[int, Field(ge=1, le=1000)] | None = None


class Sampling(CellSampling):
    """How images are drawn; what is left out is as the model was saved with."""

    steps: Annotated[int, Field(ge=1, lt=MAX_CELLS)] | None = Field(None, description="null: one cell per step.")
    token_order: SamplingOrder | None = None
    schedule: Literal["cosine", "constant"] | CellsPerStep | None = None
    approximate_head: bool | None = None


class Tokens(Shape):
    """Cells that are read, in reading order, and their tokens."""

    cells: Cells
    values: Values


class Known(Tokens):
    """Cells that are given, and their tokens."""

    in_order: bool = Field(
        False, description="Read them in this order, to go on with an image; else as the token order has them."
    )


class Composite(Shape):
    """Puts an image's own pixels back wherever nothing was to be repainted."""

    image: Png
    mask: Annotated[str, Field(description="A PNG file of the same size, base64: white where to repaint.")]


class TrainingSetup(Shape):
    """What a request is about: a model, a class, a size."""

    model: Name = Field(description="Name of a model, as /api/models lists it.")
    label: Annotated[int, Field(ge=0, lt=1 << 31)] | Name | None = Field(None, description="A class; unset: no label.")
    size: Annotated[list[Annotated[int, Field(ge=1, lt=MAX_CELLS)]], Field(min_length=2, max_length=2)] | None = Field(
        None, description="Height and width in pixels, multiples of the tokenizer's factor; unset: the trained size."
    )


class GenerateRequest(TrainingSetup):
    """New images, or images continued from known cells (a fork, a pinned choice, in- and out-painting)."""

    sampling: Sampling = Sampling()
    count: int = Field(1, ge=1, description="Image i is drawn with seed + i.")
    seed: int = Field(0, ge=0, lt=1 << 53)
    known: Known | None = Field(None, description="Cells that stay as they are, in every image.")
    composite: Composite | None = None
    frames: int = Field(64, ge=2, description="At how many evenly spaced states to picture what is believed.")


class CellRequest(TrainingSetup):
    """What the model believes of one unread cell."""

    sampling: CellSampling = CellSampling()
    known: Tokens
    cell: Cell
    top: int = Field(8, ge=1, le=32, description="So many of the most likely codes, or draws of a vector.")
    seed: int = Field(0, ge=0, lt=1 << 53, description="Keys the draws of vectors.")


class Queued(BaseModel):
    """Event ``queued``: the request waits."""

    ahead: int
    """Requests that must end first."""


class Started(BaseModel):
    """Event ``started``: it is this request's turn."""

    grid: tuple[int, int]
    """Rows and columns."""
    factor: int
    """Pixels per side of a cell."""
    label: int | None
    seeds: list[int]
    known: list[int]
    """Cells that are given."""
    steps: list[int]
    """How many cells each step fills."""
    sampling: dict[str, object]
    """All settings, with what was left out filled in."""
    uncertainty_name: str
    """What ``uncertainty`` measures, with its unit."""
    warnings: list[str]
    """What was asked for that the model was not trained for."""


class ImageState(BaseModel):
    """One image at one state."""

    cells: list[int]
    """The cells that this step fills, in the order in which they are read; none at the end."""
    values: list[int] | str
    """Their tokens."""
    picture: str | None
    """The most likely whole picture given the cells read before (PNG, base64); of a head that cannot tell, what is
    decoded of them. Only at the states that ``frames`` asks for, which are the first, the last and some between."""
    uncertainty: list[float] | None
    """Of every cell, 0 where it is read; where there is a picture, and only of heads that predict the whole grid."""


class StepEvent(BaseModel):
    """Event ``step``: a state, before its cells are filled. State 0 has read the known cells only, the last has all."""

    step: int
    images: list[ImageState]


class FinishedImage(BaseModel):
    """A finished image."""

    seed: int
    picture: str
    """PNG, base64."""
    record: dict[str, object]
    """Makes the same image again: ``heptapod sample --from FILE.json``."""


class Done(BaseModel):
    """Event ``done``: the finished images."""

    images: list[FinishedImage]
    seconds: float
    """Without the wait."""


class Failed(BaseModel):
    """Event ``failed``: nothing more comes."""

    detail: str


class Candidate(BaseModel):
    """One thing a cell could become."""

    values: list[int] | str
    """The token."""
    probability: float | None
    """At the temperature asked for; None of a vector, which is one of several draws."""
    picture: str
    """The cell and those around it (PNG, base64), the others as believed."""


class CellAnswer(BaseModel):
    """What is believed of a cell."""

    cell: int
    candidates: list[Candidate]
    """The most likely first; of vectors the mean, then draws."""
    rest: float | None
    """Probability of all other codes."""
    uncertainty: float
    uncertainty_name: str
    mean: list[float] | None
    """Of vectors, per channel."""
    spread: list[float] | None
    """Of vectors, the standard deviation per channel."""
    offset: tuple[int, int]
    """Where the cell is in each picture: pixels from the top and from the left."""
    factor: int
    """Pixels per side of the cell."""


class Encoded(BaseModel):
    """An uploaded image as the model sees it."""

    size: tuple[int, int]
    """Height and width in pixels, as fitted."""
    grid: tuple[int, int]
    picture: str
    """As fitted (PNG, base64)."""
    reconstruction: str
    """As the tokenizer shows it (PNG, base64)."""
    values: list[int] | str
    """Tokens of all cells in raster order."""
    converted: list[str]
    """What was done to it."""


class Limits(BaseModel):
    """What the server allows."""

    count: int
    steps: int
    side: int
    """Pixels of the longer side of an image."""
    cells: int
    """Of all images of a request together."""
    upload_bytes: int
    upload_pixels: int
    waiting: int
    """Requests that may wait."""


class ModelInfo(BaseModel):
    """A model that is served."""

    name: str
    class_names: list[str]
    needs_label: bool
    """It was never trained without one."""
    size: tuple[int, int]
    """Height and width of its images in pixels."""
    grid: tuple[int, int]
    factor: int
    vocabulary_size: int
    """Codes; 0 if tokens are vectors."""
    channels: int
    """Numbers per vector; 0 if tokens are codes."""
    head: str
    believes: bool
    """Whether its head predicts the whole grid."""
    token_order: str
    """Of its training."""
    token_orders: list[str]
    """That sampling may follow without a warning."""
    sampling: dict[str, object]
    """Its defaults."""
    uncertainty_name: str
    parameters: int
    about: dict[str, str]
    """What is known of its weights: the step, held-out figures."""
    has_run: bool
    """Whether there is anything to tell of its training or evaluations: /api/models/NAME/run."""


class Served(BaseModel):
    """What this server offers."""

    version: str
    devices: list[str]
    models: list[ModelInfo]
    limits: Limits


class Curve(BaseModel):
    """A figure over the steps of training."""

    name: str
    steps: list[int]
    values: list[float]


class Evaluation(BaseModel):
    """What ``heptapod evaluate`` found."""

    name: str
    """Its folder."""
    steps: int | None
    token_order: str | None
    temperature: float | None
    count: int
    evaluator: str
    reference: str
    metrics: dict[str, float]


class Run(BaseModel):
    """The run folder of a model."""

    stage: str
    """"model", or "tokenizer" for the training of its tokenizer."""
    curves: list[Curve]
    grids: list[int]
    """Steps at which sample grids were drawn: /api/models/NAME/run/grids/STAGE/STEP."""
    settings: str
    """The resolved recipe (YAML)."""


class RunAnswer(BaseModel):
    """How a model was trained and what it is worth."""

    runs: list[Run]
    evaluations: list[Evaluation]
