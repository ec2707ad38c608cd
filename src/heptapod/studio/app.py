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
from heptapod.studio.job_queue import Failure, Job, JobQueue, Models, QueueFullError, Waiting
from heptapod.studio.models import Collection, ServedModel
from heptapod.studio.security import AccessControl
from heptapod.studio.uploads import NotAnImageError, TooLargeError, read_upload

STATIC = Path(__file__).parent / "static"
DISCONNECT_CHECK = 0.2
"""Seconds between two checks whether a client that waits for one answer is still connected."""
SEND_TIMEOUT = 60
"""Seconds after which a client that reads nothing is disconnected."""
MAX_ERRORS = 10
DESCRIPTION = """Generate images with a Heptapod model, show its predictions of the whole grid, query and edit.

The server keeps nothing between requests: to continue an image, send the cells to keep. Requests wait in a queue; a
client that disconnects frees its place. There is no guidance."""

ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong."},
    403: {"description": "The request comes from the page of another site, or uses an unknown host name."},
    404: {"description": "No such model, run or picture."},
    413: {"description": "More bytes or pixels than the server accepts."},
    422: {"description": "A setting that does not exist, is out of range or is not supported by the model."},
    429: {"description": "Too many requests are waiting."},
}
STREAM = """Server-sent events: `queued` (while waiting), `started`, a `step` for every state, and at the end `done` or
`failed`. Their data are the JSON objects Queued, Started, StepEvent, Done, Failed."""


class EventStream(Response):
    """The media type of server-sent events, for the OpenAPI description."""

    media_type = "text/event-stream"


