"""A stand-in for OpenAI's service: files, fine-tuning jobs, chat completions, models.

It bills what it does, so that a test can tell whether something was paid for twice, and misbehaves
on request: slow, rate-limited, failing, filtering, or gone at a given moment.
"""

from __future__ import annotations

import email
import email.policy
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from server import JsonHandler, LocalServer

BASE = "lab-chat"
Messages = list[dict[str, str]]


@dataclass
class Service:
    """What the provider keeps; outlives a server that dies."""

    answer: Callable[[str, Messages], str]
    """Model and messages → the reply."""
    ends: tuple[str, ...] = ("validating_files", "running", "succeeded")
    """Statuses of a job, one a look."""
    error: dict[str, Any] | None = None
    """Of a job that failed."""
    file_status: str = "processed"
    keeps_metadata: bool = True
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: Counter[str] = field(default_factory=Counter)
    bill: Counter[str] = field(default_factory=Counter)
    """`uploads`, `jobs`, `completions`: what was carried out."""
    completed: Counter[str] = field(default_factory=Counter)
    """Completions by content: what was asked twice stands here as 2."""
    keys: set[str] = field(default_factory=set)
    hook: Callable[[str, str], Any] = lambda method, path: None
    """Called before each request; returns a (status, body[, headers]) to answer instead,
    `"drop"` to hang up before anything is done, or `"lost"` to hang up after it is done."""
    blocks: Callable[[str, Messages], bool] = lambda model, messages: False
    """Which replies the provider's content filter withholds."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def handle(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Carry out one request."""
        parts = urlsplit(path)
        route, query = parts.path.removeprefix("/v1"), parse_qs(parts.query)
        if (method, route) == ("GET", "/models"):
            tuned = [j["fine_tuned_model"] for j in self.jobs.values() if j["fine_tuned_model"]]
            return 200, {"data": [{"id": m, "owned_by": "system"} for m in (BASE, *tuned)]}
        if (method, route) == ("POST", "/chat/completions"):
            return self.complete(body)
        if (method, route) == ("POST", "/files"):
            return self.upload(body)
        if (method, route) == ("POST", "/fine_tuning/jobs"):
            return self.create(body)
        for prefix, kept in (("/files", self.files), ("/fine_tuning/jobs", self.jobs)):
            if route == prefix:
                return 200, page(list(kept.values())[::-1], query)
            if route.startswith(prefix + "/"):
                found = kept.get(route.removeprefix(prefix + "/"))
                if found is None:
                    return 404, {"error": {"message": "No such object", "code": "not_found"}}
                return 200, self.looked_at(found) if kept is self.jobs else found
        return 404, {"error": {"message": f"no route {route}"}}

    def complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        text = self.answer(body["model"], body["messages"])
        with self.lock:
            self.bill["completions"] += 1
            self.completed[json.dumps([body["model"], body["messages"]])] += 1
        usage = {"prompt_tokens": 10, "completion_tokens": 3}
        withheld = self.blocks(body["model"], body["messages"])
        said = {"role": "assistant", "content": "" if withheld else text}
        ended = "content_filter" if withheld else "stop"
        return 200, {"choices": [{"message": said, "finish_reason": ended}], "usage": usage}

    def upload(self, form: dict[str, Any]) -> tuple[int, Any]:
        with self.lock:
            self.bill["uploads"] += 1
            file = f"file-{len(self.files) + 1}"
            self.contents[file] = form["file"]
            self.files[file] = {
                "id": file, "object": "file", "purpose": form["purpose"],
                "filename": form["filename"], "bytes": len(form["file"].encode()),
                "status": self.file_status, "status_details": "line 3 is no conversation",
            }  # fmt: skip
        return 200, self.files[file]

    def create(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body["training_file"] not in self.files:
            return 400, {"error": {"message": "no such file", "code": "invalid_training_file"}}
        with self.lock:
            self.bill["jobs"] += 1
            job = f"ftjob-{len(self.jobs) + 1}"
            kept = body if self.keeps_metadata else {**body, "metadata": None}
            self.jobs[job] = {
                **kept, "id": job, "status": "validating_files", "fine_tuned_model": None,
                "error": None,
            }  # fmt: skip
        return 200, self.jobs[job]

    def looked_at(self, job: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            look = self.looks[job["id"]]
            self.looks[job["id"]] += 1
            job["status"] = self.ends[min(look, len(self.ends) - 1)]
            if job["status"] == "succeeded":
                job["fine_tuned_model"] = f"ft:{job['model']}:{job['suffix']}:{job['id']}"
                job["trained_tokens"] = 1234
            if job["status"] == "failed":
                job["error"] = self.error
        return job


def page(rows: list[dict[str, Any]], query: dict[str, list[str]]) -> dict[str, Any]:
    """A page of a list, as the API cuts it."""
    limit, after = int(query.get("limit", ["20"])[0]), query.get("after", [None])[0]
    start = next((i + 1 for i, row in enumerate(rows) if row["id"] == after), 0)
    cut = rows[start : start + limit]
    return {"object": "list", "data": cut, "has_more": start + limit < len(rows)}


class OpenAIServer(LocalServer):
    """Serves a `Service` on a free port, or on the one that an earlier server had."""

    def __init__(self, service: Service, port: int = 0) -> None:
        self.service = service

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                self.serve("GET", None)

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0) or 0))
                if self.headers.get("Transfer-Encoding") == "chunked":
                    raw = dechunked(self.rfile)
                kind = self.headers["Content-Type"]
                self.serve("POST", form(kind, raw) if "multipart" in kind else json.loads(raw))

            def serve(self, method: str, body: Any) -> None:
                service.keys.add(self.headers.get("Authorization", ""))
                told = service.hook(method, self.path)
                self.close_connection = told in ("drop", "lost")
                if told != "drop":
                    done = told if isinstance(told, tuple) else None
                    reply = done or service.handle(method, self.path, body)
                    if told != "lost":
                        self.give(reply)

        super().__init__(Handler, port)
        self.model = f"{self.url}#{BASE}"


def form(kind: str, raw: bytes) -> dict[str, Any]:
    """The fields of a multipart form; of its file, content and name."""
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    found: dict[str, Any] = {}
    for part in email.message_from_bytes(head + raw, policy=email.policy.HTTP).iter_parts():
        name = part.get_param("name", header="content-disposition")
        found[str(name)] = part.get_payload(decode=True).decode()
        if part.get_filename():
            found["filename"] = part.get_filename()
    return found


def dechunked(stream: Any) -> bytes:
    """A body sent in chunks."""
    chunks = b""
    while size := int(stream.readline(), 16):
        chunks += stream.read(size)
        stream.readline()
    stream.readline()
    return chunks
