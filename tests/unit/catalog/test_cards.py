"""Model cards: what is read of a checkpoint, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from modelport.contract.errors import ConfigurationError
from modelport.core.catalog.cards import card_for_skill, card_from_folder, folder_signature, needs_remote_code
from modelport.core.config.settings import ModelSettings

Write = Callable[..., Path]


def card(folder: Path, **model: Any) -> Any:
    return card_from_folder("m", folder, ModelSettings(source=str(folder), **model))


def refusal(folder: Path, **model: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        card(folder, **model)
    return caught.value.message


def test_card_tells_what_the_files_say(checkpoint: Write) -> None:
    folder = checkpoint(
        {
            "README.md": "---\nlicense: mit\npipeline_tag: fill-mask  # the task\ntags:\n- x\n---\n# Title\nlicense: no\n",
            "tokenizer_config.json": '{"chat_template": "{{ x }}", "model_max_length": 1e30}',
            ".hidden/file": "x",
        }
    )

    found = card(folder, max_length=32, options={"x": 1})

    assert (found.name, found.source, found.path) == ("m", str(folder), str(folder))
    assert (found.model_type, found.architectures, found.tasks) == ("bert", ("BertModel",), ("fill-mask",))
    assert (found.parameters, found.dtype, found.license) == (12, "float32", "mit")
    assert found.weight_bytes == (folder / "model.safetensors").stat().st_size
    assert (found.context_length, found.limit, found.has_chat_template) == (64, 32, True)
    assert found.files == ("README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    assert found.options == {"x": 1}


def test_skill_without_a_checkpoint_has_a_card() -> None:
    found = card_for_skill("loud", ModelSettings(source="skill:shout", options={"x": 1}))

    assert (found.name, found.source, found.path, found.options) == ("loud", "skill:shout", "", {"x": 1})


def test_folder_that_does_not_exist_says_what_to_do(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no") == (
        f"The folder {tmp_path}/no of the model 'm' does not exist. Correct its source, or give a Hub id (org/model)."
    )


def test_folder_without_config_says_what_to_do(checkpoint: Write) -> None:
    folder = checkpoint({"config.json": None})

    assert refusal(folder) == (
        f"{folder} holds no config.json, so it is not a Hugging Face checkpoint. Give the model 'm' the folder that holds "
        "config.json as its source, or name the skill that can read this one."
    )


def test_folder_without_config_is_its_skills_concern_if_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_bytes(b"x")

    assert card(tmp_path, skill="sklearn").files == ("model.joblib",)


def test_pickle_only_checkpoint_is_refused_with_the_way_to_convert_it(checkpoint: Write) -> None:
    folder = checkpoint({"model.safetensors": None, "pytorch_model.bin": b"x", "training_args.bin": b"x"})

    message = refusal(folder)

    assert message.startswith(
        f"The weights in {folder} are pickle only (pytorch_model.bin, training_args.bin). Pickle can run code"
    )
    assert "save_pretrained" in message
    assert "safetensors" in message


def test_pickle_beside_safetensors_does_no_harm(checkpoint: Write) -> None:
    assert card(checkpoint({"pytorch_model.bin": b"x"})).parameters == 12


def test_checkpoint_without_weights_says_so(checkpoint: Write) -> None:
    folder = checkpoint({"model.safetensors": None})

    assert refusal(folder) == (
        f"{folder} holds config.json and no weights. Fetch the whole checkpoint; modelport reads safetensors (model.safetensors)."
    )


def test_other_safe_formats_are_left_to_backends(checkpoint: Write) -> None:
    found = card(checkpoint({"model.safetensors": None, "openvino_model.xml": b"x", "openvino_model.bin": b"yy"}))

    assert (found.parameters, found.weight_bytes) == (0, 3)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: data[:-4], "it is cut short: "),
        (lambda data: data + b"more", "it is longer than its header says: "),
        (lambda data: data[:3], "its header would be "),
        (lambda data: b"\xff" * 8 + data, "its header would be "),
        (lambda data: data[:8] + b"x" + data[9:], "its header is not what the format asks for"),
        (lambda data: b"", "its header would be 0 bytes long in a file of 0"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "its header would be "),
    ],
)
def test_corrupt_safetensors_is_found_without_loading_it(checkpoint: Write, damage: Callable[[bytes], bytes], why: str) -> None:
    folder = checkpoint()
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))

    message = refusal(folder)

    assert message.startswith(f"{path} is not a whole safetensors file: {why}")
    assert message.endswith("Delete it and fetch it again.")


def test_corrupt_dense_layer_is_found(checkpoint: Write) -> None:
    folder = checkpoint({"2_Dense/model.safetensors": b"no"})

    assert refusal(folder).startswith(f"{folder}/2_Dense/model.safetensors is not a whole safetensors file")


def test_shards_are_counted_together(checkpoint: Write) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    shards = {f"model-0000{n}-of-00002.safetensors": save({"x": np.zeros(n * 10, np.float16)}) for n in (1, 2)}

    found = card(checkpoint({"model.safetensors": None, "model.safetensors.index.json": json.dumps(index), **shards}))

    assert (found.parameters, found.dtype) == (30, "float16")


def test_missing_shard_is_named(checkpoint: Write) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    folder = checkpoint(
        {
            "model.safetensors": None,
            "model.safetensors.index.json": json.dumps(index),
            "model-00001-of-00002.safetensors": save({"x": np.zeros(1)}),
        }
    )

    assert refusal(folder) == (
        f"{folder} lacks 1 of the 2 weight files that model.safetensors.index.json names (model-00002-of-00002.safetensors). "
        "Fetch the checkpoint again."
    )


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_broken_config_says_where(checkpoint: Write, content: str) -> None:
    folder = checkpoint({"config.json": content})

    assert refusal(folder).startswith(f"{folder}/config.json ")


@pytest.mark.parametrize(
    ("config", "tokenizer", "sentence", "expected"),
    [
        ({"max_position_embeddings": 512}, {}, {}, 512),
        ({"max_position_embeddings": None, "n_positions": 1024}, {}, {}, 1024),
        ({"max_position_embeddings": None, "text_config": {"max_position_embeddings": 4096}}, {}, {}, 4096),
        ({"max_position_embeddings": 514, "pad_token_id": 1}, {}, {}, 512),
        ({"max_position_embeddings": 514, "pad_token_id": 0}, {}, {}, 514),
        ({"max_position_embeddings": 514}, {"model_max_length": 512}, {}, 512),
        ({"max_position_embeddings": 512}, {"model_max_length": 1e30}, {}, 512),
        ({"max_position_embeddings": 512}, {"model_max_length": 2048}, {}, 512),
        ({"max_position_embeddings": 512}, {"model_max_length": 512}, {"max_seq_length": 256}, 256),
        ({"max_position_embeddings": None}, {}, {}, None),
        ({"max_position_embeddings": 2048, "pad_token_id": 1}, {}, {}, 2048),
    ],
)
def test_context_length_is_the_smallest_sane_limit(
    checkpoint: Write, config: dict[str, Any], tokenizer: dict[str, Any], sentence: dict[str, Any], expected: int | None
) -> None:
    files = {"tokenizer_config.json": json.dumps(tokenizer), "sentence_bert_config.json": json.dumps(sentence)}

    assert card(checkpoint(files, **config)).context_length == expected


def test_dtype_is_what_config_states_else_what_the_weights_are(checkpoint: Write) -> None:
    assert card(checkpoint(dtype="bfloat16")).dtype == "bfloat16"
    assert card(checkpoint(torch_dtype="float16")).dtype == "float16"
    assert card(checkpoint()).dtype == "float32"


def test_quantisation_is_read(checkpoint: Write) -> None:
    assert card(checkpoint(quantization_config={"quant_method": "awq"})).quantization == "awq"


def test_chat_template_in_a_file_of_its_own_counts(checkpoint: Write) -> None:
    assert not card(checkpoint()).has_chat_template
    assert card(checkpoint({"chat_template.jinja": "{{ x }}"})).has_chat_template


def test_sentence_transformers_checkpoint_embeds(checkpoint: Write) -> None:
    folder = checkpoint({"modules.json": "[]", "README.md": "---\npipeline_tag: sentence-similarity\n---\n"})

    assert card(folder).tasks == ("sentence-similarity", "feature-extraction")


def test_licence_of_its_own_is_named(checkpoint: Write) -> None:
    assert card(checkpoint({"README.md": "---\nlicense: other\nlicense_name: 'llama3'\n---\n"})).license == "llama3"


def test_own_code_is_noted_and_trusted_only_if_the_configuration_says_so(checkpoint: Write) -> None:
    folder = checkpoint(auto_map={"AutoModel": "code.Model"})

    assert needs_remote_code(card(folder))
    assert card(folder).trust_remote_code is False
    assert card(folder, trust_remote_code=True).trust_remote_code is True


def test_revision_is_the_commit_of_a_hub_snapshot(tmp_path: Path, checkpoint: Write) -> None:
    snapshot = tmp_path / "models--org--m" / "snapshots" / ("b" * 40)
    snapshot.mkdir(parents=True)
    for path in checkpoint().iterdir():
        (snapshot / path.name).symlink_to(path)

    assert card(snapshot).revision == "b" * 40


def test_revision_of_a_folder_changes_with_its_files(checkpoint: Write) -> None:
    folder = checkpoint()
    before = card(folder).revision

    assert card(folder).revision == before == folder_signature(folder)
    os.utime(folder / "tokenizer.json", ns=(1, 1))
    assert card(folder).revision != before


def _demo() -> Path:
    return Path(os.environ.get("MODELPORT_DEMO_DIR", "~/.cache/modelport/demo")).expanduser()


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all-minilm-l6-v2", ("bert", 22_713_216, "float32", 256, False)),
        ("smollm2-135m-instruct", ("llama", 134_515_008, "bfloat16", 8192, True)),
    ],
)
def test_demo_models_have_true_cards(name: str, expected: tuple[Any, ...]) -> None:
    folder = _demo() / name
    if not folder.is_dir():
        pytest.skip(f"the demo model {name} is not in {_demo()}; `modelport demo` fetches it")

    found = card(folder)

    assert (found.model_type, found.parameters, found.dtype, found.context_length, found.has_chat_template) == expected
