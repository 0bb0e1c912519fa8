"""Settings of the alerts room."""

from pydantic import BaseModel, ConfigDict, Field


class AlertsConfig(BaseModel):
    """Where alerts go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    webhook_url_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the URL of a Slack-compatible webhook. The
    URL itself is a secret and stands in no file."""
