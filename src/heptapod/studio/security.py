"""Who is let in. Plain ASGI, so that streams pass through untouched."""

from __future__ import annotations

import ipaddress
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

COOKIE = "heptapod_token"
HEALTH = "/api/health"


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
        only_local: the server listens on this machine only, so that any other host name is one made to point here.
    """

    def __init__(self, app: ASGIApp, token: str | None, only_local: bool) -> None:
        self.app = app
        self.token = token
        self.only_local = only_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.only_local and not is_local(_host_name(host)):
            return _error(403, f"host: {host[:100]!r} given, but this server answers to localhost and 127.0.0.1 only")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return _error(403, "origin: another site's page may not use this server")
        if self.token is None or scope["path"] == HEALTH:
            return None
        if scope["path"] == "/" and self._is_token(*parse_qs(scope["query_string"].decode("latin-1")).get("token", [])):
            answer = RedirectResponse("./", status_code=303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            return answer
        given = [headers.get("authorization", "").removeprefix("Bearer ").strip(), _cookie(headers.get("cookie", ""))]
        if any(self._is_token(one) for one in given):
            return None
        message = "token: missing or wrong; open the address that the server printed when it was started"
        if "text/html" in headers.get("accept", ""):
            return PlainTextResponse(message, 401)
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


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
