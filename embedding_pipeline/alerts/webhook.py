"""Posting a message to a Slack-compatible webhook.

Belongs here: one call, bounded in time. Does not belong here: what is sent, or when again.

The URL is a secret: whoever has it can post. It stands in no message, and nothing follows a
redirect, which could carry messages elsewhere.
"""

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from embedding_pipeline.errors import AlertNotSent, ConfigurationError

if TYPE_CHECKING:
    import aiohttp

SECONDS: Final = 10.0
"""Longest time for one message, from the first byte to the last."""


class Webhook:
    """Where messages for people go.

    Raises:
        ConfigurationError: the URL is not one.
    """

    def __init__(self, url: SecretStr, seconds: float = SECONDS) -> None:
        parts = urlsplit(url.get_secret_value())
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigurationError(
                "alerts.webhook_url_env: the variable it names must hold an http(s) address"
            )
        self._url = url
        self._seconds = seconds

    async def send(self, text: str) -> None:
        """Post ``{"text": text}``. Done once the other side answers with a status of 2xx.

        Raises:
            AlertNotSent: it did not.
        """
        import aiohttp

        bound = aiohttp.ClientTimeout(total=self._seconds)
        try:
            async with aiohttp.ClientSession(timeout=bound, trust_env=True) as session:
                status = await self._post(session, text)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as exc:
            # its message may hold the URL, and so may its cause
            raise AlertNotSent(
                f"the webhook cannot be reached ({type(exc).__name__}); tried again later"
            ) from None
        if not 200 <= status < 300:
            raise AlertNotSent(f"the webhook answered with {status}; tried again later")

    async def _post(self, session: "aiohttp.ClientSession", text: str) -> int:
        url = self._url.get_secret_value()
        async with session.post(url, json={"text": text}, allow_redirects=False) as reply:
            await reply.content.read(1)
            return reply.status
