"""Who may speak to Dagster's web server: an ASGI middleware around it, as the server itself asks nobody.

A browser sends whatever any open page asks for, so 127.0.0.1 keeps other machines out and pages of the web not. Dagster
runs mutations by GET and by forms, and looks at neither `Host` nor `Origin`. Here a request must name a host of
ours (a page that has its own name resolved to 127.0.0.1 does not), must not come from a page of another origin, and
GraphQL is taken as JSON by POST alone, which no page can send to another origin unasked.
"""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
DEFAULT_PORTS = (80, 443)
"""Ports that a browser leaves out of `Host` and `Origin`."""
OURS = ("same-origin", "none")
"""Values of `Sec-Fetch-Site` of requests of our own page, and of what a person typed."""
HEADERS = ((b"x-frame-options", b"DENY"), (b"cross-origin-resource-policy", b"same-origin"))
"""Sent with every answer: no other page shows ours in a frame, in which it could lead a click."""


class Refused(Exception):
    """Why a request is not passed on, as its sender is told."""


class WebGuard:
    """The middleware.

    Args:
        app: Dagster's web server, an ASGI application.
        host: Name or address that it listens on.
        port: Port that it listens on.
        allowed: further values of `Host`: `name`, for the ports 80 and 443, or `name:port`.
    """

    def __init__(self, app: Any, host: str, port: int, allowed: Iterable[str] = ()):
        self._app = app
        self._places = {(name, port) for name in (*LOOPBACK, host.lower())}
        for given in allowed:
            name, given_port = _place(given)
            self._places |= {(name, one) for one in ([given_port] if given_port else DEFAULT_PORTS)}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Pass a request on, or answer 403 with the reason; a WebSocket is closed before it is accepted."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._require_ours(scope)
        except Refused as refused:
            await _refuse(scope, send, str(refused))
            return

        async def with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        await self._app(scope, receive, with_headers)

    def _require_ours(self, scope: dict[str, Any]) -> None:
        """Raises Refused where host, origin or kind of a request is not one that the page itself would send."""
        headers = _Headers(scope["headers"])
        host = headers.one("host")
        if not self._is_ours(host):
            raise Refused(f"the host {host!r} is not one of this server's; `nait ui --allow-host NAME` adds one")
        origin = headers.one("origin")
        if origin and not self._is_ours(_host_of(origin)):
            raise Refused(f"a page of {origin!r} asked for this; only this server's own page may")
        site = headers.one("sec-fetch-site")
        if site and site not in OURS and not _is_link(scope, headers):
            raise Refused("a page of another origin asked for this; only this server's own page may")
        if scope["type"] == "http":
            _require_harmless(scope, headers)

    def _is_ours(self, host: str) -> bool:
        name, port = _place(host)
        return any((name, one) in self._places for one in ([port] if port else DEFAULT_PORTS))


class _Headers:
    """Headers of a request. One that is sent twice has no value that could be trusted: it reads as both."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]):
        self._pairs = list(pairs)

    def one(self, name: str) -> str:
        """The value of a header, "" without one."""
        return ", ".join(self.each(name))

    def each(self, name: str) -> list[str]:
        """The values of a header in their order: Dagster takes the first."""
        return [value.decode("latin-1") for key, value in self._pairs if key.lower() == name.encode()]


def _place(host: str) -> tuple[str, int | None]:
    """Name and port of `name:port`, `name`, `[::1]:port` or `::1`; ("", None) of what is none of these."""
    bare_address = host.count(":") > 1 and not host.startswith("[")
    try:
        parts = urlsplit(f"//[{host}]" if bare_address else f"//{host}")
        plain = not (parts.path or parts.query or parts.fragment or parts.username or parts.password)
        return ((parts.hostname or "").rstrip("."), parts.port) if plain else ("", None)
    except ValueError:
        return "", None


def _host_of(origin: str) -> str:
    scheme, separator, host = origin.partition("://")
    return host if separator and scheme in ("http", "https") else ""


def _is_link(scope: dict[str, Any], headers: _Headers) -> bool:
    """Whether a person followed a link of another page to one of ours: the answer is shown to nobody else."""
    return bool(
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and headers.one("sec-fetch-mode") == "navigate"
        and headers.one("sec-fetch-dest") == "document"
    )


def _require_harmless(scope: dict[str, Any], headers: _Headers) -> None:
    """Raises Refused where Dagster would take a request for more than its method and kind say."""
    path = "/" + scope["path"].strip("/")
    if path.startswith("/report_asset"):
        raise Refused("assets and checks are not reported from outside: their runs report them")
    if path != "/graphql":
        return
    if scope["method"] == "GET" and "text/html" in "".join(headers.each("accept")[:1]):
        return  # the page on which queries can be typed, which sends them by POST
    if scope["method"] != "POST":
        raise Refused("GraphQL is answered by POST alone: a page of another origin can make a browser GET anything")
    kind = headers.one("content-type").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused("GraphQL is taken as application/json in the body of a request, not from a form or an address")


async def _refuse(scope: dict[str, Any], send: Any, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    body = json.dumps({"error": f"nait ui: {reason}"}).encode()
    kind = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": 403, "headers": [*kind, *HEADERS]})
    await send({"type": "http.response.body", "body": body})
