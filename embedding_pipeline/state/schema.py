"""Tables of the shared store.

Belongs here: table definitions, as they are after the last migration. Does not
belong here: statements (each room has its own), or texts (the store holds hashes).

Instants are integers: milliseconds since the epoch, UTC. Money is nano-USD.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata: Final = MetaData()

# SQLite gives a rowid only to INTEGER, PostgreSQL needs BIGINT: one type for both.
RowId: Final = BigInteger().with_variant(Integer, "sqlite")

schema_version: Final = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("applied_at", BigInteger, nullable=False),
)

spaces: Final = Table(
    "spaces",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
)

ledger: Final = Table(
    "ledger",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("partition", String(32), nullable=False),
    Column("project", String(255), nullable=False),
    Column("user", String(255), nullable=False),
    Column("space_id", RowId, ForeignKey("spaces.id"), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("requests", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost_nano_usd", BigInteger, nullable=False),
    Column("price_nano_usd", BigInteger),  # per token; null where no price is known
    Column("wait_ms", BigInteger, nullable=False),
    Column("outcome", String(16), nullable=False),  # settled | unknown
    Column("flight_id", String(32), nullable=False),
    Index("ledger_partition", "partition"),
    Index("ledger_at", "at"),
)
"""Append-only. A price is stored with the entry, so that a change never rewrites the past."""

vectors: Final = Table(
    "vectors",
    metadata,
    Column("space_id", RowId, primary_key=True),
    Column("digest", LargeBinary(32), primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("entry_id", RowId, nullable=False),
    Index("vectors_entry", "entry_id"),
)
"""The durable cache tier. ``entry_id`` is the ledger entry that paid for the vector.

``value`` is the vector, or says where in a file beside the store it is (``cache.codec``).
A plain rowid table on purpose: WITHOUT ROWID makes a lookup walk over the values.
"""

cache_groups: Final = Table(
    "cache_groups",
    metadata,
    Column("entry_id", RowId, primary_key=True, autoincrement=False),
    Column("space_id", RowId, nullable=False),
    Column("entries", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),  # to the hour
)
"""What ``vectors`` holds of each ledger entry, and when any of it was last read.

