"""How clients say the tokens of some texts before anything is spent, as their documentation shows.

Belongs here: one coroutine a client that offers this. Who is not here does not.
"""

from collections.abc import Awaitable, Callable

from benchmarks.peers import ours
from benchmarks.peers.asking import MODEL, Ask


async def llama_index(ask: Ask) -> int:
    """``MockEmbedding`` with a ``TokenCountingHandler``."""
    from llama_index.core import MockEmbedding  # type: ignore[import-not-found]
    from llama_index.core.callbacks import (  # type: ignore[import-not-found]
        CallbackManager,
        TokenCountingHandler,
    )

    counter = TokenCountingHandler()
    model = MockEmbedding(embed_dim=8, callback_manager=CallbackManager([counter]))
    await model.aget_text_embedding_batch(list(ask.texts))
    return int(counter.total_embedding_token_count)


async def litellm(ask: Ask) -> int:
    """``litellm.token_counter``."""
    import litellm as lite  # type: ignore[import-not-found]

    return sum(int(lite.token_counter(model=MODEL, text=text)) for text in ask.texts)


PREVIEWS: dict[str, Callable[[Ask], Awaitable[int]]] = {
    "ours": ours.preview,
    "LlamaIndex": llama_index,
    "LiteLLM": litellm,
}
