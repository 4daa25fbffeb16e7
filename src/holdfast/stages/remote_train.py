"""Remote train: a fine-tuning job of a server that speaks the OpenAI API.

    upload the file → create the job → poll → the tuned model's name

Money is spent once. Ids are stored the moment they are known; before anything is sent, the server
is asked whether it already has it. Files and jobs carry a marker made of all that goes into the
job, so that a job whose id was lost is found again. A request that may have been carried out is
never repeated blindly.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.endpoint import Blocked, Endpoint, EndpointError, UnansweredError, Upload
from holdfast.errors import DataError, ModelError
from holdfast.files import make_folder, read_object, write_json
from holdfast.progress import say
from holdfast.stages.hand_over import TRAIN, VALIDATION

JOB = "job.json"
"""Ids of files and job, in the run folder."""
FIRST_LOOK = 2.0
"""Seconds before the first look at a job; doubled up to the recipe's `train.poll`."""
TRIES = 5
"""Of an upload or a creation whose outcome is not known; the server is asked in between."""
PAGES = 20
"""Pages of a server's list that are searched, a hundred entries each."""
UPLOAD_RATE = 100_000
"""Bytes per second that a slow line is given the time for."""

_OVER = frozenset({"failed", "cancelled"})
_UNREADY = frozenset({"uploaded", "pending"})
_UNSAFE = re.compile(r"unsafe|moderation|usage polic|content.?(filter|policy)", re.IGNORECASE)
_QUOTA = re.compile(r"quota|billing|exceeded.*limit|insufficient", re.IGNORECASE)


class JobFailedError(ModelError):
    """A fine-tuning job that ended without a model."""


@dataclass(frozen=True)
class RemoteJob:
    """One fine-tuning job to be had, once."""

    endpoint: Endpoint
    model: str
    """The untouched model, as the server names it."""
    marker: str
    """Hash of all that goes into the job."""
    folder: Path
    """Keeps `job.json`."""
    rows: Path
    """Folder of the exported rows."""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    poll: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def run(self) -> dict[str, Any]:
        """The job's end: started, found again, or long done.

        Returns:
            `model` (the tuned model's name), `job`, and `trained_tokens` where the server says.

        Raises:
            JobFailedError: it failed, was cancelled, or its file was blocked.
            EndpointError: the server cannot be reached; the same command goes on later.
        """
        make_folder(self.folder)
        job = self._job()
        done = self._wait_for(job)
        tuned = done.get("fine_tuned_model")
        if not isinstance(tuned, str) or not tuned:
            raise JobFailedError(f"Job {job} succeeded, but the server names no tuned model.")
        used = done.get("trained_tokens")
        return {"model": tuned, "job": job, "trained_tokens": used if _is_count(used) else None}

    # --- the state ----------------------------------------------------------------------------

    @property
    def state(self) -> dict[str, Any]:
        """Ids that are known, of this marker."""
        path = self.folder / JOB
        found = read_object(path) if path.is_file() else {}
        return found if found.get("marker") == self.marker else {"marker": self.marker}

    def _keep(self, **known: Any) -> None:
        write_json(self.folder / JOB, {**self.state, **known})

    # --- upload and create --------------------------------------------------------------------

    def _job(self) -> str:
        stored = self.state.get("job")
        if isinstance(stored, str):
            say(f"  job {stored}: going on")
            return stored
        found = self._find_job()
        if found is None:
            wanted = self._wanted()
            self._keep(step="creating the job")
            found = self._once("/fine_tuning/jobs", wanted, self._find_job)
            say(f"  job {found}: created")
        else:
            say(f"  job {found}: found on the server, going on")
        self._keep(step="polling", job=found)
        return found

    def _wanted(self) -> dict[str, Any]:
        """The body that creates the job; its files are on the server then."""
        wanted: dict[str, Any] = {
            "model": self.model,
            "training_file": self._file(TRAIN),
            "seed": self.seed,
            "suffix": f"holdfast-{self.marker[:8]}",
            "metadata": {"holdfast": self.marker},
            "method": {
                "type": "supervised",
                "supervised": {"hyperparameters": dict(self.hyperparameters)},
            },
        }
        if (self.rows / VALIDATION).is_file():
            wanted["validation_file"] = self._file(VALIDATION)
        return wanted

    def _file(self, name: str) -> str:
        """The id of an uploaded file; uploaded now unless the server has it."""
        stored = self.state.get(name)
        if isinstance(stored, str):
            return stored
        path = self.rows / name
        remote = f"holdfast-{self.marker}-{name}"

        def find() -> str | None:
            size = path.stat().st_size
            for one in self._listed("/files", "purpose=fine-tune"):
                if one.get("filename") == remote and one.get("bytes") in (size, None):
                    return _id(one)
            return None

        found = find()
        if found is None:
            self._keep(step=f"uploading {name}")
            form = Upload(path, remote, {"purpose": "fine-tune"})
            found = self._once("/files", form, find)
            say(f"  {name}: uploaded as {found}")
        self._keep(**{name: found})
        self._processed(found, name)
        return found

    def _processed(self, file: str, name: str) -> None:
        """Wait until the server has looked at a file; some never say."""
        for trial in range(TRIES):
            status = self.endpoint.get(f"/files/{file}")
            if status.get("status") == "error":
                self._keep(**{name: None})
                raise DataError(_why(f"The server does not take {name}", status, "status_details"))
            if status.get("status") not in _UNREADY:
                return
            self.sleep(min(self.poll, FIRST_LOOK * 2**trial))

    def _find_job(self) -> str | None:
        """A job of this marker that has not failed."""
        for one in self._listed("/fine_tuning/jobs"):
            ours = one.get("metadata")
            marked = isinstance(ours, Mapping) and ours.get("holdfast") == self.marker
            file = self.state.get(TRAIN)  # a server may not keep metadata; the file is ours alone
            if (marked or (file and one.get("training_file") == file)) and (
                one.get("status") not in _OVER
            ):
                return _id(one)
        return None

    def _once(
        self, path: str, payload: Mapping[str, Any] | Upload, find: Callable[[], str | None]
    ) -> str:
        """Have something made on the server, and not twice.

        Raises:
            EndpointError: the server refuses, or says nothing as often as it is asked.
        """
        size = payload.path.stat().st_size if isinstance(payload, Upload) else 0
        client = Endpoint(
            self.endpoint.url, self.endpoint.key_variable, retries=0, sleep=self.sleep,
            timeout=self.endpoint.timeout + size / UPLOAD_RATE, usage=self.endpoint.usage,
        )  # fmt: skip
        for trial in range(TRIES):
            try:
                made = client.post(path, payload)
            except UnansweredError:
                found = find()
                if found is not None:
                    return found
                if trial == TRIES - 1:
                    raise
                self.sleep(min(self.poll, self.endpoint.pause * 2**trial))
                continue
            if isinstance(made, Blocked):
                raise JobFailedError(f"{made.reason}. {_BLOCKED_CURE}")
            if (known := _id(made)) is None:
                raise EndpointError(
                    f"{client.url}{path} answered without an id. Check that the server offers "
                    "fine-tuning under the OpenAI API."
                )
            return known
        raise AssertionError("unreachable")  # pragma: no cover

    def _listed(self, path: str, query: str = "") -> Iterator[Mapping[str, Any]]:
        """Entries of a list, newest first, page by page."""
        after = ""
        for _ in range(PAGES):
            asked = "&".join(part for part in ("limit=100", query, after) if part)
            page = self.endpoint.get(f"{path}?{asked}")
            rows = page.get("data")
            found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
            yield from found
            last = _id(found[-1]) if found else None
            if not page.get("has_more") or last is None:
                return
            after = f"after={last}"

    # --- poll ---------------------------------------------------------------------------------

    def _wait_for(self, job: str) -> dict[str, Any]:
        shown, pause = None, min(FIRST_LOOK, self.poll)
        while True:
            found = self.endpoint.get(f"/fine_tuning/jobs/{job}")
            status = str(found.get("status"))
            if status != shown:
                say(f"  job {job}: {status.replace('_', ' ')}")
                shown = status
            if status == "succeeded":
                return found
            if status in _OVER:
                self._keep(step=status)
                raise JobFailedError(_failure(job, found, self.folder / JOB))
            self.sleep(pause)
            pause = min(2 * pause, self.poll)


