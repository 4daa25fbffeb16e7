"""A stand-in for the program `vllm`: takes its words, speaks its protocol, knows no model.

    vllm_stand_in.py serve MODEL --host H --port P …

What it is asked goes to `$STAND_IN_LOG`, line by line. `$STAND_IN` makes it misbehave: `dies` at
the start, `hangs` without ever being healthy, `busy` (the first tries of each prompt are refused),
`breaks` (500), `crashes` at the first prompt.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from server import JsonHandler, LocalServer

MOOD = os.environ.get("STAND_IN", "")
WORDS = sys.argv[1:]
SINCE = time.monotonic()
LOADING_S = 0.2
seen: dict[str, int] = {}
lock = threading.Lock()
open_now = 0


def note(**what):
    """A line of the log."""
    with lock, Path(os.environ["STAND_IN_LOG"]).open("a") as log:
        log.write(json.dumps(what) + "\n")


def option(name):
    """The word after one."""
    return WORDS[WORDS.index(name) + 1]


class Handler(JsonHandler):
    """What of vLLM's interface Holdfast uses."""

    def do_GET(self):
        """`/health`."""
        healthy = MOOD != "hangs" and time.monotonic() - SINCE > LOADING_S
        self.give((200 if healthy else 503, {}))

    def do_POST(self):
        """`/v1/completions`."""
        global open_now
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = json.dumps(body["prompt"])
        with lock:
            open_now += 1
            seen[key] = seen.get(key, 0) + 1
            tries, together = seen[key], open_now
        note(path=self.path, tries=tries, together=together, **body)
        time.sleep(0.05)
        with lock:
            open_now -= 1
        if MOOD == "crashes":
            os._exit(1)
        if MOOD == "breaks":
            return self.give((500, {"error": {"message": "out of order"}}))
        if MOOD == "busy" and tries < 3:
            return self.give((429, {}, {"Retry-After": "0.01"}))
        choice = {"text": " First rinse it.", "finish_reason": "stop"}
        if "prompt_logprobs" in body:
            ids = body["prompt"]
            choice["prompt_logprobs"] = [
                None, *({str(t): {"logprob": -0.5 * n}} for n, t in enumerate(ids) if n)
            ]  # fmt: skip
        return self.give({"choices": [choice], "usage": {"completion_tokens": 5}})


if __name__ == "__main__":
    note(words=WORDS, pid=os.getpid())
    print("INFO loading weights", flush=True)
    if MOOD == "dies":
        sys.exit("ValueError: the model does not fit")
    with LocalServer(Handler, int(option("--port"))):
        threading.Event().wait()
