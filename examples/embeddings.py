"""How near some sentences are to another, by their embeddings, with the official OpenAI client.

    pip install openai numpy
    python examples/embeddings.py                          # with the second demo model
    python examples/embeddings.py MODEL

The server is `MODELPORT_URL` (http://127.0.0.1:8000 if it is not set); `MODELPORT_API_KEY` is needed only if the server has keys.
"""

from __future__ import annotations

import os
import sys

import numpy as np
from openai import OpenAI

ASKED = "A man is eating food."
SENTENCES = ["Someone is having a meal.", "A cat sleeps on the sofa.", "Shares fell sharply today."]


def main(model: str = "all-minilm-l6-v2") -> None:
    url = os.environ.get("MODELPORT_URL", "http://127.0.0.1:8000")
    key = os.environ.get("MODELPORT_API_KEY", "none")
    with OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        answer = client.embeddings.create(model=model, input=[ASKED, *SENTENCES])
    vectors = np.array([item.embedding for item in answer.data])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # not every model's are of length 1

    nearness = vectors[1:] @ vectors[0]
    for index in np.argsort(-nearness):
        print(f"{nearness[index]:.3f}  {SENTENCES[index]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
