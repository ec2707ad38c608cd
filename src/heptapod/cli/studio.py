"""``heptapod studio``."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import secrets
import socket
import warnings
import webbrowser
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from heptapod.configs.grid import MAX_CELLS
from heptapod.configs.sampling import Precision
from heptapod.utils.arguments import parse_function
from heptapod.utils.checks import BatchSize
from heptapod.utils.messages import shown

if TYPE_CHECKING:
    from fastapi import FastAPI

LAST_PORT = 65535
MAX_MEGAPIXELS = 178


def studio(arguments: list[str]) -> None:
    """Parses arguments and serves the studio."""
    parse_function(serve, "studio", arguments)()


def serve(
    models: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL ...")]],
    host: str = "127.0.0.1",
    port: Annotated[int, Field(ge=0, le=LAST_PORT)] = 8000,
    token: str | None = None,
    allow_host: tuple[str, ...] = (),
    device: tuple[str, ...] = ("auto",),
    precision: Precision = "auto",
    evaluations: tuple[str, ...] = (),
    max_count: BatchSize = 16,
    max_steps: Annotated[int, Field(ge=1, le=MAX_CELLS)] = 1024,
    max_cell_steps: Annotated[int, Field(ge=1, le=10_000)] = 1000,
    max_side: Annotated[int, Field(ge=1, le=16_384)] = 1024,
    max_cells: Annotated[int, Field(ge=1, le=1_000_000_000)] = 16384,
    max_waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 64,
    max_upload_mb: Annotated[int, Field(ge=1, le=10_000)] = 20,
    max_upload_megapixels: Annotated[int, Field(ge=1, le=MAX_MEGAPIXELS)] = 50,
    browser: bool = False,
) -> None:
    """Serves a page that shows the predictions of models while they sample: generate, query, edit, compare, understand.

    Everything works offline. The page uses an HTTP API, described at /docs, which other programs may use too.
    Requests wait in one queue; every device runs one at a time.

    Args:
        models: Folders of models or runs. A run uses its best weights and shows its training curves too.
        host: Address to listen on. Any address other than 127.0.0.1 needs a token.
        port: Port to listen on; 0 selects a free port.
        token: Token that clients must send. By default there is no token on 127.0.0.1; on any other address a random
            token is generated and printed with the address.
        allow_host: Host names under which a proxy reaches the server on 127.0.0.1. The proxy must forward the Host
            header. A token is then required.
        device: auto, cpu, cuda, ... Several devices (cuda:0 cuda:1) work in parallel, each with all models.
        precision: Precision of the models: float32, bfloat16, float16, or auto: bfloat16 on a GPU, and on a CPU where
            it is measured to be faster.
        evaluations: More folders with results of heptapod evaluate.
        max_count: Images per request.
        max_steps: Sampling steps per request.
        max_cell_steps: Solver steps per continuous token.
        max_side: Pixels of the longer side of an image.
        max_cells: Cells of all images of a request together.
        max_waiting: Requests that may wait; further requests are rejected.
        max_upload_mb: Megabytes of an uploaded file.
        max_upload_megapixels: Millions of pixels of an uploaded image.
        browser: Open the page.
    """
    from PIL import Image

    from heptapod.distributed.device import resolve_device

    _check(models, token)
    try:
        import uvicorn

        from heptapod.studio.app import create_app
        from heptapod.studio.models import load_models
        from heptapod.studio.schemas import Limits
        from heptapod.studio.security import is_local
    except ModuleNotFoundError as error:
        raise ValueError(
            f"studio: needs {error.name}, which is not installed; pip install 'heptapod[studio]'"
        ) from None
    if allow_host and not is_local(host):
        raise ValueError(
            f"allow_host: {shown(allow_host[0])} given, but a server on {host} takes requests of every host name; "
            "give it with --host 127.0.0.1, behind a proxy"
        )
    if token is None and (allow_host or not is_local(host)):
        token = secrets.token_urlsafe(16)
    with _listen(host, port) as listening:
        collection = load_models(models, [resolve_device(name) for name in device], evaluations, precision)
        allowed = Limits(
            count=max_count, steps=max_steps, cell_steps=max_cell_steps, side=max_side, cells=max_cells,
            waiting=max_waiting,
            upload_bytes=max_upload_mb * 1_000_000, upload_pixels=max_upload_megapixels * 1_000_000,
        )  # fmt: skip
        app: FastAPI = create_app(collection, allowed, token, allow_host if is_local(host) else None)
        url_host = f"[{host}]" if ":" in host else host
        address = f"http://{url_host}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")
        print(
            f"{', '.join(collection.models)} on {', '.join(collection.device_names)}: {address}  (stop with Ctrl+C)",
            flush=True,
        )
        if browser:
            webbrowser.open(address)
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # uploads have a limit of pixels
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _check(models: tuple[str, ...], token: str | None) -> None:
    if not models:
        raise ValueError("models: none given; name the folder of a model or of a run")
    if token is not None and not re.fullmatch(r"[A-Za-z0-9._~-]{8,}", token):
        raise ValueError("token: must have at least 8 characters out of letters, digits and . _ ~ -")


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, opened before models are loaded so that a wrong address is reported at once."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except socket.gaierror:
        raise ValueError(f"host: {host} given, which is no address of this machine") from None
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(f"host: {host} given, which is no address of this machine") from None
        raise ValueError(
            f"port: {host}:{port} cannot be listened on ({error.strerror}); choose another --port"
        ) from None
    return listening
