"""A stand-in for an OpenAI-compatible server: what it answers is a function of what it is asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = dict[str, Any] | bytes | tuple[int, Any] | tuple[int, Any, dict[str, str]]


def chat(text: str | None, ended: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion."""
    said = {"role": "assistant", "content": text, **message}
    usage = {"prompt_tokens": 10, "completion_tokens": 3}
    return {"choices": [{"message": said, "finish_reason": ended}], "usage": usage}


class LocalServer:
    """Serves a handler's answers from a thread, on a free port or on the one given."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int = 0) -> None:
        self._httpd = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._httpd.daemon_threads = True
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.02,), daemon=True)
        self.port = self._httpd.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()


class JsonHandler(BaseHTTPRequestHandler):
    """Speaks JSON, and minds no client that has gone."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def give(self, reply: Reply) -> None:
        """Send a body, a status and a body, or both with headers."""
        status, content, headers = 200, reply, {}
        if isinstance(reply, tuple):
            status, content = reply[:2]
            headers = reply[2] if len(reply) == 3 else {}
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
        except OSError:
            pass  # the client has gone: that is what some tests are about


class Server(LocalServer):
    """A function as a server; remembers what it was asked."""

    def __init__(self, answer: Callable[[dict[str, Any]], Reply], owner: str = "vllm") -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.open = self.most_open = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                self.give({"data": [{"id": "m", "owned_by": owner}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.asked.append({**body, "path": self.path})
                    outer.headers.append(dict(self.headers))
                    outer.open += 1
                    outer.most_open = max(outer.most_open, outer.open)
                try:
                    reply = outer.answer({**body, "path": self.path})
                finally:
                    with outer._lock:
                        outer.open -= 1
                self.give(reply)

        super().__init__(Handler)
        self.model = f"{self.url}#m"


def slow(seconds: float, reply: Reply) -> Reply:
    """A reply that takes its time."""
    time.sleep(seconds)
    return reply
