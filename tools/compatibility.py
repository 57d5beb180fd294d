"""Writes docs/compatibility.md: which families run on which backends, as far as is measured, declared or refused.

    python tools/compatibility.py             # the page, from the verdicts of the installed backends and from docs/measured.json
    python tools/compatibility.py --measure   # first runs tiny models of some families on the devices that are here

A *declared* cell is a backend's verdict over the family's default configuration and a typical device of its; a *measured* one was
loaded by a real worker and agreed with transformers on the same weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelport.contract import Backend, ConfigurationError, Device, ModelCard, Program, Skill
from modelport.core.config.settings import Settings
from modelport.core.plugins.discover import discover

ROOT = Path(__file__).resolve().parent.parent
PAGE, MEASURED = ROOT / "docs/compatibility.md", ROOT / "docs/measured.json"
_HOST = {"memory_total_bytes": 1 << 40, "memory_free_bytes": 1 << 40}
_ALL = ("float32", "bfloat16", "float16")
TYPICAL = {
    "cuda": Device(backend="cuda", name="NVIDIA", dtypes=_ALL, properties={"capability": "9.0"}, **_HOST),
    "rocm": Device(backend="rocm", name="AMD", dtypes=_ALL, properties={"gfx": "gfx942"}, **_HOST),
    "mps": Device(backend="mps", name="Apple", dtypes=("float32", "float16"), **_HOST),
    "openvino": Device(
        backend="openvino", name="OpenVINO", dtypes=("float32", "bfloat16"), properties={"openvino": "CPU"}, **_HOST
    ),
    "qnn": Device(backend="qnn", name="Hexagon NPU", dtypes=("float16",), **_HOST),
    "cpu": Device(backend="cpu", name="CPU", dtypes=("float32", "bfloat16"), **_HOST),
}
_IMAGES = ("config.json", "model.safetensors", "preprocessor_config.json")
_TEXT = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_HEADER = """# Which families run where

Written by `python tools/compatibility.py` with transformers {version}: {families} families in {rows} pairs of family and task
that the installed skills claim. `modelport models families` lists the families of an installation.

- **measured**: loaded by a real worker on that device, and equal to transformers on the same weights; {measured} cells so far, of
  tiny models with random weights (`--measure`).
- yes: the backend's verdict over the family's default configuration, on a typical device; not run there yet.
- no: refused, and fails: measured and not so, each with the sentence below that the number names.

What a verdict cannot know is found when a model is loaded: then the load fails with the reason, and the next backend takes over.

