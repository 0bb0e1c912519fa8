"""What a submission is: its states, and what is known of it at each.

Belongs here: values. Does not belong here: statements (``books``), or moving one on
(``advancing``).

::

    open ──────► uploaded ⇄ creating ──► submitted ──► ended ──► settled ──► done
     │              │                       │                       ▲
     └──────────────┴───────────────────────┴───────────────────────┘
           never sent, refused, or cancelled: the keys are free again
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from embedding_pipeline.records import Account, Space

OWNER: Final = "batch-api"
"""Owner of every submission's flight: a batch lives on when the process that sent it ends."""

PREFIX: Final = "embedding-pipeline"
METADATA_KEY: Final = "embedding_pipeline"
RUN_KEY: Final = "embedding_pipeline_run"


class State(StrEnum):
    """How far a submission is."""

    OPEN = "open"
    """Keys are claimed, the file is being made or uploaded."""
    UPLOADED = "uploaded"
    """The file is there; the batch waits for room in the queue."""
    CREATING = "creating"
    """A batch is being asked for: it may exist already."""
    SUBMITTED = "submitted"
    """The provider works on it."""
    ENDED = "ended"
    """The provider is done; results are to be fetched."""
    SETTLED = "settled"
    """Everything is booked, no key is claimed; files are to be deleted."""
    DONE = "done"
    """Nothing is left to do."""


ENQUEUED: Final = (State.CREATING, State.SUBMITTED)
"""States in which a batch takes room in the provider's queue, or may."""


@dataclass(frozen=True)
class Terms:
    """What all submissions of a model have in common.

    Attributes:
        space: the space of the vectors.
        space_id: its number in the store.
        model: what the provider calls the model.
        provider: name of the provider.
        queue: account and model, which share one enqueued-token limit.
        price: nano-USD a token in a batch.
        dtype: how vectors are stored.
        identity: what sets the store apart from others on the same account.
    """

    space: Space
    space_id: int
    model: str
    provider: str
    queue: str
    price: int | None
    dtype: str
    identity: str


@dataclass(frozen=True)
class Submission:
    """One file and its batch.

    Attributes:
        id: its name, everywhere: its flight's, its file's, and in the batch's metadata.
        queue: the account and model.
        run_key: the work it belongs to, for people.
        state: how far it is.
        attempt: how many batches were asked for with this file.
        inputs: texts in the file.
        weight: their tokens, by the higher of both counts.
        booked_tokens: billed so far.
        accounts: who pays; keys name them by position.
        file_id, batch_id, output_id, error_id: the provider's names, "" where there is none.
        status: what the provider last said of the batch.
        opened_ms, changed_ms: instants.
        due_ms: nothing is to be tried before.
        note: what happened, for people.
    """

    id: str
    queue: str
    run_key: str
    state: State
    attempt: int
    inputs: int
    weight: int
    booked_tokens: int
    accounts: tuple[Account, ...]
    file_id: str
    batch_id: str
    output_id: str
    error_id: str
    status: str
    opened_ms: int
    changed_ms: int
    due_ms: int
    note: str

    @property
    def days(self) -> list[str]:
        """The partitions that pay for it, in order."""
        return sorted({account.partition for account in self.accounts if account.partition})

    @property
    def mark(self) -> str:
        """What the metadata of its present batch says: one name an attempt."""
        return f"{self.id}-{self.attempt}"


def file_name(identity: str, submission_id: str) -> str:
    """The name of a submission's file, by which an orphan is known."""
    return f"{PREFIX}-{identity}-{submission_id}.jsonl"


def submission_of(identity: str, name: str) -> str | None:
    """The submission a file belongs to; None for files that are not this store's."""
    head, tail = f"{PREFIX}-{identity}-", ".jsonl"
    if not name.startswith(head) or not name.endswith(tail):
        return None
    return name[len(head) : -len(tail)]
