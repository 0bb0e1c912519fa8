"""Files and batches: what the Batch API does with embeddings, and how it goes wrong."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from embedding_pipeline_tests.fake_openai import bodies
from embedding_pipeline_tests.fake_openai.bodies import Answer
from embedding_pipeline_tests.fake_openai.books import Books
from embedding_pipeline_tests.fake_openai.replies import Replies
from embedding_pipeline_tests.fake_openai.rules import Request, check

MOST_INPUTS = 50_000
MOST_BYTES = 200_000_000
MOST_METADATA = 16
AT_ONCE = 1_000_000
"""Bytes of a file that are validated before a creation is answered; more are later."""

PARTLY = ("expired", "cancelled")
ENDINGS = (
    "completed",
    "failed",
    "expired",
    "cancelled",
    "errors_only",
    "line_errors",
    "duplicates",
    "missing",
    "spoilt",
    "status_zero",
    "deleted",
)
"""How a batch can end. ``expired`` and ``cancelled`` have done half of their lines."""


@dataclass
class BatchOptions:
    """How batches go.

    Attributes:
        endings: of the next batches, in order (see ``ENDINGS``); ``completed`` after those.
        polls: so often a batch is still in progress when it is looked at.
        enqueued_limit: tokens (UTF-8 bytes / 4) of unfinished batches; None has no limit.
        torn_downloads: so many downloads break off in the middle.
        refuses: lines whose text holds this are refused; None refuses none.
        lost_creations: so many batches are made without the caller hearing of it.
    """

    endings: list[str] = field(default_factory=list)
    polls: int = 0
    enqueued_limit: int | None = None
    torn_downloads: int = 0
    lost_creations: int = 0
    refuses: str | None = None


@dataclass
class StoredFile:
    """One file."""

    id: str
    name: str
    purpose: str
    content: bytes
    at: int

    def shown(self) -> dict[str, Any]:
        """As the API lists it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": self.at,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass
class Batch:
    """One batch; ``shown`` is what the API says of it."""

    shown: dict[str, Any]
    requests: dict[str, Request]
    ending: str
    looks: int = 0
    validating: bool = False

    @property
    def pending(self) -> bool:
        return self.shown["status"] in ("validating", "in_progress", "finalizing", "cancelling")

    @property
    def estimate(self) -> int:
        return sum(request.estimate for request in list(self.requests.values()))


class Batches:
    """The two endpoints' state.

    Attributes:
        options: how batches go.
        files: what is stored now, by id.
        batches: every batch ever made, by id.
        uploads: files ever uploaded.
        most_pending: tokens of unfinished batches, the highest that ever was.
    """

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self.options = BatchOptions()
        self.files: dict[str, StoredFile] = {}
        self.batches: dict[str, Batch] = {}
        self.uploads = 0
        self._numbers = 0
        self.most_pending = 0

    def upload(self, name: str, purpose: str, content: bytes) -> StoredFile | Answer:
        if not name.endswith(".jsonl"):
            return bodies.refusal(400, "Invalid file format for Batch API. Must be .jsonl")
        if len(content) > MOST_BYTES:
            return bodies.refusal(413, "The file is too large.")
        self.uploads += 1
        return self._keep(name, purpose, content)

    def create(self, body: dict[str, Any], books: Books) -> Batch | Answer:
        """A new batch; whether its content will do is only seen later."""
        file = self.files.get(str(body.get("input_file_id")))
        if file is None:
            return bodies.refusal(404, "No such File object", param="input_file_id")
        if body.get("endpoint") != "/v1/embeddings" or body.get("completion_window") != "24h":
            return bodies.refusal(400, "Invalid endpoint or completion_window")
        if len(body.get("metadata") or {}) > MOST_METADATA:
            return bodies.refusal(400, "Too many metadata pairs", param="metadata")
        number, endings = len(self.batches) + 1, self.options.endings
        shown = _new(f"batch_{number}", file.id, body.get("metadata"))
        batch = Batch(shown, {}, endings.pop(0) if endings else "completed")
        self.batches[shown["id"]] = batch
        books.requests += 1
        if len(file.content) > AT_ONCE:
            batch.validating = True
            Thread(target=self._validate_later, args=(batch, file.content), daemon=True).start()
            return batch
        self._validate(batch, file.content)
        if not self.options.polls and batch.pending:
            batch.shown["status"] = "in_progress"
        return batch

    def look(self, batch: Batch, books: Books) -> dict[str, Any]:
        """What is said of a batch; looking is what moves it on."""
        if batch.pending and not batch.validating:
            batch.looks += 1
            batch.shown["status"] = "in_progress"
            if batch.looks > self.options.polls or batch.ending == "cancelled":
                self._end(batch, books)
        return batch.shown

    def cancel(self, batch: Batch) -> dict[str, Any]:
        if batch.pending:
            batch.shown["status"], batch.ending = "cancelling", "cancelled"
        return batch.shown

    def read(self, file: StoredFile) -> tuple[bytes, bool]:
        """The content, and whether it breaks off in the middle."""
        if self.options.torn_downloads:
            self.options.torn_downloads -= 1
            return file.content, True
        return file.content, False

    def _validate_later(self, batch: Batch, content: bytes) -> None:
        self._validate(batch, content)
        batch.validating = False

    def _validate(self, batch: Batch, content: bytes) -> None:
        seen = set[str]()
        for number, line in enumerate(content.splitlines(), 1):
            problem = _understand(batch, line, seen)
            if problem is not None:
                return _fail(batch, problem, number)
        pending = sum(b.estimate for b in list(self.batches.values()) if b.pending)
        limit = self.options.enqueued_limit
        if not batch.requests:
            _fail(batch, "empty_file")
        elif len(batch.requests) > MOST_INPUTS:
            _fail(batch, "too_many_tasks")
        elif limit is not None and pending > limit:
            _fail(batch, "token_limit_exceeded")
        else:
            self.most_pending = max(self.most_pending, pending)
        return None

    def _end(self, batch: Batch, books: Books) -> None:
        if batch.ending == "failed":
            return _fail(batch, "model_mismatch", 1)
        good: list[Any] = []
        bad: list[Any] = []
        for custom_id, request in _done(batch):
            why = _why_not(batch.ending, len(good) + len(bad))
            if self.options.refuses and any(self.options.refuses in t for t in request.texts):
                why = "invalid_request_error"
            if why is None:
                books.bill(request, discount=2)
                good.append(_line(custom_id, json.loads(self._replies.whole(request))))
            else:
                bad.append(_error_line(custom_id, why))
        rest = list(batch.requests)[len(good) + len(bad) :]
        bad += [_expired_line(custom_id) for custom_id in rest if batch.ending == "expired"]
        books.reported += sum(line["response"]["body"]["usage"]["total_tokens"] for line in good)
        shown = batch.shown
        shown["status"] = batch.ending if batch.ending in PARTLY else "completed"
        shown["request_counts"] = {
            "total": len(batch.requests),
            "completed": len(good),
            "failed": len(bad),
        }
        self._file_results(batch, _spoil(batch.ending, good), bad)
        return None

    def _file_results(self, batch: Batch, good: list[Any], bad: list[Any]) -> None:
        for key, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
                file = self._keep(f"{batch.shown['id']}_{key}.jsonl", "batch_output", content)
                batch.shown[key] = file.id
                if batch.ending == "deleted":
                    del self.files[file.id]

    def _keep(self, name: str, purpose: str, content: bytes) -> StoredFile:
        self._numbers += 1
        file = StoredFile(f"file-{self._numbers}", name, purpose, content, int(time.time()))
        self.files[file.id] = file
        return file


