"""``rediss://``: a server behind TLS is used when its CA is ours, and refused when it is not."""

from pathlib import Path

import pytest

from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.cache.redis import measure, redis_client
from embedding_pipeline.errors import ConfigurationError, StateError
from embedding_pipeline.limits.enduring import Enduring
from embedding_pipeline.limits.redis import RedisLimits
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.engine.quick import settings_for
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI, listening
from embedding_pipeline_tests.limits.test_enduring import TERMS, WANTS
from embedding_pipeline_tests.tls import behind_tls, certificate

pytestmark = pytest.mark.anyio

DISTRUSTED = r"not trusted; name the CA's file in redis_url"


async def test_redis_is_trusted_by_its_ca_and_by_no_other(
    redis_url: str, tmp_path: Path, clock: FakeClock
) -> None:
    made, key = certificate(tmp_path, "ours")
    other, _ = certificate(tmp_path, "other")
    async with behind_tls(redis_url.removeprefix("unix://"), made, key) as port:
        address = f"rediss://localhost:{port}/0?ssl_ca_certs="
        right, wrong = RedisLimits(f"{address}{made}"), RedisLimits(f"{address}{other}")
        assert await right.states() == {}
        assert (await measure(redis_client(f"{address}{made}"))).where == "localhost"
        with pytest.raises(ConfigurationError, match=f"rate limits .* {DISTRUSTED}"):
            await Enduring(wrong, clock).exchange("k", TERMS, WANTS)
        assert clock.sleeps == [], "that does not pass by itself"
        with pytest.raises(StateError, match=f"cache .* {DISTRUSTED}"):
            await measure(redis_client(f"{address}{other}"))
        await right.aclose()
        await wrong.aclose()


async def test_a_run_does_not_wait_for_a_certificate_to_become_another(
    redis_url: str, tmp_path: Path
) -> None:
    made, key = certificate(tmp_path, "ours")
    other, _ = certificate(tmp_path, "other")
    socket = redis_url.removeprefix("unix://")
    async with behind_tls(socket, made, key) as port, listening(FakeOpenAI()) as fake:
        settings = settings_for(
            tmp_path,
            fake.base_url,
            redis_url=f"rediss://localhost:{port}/0?ssl_ca_certs={other}",
            on_outage="defer",
        )
        service = EmbeddingService(settings=settings, api_key=KEY, model=None)
        async with service:
            with pytest.raises(ConfigurationError, match=f"rate limits .* {DISTRUSTED}"):
                await service.embed_many(["a"])
    assert fake.books.requests == 0
