"""Settings of a source: where chunks come from and what their columns are called.

Belongs here: the frozen values and the combinations that cannot be meant. Does
not belong here: opening anything, or refusing what this version does not have.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
        url: for ``sql``: the database.
        fields: which columns mean what.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["demo", "files", "sql"] = "demo"
    path: str | None = None
    query: str | None = None
    url: str | None = None
    fields: SourceFields = SourceFields()

    @model_validator(mode="after")
    def _only_what_the_kind_reads(self) -> Self:
        if self.kind == "files" and not (self.path or "").strip():
            raise ValueError(
                "kind 'files' needs a path: an fsspec glob such as data/{date}/*.jsonl.gz"
            )
        if self.kind != "files" and self.path is not None:
            raise ValueError(f"path is not read by kind {self.kind!r}; set kind: files to use it")
        if self.kind != "sql" and (self.query is not None or self.url is not None):
            raise ValueError(f"query and url are not read by kind {self.kind!r}; they need sql")
        return self
