from __future__ import annotations

from modelport.testing.api import ApiCall, ApiSuite
from modelport_api_huggingface import HuggingFace

from .fakes import fake_host

STREAM = {"stream": True}


class TestHuggingFace(ApiSuite):
    def api(self):
        return HuggingFace({"model": "org/chat"})

    def host(self, keys=None):
        return fake_host(keys=keys)

    def is_error_event(self, event):
        return b'"error_type"' in event

    def calls(self):
        return [
            ApiCall("/models/embedder", {"inputs": "a"}),
            ApiCall("/models/org/chat", {"inputs": "a", "parameters": {"max_new_tokens": 4}}, stream=STREAM),
            ApiCall("/models/org%2Fchat", {"inputs": "a"}, stream=STREAM),
            ApiCall("/models/org/chat/pipeline/text-generation", {"inputs": "a"}, stream=STREAM),
            ApiCall("/models/ranker/pipeline/text-classification", {"inputs": "a"}),
            ApiCall("/v1/generate", {"model": "org/chat", "inputs": "a"}, stream=STREAM),
            ApiCall("/v1/embed", {"model": "embed", "inputs": ["a", "b"]}),
            ApiCall("/v1/classify", {"inputs": "a", "parameters": {"top_k": 1}}),
            ApiCall("/generate", {"inputs": "a"}, stream=STREAM),
            ApiCall("/", {"inputs": "a"}, stream=STREAM),
            ApiCall("/invocations", {"inputs": "a"}, stream=STREAM),
            ApiCall("/vertex", {"instances": [{"inputs": "a"}]}),
            ApiCall("/tokenize", {"inputs": "a"}),
            ApiCall("/embed", {"inputs": "a"}),
            ApiCall("/embeddings", {"input": "a"}),
            ApiCall("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]}}),
            ApiCall("/rerank", {"query": "q", "texts": ["a", "b"]}),
            ApiCall("/predict", {"inputs": "a"}),
            ApiCall("/decode", {"ids": [97]}),
        ]
