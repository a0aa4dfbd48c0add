"""An endpoint that a stranger's recipe names: which keys it gets, over what, and how much of it is read."""

import json
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError

from nait_assets.resources.chat_endpoint import CallFailed, ChatEndpoint, EndpointClosed, EndpointOptions

KEY = "sk-SECRETKEY-of-somebody-1234"
CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
ANSWER = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE]}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        kind = self.path.split("/")[1]
        self.send_response(401 if kind == "masked" else 200)
        self.send_header("content-type", "application/json")
        if kind == "packed":
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        try:
            if kind == "long":
                for _ in range(200):
                    self.wfile.write(b"x" * 1_000_000)
            elif kind == "masked":
                said = f"Incorrect API key provided: {KEY[:10]}***, {'*' * 20}{KEY[-4:]}."
                self.wfile.write(json.dumps({"error": {"message": said}}).encode())
            else:
                self.wfile.write(json.dumps(ANSWER).encode())
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """The address of an endpoint, whose first folder says how it answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def asked(url: str) -> str:
    options = EndpointOptions(endpoint=url, model="m", retries=0)
    return ChatEndpoint(options, KEY, lambda: True).ask([{"role": "user", "content": "a"}]).text


def test_an_answer_is_read_to_a_limit(server: str) -> None:
    """Of 200 MB, ten are read."""
    assert asked(f"{server}/good") == "hi"
    tracemalloc.start()
    with pytest.raises(CallFailed, match="the answer has more than 10,000,000 bytes"):
        asked(f"{server}/long")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000


def test_an_answer_that_unpacks_to_more_is_not_unpacked(server: str) -> None:
    """A few kilobytes may be gigabytes."""
    with pytest.raises(CallFailed, match="the answer is compressed"):
        asked(f"{server}/packed")


def test_an_endpoint_that_shows_the_ends_of_the_key_is_not_quoted_with_them(server: str) -> None:
    """Messages stay in the event log."""
    with pytest.raises(EndpointClosed) as error:
        asked(f"{server}/masked")
    assert "Incorrect API key" in str(error.value)
    assert KEY[:4] not in str(error.value)
    assert KEY[-4:] not in str(error.value)


@pytest.mark.parametrize("name", ["AWS_SECRET", "HOME", "PATH", "DATABASE_URL", "KEY_OF_MINE"])
def test_only_keys_are_sent(name: str) -> None:
    """A recipe from elsewhere must not choose what of the environment leaves the machine."""
    with pytest.raises(ValidationError, match="end in _KEY or _TOKEN"):
        EndpointOptions(endpoint="https://theirs.example/v1", model="m", api_key_variable=name)


@pytest.mark.parametrize(
    "host", ["theirs.example", "10.0.0.1", "127.0.0.1.theirs.example", "localhost.example", "[2001:db8::1]"]
)
def test_no_key_goes_over_plain_http(host: str) -> None:
    """Whoever is on the way could read it; without a key plain http is what one wants."""
    with pytest.raises(ValidationError, match="over plain http"):
        EndpointOptions(endpoint=f"http://{host}/v1", model="m")
    assert EndpointOptions(endpoint=f"http://{host}/v1", model="m", api_key_variable=None)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_a_model_on_this_machine_may_have_a_key(host: str) -> None:
    """It stays on the machine."""
    assert EndpointOptions(endpoint=f"http://{host}:8000/v1", model="m", api_key_variable="VLLM_API_KEY")
