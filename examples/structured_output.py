"""An answer that is sure to fit a JSON schema, with the official OpenAI client.

    python examples/structured_output.py                  # with the demo model
    python examples/structured_output.py CHAT_MODEL

The server is `MODELPORT_URL` (http://127.0.0.1:8000 if it is not set); `MODELPORT_API_KEY` is needed only if the server has keys.
"""

from __future__ import annotations

import json
import os
import sys

import openai

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def main(model: str = "smollm2-135m-instruct") -> None:
    url = os.environ.get("MODELPORT_URL", "http://127.0.0.1:8000")
    with openai.OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("MODELPORT_API_KEY", "none")) as client:
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Invent a person."}],
            response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}},
        )
    person = json.loads(answer.choices[0].message.content or "")
    print(f"{person['name']} is {person['age']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
