"""Which checkpoints the skill serves, and which it leaves to others. No weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelport.contract import Generate, ModelCard
from modelport_skill_multimodal import Multimodal
from modelport_skill_text2text import Text2Text
from modelport_skill_text_generation import TextGeneration
from modelport_skill_vision import Vision

EYES: dict[str, Any] = {"vision_config": {}}


def card(architecture: str, config: dict[str, Any] | None = None, **more: Any) -> ModelCard:
    files = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
    return ModelCard(name="m", architectures=(architecture,), config=config or {}, **{"files": files, **more})


@pytest.mark.parametrize(
    ("architecture", "has_template", "first", "mode"),
    [
        ("LlavaForConditionalGeneration", True, "image-text-to-text", "stepped"),
        ("Qwen2_5_VLForConditionalGeneration", True, "image-text-to-text", "stepped"),
        ("IdeficsForVisionText2Text", False, "image-to-text", "own"),
        ("BlipForConditionalGeneration", False, "image-to-text", "own"),
        ("GitForCausalLM", False, "image-to-text", "own"),
    ],
)
def test_what_sees_and_writes_is_claimed(architecture: str, has_template: bool, first: str, mode: str) -> None:
    seeing = card(architecture, EYES, has_chat_template=has_template)
    claim = Multimodal().claim(seeing)
    assert claim is not None
    assert claim.tasks[0] == first
    assert {"image-text-to-text", "text-generation", "image-to-text", "visual-question-answering"} <= set(claim.tasks)
    (entry,) = {program.entries["main"] for program in Multimodal().programs(seeing).values()}
    assert isinstance(entry, Generate)
    assert (entry.head, entry.mode) == ("image-text-to-text", mode)
    for other in (TextGeneration(), Text2Text(), Vision()):
        theirs = other.claim(seeing)
        assert theirs is None or theirs.score < claim.score, other.name


@pytest.mark.parametrize(
    "left",
    [
        card("LlamaForCausalLM", files=("tokenizer.json",)),
        card("T5ForConditionalGeneration", {"is_encoder_decoder": True}, files=("tokenizer.json",)),
        card("WhisperForConditionalGeneration", {"num_mel_bins": 80}),
        card("Gemma3ForCausalLM"),
        card("Llama4ForCausalLM", EYES, files=("config.json", "tokenizer.json")),
        card("ViTForImageClassification", {"image_size": 32}),
        card("CLIPModel", {"vision_config": {}, "text_config": {}}),
        ModelCard(name="m"),
    ],
    ids=lambda left: left.architectures[0] if left.architectures else "nothing",
)
def test_the_rest_is_left_to_others(left: ModelCard) -> None:
    assert Multimodal().claim(left) is None


def test_readers_answer_questions_only_where_they_were_taught(tmp_path: Path) -> None:
    reader = card("VisionEncoderDecoderModel", {"encoder": {}, "decoder": {}}, path=str(tmp_path))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    assert "document-question-answering" not in Multimodal().claim(reader).tasks  # type: ignore[union-attr]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"content": "<s_docvqa>"}]}))
    assert Multimodal().claim(reader).tasks[:2] == ("image-to-text", "document-question-answering")  # type: ignore[union-attr]


def test_the_best_known_families_have_a_checkpoint() -> None:
    import transformers.models.auto.modeling_auto as auto

    heads = {f"MODEL_FOR_{head.upper().replace('-', '_')}_MAPPING_NAMES" for head in Multimodal.heads}
    assert set(Multimodal.default_checkpoints) <= {kind for name in heads for kind in getattr(auto, name)}
    assert len(Multimodal.default_checkpoints) >= 25


def test_importing_the_skill_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "PIL", "jinja2")
    code = f"import sys, modelport_skill_multimodal; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