"""


def rows(skills: Mapping[str, Skill], folder: Path) -> Iterator[tuple[str, str, ModelCard, Program]]:
    """(model type, task, a card of its default configuration, the program that would run), for what a skill claims.

    `folder` is where an image processor's settings are written, which skills look for.
    """
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor"}', encoding="utf-8")
    for skill in skills.values():
        for head, tasks in sorted(skill.heads.items()):
            words = "" if head == "feature-extraction" else f"FOR_{head.upper().replace('-', '_')}_"
            names = getattr(modeling_auto, f"MODEL_{words}MAPPING_NAMES", {})
            for model_type, architecture in sorted(names.items()):
                try:
                    config = CONFIG_MAPPING[model_type]().to_dict()
                except Exception:  # a configuration that needs parts given
                    config = {}
                of_text = ModelCard(
                    name=model_type,
                    model_type=model_type,
                    architectures=(architecture if isinstance(architecture, str) else architecture[0],),
                    files=_TEXT,
                    parameters=10_000_000,
                    config={**config, "model_type": model_type},
                )
                of_images = msgspec.structs.replace(of_text, files=_IMAGES, path=str(folder))
                card = next((card for card in (of_text, of_images) if skill.claim(card) is not None), None)
                try:
                    programs = skill.programs(card) if card is not None else {}
                except ConfigurationError:  # claimed, and refused in words
                    programs = {}
                for task in tasks:
                    if card is not None and task in programs:
                        yield model_type, task, card, programs[task]


def page(skills: Mapping[str, Skill], backends: Mapping[str, Backend], measured: Mapping[str, Any]) -> str:
    """The whole page."""
    import transformers

    names = [name for name in TYPICAL if name in backends]
    reasons: dict[str, int] = {}
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        found = sorted({(kind, task): (card, program) for kind, task, card, program in rows(skills, Path(folder))}.items())
    for (model_type, task), (card, program) in found:
        cells = [_cell(backends[name], program, card, measured.get(model_type, {}).get(task, {}), reasons) for name in names]
        lines.append(f"| hf_{model_type.replace('-', '_').replace('.', '_')} | {task} | {' | '.join(cells)} |")
    head = _HEADER.format(
        version=transformers.__version__,
        families=len({kind for (kind, _), _ in found}),
        rows=len(found),
        measured=sum("measured" in line.split("|")[at] for line in lines for at in range(3, 3 + len(names))),
    )
    table = f"| family | task | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}\n" + "\n".join(lines)
    notes = "\n".join(f"{number}. {reason}" for reason, number in reasons.items())
    return f"{head}{table}\n\n## Why not\n\n{notes}\n"


def _cell(backend: Backend, program: Program, card: ModelCard, measured: Mapping[str, str], reasons: dict[str, int]) -> str:
    finding = measured.get(backend.name, "")
    if finding.startswith("fails: "):
        return f"fails ({reasons.setdefault(finding.removeprefix('fails: '), len(reasons) + 1)})"
    if finding:
        return f"**measured**: {finding}"
    verdict = backend.verdict(program, card, (TYPICAL[backend.name],))
    if verdict.runs:
        return "yes" if verdict.answer == "yes" else "yes, converted"
    return f"no ({reasons.setdefault(verdict.reason, len(reasons) + 1)})"


# ------------------------------------------------------------------------------------------------------------- measuring


def measure() -> dict[str, Any]:
    """Runs tiny models of some families on every device that is here, and compares them with transformers."""
    from modelport import Engine
    from modelport.testing import checkpoints as tiny

    kinds: list[tuple[str, str, Callable[[Path], Path], Callable[[Any, Path], str]]] = [
        ("bert", "feature-extraction", tiny.tiny_bert, _embeds),
        ("bert", "text-classification", lambda folder: tiny.tiny_cross_encoder(folder, labels=3), _classifies),
        ("bert", "token-classification", tiny.tiny_reader, _labels),
        ("bert", "fill-mask", lambda folder: tiny.tiny_reader(folder, "masked-lm"), _fills),
        ("llama", "text-generation", tiny.tiny_llama, _generates),
        ("mistral", "text-generation", tiny.tiny_mistral, _generates),
        ("qwen2", "text-generation", tiny.tiny_qwen2, _generates),
        ("gemma3_text", "text-generation", tiny.tiny_gemma3, _generates),
        ("gpt2", "text-generation", tiny.tiny_gpt2, _generates),
    ]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for model_type, task, make, compare in kinds:
            folder = make(Path(place) / f"{model_type}-{task}")
            for backend in ("cpu", "openvino"):
                with Engine(f"m={folder}", backend=backend, dtype="float32") as engine:
                    try:
                        finding = compare(engine, folder)
                    except Exception as error:
                        finding = f"fails: {str(error).partition(' A request after')[0]}"
                found.setdefault(model_type, {}).setdefault(task, {})[backend] = finding
                print(model_type, task, backend, finding, flush=True)
    return found


_TEXTS = ["the cat was good", "he and his dog for a day at that"]


def _embeds(engine: Any, folder: Path) -> str:
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    worst = 1.0
    for text, vector in zip(_TEXTS, engine.embed("m", _TEXTS), strict=True):
        with torch.inference_mode():
            state = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
        worst = min(worst, float(vector @ state / np.linalg.norm(vector) / np.linalg.norm(state)))
    assert worst >= 0.9999, worst
    return f"cosine {worst:.6f}"


def _classifies(engine: Any, folder: Path) -> str:
    from transformers import pipeline

    expected = pipeline("text-classification", str(folder))(_TEXTS, top_k=None)
    found = engine.run("text-classification", "m", {"inputs": _TEXTS}).result.results
    for one, other in zip(found, expected, strict=True):
        assert [each.label for each in one] == [each["label"] for each in other]
        assert all(abs(each.score - its["score"]) < 1e-3 for each, its in zip(one, other, strict=True))
    return "labels and scores equal"


def _labels(engine: Any, folder: Path) -> str:
    from transformers import pipeline

    expected = pipeline("token-classification", str(folder))(_TEXTS, ignore_labels=[])
    found = engine.run("token-classification", "m", {"inputs": _TEXTS, "ignore_labels": []}).result.results
    for one, other in zip(found, expected, strict=True):
        assert [(each.entity, each.start) for each in one] == [(each["entity"], each["start"]) for each in other]
    return "labels equal"


def _fills(engine: Any, folder: Path) -> str:
    from transformers import pipeline

    text = "the [MASK] was good"
    expected = pipeline("fill-mask", str(folder))(text)
    ((found,),) = engine.run("fill-mask", "m", {"inputs": text}).result.results
    assert [each.token for each in found] == [each["token"] for each in expected]
    return "fillings equal"


def _generates(engine: Any, folder: Path) -> str:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [[5 + 7 * i % 200 for i in range(length)] for length in (3, 40, 17)]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    for prompt in prompts:
        made = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False, pad_token_id=0)[0].tolist()
        reply = engine.run("text-generation", "m", {"prompt": prompt, "max_new_tokens": 24, "temperature": 0.0})
        text = tokenizer.decode(made[len(prompt) :], skip_special_tokens=True)
        assert reply.result.choices[0].text == text, (reply.result.choices[0].text, text)
    return "greedy text equal"


def main() -> int:
    """Measures if asked to, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="run tiny models first, on the devices that are here")
    if parser.parse_args().measure:
        MEASURED.write_text(json.dumps(measure(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    registry = discover(Settings())
    measured = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}
    PAGE.write_text(page(registry.skills, registry.backends, measured), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
