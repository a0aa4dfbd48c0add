"""A judge on this machine: an HTTP server that speaks as much of the API as tests need, and keeps what it is asked."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from nait_assets_tests.local_server import LocalServer

Reply = tuple[int, dict[str, str], Any]
"""Status, headers, and the body, to be written as JSON unless it is text."""


def says(text: str, usage: bool = True, finish: str = "stop") -> Reply:
    """A good reply with an answer of 30 tokens to a question of 100."""
    body: dict[str, Any] = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "judge-0301",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
    }
    if usage:
        body["usage"] = {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130}
    return 200, {}, body


def fails(status: int, message: str = "no", code: str | None = None, retry_after: str | None = None) -> Reply:
    """A bad one."""
    return status, {"Retry-After": retry_after} if retry_after else {}, {"error": {"message": message, "code": code}}


@dataclass
class Judge:
    """What a server does, and what it has seen.

    Attributes:
        reply: From the number of the call, counted from 1, and the text of the user's message.
        delay_seconds: Before each reply.
        questions: Texts of the user's messages, in the order in which they came.
        at_once: Most calls that were under way at the same time.
        times: When they came.
        bodies: Of all calls.
        headers: Of the latest call, names in small letters.
        url: Where the server listens.
    """

    reply: Callable[[int, str], Reply]
    delay_seconds: float = 0.0
    questions: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    at_once: int = 0
    url: str = ""
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        """The reply to a call, which is noted."""
        with self._lock:
            question = body["messages"][-1]["content"]
            self.questions.append(question)
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.headers = headers
            number = len(self.questions)
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        time.sleep(self.delay_seconds)
        with self._lock:
            self._now -= 1
        return self.reply(number, question)


@contextmanager
def serving(judge: Judge) -> Iterator[Judge]:
    """The judge behind an address of the loopback, for the length of a block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, reply = judge.answer(body, {name.lower(): value for name, value in self.headers.items()})
            content = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Type" not in headers:
                    self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # the client did not wait
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            return None

    server = LocalServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
