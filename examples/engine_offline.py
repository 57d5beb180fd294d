"""Models without a server: for a script, a notebook or a nightly job.

    python examples/engine_offline.py chat=HuggingFaceTB/SmolLM2-135M-Instruct embed=sentence-transformers/all-MiniLM-L6-v2
    python examples/engine_offline.py chat=./a-folder embed=./another

The arguments are sources as `modelport serve` takes them. Nothing listens; the models end with the `with` block.
"""

from __future__ import annotations

import sys

from modelport import Engine

SENTENCES = ["A man is eating food.", "Someone is having a meal.", "Shares fell sharply today."]


def main(*sources: str) -> None:
    with Engine(*sources) as engine:
        vectors = engine.embed("embed", SENTENCES, normalize=True)
        for sentence, nearness in zip(SENTENCES, vectors @ vectors[0], strict=True):
            print(f"{nearness:.3f}  {sentence}")

        messages = [{"role": "user", "content": "What is the capital of France?"}]
        print(engine.generate("chat", messages, max_new_tokens=16, temperature=0.0))

        for model in engine.models:
            place = engine.placement(model.id)  # with every other place, and why it was not taken
            print(f"{model.id} ran on {', '.join(place['devices'])} in {place['facts']['dtype']}")


if __name__ == "__main__":
    main(*sys.argv[1:] or ("chat=HuggingFaceTB/SmolLM2-135M-Instruct", "embed=sentence-transformers/all-MiniLM-L6-v2"))
