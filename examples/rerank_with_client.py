"""Documents in the order of their relevance to a query, with modelport's own client.

    modelport serve rerank=cross-encoder/ms-marco-MiniLM-L6-v2
    python examples/rerank_with_client.py rerank

The server is `MODELPORT_URL` (http://127.0.0.1:8000 if it is not set); `MODELPORT_API_KEY` is needed only if the server has keys.
"""

from __future__ import annotations

import os
import sys

from modelport import Client
from modelport.tasks.text import RankingRequest

QUERY = "How many people live in Berlin?"
DOCUMENTS = [
    "New York City is famous for the Metropolitan Museum of Art.",
    "Berlin had 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
    "Berlin is well known for its museums.",
]


def main(model: str = "rerank") -> None:
    url = os.environ.get("MODELPORT_URL", "http://127.0.0.1:8000")
    with Client(url, key=os.environ.get("MODELPORT_API_KEY")) as client:
        request = RankingRequest(query=QUERY, documents=DOCUMENTS)
        answer = client.infer(model, request, task="text-ranking")  # a cross-encoder classifies, too: say what is wanted
        for found in answer.result.results:  # a RankingResult, the most relevant document first
            print(f"{found.score:.3f}  {DOCUMENTS[found.index]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
