"""``doctor`` asks every provider a question that is free: which models it has.

Belongs here: the question, and what its answers mean. An answer shows that the provider is
there and takes the key.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from embedding_pipeline.cli.books import ask
from embedding_pipeline.cli.findings import Finding, Status

if TYPE_CHECKING:
    from embedding_pipeline.embedders.config import ProviderConfig
    from embedding_pipeline.settings.tree import Settings

PROBE_SECONDS: Final = 10
SUBJECT: Final = "provider"


def ask_providers(settings: "Settings") -> list[Finding]:
    """One finding for each provider. One that is out is no failure where another answers."""
    from embedding_pipeline.settings.environment import api_key

    providers = [one for one in settings.remote_providers if api_key(one) is not None]
    if settings.model_spec.is_local or not providers:
        return [Finding(Status.OK, SUBJECT, "none is asked")]
    found = [_ask(settings, provider) for provider in providers]
    if len(found) == 1:
        return found
    named = [
        replace(finding, message=f"{provider.name}: {finding.message}")
        for provider, finding in zip(providers, found, strict=True)
    ]
    some = any(finding.status is Status.OK for finding in found)
    return [
        replace(finding, status=Status.WARN) if some and finding.status is Status.FAIL else finding
        for finding in named
    ]


def _ask(settings: "Settings", provider: "ProviderConfig") -> Finding:
    """What one says, and of a compatible server beside others what is known of its vectors."""
    finding = probe(*_question(provider))
    if provider.kind != "compatible" or len(settings.remote_providers) == 1:
        return finding
    return replace(finding, message=f"{finding.message}; {_checked(settings, provider)}")


def _question(provider: "ProviderConfig") -> tuple[str, dict[str, str]]:
    """Address and headers; Azure has its own."""
    from embedding_pipeline.settings.environment import api_key, base_url

    secret = api_key(provider)
    key = secret.get_secret_value() if secret else ""
    url = (base_url(provider) or "https://api.openai.com/v1").rstrip("/")
    if provider.kind == "azure":
        version = quote(provider.api_version)
        return f"{url}/openai/models?api-version={version}", {"api-key": key}
    return f"{url}/models", {"Authorization": f"Bearer {key}"}


def _checked(settings: "Settings", provider: "ProviderConfig") -> str:
    from embedding_pipeline.assembly.vouching import voucher_of

    voucher = ask(settings, lambda c: voucher_of(settings, provider, c))
    if voucher is None or voucher.same is None:
        return "not compared with the model yet"
    verdict = "the same model" if voucher.same else "another model, and not used"
    return f"{verdict} (a similarity of {voucher.similarity:.4f} on {voucher.texts} texts)"


def probe(url: str, headers: dict[str, str]) -> Finding:
    """Ask for the list of models: free, and it shows whether the key is good."""
    place = url.partition("?")[0].removesuffix("/models")
    request = Request(url, headers=headers)  # noqa: S310 - settings allow http(s) only
    try:
        with urlopen(request, timeout=PROBE_SECONDS):  # noqa: S310
            return Finding(Status.OK, SUBJECT, f"{place} answers and takes the key")
    except HTTPError as error:
        return _refused(place, error.code)
    except OSError as error:
        reason = getattr(error, "reason", error)
        return Finding(
            Status.FAIL,
            SUBJECT,
            f"{place} cannot be reached: {reason}",
            "check the network, the proxy variables, base_url and OPENAI_BASE_URL",
        )


def _refused(place: str, status: int) -> Finding:
    if status in (401, 403):
        words = f"{place} refuses the key ({status})"
        return Finding(Status.FAIL, SUBJECT, words, "check key and permissions")
    if status == 404 and not urlsplit(place).path.strip("/"):
        words = f"{place} answers with 404: the address has no path"
        return Finding(Status.FAIL, SUBJECT, words, "most servers want /v1 at its end")
    if status in (404, 405):
        return Finding(Status.OK, SUBJECT, f"{place} answers, but does not list its models")
    return Finding(Status.WARN, SUBJECT, f"{place} answers with {status}", "try again later")
