"""What the API says when it says no: statuses, headers and bodies as seen in the wild."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

REFERENCE = "https://platform.openai.com/docs/api-reference"
HTML = (
    "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>"
    "\r\n<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
)


@dataclass(frozen=True)
class Answer:
    """An answer that carries no vectors."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal(
    status: int,
    message: str,
    type_: str | None = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
) -> Answer:
    """The API's own shape of an error."""
    error = {"message": message, "type": type_, "param": param, "code": code}
    return Answer(status, json.dumps({"error": error}, indent=2).encode())


def html(status: int, title: str) -> Answer:
    """What the proxies before the API answer when they cannot reach it."""
    return Answer(status, HTML.format(title=f"{status} {title}").encode(), "text/html")


def bad_input() -> Answer:
    """An empty string, an empty list: which item it was is not said."""
    return refusal(400, f"'$.input' is invalid. Please check the API reference: {REFERENCE}.")


def too_many_inputs(count: int) -> Answer:
    message = (
        "'$.input' is invalid. Array length must be 2048 or less, "
        f"got {count}. Please check the API reference: {REFERENCE}."
    )
    return refusal(400, message)


def input_too_long(index: int) -> Answer:
    return refusal(400, f"Invalid 'input[{index}]': maximum input length is 8192 tokens.")


def context_length(tokens: int = 8610) -> Answer:
    """The older wording, which does not name the item."""
    message = (
        f"This model's maximum context length is 8192 tokens, however you requested {tokens} "
        f"tokens ({tokens} in your prompt; 0 for the completion). "
        "Please reduce your prompt; or completion length."
    )
    return refusal(400, message)


def request_too_long(tokens: int) -> Answer:
    code = "max_tokens_per_request"
    message = f"Requested {tokens} tokens, max 300000 tokens per request"
    return refusal(400, message, code, code)


def no_dimensions() -> Answer:
    return refusal(400, "This model does not support specifying dimensions.", param="dimensions")


def wrong_key(key: str) -> Answer:
    shown = f"{key[:3]}*****{key[-4:]}" if len(key) > 8 else "***"
    message = (
        f"Incorrect API key provided: {shown}. You can find your API key at "
        "https://platform.openai.com/account/api-keys."
    )
    return refusal(401, message, code="invalid_api_key")


def unknown_model(model: str) -> Answer:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return refusal(404, message, code="model_not_found")


def unknown_deployment() -> Answer:
    message = "The API deployment for this resource does not exist."
    return refusal(404, message, None, code="DeploymentNotFound")


def rate_limited(model: str, what: str, limit: float, used: float, asked: float, wait: str) -> str:
    """The message of a 429 that time cures; ``what`` is requests or tokens."""
    short = {"requests": "RPM", "tokens": "TPM"}[what]
    return (
        f"Rate limit reached for {model} in organization org-fake on {what} per min ({short}): "
        f"Limit {limit:.0f}, Used {used:.0f}, Requested {asked:.0f}. Please try again in {wait}. "
        "Visit https://platform.openai.com/account/rate-limits to learn more."
    )


def over_the_bucket(model: str, limit: float, asked: float) -> Answer:
    """A 429 that no waiting cures."""
    message = (
        f"Request too large for {model} in organization org-fake on tokens per min (TPM): "
        f"Limit {limit:.0f}, Requested {asked:.0f}. The input or output tokens must be reduced "
        "in order to run successfully. "
        "Visit https://platform.openai.com/account/rate-limits to learn more."
    )
    return refusal(429, message, "tokens", "rate_limit_exceeded")
