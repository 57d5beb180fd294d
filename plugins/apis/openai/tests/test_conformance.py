from __future__ import annotations

from modelport.testing.api import ApiCall, ApiSuite
from modelport_api_openai import OpenAI

STREAM = {"stream": True, "stream_options": {"include_usage": True}}


class TestOpenAI(ApiSuite):
    def api(self):
        return OpenAI()

    def calls(self):
        messages = [{"role": "user", "content": "hi"}]
        return [
            ApiCall("/v1/embeddings", {"model": "embedder", "input": "a"}),
            ApiCall("/v1/embeddings", {"model": "embed", "input": ["a", "b"], "encoding_format": "base64"}),
            ApiCall("/v1/completions", {"model": "org/chat", "prompt": "hi"}, stream=STREAM),
            ApiCall("/v1/chat/completions", {"model": "org/chat", "messages": messages, "n": 2}, stream=STREAM),
            ApiCall("/v1/audio/speech", {"model": "speaker", "input": "hi", "voice": "alloy"}),
            ApiCall("/v1/rerank", {"model": "ranker", "query": "q", "documents": ["a", "b"]}),
            ApiCall("/v2/rerank", {"model": "ranker", "query": "q", "documents": ["a", "b"]}),
        ]
