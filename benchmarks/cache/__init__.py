"""The cache against those of LangChain and LiteLLM, on the same backends, in one run."""