def estimate(tokens: int, epochs: float, price: float | None) -> tuple[str, float | None]:
    """What a job will cost: a line for the terminal, and the sum where a price is known.

    Args:
        tokens: of the rows, estimated.
        epochs: passes over them.
        price: of a million trained tokens.
    """
    trained = round(tokens * epochs)
    line = f"about {trained:,} tokens to train on ({tokens:,} × {epochs:g} epochs)"
    if price is None:
        return f"{line}; give `train.price` (of a million tokens) to see the cost", None
    cost = trained * price / 1e6
    return f"{line}: about {cost:,.2f} at {price:g} a million", cost


_BLOCKED_CURE = (
    "Providers screen training files, and safety rows carry unsafe requests (with refusals). Ask "
    "the provider for an exemption, lower `safety.share`, or tune without `safety_mix` rows."
)


def _failure(job: str, found: Mapping[str, Any], path: Path) -> str:
    """Why a job ended without a model, and what to do."""
    again = f"Then delete {path} and run the same command: a new job is created and paid for."
    if found.get("status") == "cancelled":
        return f"Job {job} was cancelled on the server. If that was not meant: {again[6:]}"
    told = _why(f"Job {job} failed", found, "error")
    if _UNSAFE.search(told):
        return f"{told} {_BLOCKED_CURE} {again}"
    if _QUOTA.search(told):
        return f"{told} Add credit or raise the limit with the provider. {again}"
    return f"{told} Cure that. {again}"


def _why(what: str, found: Mapping[str, Any], key: str) -> str:
    error = found.get(key)
    if isinstance(error, Mapping):
        parts = [str(error[k]) for k in ("code", "message") if error.get(k)]
        error = ": ".join(parts)
    said = " ".join(str(error or "the server gives no reason").split())[:500].rstrip(".")
    return f"{what} ({said})."


def _id(row: Mapping[str, Any]) -> str | None:
    """An id that may stand in a path: servers are untrusted."""
    found = row.get("id")
    return found if isinstance(found, str) and re.fullmatch(r"[\w.:-]{1,200}", found) else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 0
