"""Engine `vllm`: a vLLM server that Holdfast starts, asks and ends, on a free port of this machine.

    vllm serve MODEL → healthy → prompts rendered here, sent as token ids → text → ended

Prompts are the same ids that the engine `transformers` would compute, so that templates, prefill
and raw prompts need nothing of the server. vLLM pins other versions of the libraries than Holdfast
allows: it is never imported, only its program is run, from whatever environment PATH finds it in.
An adapter is served on its base model, which stays as it is.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.endpoint import Address, Blocked, Endpoint, EndpointError
from holdfast.engines import CAPABLE, ENGINES, Decoding
from holdfast.engines._tokens import Tokens
from holdfast.engines.openai import OpenAIEngine
from holdfast.errors import MaterialError, ModelError
from holdfast.files import read_object
from holdfast.models import ModelRef, load_tokenizer, resolve_model
from holdfast.progress import say
from holdfast.recipe import DATE
from holdfast.types import Prompt

PROGRAM = "vllm"
SERVED = "holdfast"
"""Name under which the server lists the model."""
AT_ONCE = 128
"""Requests open at once, and the sequences that the server is told to compute together."""
PATIENCE_S = 1800.0
"""Until the server is healthy: large models take many minutes to load."""
REQUEST_S = 900.0
POLL_S = 0.2
GRACE_S = 20.0
"""Between asking the server to end and ending it."""
_LAST_LINES = 15


@ENGINES.register("vllm")
class VLLMEngine(OpenAIEngine):
    """A vLLM server that Holdfast starts for a local or Hub model, and ends."""

    can = CAPABLE["vllm"]

    def __init__(
        self,
        ref: ModelRef,
        *,
        tokenizer: Any = None,
        date: str = DATE,
        arguments: Sequence[str] = (),
        patience: float = PATIENCE_S,
    ) -> None:
        """Start a server and wait until it is healthy.

        Args:
            ref: a folder, a Hub id or an adapter's folder.
            tokenizer: the model's; None: loaded.
            date: the date that templates may print.
            arguments: further words for `vllm serve`, such as `--tensor-parallel-size`, `8`.
            patience: seconds until it has to be healthy.

        Raises:
            MaterialError: vLLM is not installed.
            ModelError: the server ended or did not become healthy; its last words are quoted.
        """
        self.tokenizer = tokenizer or load_tokenizer(ref)
        self.tokens = Tokens(self.tokenizer, date)
        self.server = Server(serve_command(ref, arguments), patience)
        address = Address(f"{self.server.url}/v1", SERVED)
        endpoint = Endpoint(address.url, timeout=REQUEST_S, concurrency=AT_ONCE)
        super().__init__(address, endpoint=endpoint)
        self.name = "vllm"

    def close(self) -> None:
        """End the server; the engine answers no more."""
        self.server.stop()

    def render(self, prompt: Prompt) -> str:
        """The text the model continues."""
        return self.tokens.render(prompt)

    def length(self, prompt: Prompt) -> int:
        """Prompt length in tokens."""
        return self.tokens.length(prompt)

    def loglikelihood(
        self, prompts: Sequence[Prompt], replies: Sequence[str], *, ended: bool = True
    ) -> list[float]:
        """Mean log-probability per token (nats) of each reply, with its stop token if `ended`.

        Raises:
            EndpointError: the server gave no log-probabilities of what it was given.
        """
        tails = [
            self.tokens.reply_ids(prompt, reply, ended)
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        heads = [self.tokens.row(prompt).ids for prompt in prompts]
        payloads = [
            {"model": SERVED, "prompt": head + tail, "max_tokens": 1, "temperature": 0.0,
             "prompt_logprobs": 0}
            for head, tail in zip(heads, tails, strict=True)
        ]  # fmt: skip
        outcomes = self.endpoint.post_all("/completions", payloads)
        return [_mean(outcome, tail) for outcome, tail in zip(outcomes, tails, strict=True)]

    def _request(self, prompt: Prompt, decoding: Decoding) -> tuple[str, dict[str, Any]]:
        row = self.tokens.row(prompt)
        sampled = {"seed": decoding.seed, "top_k": -1} if decoding.temperature > 0 else {}
        return "/completions", {
            "model": SERVED,
            "prompt": row.ids,
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "stop_token_ids": list(row.stops),
            **sampled,
            **self.extra,
        }


def serve_command(ref: ModelRef, arguments: Sequence[str] = ()) -> list[str]:
    """The words that serve a model, but for host and port.

    Raises:
        MaterialError: vLLM is not installed.
        ModelError: a model that is served elsewhere already.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise MaterialError(
            "`engine: vllm` starts vLLM, and there is no program `vllm` on PATH. Install it into "
            "an environment of its own (its packages pin other versions) and put that "
            "environment's bin folder on PATH; or start a server yourself and give its address, "
            "http://HOST:PORT/v1#MODEL, as the model."
        )
    if ref.address is not None:
        raise ModelError(f"{ref.name} is served already: leave `engine: vllm` out.")
    base = resolve_model(ref.base) if ref.base is not None else ref
    words = [program, "serve", base.location, "--max-num-seqs", str(AT_ONCE)]
    if base.revision and base.path is None:
        words += ["--revision", base.revision]
    if ref.base is None:
        return [*words, "--served-model-name", SERVED, *arguments]
    rank = read_object(Path(ref.location) / "adapter_config.json").get("r", 16)
    lora = ["--enable-lora", "--max-lora-rank", str(_allowed_rank(rank))]
    return [*words, *lora, "--lora-modules", f"{SERVED}={ref.location}", *arguments]


