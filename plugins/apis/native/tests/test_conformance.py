from __future__ import annotations

from modelport.testing.api import ApiCall, ApiSuite
from modelport_api_native import Native


class TestNative(ApiSuite):
    def api(self):
        return Native()

    def calls(self):
        return [
            ApiCall("/v1/infer/embedder", {"inputs": "a"}),
            ApiCall("/v1/infer/embedder", {"task": "feature-extraction", "inputs": ["a"], "options": {"priority": 1}}),
            ApiCall("/v1/infer/org/chat", {"prompt": "hi"}, stream={"stream": True}),
            ApiCall("/v1/infer/org%2Fchat", {"request": {"prompt": "hi"}}, stream={"stream": True}),
            ApiCall("/v1/infer/ranker", {"query": "q", "documents": ["a", "b"]}),
        ]
