"""The studio's HTTP API, and the page that uses it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.sse import EventSourceResponse, format_sse_event
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.types import Message, Receive, Scope, Send

from heptapod import __version__
from heptapod.inference.pipeline import Heptapod
from heptapod.studio import generating, runs, schemas
from heptapod.studio.job_queue import Ahead, Failure, FullError, JobQueue, Models, Ticket
from heptapod.studio.models import Collection, ServedModel
from heptapod.studio.security import Doorkeeper
from heptapod.studio.uploads import NotAnImageError, TooLargeError, read_upload

STATIC = Path(__file__).parent / "static"
LOOK_EVERY = 0.2
"""Seconds between looks at whether a client that waits for one answer is still there."""
SECONDS_TO_READ = 60
"""A client that takes nothing for so long is given up."""
MOST_ERRORS = 10
DESCRIPTION = """Draw images with a Heptapod model, see what it believes, ask it, edit with it.

Nothing is kept between requests: to continue an image, send the cells that are to stay. Images are drawn in turn; a
client that goes away frees its place. There is no guidance."""

ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong."},
    403: {"description": "Another site's page, or a host name that is not this server's."},
    404: {"description": "No such model, run or picture."},
    413: {"description": "More bytes, pixels or images than the server takes."},
    422: {"description": "A setting that does not exist, is out of range or does not fit the model."},
    429: {"description": "Too many requests are waiting."},
}
STREAM = """Server-sent events: `queued` (while waiting), `started`, a `step` for every state, and at the end `done` or
`failed`; their data are the JSON objects Queued, Started, StepEvent, Done, Failed."""


def create_app(
    collection: Collection, limits: schemas.Limits, token: str | None = None, names: Sequence[str] | None = ()
) -> FastAPI:
    """The server of a collection of models.

    Args:
        collection: the models.
        limits: what a request may ask for.
        token: what clients must show; None for no such thing.
        names: host names that it is called by, beside this machine's own; None for any.
    """
    queue = JobQueue(list(collection.devices), limits.waiting)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        queue.close()

    app = FastAPIOffline(
        title="Heptapod studio", version=__version__, description=DESCRIPTION, lifespan=lifespan, redoc_url=None,
        responses=ERRORS, max_body_size=2 * limits.upload_bytes,
    )  # fmt: skip
    app.state.queue = queue
    _add_models(app, collection, limits)
    _add_work(app, collection, limits, queue)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Doorkeeper, token=token, names=names)
    app.mount("/", StaticFiles(directory=STATIC, html=True, check_dir=False), name="page")
    return app


def _add_models(app: FastAPI, collection: Collection, limits: schemas.Limits) -> None:
    """What is served, and how it came about."""
    served = collection.served(limits)

    @app.get("/api/health", summary="Whether the server runs (needs no token)")
    async def health() -> dict[Literal["status"], Literal["ok"]]:
        return {"status": "ok"}

    @app.get("/api/models", summary="The models, their defaults, and what a request may ask for")
    async def models() -> schemas.Served:
        return served

    @app.get("/api/models/{name}/run", summary="Training curves, sample grids, evaluations")
    def run(name: schemas.Name) -> schemas.RunAnswer:
        folder = _model(collection, name).run
        folders = [*([folder] if folder else []), *collection.evaluations]
        found = schemas.RunAnswer(
            runs=runs.read_run(folder) if folder else [], evaluations=runs.read_evaluations(folders)
        )
        if not found.runs and not found.evaluations:
            raise HTTPException(404, f"{name}: no run folder, and no evaluations were named")
        return found

    @app.get(
        "/api/models/{name}/run/grids/{stage}/{step}",
        summary="A sample grid of training",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    def grid(name: schemas.Name, stage: Literal["model", "tokenizer"], step: int) -> Response:
        folder = _model(collection, name).run
        file = None if folder is None else runs.grid_file(folder, stage, step)
        if file is None:
            raise HTTPException(404, f"{name}: no sample grid of the {stage} at step {step}")
        return FileResponse(file, media_type="image/png")


def _add_work(app: FastAPI, collection: Collection, limits: schemas.Limits, queue: JobQueue) -> None:
    """What needs a device, and so a place in the line."""
    decoder = ThreadPoolExecutor(1)  # uploads are decoded one at a time, for the memory they take
    most_json = (8 << 20) + 8 * limits.side**2  # tokens of a large grid, and two pictures of the largest size in base64

    @app.post(
        "/api/generate",
        summary="Draw images, or continue them from known cells, state by state",
        response_class=Response,
        max_body_size=most_json,
        responses={200: {"description": STREAM, "content": {"text/event-stream": {}}}},
    )
    async def generate(request: schemas.GenerateRequest) -> Response:
        model = _model(collection, request.model)
        with _refusals():
            plan = generating.plan_generation(model.heptapod, request, limits)

        def work(models: Models) -> Iterator[bytes]:
            heptapod = models[request.model]
            yield _event("started", plan.started(heptapod))
            for state in generating.states(heptapod, plan, model.facts):
                yield _event("done" if isinstance(state, schemas.Done) else "step", state)

        with _refusals():
            return _Stream(queue.enter(work))

    @app.post(
        "/api/cell",
        summary="What the model believes of one unread cell",
        response_model=schemas.CellAnswer,
        max_body_size=most_json,
    )
    async def cell(request: Request, question: schemas.CellRequest) -> Response:
        with _refusals():
            generating.check_request(_model(collection, question.model).heptapod, question, limits)
        return await _one(queue, request, question.model, lambda one: generating.answer(one, question, limits))

    @app.post(
        "/api/encode",
        summary="An image file as the model sees it: fitted, as tokens, and what is left of it",
        response_model=schemas.Encoded,
    )
    async def encode(
        request: Request,
        file: Annotated[UploadFile, File(description="PNG, JPEG, WebP, GIF (its first picture), TIFF or BMP.")],
        model: Annotated[schemas.Name, Form(description="Name of a model.")],
        fit: Annotated[
            Literal["crop", "keep"],
            Form(description="crop: resize and crop the center to the model's size; keep: keep the image's size."),
        ] = "crop",
    ) -> Response:
        heptapod = _model(collection, model).heptapod
        content = await file.read()

        def read() -> tuple[Any, list[str]]:
            return read_upload(content, limits, heptapod, fit == "keep")

        with _refusals():
            picture, converted = await asyncio.get_running_loop().run_in_executor(decoder, read)
        return await _one(queue, request, model, lambda one: iter([generating.encode(one, picture, converted)]))


Compute = Callable[[Heptapod], Iterator[BaseModel | None]]


async def _one(queue: JobQueue, request: Request, model: str, compute: Compute) -> Response:
    """Waits for one answer; leaves the line when the client goes away."""

    def work(models: Models) -> Iterator[bytes | None]:
        for answer in compute(models[model]):
            yield None if answer is None else answer.model_dump_json().encode()

    with _refusals():
        ticket = queue.enter(work)
    answer = asyncio.ensure_future(_first(ticket))
    try:
        while not answer.done():
            await asyncio.wait({answer}, timeout=LOOK_EVERY)
            if not answer.done() and await request.is_disconnected():
                raise HTTPException(499, "the client went away")
        found = answer.result()
    finally:
        answer.cancel()
        ticket.leave()
    if isinstance(found, bytes):
        return Response(found, media_type="application/json")
    raise HTTPException(500 if found.is_ours else 422, found.detail)


async def _first(ticket: Ticket) -> bytes | Failure:
    async for result in ticket.results():
        if not isinstance(result, Ahead):
            return result
    return Failure("the server is being stopped", is_ours=True)


class _Stream(EventSourceResponse):
    """Sends what comes of a ticket; leaves the line when the client goes away."""

    def __init__(self, ticket: Ticket) -> None:
        super().__init__(_events(ticket), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self.ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_time(message: Message) -> None:
            await asyncio.wait_for(send(message), SECONDS_TO_READ)

        try:
            await super().__call__(scope, receive, in_time)
        except TimeoutError:
            pass  # it does not read; the connection is closed
        finally:
            self.ticket.leave()


async def _events(ticket: Ticket) -> AsyncIterator[bytes]:
    async for result in ticket.results():
        if isinstance(result, Ahead):
            yield _event("queued", schemas.Queued(ahead=result.count))
        elif isinstance(result, Failure):
            yield _event("failed", schemas.Failed(detail=result.detail))
        else:
            yield result


def _event(name: str, data: BaseModel) -> bytes:
    return format_sse_event(event=name, data_str=data.model_dump_json())


def _model(collection: Collection, name: str) -> ServedModel:
    if name not in collection.models:
        raise HTTPException(404, f"model: {name!r} given, served are {', '.join(collection.models)}")
    return collection.models[name]


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What a check refuses, as an answer."""
    try:
        yield
    except TooLargeError as error:
        raise HTTPException(413, str(error)) from None
    except NotAnImageError as error:
        raise HTTPException(415, str(error)) from None
    except FullError as error:
        raise HTTPException(429, str(error), {"Retry-After": "5"}) from None
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


async def _invalid(_: Request, error: Exception) -> Response:
    """The first of what is wrong with a request, without what was given: that may be anything, and long."""
    assert isinstance(error, RequestValidationError)
    wrong = [{"loc": one["loc"], "msg": one["msg"], "type": one["type"]} for one in error.errors()[:MOST_ERRORS]]
    return JSONResponse({"detail": wrong}, 422)
