"""A language model behind an OpenAI-compatible API: one question, one answer, tried again where that can help.

Belongs here: the key, the calls, the waiting between them, and which failures are whose. Does not belong here: what is
asked and what an answer means. The key is read from the environment for each run, and is in no text that leaves here.
"""

import ipaddress
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from nait_assets.errors import SetupError
from nait_assets.recipe import Section

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 600.0
"""That an endpoint may ask for; with more, the run ends, and continues when it is started again."""
MOST_ANSWER_BYTES = 10_000_000
"""Of an answer as it is sent, and as it is once unpacked."""
SHOWN_KEY = 4
"""Characters of the key in a row that hide what stands around them: an endpoint may show the key's ends."""
EXCERPT = 300
"""Characters of an endpoint's message that are shown."""
ADVICE = {
    401: "the key is refused; look at {variable}",
    402: "the endpoint wants to be paid first",
    403: "the key may not use this model; look at {variable}",
    404: "no such model or address; look at `model` and `endpoint`, which often ends in /v1",
}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class EndpointOptions(Section):
    """A model behind an OpenAI-compatible API, and the patience with it.

    Fields that cannot change an answer are left out of fingerprints (`exclude`): setting them asks nothing again.
    """

    endpoint: str = Field(exclude=True, description="Base URL of an OpenAI-compatible API, such as one ending in /v1.")
    model: str = Field(min_length=1, description="Name of the model at the endpoint.")
    temperature: float | None = Field(
        0.0, ge=0, le=2, description="Temperature of the answers; null omits it, for models that refuse it."
    )
    api_key_variable: str | None = Field(
        "OPENAI_API_KEY", exclude=True, description="Environment variable with the key; null where none is needed."
    )
    timeout_seconds: float = Field(60.0, gt=0, exclude=True, description="Seconds that a call may take.")
    retries: int = Field(5, ge=0, exclude=True, description="Tries after the first, where it is busy or fails.")
    max_answer_tokens: int | None = Field(
        512, ge=8, exclude=True, description="Most tokens of an answer; null omits it, for models that refuse it."
    )

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_a_url(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if parts.username or parts.password:
            raise ValueError("the endpoint must not hold a name or password; put the key in `api_key_variable`")
        try:
            has_port = parts.port is None or parts.port > 0
        except ValueError:  # such as `:80:80`
            has_port = False
        if parts.scheme not in ("http", "https") or not parts.hostname or not has_port or parts.query or parts.fragment:
            raise ValueError(
                f"{endpoint!r} is not the base URL of an API; use one such as http://localhost:8000/v1 "
                "or https://api.openai.com/v1"
            )
        return endpoint

    @field_validator("api_key_variable")
    @classmethod
    def _key_is_named_and_not_given(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):  # what is there may be a key: do not show
            raise ValueError("this must be the name of an environment variable, such as OPENAI_API_KEY, never a key")
        if name is not None and not name.endswith(("_KEY", "_TOKEN")):
            raise ValueError(
                f"{name} is sent to the endpoint: only variables whose names end in _KEY or _TOKEN are; put the "
                "endpoint's key into one"
            )
        return name

    @model_validator(mode="after")
    def _key_is_not_sent_in_the_clear(self) -> "EndpointOptions":
        parts = urlsplit(self.endpoint)
        if self.api_key_variable is not None and parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            raise ValueError(
                f"{self.endpoint} would get the key over plain http, for all to read on the way; use https, or "
                "`api_key_variable: null` where it needs no key"
            )
        return self


class EndpointClosed(RuntimeError):
    """No question can be asked at the endpoint as things are; the message says why."""


class CallFailed(RuntimeError):
    """The endpoint did not answer a question, however often it was asked: it is busy, broken or slow."""


class QuestionRefused(RuntimeError):
    """The endpoint refuses this question, and would again."""


class NoPermit(RuntimeError):
    """The run stops, or has spent what it may."""


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        text: What the model wrote; "" where it wrote nothing.
        model: Name of the model that answered, as the endpoint has it.
        finish: Why the answer ended, as the endpoint says.
        n_prompt_tokens: Tokens of the question; None where the endpoint does not say.
        n_answer_tokens: Tokens of the answer; None where the endpoint does not say.
    """

    text: str
    model: str
    finish: str
    n_prompt_tokens: int | None
    n_answer_tokens: int | None


def host_of(endpoint: str) -> str:
    """The host of a base URL, without port and path: who answers, wherever it listens."""
    return urlsplit(endpoint).hostname or endpoint


def key_of(options: EndpointOptions, section: str) -> str | None:
    """The key from the environment; None where the endpoint needs none.

    Args:
        options: The section of the recipe.
        section: Its name, for errors.

    Raises:
        SetupError: The variable is not set, or holds what no key can be.
    """
    name = options.api_key_variable
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    where = f"{section}.api_key_variable: the environment variable {name}"
    if not key:
        raise SetupError(
            f"{where} is not set. Put {name}=... in front of the command, name another variable, or use "
            "`api_key_variable: null` if the endpoint needs no key."
        )
    if not key.isascii() or any(character.isspace() or not character.isprintable() for character in key):
        raise SetupError(f"{where} contains white space or characters that no key has. Set it to the key alone.")
    return key


@dataclass
class ChatEndpoint:
    """An endpoint that several threads ask.

    Attributes:
        options: Section of the recipe.
        key: The secret, or None.
        permit: Asked before every call; where it says no, there is none.
        stopped: Set when the run ends: whoever waits, stops waiting.
    """

    options: EndpointOptions
    key: str | None = field(repr=False)
    permit: Callable[[], bool]
    stopped: threading.Event = field(default_factory=threading.Event)
    _not_before: float = 0.0

    def __post_init__(self) -> None:
        import openai

        self._client = openai.OpenAI(
            base_url=self.options.endpoint,
            api_key=self.key or "none",
            timeout=self.options.timeout_seconds,
            max_retries=0,  # the client's own would not be counted
            http_client=_bounded_client(by_proxy=not _is_loopback(urlsplit(self.options.endpoint).hostname or "")),
        )

    def ask(self, messages: Sequence[dict[str, str]]) -> Answer:
        """The answer to a conversation.

        Raises:
            EndpointClosed: Nothing can be asked: the key, the model or the address is wrong, or nobody listens.
            CallFailed: Every try failed.
            QuestionRefused: This question is refused.
            NoPermit: The run stops, or has spent what it may.
        """
        import tenacity

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            wait=self._pause_seconds,
            stop=tenacity.stop_after_attempt(self.options.retries + 1),
            sleep=tenacity.sleep_using_event(self.stopped),
            reraise=True,
        )
        try:
            return retrying(self._try, messages)
        except _Again as problem:
            if problem.nobody_there:
                raise EndpointClosed(f"{self.options.endpoint} cannot be reached: {problem}") from None
            raise CallFailed(f"{problem}, {self.options.retries + 1} time(s)") from None

    def close(self) -> None:
        """End all connections."""
        self._client.close()

    def _pause_seconds(self, state: Any) -> float:
        """Seconds between two tries, twice as many each time; what the endpoint asks for holds for every thread."""
        import tenacity

        after_seconds = state.outcome.exception().after_seconds
        if after_seconds is None:
            backing_off = tenacity.wait_exponential_jitter(multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS)
            return float(backing_off(state))
        self._not_before = max(self._not_before, time.monotonic() + after_seconds)
        return 0.0

    def _try(self, messages: Sequence[dict[str, str]]) -> Answer:
        self._wait_for_turn()
        return self._call(messages)

    def _wait_for_turn(self) -> None:
        while (left := self._not_before - time.monotonic()) > 0:
            if self.stopped.wait(left):
                break
        if self.stopped.is_set() or not self.permit():
            raise NoPermit("the run stops")

    def _call(self, messages: Sequence[dict[str, str]]) -> Answer:
        import openai

        settings = {"temperature": self.options.temperature, "max_tokens": self.options.max_answer_tokens}
        given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
        try:
            completion = self._client.chat.completions.create(
                model=self.options.model,
                messages=list(messages),  # type: ignore[arg-type]
                **given,
            )
            return self._answer(completion)
        except (openai.OpenAIError, ValueError) as error:  # ValueError: the answer is not JSON
            problem = self._meaning_of(error)
        raise problem  # outside of the block: nothing of the client's is in our errors

    def _answer(self, completion: Any) -> Answer:
        choices = getattr(completion, "choices", None)
        if not choices:
            raise ValueError("the answer is not a chat completion")
        usage = completion.usage
        return Answer(
            text=self._clean(choices[0].message.content or ""),
            model=self._clean(completion.model or ""),
            finish=choices[0].finish_reason or "",
            n_prompt_tokens=usage.prompt_tokens if usage else None,
            n_answer_tokens=usage.completion_tokens if usage else None,
        )

    def _meaning_of(self, error: Exception) -> Exception:
        """What a failure of the client means for us."""
        import openai

        says = self._clean(str(error))[:EXCERPT]
        if isinstance(error, openai.APITimeoutError):
            return _Again(f"no answer within {self.options.timeout_seconds:g} s")
        if isinstance(error, openai.APIConnectionError):
            return _Again(self._clean(f"{says} ({error.__cause__})"), nobody_there=True)
        if not isinstance(error, openai.APIStatusError):
            return _Again(f"the answer cannot be read: {says}")
        status, headers = error.status_code, error.response.headers
        if status in ADVICE:
            advice = ADVICE[status].format(variable=self.options.api_key_variable or "`api_key_variable`")
            return EndpointClosed(f"{self.options.endpoint} refuses with {status}: {advice}. It says: {says}")
        if status == 429 and error.code == "insufficient_quota":
            return EndpointClosed(f"{self.options.endpoint}: the key's quota is used up. It says: {says}")
        if status not in (408, 409, 429) and status < 500:
            return QuestionRefused(f"the endpoint refuses it with {status}: {says}")
        after = _seconds_of(headers.get("retry-after"))
        if after is not None and after > LONGEST_WAIT_SECONDS:
            return EndpointClosed(
                f"{self.options.endpoint} asks to wait {after:,.0f} s; run again then. It says: {says}"
            )
        return _Again(f"the endpoint fails with {status}: {says}", after_seconds=after)

    def _clean(self, text: str) -> str:
        """Without the key, which an endpoint may have repeated, whole or with its middle masked."""
        if not self.key:
            return text
        text = text.replace(self.key, "***")
        if self.key[:SHOWN_KEY] not in text and self.key[-SHOWN_KEY:] not in text:
            return text
        ends = (re.escape(self.key[:SHOWN_KEY]), re.escape(self.key[-SHOWN_KEY:]))
        return re.sub(rf"\S*(?:{'|'.join(ends)})\S*", "***", text)


def _bounded_client(by_proxy: bool) -> Any:
    """Openai's client of HTTP, which reads no more of an answer than `MOST_ANSWER_BYTES`.

    Args:
        by_proxy: Whether it may ask through the proxy that the environment names.
    """
    import httpx2 as httpx
    import openai

    class Bounded(httpx.SyncByteStream):
        def __init__(self, stream: Any):
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            n_bytes = 0
            for part in self._stream:
                n_bytes += len(part)
                if n_bytes > MOST_ANSWER_BYTES:
                    raise TooLong(f"the answer has more than {MOST_ANSWER_BYTES:,} bytes")
                yield part

        def close(self) -> None:
            self._stream.close()

    def bound(response: httpx.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise TooLong("the answer is compressed, which was not asked for: nobody knows how long it is")
        response.stream = Bounded(response.stream)

    headers = {"Accept-Encoding": "identity"}
    return openai.DefaultHttpxClient(headers=headers, event_hooks={"response": [bound]}, trust_env=by_proxy)


class TooLong(ValueError):
    """An answer is longer than any that was asked for."""


class _Again(Exception):
    def __init__(self, says: str, after_seconds: float | None = None, nobody_there: bool = False):
        super().__init__(says)
        self.after_seconds, self.nobody_there = after_seconds, nobody_there


def _seconds_of(retry_after: str | None) -> float | None:
    """Seconds from now of a `Retry-After`: a number of seconds, or a date; None where it is neither."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