def _new(name: str, file: str, metadata: object) -> dict[str, Any]:
    return {
        "id": name,
        "object": "batch",
        "endpoint": "/v1/embeddings",
        "errors": None,
        "input_file_id": file,
        "completion_window": "24h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": int(time.time()),
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": metadata or {},
    }


def _understand(batch: Batch, line: bytes, seen: set[str]) -> str | None:
    """Take a line in, or say what is wrong with it."""
    try:
        entry = json.loads(line)
        name, body = entry["custom_id"], entry["body"]
    except (ValueError, KeyError, TypeError):
        return "invalid_json_line"
    if name in seen:
        return "duplicate_custom_id"
    if entry.get("url") != "/v1/embeddings" or entry.get("method") != "POST":
        return "url_mismatch"
    seen.add(name)
    request = check(json.dumps(body).encode())
    if isinstance(request, Answer):
        return "invalid_request"
    models = {other.model.name for other in batch.requests.values()} - {request.model.name}
    if models:
        return "model_mismatch"
    batch.requests[name] = request
    return None


def _fail(batch: Batch, code: str, line: int | None = None) -> None:
    batch.shown["status"] = "failed"
    error = {"code": code, "message": f"the batch failed: {code}", "param": None, "line": line}
    batch.shown["errors"] = {"object": "list", "data": [error]}


def _done(batch: Batch) -> Iterator[tuple[str, Request]]:
    """Lines that were worked on, in an order of the server's own."""
    every = list(batch.requests.items())
    half = batch.ending in PARTLY
    yield from reversed(every[: len(every) // 2] if half else every)


def _why_not(ending: str, position: int) -> str | None:
    if ending == "errors_only" or (ending == "line_errors" and position % 3 == 0):
        return "invalid_request_error"
    return None


def _spoil(ending: str, lines: list[Any]) -> list[Any]:
    if ending == "duplicates":
        return [*lines, *lines]
    if ending == "missing":
        return [line for number, line in enumerate(lines) if number % 4]
    if ending == "spoilt" and lines:
        lines[0]["response"]["body"]["data"][0]["embedding"] = "AAAA"
    if ending == "status_zero" and lines:
        lines[0]["response"] = {"status_code": 0, "request_id": "", "body": {}}
    return lines


def _line(custom_id: str, body: dict[str, Any]) -> dict[str, Any]:
    response = {"status_code": 200, "request_id": "req_fake", "body": body}
    return {"id": f"batch_req_{custom_id[:8]}", "custom_id": custom_id, "response": response} | {
        "error": None
    }


def _error_line(custom_id: str, kind: str) -> dict[str, Any]:
    body = {"error": {"message": "no", "type": kind, "param": None, "code": None}}
    response = {"status_code": 400, "request_id": "req_fake", "body": body}
    return {"id": "batch_req", "custom_id": custom_id, "response": response, "error": None}


def _expired_line(custom_id: str) -> dict[str, Any]:
    error = {"code": "batch_expired", "message": "This request could not be executed in time."}
    return {"id": "batch_req", "custom_id": custom_id, "response": None, "error": error}