def create_app(
    collection: Collection, limits: schemas.Limits, token: str | None = None, names: Sequence[str] | None = ()
) -> FastAPI:
    """The server of a collection of models.

    Args:
        collection: the models.
        limits: the limits of a request.
        token: the token that clients must send; None for no token.
        names: host names of the server other than those of this machine; None allows any.
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
    app.add_middleware(AccessControl, token=token, names=names)
    app.mount("/", StaticFiles(directory=STATIC, html=True, check_dir=False), name="page")
    return app


def _add_models(app: FastAPI, collection: Collection, limits: schemas.Limits) -> None:
    """Adds the models, their training and their evaluations."""
    served = collection.served(limits)

    @app.get("/api/health", summary="Whether the server runs (needs no token)")
    async def health() -> dict[Literal["status"], Literal["ok"]]:
        return {"status": "ok"}

    @app.get("/api/models", summary="The models, their defaults, and the limits of a request")
    async def models() -> schemas.Served:
        return served

    @app.get("/api/models/{name}/run", summary="Training curves, sample grids, evaluations")
    def run(name: schemas.Name) -> schemas.RunAnswer:
        folder = _model(collection, name).run
        folders = [*([folder] if folder else []), *collection.evaluations]
        answer = schemas.RunAnswer(
            runs=runs.read_run(folder) if folder else [], evaluations=runs.read_evaluations(folders)
        )
        if not answer.runs and not answer.evaluations:
            raise HTTPException(404, f"{name}: no run folder and no evaluations")
        return answer

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
    """Adds what needs a device and so a place in the queue."""
    decoder = ThreadPoolExecutor(1)  # one upload at a time, to bound memory
    max_json = (8 << 20) + 8 * limits.side**2  # tokens of a large grid, and two pictures of the largest size in base64

    @app.post(
        "/api/generate",
        summary="Generate images, or continue them from known cells, state by state",
        response_class=EventStream,
        max_body_size=max_json,
        responses={200: {"description": STREAM, "model": schemas.StreamEvent}},
    )
    async def generate(request: schemas.GenerateRequest) -> Response:
        model = _model(collection, request.model)
        with _http_errors():
            plan = generating.plan_generation(model.heptapod, request, limits)

        def work(models: Models) -> Iterator[bytes]:
            heptapod = models[request.model]
            yield _event("started", plan.started(heptapod))
            for state in generating.states(heptapod, plan, model.facts):
                yield _event("done" if isinstance(state, schemas.Done) else "step", state)

        with _http_errors():
            return _Stream(queue.submit(work))

    @app.post(
        "/api/cell",
        summary="The prediction of one unread cell",
        response_model=schemas.CellAnswer,
        max_body_size=max_json,
    )
    async def cell(request: Request, query: schemas.CellRequest) -> Response:
        with _http_errors():
            generating.check_request(_model(collection, query.model).heptapod, query, limits)
        return await _answer(queue, request, query.model, lambda heptapod: generating.answer(heptapod, query, limits))

    @app.post(
        "/api/encode",
        summary="Encode an image file: fitted, as tokens, and reconstructed",
        response_model=schemas.Encoded,
    )
    async def encode(
        request: Request,
        file: Annotated[UploadFile, File(description="PNG, JPEG, WebP, GIF (the first picture), TIFF or BMP.")],
        model: Annotated[schemas.Name, Form(description="Name of a model.")],
        fit: Annotated[
            Literal["crop", "keep"],
            Form(description="crop: resize and crop the center to the image size of the model; keep: keep the size."),
        ] = "crop",
    ) -> Response:
        heptapod = _model(collection, model).heptapod
        content = await file.read()

        def read() -> tuple[Any, list[str]]:
            return read_upload(content, limits, heptapod, fit == "keep")

        with _http_errors():
            picture, converted = await asyncio.get_running_loop().run_in_executor(decoder, read)
        return await _answer(
            queue, request, model, lambda heptapod: iter([generating.encode(heptapod, picture, converted)])
        )


Compute = Callable[[Heptapod], Iterator[BaseModel | None]]


async def _answer(queue: JobQueue, request: Request, model: str, compute: Compute) -> Response:
    """Waits for one answer; cancels the job if the client disconnects."""

    def work(models: Models) -> Iterator[bytes | None]:
        for answer in compute(models[model]):
            yield None if answer is None else answer.model_dump_json().encode()

    with _http_errors():
        job = queue.submit(work)
    answer = asyncio.ensure_future(_first(job))
    try:
        while not answer.done():
            await asyncio.wait({answer}, timeout=DISCONNECT_CHECK)
            if not answer.done() and await request.is_disconnected():
                raise HTTPException(499, "the client disconnected")
        result = answer.result()
    finally:
        answer.cancel()
        job.cancel()
    if isinstance(result, bytes):
        return Response(result, media_type="application/json")
    raise HTTPException(500 if result.is_server_error else 422, result.detail)


async def _first(job: Job) -> bytes | Failure:
    async for result in job.results():
        if not isinstance(result, Waiting):
            return result
    return Failure("the server is shutting down", is_server_error=True)


class _Stream(EventSourceResponse):
    """Sends the events of a job; cancels it if the client disconnects."""

    def __init__(self, job: Job) -> None:
        super().__init__(_events(job), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            await asyncio.wait_for(send(message), SEND_TIMEOUT)

        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            pass  # the client does not read; the connection is closed
        finally:
            self.job.cancel()


async def _events(job: Job) -> AsyncIterator[bytes]:
    async for result in job.results():
        if isinstance(result, Waiting):
            yield _event("queued", schemas.Queued(ahead=result.ahead))
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
def _http_errors() -> Iterator[None]:
    """Turns the errors of a check into HTTP errors."""
    try:
        yield
    except TooLargeError as error:
        raise HTTPException(413, str(error)) from None
    except NotAnImageError as error:
        raise HTTPException(415, str(error)) from None
    except QueueFullError as error:
        raise HTTPException(429, str(error), {"Retry-After": "5"}) from None
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


async def _invalid(_: Request, error: Exception) -> Response:
    """The first errors of a request, without the values given, which may be of any kind and length."""
    assert isinstance(error, RequestValidationError)
    details = [{key: entry[key] for key in ("loc", "msg", "type")} for entry in error.errors()[:MAX_ERRORS]]
    return JSONResponse({"detail": details}, 422)
