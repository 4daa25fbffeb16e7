"""A small client for servers that speak the OpenAI API: vLLM, SGLang, llama.cpp, hosted services.

    post_all → a few requests open at once → post → try, wait, try again → a JSON body, or Blocked

The server is untrusted: bodies are bounded in size and time, redirects are not followed, and the
key goes to the server it belongs to, in one header, and nowhere else.
"""

from __future__ import annotations

import json
import os
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from holdfast.errors import ModelError
from holdfast.extras import need

if TYPE_CHECKING:
    import httpx

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
ENDPOINT_KEY = "HOLDFAST_ENDPOINT_KEY"
"""The key's environment variable for every server but OpenAI's own, so that one never gets the
other's."""

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_EXHAUSTED = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_BLOCKED = frozenset({"content_filter", "content_policy_violation", "responsibleaipolicyviolation"})
_MAX_BODY = 16 * 2**20
_LONGEST_PAUSE = 120.0
_SHORTEST_SECRET = 8

_Payload: TypeAlias = "Mapping[str, Any] | Upload | None"


class EndpointError(ModelError):
    """A server that cannot be reached, refuses the request, or answers what is not an answer."""


class UnansweredError(EndpointError):
    """No answer came: whether the server did what it was asked is not known."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a model is served: `http://host:8000/v1#model` or `openai:model`."""

    url: str
    """Base URL, without a slash at its end."""
    model: str
    key_variable: str = ENDPOINT_KEY
    """Environment variable that holds the key, where the server wants one."""

    @classmethod
    def parse(cls, name: str) -> Address | None:
        """The address a model's name stands for; None for folders, Hub ids and lab models.

        Raises:
            ModelError: a URL without a model, without a host, or with a password in it.
        """
        if name.startswith("openai:"):
            model = name.removeprefix("openai:")
            if not model:
                raise ModelError(f"{name!r} names no model: write openai:MODEL.")
            return cls(OPENAI_URL, model, OPENAI_KEY)
        if not name.startswith(("http://", "https://")):
            return None
        parts = urlsplit(name)
        if parts.username is not None or parts.password is not None or parts.query:
            raise ModelError(
                f"The address of {parts.hostname or 'the server'} carries a name, a password or a "
                f"query. Keys are read from the environment only: put it into {ENDPOINT_KEY}."
            )
        if not parts.hostname or not parts.fragment:
            raise ModelError(
                f"{name!r} is no served model: write http://HOST:PORT/v1#MODEL, with the model's "
                "name as the server lists it after the #."
            )
        url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        return cls(url, parts.fragment)

    @property
    def name(self) -> str:
        """The reference as one writes it."""
        if self.key_variable == OPENAI_KEY:
            return f"openai:{self.model}"
        return f"{self.url}#{self.model}"


@dataclass(slots=True)
class Usage:
    """What a client has asked for so far; counts of this process, not of a bill."""

    requests: int = 0
    """Answered by the server, blocked ones included."""
    retries: int = 0
    blocked: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: int = 0
    """Answers that were on disk already."""
    unmetered: int = 0
    """Answers whose tokens the server did not tell."""

    def cost(self, prompt_price: float, completion_price: float) -> float:
        """The price of the tokens, at prices per million tokens."""
        tokens = self.prompt_tokens * prompt_price + self.completion_tokens * completion_price
        return tokens / 1e6


@dataclass(frozen=True, slots=True)
class Blocked:
    """The provider's content filter stood in the way: no answer of the model."""

    reason: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to send as a form, as `/files` takes it; read while it is sent."""

    path: Path
    name: str
    """What the server will call it."""
    fields: Mapping[str, str]
    """The form's other fields, such as `purpose`."""


