"""What small files and class names say of a checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelport.contract import ModelCard
from modelport_hf.folder import has_tokenizer, label_names, position_limit, read_json, takes_type_ids
from modelport_hf.heads import head_of, is_text


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("BertModel", "feature-extraction"),
        ("T5EncoderModel", "text-encoding"),
        ("LlamaForCausalLM", "causal-lm"),
        ("GPT2LMHeadModel", "causal-lm"),
        ("BertForSequenceClassification", "sequence-classification"),
        ("BertForMaskedLM", "masked-lm"),
        ("WhisperForConditionalGeneration", "conditional-generation"),
        ("SpeechT5ForTextToSpeech", "text-to-waveform"),
        ("VitsModel", "text-to-waveform"),
        ("FastSpeech2ConformerModel", "text-to-spectrogram"),
        ("Something", None),
    ],
)
def test_an_architecture_says_its_head(name: str, head: str | None) -> None:
    assert head_of((name,)) == head


def test_models_of_other_senses_are_no_text_models() -> None:
    assert is_text({"vocab_size": 3}, ("config.json", "tokenizer.json"))
    assert not is_text({"vision_config": {}}, ())
    assert not is_text({}, ("preprocessor_config.json",))


def test_roberta_has_fewer_positions_than_rows() -> None:
    assert position_limit({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}) == 512
    assert position_limit({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}) == 512
    assert position_limit({}) is None


def test_labels_come_in_the_order_of_their_indices() -> None:
    assert label_names({"id2label": {"1": "good", "0": "bad"}}) == ("bad", "good")
    assert label_names({"num_labels": 3}) == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert label_names({}) == ("LABEL_0", "LABEL_1")


def test_type_ids_are_sent_to_models_that_tell_texts_apart(tmp_path: Path) -> None:
    assert takes_type_ids(ModelCard(name="m", config={"type_vocab_size": 2}))
    assert not takes_type_ids(ModelCard(name="m", config={"type_vocab_size": 1}))
    (tmp_path / "tokenizer_config.json").write_text('{"model_input_names": ["input_ids", "attention_mask"]}')
    assert not takes_type_ids(ModelCard(name="m", path=str(tmp_path), config={"type_vocab_size": 2}))


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    assert read_json(tmp_path, "config.json") is None
    assert has_tokenizer(("vocab.txt",))
    assert not has_tokenizer(("config.json",))


def test_reading_heads_and_folders_imports_nothing_heavy() -> None:
    code = (
        "import sys, modelport_hf.folder, modelport_hf.heads;"
        "print([name for name in ('torch', 'transformers', 'tokenizers', 'jinja2') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
