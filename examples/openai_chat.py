"""A conversation with the official OpenAI client, printed while it is written.

    pip install openai
    python examples/openai_chat.py                         # asks the first demo model
    python examples/openai_chat.py MODEL "A question"

The server is `MODELPORT_URL` (http://127.0.0.1:8000 if it is not set); `MODELPORT_API_KEY` is needed only if the server has keys.
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI


def main(model: str = "smollm2-135m-instruct", question: str = "What is the capital of France?") -> None:
    url = os.environ.get("MODELPORT_URL", "http://127.0.0.1:8000")
    key = os.environ.get("MODELPORT_API_KEY", "none")  # the client wants one, also where the server does not
    with OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_completion_tokens=32,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
            if chunk.usage is not None:  # the last chunk, which has no choices
                print(f"\n({chunk.usage.prompt_tokens} tokens in, {chunk.usage.completion_tokens} out)")


if __name__ == "__main__":
    main(*sys.argv[1:])