def _allowed_rank(rank: int) -> int:
    """The smallest rank vLLM allows that an adapter fits into."""
    return max(8, 1 << (int(rank) - 1).bit_length())


class Server:
    """A server's process, from its start to its end."""

    def __init__(self, command: Sequence[str], patience: float) -> None:
        """Start it on a free port, and wait until it is healthy.

        Raises:
            ModelError: it ended, or took too long.
        """
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        handle, name = tempfile.mkstemp(prefix="holdfast-vllm-", suffix=".log")
        self._log = Path(name)
        self.process = subprocess.Popen(  # noqa: S603
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=handle, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True,  # its workers end with it, and no key press reaches them
        )  # fmt: skip
        os.close(handle)
        self.stop = weakref.finalize(self, _end, self.process, self._log)
        """Ends it; called by itself when nothing refers to it any more, or Python ends."""
        say(f"  starting {' '.join(command[:3])}")
        try:
            self._wait(patience)
        except BaseException:
            self.stop()
            raise

    def _wait(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while not _healthy(f"{self.url}/health"):
            if self.process.poll() is not None:
                raise ModelError(f"vLLM ended with {self.process.returncode}:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise ModelError(
                    f"vLLM was not ready within {patience:g} s. It said last:\n{self.last_words()}"
                )
            time.sleep(POLL_S)

    def last_words(self) -> str:
        """The end of what it has printed."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(f"    {line}" for line in text.splitlines()[-_LAST_LINES:])


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def _healthy(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes], log: Path) -> None:
    """End a process and all it started, first asked, then made to; and its log."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
    log.unlink(missing_ok=True)


def _mean(outcome: Mapping[str, Any] | Blocked | EndpointError, tail: Sequence[int]) -> float:
    """The mean log-probability of a prompt's last tokens, as vLLM tells it."""
    if isinstance(outcome, EndpointError):
        raise outcome
    try:
        assert not isinstance(outcome, Blocked)
        told = outcome["choices"][0]["prompt_logprobs"][-len(tail) :]
        found = [at[str(token)]["logprob"] for at, token in zip(told, tail, strict=True)]
        return math.fsum(map(float, found)) / len(tail)
    except (AssertionError, LookupError, TypeError, ValueError):
        raise EndpointError(
            "The server gave no log-probabilities of the prompt. Use vLLM's own `vllm serve`, "
            "or `evaluate.engine: transformers`."
        ) from None