@dataclass(frozen=True)
class Endpoint:
    """A server, and how patiently it is asked."""

    url: str
    """Base URL, such as `http://localhost:8000/v1`."""
    key_variable: str = ENDPOINT_KEY
    timeout: float = 120.0
    """Seconds one request may take, from first byte sent to last byte read."""
    retries: int = 5
    """Further tries after a failure that may pass."""
    concurrency: int = 8
    """Requests open at once."""
    pause: float = 0.5
    """Seconds before the first further try; doubled for each one after."""
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)
    usage: Usage = field(default_factory=Usage, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def post(self, path: str, payload: Mapping[str, Any] | Upload) -> dict[str, Any] | Blocked:
        """Send one request until it is answered or patience ends.

        Args:
            path: below the base URL, such as `/chat/completions`.
            payload: the request's JSON, or a file.

        Returns:
            The response's JSON object, or that the provider blocked it.

        Raises:
            EndpointError: the server cannot be reached, refuses, or gives no JSON object.
            MaterialError: the extra `endpoint` is not installed.
        """
        with self._client() as client:
            return self._ask(client, "POST", path, payload)

    def get(self, path: str) -> dict[str, Any]:
        """Read one resource, such as `/models`.

        Raises:
            EndpointError: as for `post`.
        """
        with self._client() as client:
            body = self._ask(client, "GET", path, None)
        if isinstance(body, Blocked):
            raise EndpointError(f"{self.url}{path}: {body.reason}")
        return body

    def post_all(
        self, path: str, payloads: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any] | Blocked | EndpointError]:
        """Send many requests, `concurrency` at once; outcomes in order.

        One request's failure is its own outcome, so that the answers that came are not lost. The
        caller decides what a failure means.
        """
        if not payloads:
            return []
        threads = min(self.concurrency, len(payloads))
        with self._client() as client, ThreadPoolExecutor(threads) as pool:
            try:
                return list(pool.map(lambda one: self._outcome(client, path, one), payloads))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _outcome(
        self, client: httpx.Client, path: str, payload: Mapping[str, Any]
    ) -> dict[str, Any] | Blocked | EndpointError:
        try:
            return self._ask(client, "POST", path, payload)
        except EndpointError as error:
            return error

    # --- one request, several tries ---------------------------------------------------------------

    def _ask(
        self, client: httpx.Client, method: str, path: str, payload: _Payload
    ) -> dict[str, Any] | Blocked:
        problem = ""
        for trial in range(self.retries + 1):
            outcome = self._try(client, method, path, payload)
            if not isinstance(outcome, _Passing):
                return self._counted(outcome)
            problem = outcome.problem
            wait = self._wait(trial, outcome.after)
            if wait > _LONGEST_PAUSE:
                problem += f"; it asks to come back in {wait:.0f} s"
                break
            if trial < self.retries:
                with self._lock:
                    self.usage.retries += 1
                self.sleep(wait)
        raise UnansweredError(
            f"{self.url}{path} gave no answer ({problem}) in {trial + 1} tries. Check that the "
            "server runs and has capacity; run the same command again to go on."
        )

    def _try(
        self, client: httpx.Client, method: str, path: str, payload: _Payload
    ) -> dict[str, Any] | Blocked | _Passing:
        import httpx

        try:
            status, headers, raw = self._exchange(client, method, path, payload)
        except httpx.TimeoutException:
            return _Passing(f"nothing for {self.timeout:g} s")
        except (httpx.TransportError, httpx.DecodingError) as error:
            return _Passing(self._clean(str(error)) or type(error).__name__)
        except _TooMuch as error:
            raise EndpointError(
                f"{self.url}{path}: {error}. That is no answer of a language model; check the URL."
            ) from None
        body = _json(self._clean(raw.decode("utf-8", "replace")))
        if status == 200 and isinstance(body, dict) and _answers(body):
            return body
        return self._failure(path, status, headers, body)

    def _exchange(
        self, client: httpx.Client, method: str, path: str, payload: _Payload
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body, read under a limit of bytes and a deadline."""
        import httpx

        deadline = time.monotonic() + self.timeout
        chunks: list[bytes] = []
        with _body(payload) as body, client.stream(method, self.url + path, **body) as response:
            for chunk in response.iter_bytes():
                chunks.append(chunk)
                if sum(map(len, chunks)) > _MAX_BODY:
                    raise _TooMuch(f"more than {_MAX_BODY // 2**20} MB came back")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("deadline")
        return response.status_code, response.headers, b"".join(chunks)

    def _failure(
        self, path: str, status: int, headers: Mapping[str, str], body: Any
    ) -> Blocked | _Passing:
        """What a response that is no answer means: blocked, worth another try, or an error."""
        code, message = _error_of(body)
        if code in _BLOCKED:
            return Blocked(f"the provider's content filter: {message or code}")
        if code in _EXHAUSTED:
            raise EndpointError(f"{self.url} has no quota left ({message or code}). Add credit.")
        if status in _AGAIN:
            what = f"HTTP {status}" + (f", {message}" if message else "")
            return _Passing(what, _retry_after(headers.get("retry-after")))
        if status == 200:
            return _Passing(message or "a body that is no JSON object")
        raise EndpointError(
            f"{self.url}{path} answered HTTP {status}{f' ({message})' if message else ''}. "
            f"{self._cure(status)}"
        )

    def _cure(self, status: int) -> str:
        if status in (401, 403):
            return (
                f"Put a key that is valid there into the environment variable {self.key_variable}."
            )
        if status == 404:
            return "Check the base URL (it mostly ends in /v1) and the model's name after the #."
        if 300 <= status < 400:
            return "Redirects are not followed, so that keys stay; give the final URL."
        if status in (400, 413, 422):
            return "The server does not take this request; its message says why."
        return "Look into the server's log."

    def _wait(self, trial: int, after: float | None) -> float:
        """Seconds to wait: what the server asks, else doubled each time, with some jitter."""
        if after is not None:
            return after
        doubled: float = self.pause * 2**trial
        return min(doubled, 30.0) * random.uniform(0.75, 1.25)  # noqa: S311

    def _counted(self, outcome: dict[str, Any] | Blocked) -> dict[str, Any] | Blocked:
        used = outcome.get("usage") if isinstance(outcome, dict) else None
        with self._lock:
            self.usage.requests += 1
            self.usage.blocked += isinstance(outcome, Blocked)
            self.usage.unmetered += isinstance(outcome, dict) and not isinstance(used, dict)
            if isinstance(used, dict):
                self.usage.prompt_tokens += _count(used.get("prompt_tokens"))
                self.usage.completion_tokens += _count(used.get("completion_tokens"))
        return outcome

    # --- the key ----------------------------------------------------------------------------------

    def _key(self) -> str:
        key = os.environ.get(self.key_variable, "").strip()
        if not all("!" <= char <= "~" for char in key):
            raise EndpointError(
                f"The environment variable {self.key_variable} holds characters that no key has. "
                "Set it again, without spaces and line breaks."
            )
        return key

    def _clean(self, text: str) -> str:
        """Text from the server without the key, should it send it back."""
        key = self._key()
        return text.replace(key, "[key]") if len(key) >= _SHORTEST_SECRET else text

    def _client(self) -> httpx.Client:
        """Connections for one batch, with the key in their header."""
        need("httpx", extra="endpoint", purpose="asking a server")
        import httpx

        headers = {"Accept": "application/json"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        return httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
            limits=httpx.Limits(max_connections=self.concurrency),
            verify=_trusted(),
        )


@contextmanager
def _body(payload: _Payload) -> Iterator[dict[str, Any]]:
    """What a request carries, as the HTTP library takes it."""
    if payload is None:
        yield {}
    elif isinstance(payload, Upload):
        with payload.path.open("rb") as file:
            yield {"data": dict(payload.fields), "files": {"file": (payload.name, file)}}
    else:
        content = json.dumps(payload, allow_nan=False).encode()
        yield {"content": content, "headers": {"Content-Type": "application/json"}}


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates that servers are checked against; reading them takes longer than asking."""
    import httpx

    return httpx.create_ssl_context()


class _TooMuch(Exception):
    """A body larger than any answer."""


@dataclass(frozen=True, slots=True)
class _Passing:
    """A failure that another try may cure."""

    problem: str
    after: float | None = None
    """Seconds the server asks to wait."""


def _answers(body: Mapping[str, Any]) -> bool:
    """Whether a body is no error; a job that failed carries one, and is an answer all the same."""
    return not body.get("error") or {"id", "status"} <= set(body)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _error_of(body: Any) -> tuple[str, str]:
    """(code, message) of an error body, in the shapes that servers use."""
    if not isinstance(body, dict):
        return "", ""
    error = body.get("error") or body
    if not isinstance(error, dict):
        return "", _line(error)
    inner = error.get("innererror")
    codes = [error.get("code"), error.get("type")]
    codes += [inner.get("code")] if isinstance(inner, dict) else []
    known = [str(c).lower() for c in codes if str(c).lower() in _BLOCKED | _EXHAUSTED]
    first = next((str(c) for c in codes if c), "")
    return (known or [first])[0], _line(error.get("message") or error.get("detail") or "")


def _line(value: object) -> str:
    return " ".join(str(value).split())[:300]


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number, or a date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
