"""The guard around Dagster's web server: what a browser sends for our page passes, what for another's does not."""

import asyncio
from typing import Any

import pytest

from nait_assets.cli.web_guard import WebGuard

JSON = {"content-type": "application/json"}
OWN = {"host": "127.0.0.1:3000", "origin": "http://127.0.0.1:3000", "sec-fetch-site": "same-origin"}
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def _answers(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"Dagster"})


def asked(
    method: str = "POST",
    path: str = "/graphql",
    query: str = "",
    headers: dict[str, str] | list[tuple[str, str]] = {},  # noqa: B006
    kind: str = "http",
    allowed: tuple[str, ...] = (),
    host: str = "127.0.0.1",
) -> list[dict[str, Any]]:
    """What the guard of port 3000 sends to a request."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    pairs = headers.items() if isinstance(headers, dict) else headers
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in pairs],
    }
    asyncio.run(WebGuard(_answers, host, 3000, allowed)(scope, None, send))
    return sent


def passes(*arguments: Any, **fields: Any) -> bool:
    """Whether a request reaches Dagster."""
    return bool(asked(*arguments, **fields)[-1].get("body") == b"Dagster")


@pytest.mark.parametrize(
    ("method", "path", "headers", "kind"),
    [
        ("POST", "/graphql", {**OWN, **JSON}, "http"),
        ("POST", "/graphql", {**OWN, "content-type": "application/json; charset=utf-8"}, "http"),
        ("GET", "/graphql", OWN, "websocket"),
        ("GET", "/runs/1", {"host": "localhost:3000", "sec-fetch-site": "none"}, "http"),
        ("GET", "/assets/scoring", {"host": "127.0.0.1:3000", **LINK}, "http"),  # a link in a chat
        ("GET", "/graphql", {**OWN, "accept": "text/html"}, "http"),  # the page to type queries on
        ("POST", "/graphql", {"host": "[::1]:3000", **JSON}, "http"),
        ("POST", "/graphql", {"host": "127.0.0.1:3000", **JSON}, "http"),  # a program that is no browser
    ],
)
def test_what_our_own_page_and_programs_send_passes(method: str, path: str, headers: Any, kind: str) -> None:
    """A guard that refused the page itself would be switched off."""
    assert passes(method, path, headers=headers, kind=kind)


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:3000", "127.0.0.1:3001", "127.0.0.1", "", "x@"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_host_that_is_not_ours_is_refused(host: str, kind: str) -> None:
    """A page whose own name was made to mean 127.0.0.1 is of one origin with the server, and would read all of it."""
    same = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin", **JSON}
    assert not passes(headers=same, kind=kind)
    assert not passes("GET", "/runs", headers={"host": host}, kind=kind)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:3000@attacker.example", "localhost:3000/x", "127.0.0.1:3000, attacker.example", "127.0.0.1:x"]
)
def test_a_host_that_can_be_read_in_two_ways_is_refused(host: str) -> None:
    """What two programs read differently is a way past one of them."""
    assert not passes(headers={"host": host, **JSON})


def test_two_hosts_are_none() -> None:
    """Which of them counts would be a guess."""
    assert not passes(headers=[("host", "127.0.0.1:3000"), ("host", "attacker.example"), *JSON.items()])


@pytest.mark.parametrize(
    "origin",
    ["http://attacker.example", "null", "http://127.0.0.1:8000", "http://localhost", "file://", "ftp://127.0.0.1:3000"],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_another_origin_is_refused(origin: str, kind: str) -> None:
    """Another port of this machine is another program's page; a frame without rights and a file are nobody's."""
    assert not passes(headers={"host": "127.0.0.1:3000", "origin": origin, **JSON}, kind=kind)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "unheard-of"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_request_that_the_browser_calls_foreign_is_refused(site: str, kind: str) -> None:
    """A picture's request has no origin; what the browser says of its site is all that tells it."""
    foreign = {"host": "127.0.0.1:3000", "sec-fetch-site": site}
    assert not passes("GET", "/runs", headers={**foreign, "sec-fetch-dest": "image"}, kind=kind)
    assert not passes("GET", "/runs", headers={**foreign, **LINK, "sec-fetch-dest": "iframe"}, kind=kind)
    assert not passes(headers={**foreign, **LINK, **JSON, "sec-fetch-site": site}, kind=kind)  # a form that was sent


