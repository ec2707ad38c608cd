"""Access control. Plain ASGI, so that streams pass through unchanged."""

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
TOKEN_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Heptapod studio</title>
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


class AccessControl:
    """Rejects requests without the token, from the page of another site, or with an unknown host name.

    Args:
        app: the application behind it.
        token: required as ``Authorization: Bearer``, as a cookie, or once as ``/?token=``; None allows everyone.
        names: the host names of the server other than those of this machine; any other may be DNS rebinding. None
            allows all.
    """

    def __init__(self, app: ASGIApp, token: str | None, names: Collection[str] | None) -> None:
        self.app = app
        self.token = token
        self.names = names
        # Cookies are shared by all ports of a host: each studio has its own.
        self.cookie = f"heptapod_{hashlib.sha256((token or '').encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forwards a request, or answers it."""
        rejection = self._rejection(scope) if scope["type"] == "http" else None
        await (rejection or self.app)(scope, receive, send)

    def _rejection(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _host_name(host)
        if self.names is not None and name not in self.names and not is_local(name):
            return _error(403, f"host: {host[:100]!r} given, but this server has another name")
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
            return HTMLResponse(TOKEN_PAGE.format(message=message), 401)
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
