"""Who is let in. Plain ASGI, so that streams pass through untouched."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Collection
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

HEALTH = "/api/health"
ASK_FOR_TOKEN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Heptapod studio</title>
<meta name="viewport" content="width=device-width"><style>body {{ font: 1rem system-ui; margin: 3rem 1rem }}</style>
<p>{message}</p><form action="/"><label>Token <input name="token" type="password"></label> <button>Open</button></form>
"""


def is_local(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Doorkeeper:
    """Refuses who has no token, comes by a foreign page, or calls a local server by a foreign name.

    Args:
        app: what is behind.
        token: asked for as ``Authorization: Bearer``, as a cookie, or once as ``/?token=``; None lets everyone in.
        names: the host names that it is called by, beside this machine's own; any other is one made to point here.
            None for all.
    """

    def __init__(self, app: ASGIApp, token: str | None, names: Collection[str] | None) -> None:
        self.app = app
        self.token = token
        self.names = names
        # Cookies are shared by all ports of a host: each studio has its own.
        self.cookie = f"heptapod_{hashlib.sha256((token or '').encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _host_name(host)
        if self.names is not None and name not in self.names and not is_local(name):
            return _error(403, f"host: {host[:100]!r} given, but this server answers to another name")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return _error(403, "origin: another site's page may not use this server")
        if self.token is None or scope["path"] == HEALTH:
            return None
        if scope["path"] == "/" and self._is_token(*parse_qs(scope["query_string"].decode("latin-1")).get("token", [])):
            answer = RedirectResponse("./", status_code=303)
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
            return answer
        cookie = cookie_parser(headers.get("cookie", "")).get(self.cookie, "")
        if self._is_token(headers.get("authorization", "").removeprefix("Bearer ").strip()) or self._is_token(cookie):
            return None
        message = "token: missing or wrong; open the address that the server printed when it was started"
        if "text/html" in headers.get("accept", ""):
            return HTMLResponse(ASK_FOR_TOKEN.format(message=message), 401)
        return _error(401, message)

    def _is_token(self, given: str = "", *_: str) -> bool:
        return self.token is not None and secrets.compare_digest(given.encode(), self.token.encode())


def _error(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status)


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
