"""The requests and answers of the studio's API, from which the types of the page are generated.

The server keeps nothing between requests. To continue an image, a client sends the cells to keep; so every answer can
be requested again, and memory does not grow with the number of users.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator
from typing_extensions import TypeAliasType

from heptapod.configs.grid import MAX_CELLS
from heptapod.distributions import CellSampling
from heptapod.sampling import SamplingConfig
from heptapod.utils.config import GUIDANCE
from heptapod.utils.optional import optional_fields

Cell = Annotated[int, Field(ge=0, lt=MAX_CELLS, description="Index of a cell: row · columns + column.")]
Cells = Annotated[list[Cell], Field(max_length=MAX_CELLS, fail_fast=True)]
Codes = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_CELLS, fail_fast=True)]
Values = TypeAliasType(
    "Values",
    Annotated[
        Codes | str,
        Field(description="Codes, one per cell; or continuous tokens, C channels per cell: base64 of float32 (LE)."),
    ],
)
Size = TypeAliasType("Size", Annotated[tuple[int, int], Field(description="Height and width.")])
Side = Annotated[int, Field(ge=1, lt=MAX_CELLS)]
MAX_FIELDS = 64
Png = Annotated[str, Field(description="A PNG file, base64.")]
Name = Annotated[str, Field(max_length=200)]


class Shape(BaseModel):
    """A part of a request. Unknown fields are an error: a misspelled setting is never ignored."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, values: object) -> object:
        """One error for many unknown fields, and for settings of guidance."""
        if isinstance(values, dict) and len(values) > MAX_FIELDS:
            raise ValueError(f"{len(values)} fields given, at most {MAX_FIELDS} are read")
        if isinstance(values, dict) and (guided := [name for name in GUIDANCE if name in values]):
            raise ValueError(f"{guided[0]}: there is no guidance; the model samples without it")
        return values


def _optional(cls: type[object]) -> type[Shape]:
    """The fields and limits of a sampling config, every field optional."""
    fields = {name: (kind, Field(None, description=doc)) for name, (kind, doc) in optional_fields(cls).items()}
    return create_model(cls.__name__, __base__=Shape, **fields)  # type: ignore[call-overload, no-any-return]


class CellOptions(_optional(CellSampling)):  # type: ignore[misc]
    """How one cell is sampled; a field that is left out is as the model was saved. There is no guidance."""


class SamplingOptions(_optional(SamplingConfig)):  # type: ignore[misc]
    """How images are sampled; a field that is left out is as the model was saved, null unsets steps, top_k or top_p."""


class Tokens(Shape):
    """Cells that are read, in reading order, and their tokens."""

    cells: Cells
    values: Values


class Known(Tokens):
    """Cells that are given, and their tokens."""

    in_order: bool = Field(
        False, description="Read them in this order, to continue an image; else in the token order of the model."
    )


class Composite(Shape):
    """Keeps the pixels of an image wherever the mask is black."""

    image: Png
    mask: Annotated[str, Field(description="A PNG file of the same size, base64: white where to repaint.")]


class ModelRequest(Shape):
    """The model of a request, a class and an image size."""

    model: Name = Field(description="Name of a model, as /api/models lists it.")
    label: Annotated[int, Field(ge=0, lt=1 << 31)] | Name | None = Field(None, description="A class; unset: no label.")
    size: tuple[Side, Side] | None = Field(
        None, description="Height and width in pixels, multiples of the tokenizer's factor; unset: the trained size."
    )


class GenerateRequest(ModelRequest):
    """New images, or images continued from known cells (a fork, a pinned choice, in- and outpainting)."""

    sampling: SamplingOptions = SamplingOptions()
    count: int = Field(1, ge=1, description="Number of images. Image i has seed + i.")
    seed: int = Field(0, ge=0, lt=1 << 53)
    known: Known | None = Field(None, description="Cells to keep, in every image.")
    composite: Composite | None = None
    frames: int = Field(64, ge=2, description="At how many evenly spaced states to show the predicted picture.")


class CellRequest(ModelRequest):
    """A request for the prediction of one unread cell."""

    known: Tokens
    cell: Cell
    sampling: CellOptions = CellOptions()
    top: int = Field(8, ge=1, le=32, description="Number of most likely codes, or of samples of a continuous token.")
    seed: int = Field(0, ge=0, lt=1 << 53, description="Seed of the samples of a continuous token.")


class Answer(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_serialization_defaults_required=True)


class Queued(Answer):
    """Event ``queued``: the request waits."""

    ahead: int
    """Requests that must end first."""


class Started(Answer):
    """Event ``started``: a device works on the request."""

    grid: Size
    """Rows and columns."""
    factor: int
    """Pixels per side of a cell."""
    label: int | None
    seeds: list[int]
    known: list[int]
    """Cells that are given."""
    steps: list[int]
    """Number of cells that each step fills."""
    sampling: SamplingConfig
    """The whole sampling config."""
    uncertainty_name: str
    """What ``uncertainty`` measures, with its unit."""
    warnings: list[str]
    """Parts of the request that the model was not trained for."""