Vectors that were bought together stand side by side and go together: they free whole
pages, and a read marks one row for hundreds of vectors.
"""

owners: Final = Table(
    "owners",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("started", String(64), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)
"""One row a service that is alive; its lease is renewed by a heartbeat."""

flights: Final = Table(
    "flights",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner_id", String(32), nullable=False),
    Column("space_id", RowId, nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("price_nano_usd", BigInteger),
    Column("started_at", BigInteger, nullable=False),
    Column("shares", Text, nullable=False),  # JSON: [[partition, project, user, tokens], …]
)
"""Requests that are out. What is left here by a dead owner is booked as ``unknown``."""

claims: Final = Table(
    "claims",
    metadata,
    Column("space_id", RowId, primary_key=True),
    Column("digest", LargeBinary(32), primary_key=True),
    Column("flight_id", String(32), nullable=False),
    sqlite_with_rowid=False,
)
"""Keys being fetched: single flight over all processes. Few and small: without a rowid a
claim is one entry in one tree, and orphans are found by reading them all."""

quarantine: Final = Table(
    "quarantine",
    metadata,
    Column("space_id", RowId, primary_key=True),
    Column("partition", String(32), primary_key=True),
    Column("chunk_id", String(512), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("project", String(255), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("code", String(64), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("redrive", Integer, nullable=False),  # 1: a person asked for another try
    Index("quarantine_digest", "space_id", "digest"),
)
"""Chunks a provider refuses, by id and reason; never their text."""

names: Final = Table(
    "names",
    metadata,
    Column("space_id", RowId, primary_key=True),
    Column("name", String(512), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
)
"""Names callers gave to vectors (``cache_key``); a name follows its latest text."""

limits: Final = Table(
    "limits",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("state", Text, nullable=False),
)
"""One row an account and model: the state of its rate limit, as JSON. Small, and replaced whole."""

cache_stats: Final = Table(
    "cache_stats",
    metadata,
    Column("day", Integer, primary_key=True),  # days since the epoch, UTC
    Column("space_id", RowId, primary_key=True),
    Column("project", String(255), primary_key=True),
    Column("tier", String(16), primary_key=True),
    Column("hits", BigInteger, nullable=False),
    Column("misses", BigInteger, nullable=False),
    Column("damaged", BigInteger, nullable=False),
)
"""Keys that were asked for, and had, by cache tier. Damaged entries are among the misses."""

store_identity: Final = Table(
    "store_identity",
    metadata,
    Column("id", String(32), primary_key=True),
)
"""One row: what sets this store apart from others that share a Redis with it."""

budgets: Final = Table(
    "budgets",
    metadata,
    Column("scope", String(300), primary_key=True),
    Column("period", String(8), primary_key=True),
    Column("start_at", BigInteger, primary_key=True),
    Column("spent_nano_usd", BigInteger, nullable=False),
    Column("through_id", BigInteger, nullable=False),
)
"""What the ledger up to entry ``through_id`` holds for a budget's period: a running sum, that
can be made again from the ledger at any time. Limits stand in the settings, not here."""

reservations: Final = Table(
    "reservations",
    metadata,
    Column("flight_id", String(32), primary_key=True),
    Column("project", String(255), primary_key=True),
    Column("user", String(255), primary_key=True),
    Column("nano_usd", BigInteger, nullable=False),
)
"""Most that what is still out of a flight can be billed. One whose flight has ended counts
no more, whether it is still here or not."""

deferred: Final = Table(
    "deferred",
    metadata,
    Column("space_id", RowId, primary_key=True),
    Column("partition", String(32), primary_key=True),
    Column("chunk_id", String(512), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("project", String(255), nullable=False),
    Column("user", String(255), nullable=False),
    Column("priority", String(16), nullable=False),
    Column("reason", String(16), nullable=False),  # budget | outage
    Column("tokens", BigInteger, nullable=False),  # by the higher of both counts
    Column("at", BigInteger, nullable=False),
    Column("pass_id", String(32), nullable=False),  # who wrote the row last
)
"""Chunks left for later, until a run embeds them; never their text."""

alerts: Final = Table(
    "alerts",
    metadata,
    Column("key", String(512), primary_key=True),
    Column("text", Text, nullable=False),
    Column("filed_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("sent_at", BigInteger),
)
"""Messages for people, each filed once by its key and sent until it was taken."""

space_history: Final = Table(
    "space_history",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("action", String(16), nullable=False),  # adopt | promote | rollback | view | drop
    Column("model", String(255), nullable=False),
    Column("space", String(255), nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("by", String(255), nullable=False),
    Column("forced", Integer, nullable=False),
    Column("report", Text, nullable=False),  # JSON of the gate's report, or ""
)
"""Append-only. The active space is the last row that is not a drop: a switch is one row."""

space_builds: Final = Table(
    "space_builds",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("key", String(16), nullable=False, unique=True),
    Column("model", String(255), nullable=False),
    Column("space", String(255), nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("cost_nano_usd", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("approved_by", String(255), nullable=False),
    Column("note", Text, nullable=False),
    Column("report", Text, nullable=False),  # JSON of the gate's report, or ""
)
"""Shadow builds: one row for each change of the model; at most one of them is open."""

submissions: Final = Table(
    "submissions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("space_id", RowId, nullable=False),
    Column("queue", String(255), nullable=False),
    Column("run_key", String(255), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("inputs", Integer, nullable=False),
    Column("weight", BigInteger, nullable=False),  # tokens by the higher of both counts
    Column("booked_tokens", BigInteger, nullable=False),
    Column("accounts", Text, nullable=False),  # JSON: [[partition, project, user], …]
    Column("file_id", String(255), nullable=False),
    Column("batch_id", String(255), nullable=False),
    Column("output_id", String(255), nullable=False),
    Column("error_id", String(255), nullable=False),
    Column("status", String(64), nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("holder", String(32), nullable=False),  # who works on it until leased_until
    Column("leased_until", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
    Index("submissions_state", "state"),
)
"""Files and batches of the Batch API; written before each step outside this store."""

submission_keys: Final = Table(
    "submission_keys",
    metadata,
    Column("submission_id", String(32), primary_key=True),
    Column("digest", LargeBinary(32), primary_key=True),
    Column("account", Integer, nullable=False),  # position in the submission's accounts
    Column("tokens", BigInteger, nullable=False),
    Column("weight", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""What is still out of each submission; a key is here as long as it is claimed for it."""

vouchers: Final = Table(
    "vouchers",
    metadata,
    Column("space_id", RowId, primary_key=True),
    Column("provider", String(512), primary_key=True),  # its name, address and deployment
    Column("model", String(255), nullable=False),  # as its replies called it
    Column("verdict", String(16), nullable=False),  # same | other | "" while none is known
    Column("similarity_ppm", Integer, nullable=False),  # the lowest, in millionths
    Column("texts", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("holder", String(32), nullable=False),  # who checks until leased_until
    Column("leased_until", BigInteger, nullable=False),
)
"""Whether a compatible server makes the vectors of a space: what a comparison has shown."""
