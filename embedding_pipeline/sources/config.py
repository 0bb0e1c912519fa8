"""Settings of a source: where chunks come from and what their columns are called.

Belongs here: the frozen values and the combinations that cannot be meant. Does
not belong here: opening anything, or refusing what this version does not have.
"""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_PARAMETER: Final = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")
"""As SQLAlchemy finds them: not in ``::type``, not in ``10:30``."""

_PASSWORD: Final = re.compile(r"://[^/@]*:[^/@]+@")

Column = Annotated[str, Field(min_length=1)]


class SourceFields(BaseModel):
    """Which columns of a row mean what. Columns not named here go to ``metadata``.

    Attributes:
        id: the chunk's id, unique within a day. A row without it is kept aside.
        document_id: the document it belongs to; absent or empty means the row's own id.
        text: the text to embed.
        project: the tenant that pays; absent or empty means ``default``.
        user: a person or service within the project; may be absent.
        date: the day a row belongs to. Only read when ``source.path`` has no ``{date}``,
            and kept in ``metadata`` as well.
        ordinal: position within the document, if there is an integer column of that name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Column = "id"
    document_id: Column = "document_id"
    text: Column = "text"
    project: Column = "project"
    user: Column = "user"
    date: Column = "date"
    ordinal: Column = "ordinal"


class SourceConfig(BaseModel):
    """Where chunks come from.

    Attributes:
        kind: ``demo`` (the documentation inside this Python), ``files`` or ``sql``.
        path: for ``files``: an fsspec glob, usually with ``{date}`` (``YYYY-MM-DD``).
        query: for ``sql``: a query with ``:start`` and ``:end``.
        url: for ``sql``: the database, without a password.
        url_env: for ``sql``: the variable that holds the database's address, password and all.
        timeout_seconds: for ``sql``: how long the database may take over one answer.
        fields: which columns mean what.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["demo", "files", "sql"] = "demo"
    path: str | None = None
    query: str | None = None
    url: str | None = None
    url_env: str | None = None
    timeout_seconds: float = Field(600.0, gt=0, le=86_400)
    fields: SourceFields = SourceFields()

    @model_validator(mode="after")
    def _only_what_the_kind_reads(self) -> Self:
        if self.kind == "files" and not (self.path or "").strip():
            raise ValueError(
                "kind 'files' needs a path: an fsspec glob such as data/{date}/*.jsonl.gz"
            )
        if self.kind != "files" and self.path is not None:
            raise ValueError(f"path is not read by kind {self.kind!r}; set kind: files to use it")
        if self.kind == "sql":
            self._whole_query()
        elif self.query is not None or self.url is not None or self.url_env is not None:
            raise ValueError(f"query and url are not read by kind {self.kind!r}; they need sql")
        return self

    def _whole_query(self) -> None:
        if (self.url is None) == (self.url_env is None):
            raise ValueError(
                "kind 'sql' needs url, or url_env: the variable that holds an address with a "
                "password"
            )
        if self.url is not None and _PASSWORD.search(self.url):
            raise ValueError(
                "url holds a password; put the address into a variable, and name it in url_env"
            )
        names = set(_PARAMETER.findall(self.query or ""))
        if names != {"start", "end"}:
            raise ValueError(
                "kind 'sql' needs a query with :start and :end and no other parameter, such as "
                "select id, text from notes where written >= :start and written < :end order by id"
            )