class ImageState(Answer):
    """One image at one state."""

    cells: list[int]
    """The cells that this step fills, in reading order; none at the end."""
    values: Values
    """Their tokens."""
    picture: str | None
    """The most likely whole picture given the cells read before (PNG, base64); if the head does not predict the whole
    grid, a picture of those cells. Only at the states selected by ``frames``: the first, the last and some between."""
    uncertainty: list[float] | None
    """Of every cell, 0 for read cells; only at states with a picture, and only if the head predicts the whole grid."""


class StepEvent(Answer):
    """Event ``step``: a state, before its cells are filled. State 0 has read the known cells only, the last has all."""

    step: int
    images: list[ImageState]


class FinishedImage(Answer):
    """A finished image."""

    seed: int
    picture: str
    """PNG, base64."""
    record: dict[str, object]
    """Generates the same image again: ``heptapod sample --from FILE.json``."""


class Done(Answer):
    """Event ``done``: the finished images."""

    images: list[FinishedImage]
    seconds: float
    """Without waiting."""


class Failed(Answer):
    """Event ``failed``: the last event of a request that failed."""

    detail: str


StreamEvent = Queued | Started | StepEvent | Done | Failed
"""The data of a server-sent event."""


class Candidate(Answer):
    """A possible token of a cell."""

    values: Values
    """The token."""
    probability: float | None
    """At the temperature of the request; null for a continuous token, which is one of several samples."""
    picture: str
    """The cell and its neighbors (PNG, base64), the neighbors as predicted."""


class CellAnswer(Answer):
    """The prediction of a cell."""

    cell: int
    candidates: list[Candidate]
    """Codes by descending probability; of continuous tokens the mean, then samples."""
    rest: float | None
    """Total probability of all other codes."""
    uncertainty: float
    uncertainty_name: str
    mean: list[float] | None
    """Of continuous tokens, per channel."""
    spread: list[float] | None
    """Of continuous tokens, the standard deviation per channel."""
    offset: tuple[int, int]
    """Position of the cell in each picture: pixels from the top and from the left."""
    factor: int
    """Pixels per side of the cell."""


class Encoded(Answer):
    """An uploaded image as the model sees it."""

    size: Size
    """Height and width in pixels, as fitted."""
    grid: Size
    picture: str
    """As fitted (PNG, base64)."""
    reconstruction: str
    """As the tokenizer reconstructs it (PNG, base64)."""
    values: Values
    """Tokens of all cells in raster order."""
    converted: list[str]
    """Conversions that were made."""


class Limits(Answer):
    """The limits of the server."""

    count: int
    steps: int
    cell_steps: int = 1000
    """Solver steps per continuous token."""
    side: int
    """Pixels of the longer side of an image."""
    cells: int
    """Of all images of a request together."""
    upload_bytes: int
    upload_pixels: int
    waiting: int
    """Requests that may wait."""


class ModelInfo(Answer):
    """A model that is served."""

    name: str
    class_names: list[str]
    needs_label: bool
    """The model was never trained without a label."""
    size: Size
    """Height and width of its images in pixels."""
    grid: Size
    factor: int
    vocabulary_size: int
    """Codes; 0 if tokens are continuous."""
    channels: int
    """Channels of a continuous token; 0 if tokens are codes."""
    head: str
    believes: bool
    """Whether its head predicts the whole grid."""
    token_order: str
    """Of its training."""
    token_orders: list[str]
    """Orders that sampling may follow without a warning."""
    sampling: SamplingConfig
    """Its defaults."""
    uncertainty_name: str
    parameters: int
    about: dict[str, str]
    """Facts about its weights: the step, held-out figures."""
    has_run: bool
    """Whether /api/models/NAME/run has training curves or evaluations."""


class Served(Answer):
    """The models and limits of the server."""

    version: str
    devices: list[str]
    models: list[ModelInfo]
    limits: Limits


class Curve(Answer):
    """A figure over the steps of training."""

    name: str
    steps: list[int]
    values: list[float]


class Evaluation(Answer):
    """A result of ``heptapod evaluate``."""

    name: str
    """Its folder."""
    steps: int | None
    token_order: str | None
    temperature: float | None
    count: int
    evaluator: str
    reference: str
    metrics: dict[str, float]


class Run(Answer):
    """The run folder of a model."""

    stage: str
    """"model", or "tokenizer" for the training of its tokenizer."""
    curves: list[Curve]
    grids: list[int]
    """Steps with a sample grid: /api/models/NAME/run/grids/STAGE/STEP."""
    settings: str
    """The resolved recipe (YAML)."""


class RunAnswer(Answer):
    """The training and the evaluations of a model."""

    runs: list[Run]
    evaluations: list[Evaluation]