@pytest.mark.parametrize("path", ["/graphql", "/graphql/", "//graphql"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_graphql_is_answered_by_post_alone(method: str, path: str) -> None:
    """Any page makes a browser GET any address; Dagster would run the mutation in it, even behind a link."""
    assert not passes(method, path, "query=mutation{x}", headers={"host": "127.0.0.1:3000"})
    assert not passes(method, path, "query=mutation{x}", headers={"host": "127.0.0.1:3000", **LINK})


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "text/plain; application/json", "application/graphql"],
)
def test_graphql_is_taken_as_json_alone(kind: str) -> None:
    """Any page may post a form or plain text to another origin; of these Dagster runs the query in the address."""
    assert not passes("POST", "/graphql", "query=mutation{x}", headers={"host": "127.0.0.1:3000", "content-type": kind})


@pytest.mark.parametrize("what", ["check", "materialization", "observation"])
def test_nothing_is_reported_from_outside(what: str) -> None:
    """One address would turn the audit's check green without a run."""
    assert not passes("POST", f"/report_asset_{what}/audit/lineage_audit", "passed=true", headers={**OWN, **JSON})


def test_a_proxy_and_a_tunnel_are_allowed_by_name() -> None:
    """The proxy's name with the ports that a browser leaves out, and no other; a tunnel's port where it is given."""
    proxied = {"host": "nait.example", "origin": "https://nait.example", **JSON}
    assert not passes(headers=proxied)
    assert passes(headers=proxied, allowed=("nait.example",))
    assert passes(headers={**proxied, "host": "127.0.0.1:3000"}, allowed=("NAIT.example",))  # a proxy that renames
    assert not passes(headers={**proxied, "origin": "https://nait.example:8443"}, allowed=("nait.example",))
    tunnel = {"host": "localhost:8000", "origin": "http://localhost:8000", **JSON}
    assert passes(headers=tunnel, allowed=("localhost:8000",))
    assert not passes(headers=tunnel)


def test_the_name_that_the_server_listens_on_is_ours() -> None:
    """Who gave `--host` a name reaches the server by it."""
    named = {"host": "gpu-box:3000", "origin": "http://gpu-box:3000", **JSON}
    assert passes(headers=named, host="GPU-box")
    assert not passes(headers=named)


def test_a_refusal_says_why_and_every_answer_forbids_frames() -> None:
    """A person behind a new proxy must learn the option; a click must not be led through an invisible frame."""
    start, body = asked(headers={"host": "nait.example", **JSON})
    assert start["status"] == 403
    assert b"--allow-host" in body["body"]
    for answer in (start, asked(headers={**OWN, **JSON})[0]):
        assert (b"x-frame-options", b"DENY") in answer["headers"]


def test_what_starts_and_ends_the_server_passes() -> None:
    """ASGI's lifespan is no request."""
    assert passes(kind="lifespan")


def test_of_a_header_that_is_sent_twice_the_guard_reads_what_dagster_reads() -> None:
    """Dagster takes the first `Accept`, and ran a query of the address where only the second asked for a page."""
    query = "query=mutation{x}"
    twice = [*OWN.items(), ("accept", "application/json"), ("accept", "text/html")]
    assert not passes("GET", "/graphql", query, headers=twice)
    for name in ("host", "origin", "content-type"):
        given = {**OWN, **JSON, "origin": "http://localhost:3000"}
        assert not passes(headers=[*given.items(), (name, given[name])])
