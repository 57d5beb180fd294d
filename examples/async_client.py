"""Many requests at once, and one that is streamed, with modelport's asynchronous client.

    python examples/async_client.py                        # with the demo models
    python examples/async_client.py CHAT_MODEL EMBEDDING_MODEL

What is sent at once is computed at once: the server batches the requests that wait.
The server is `MODELPORT_URL` (http://127.0.0.1:8000 if it is not set); `MODELPORT_API_KEY` is needed only if the server has keys.
"""

from __future__ import annotations

import asyncio
import os
import sys

from modelport import AsyncClient
from modelport.contract import NotFound
from modelport.tasks.text import EmbeddingRequest, GenerationRequest


async def main(chat: str = "smollm2-135m-instruct", embedder: str = "all-minilm-l6-v2") -> None:
    url = os.environ.get("MODELPORT_URL", "http://127.0.0.1:8000")
    async with AsyncClient(url, key=os.environ.get("MODELPORT_API_KEY")) as client:
        for model in await client.models():
            print(f"{model.id}: {', '.join(model.tasks)}, {model.state}")

        requests = [EmbeddingRequest(inputs=f"Sentence number {number}.") for number in range(16)]
        answers = await asyncio.gather(*(client.infer(embedder, request) for request in requests))
        tokens = sum(answer.usage.prompt_tokens for answer in answers)
        print(f"{len(answers)} embeddings of width {answers[0].result.embeddings.shape[1]} from {tokens} tokens")

        request = GenerationRequest(prompt="The three primary colours are", max_new_tokens=16, temperature=0.0)
        async for delta in client.stream(chat, request):
            print(delta.text, end="", flush=True)
        print()

        try:
            await client.infer("no-such-model", requests[0])
        except NotFound as error:  # every kind of error has a class; its message says what to do
            print(f"as expected: {error.message}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
