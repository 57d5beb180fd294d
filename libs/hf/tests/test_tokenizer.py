"""Tokenizers give the ids of transformers for the same folder, without importing it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from modelport.contract import ConfigurationError, InvalidRequest
from modelport.testing.checkpoints import write_byte_tokenizer, write_word_tokenizer
from modelport_hf.tokenizer import load_tokenizer

DEMO = Path(os.environ.get("MODELPORT_DEMO_DIR", "~/.cache/modelport/demo")).expanduser()
TEXTS = [
    "The capital of France is",
    " héllo wörld 你好 🎉",
    "<|im_start|>user\nHi<|im_end|>\n",
    "a  b\tc\n\n",
    "don't , stop . the cat",
    "🤦🏼‍♂️ ẞ ﬁ [MASK] [SEP] <s>",
    "A" * 50,
]


def _demo(name: str) -> Path:
    if not (DEMO / name).is_dir():
        pytest.skip(f"needs {DEMO / name}: run `modelport demo`")
    return DEMO / name


def _theirs(folder: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # For the class that the demo's chat model names, transformers 5.5 drops its tokenizer.json and builds another one.
    return (PreTrainedTokenizerFast if "smollm2" in folder.name else AutoTokenizer).from_pretrained(str(folder))


def _assert_equal(folder: Path) -> None:
    ours, theirs = load_tokenizer(folder), _theirs(folder)
    for text in TEXTS:
        plain = {"padding": False, "truncation": False}
        assert ours.encode(text).ids == theirs(text, **plain)["input_ids"]
        assert ours.encode(text, special=False).ids == theirs(text, add_special_tokens=False, **plain)["input_ids"]
        pair = theirs(text, "is it good", return_token_type_ids=True, **plain)
        both = ours.encode(text, "is it good")
        assert (both.ids, both.type_ids) == (pair["input_ids"], pair["token_type_ids"])
    assert [encoded.ids for encoded in ours.encode_batch(TEXTS)] == theirs(TEXTS, padding=False, truncation=False)["input_ids"]
    assert ours.special == theirs.special_tokens_map
    assert ours.size == len(theirs)


@pytest.mark.real
@pytest.mark.parametrize("name", ["all-minilm-l6-v2", "smollm2-135m-instruct"])
def test_demo_tokenizers_equal_those_of_transformers(name: str) -> None:
    _assert_equal(_demo(name))


def _sentencepiece(folder: Path) -> None:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"abcdefghijklmnopqrstuvwxyzTFH.,"]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": True, "add_eos_token": True}))


def _bytes_with_additions(folder: Path) -> None:
    write_byte_tokenizer(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {
        "261": {
            "content": "<tool>",
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "single_word": False,
            "special": False,
        },
        "262": {"content": "<eot>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True},
    }
    config["eos_token"] = {"content": "<eot>", "__type": "AddedToken"}
    config["image_token"] = "<image>"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _without_post_processor(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "cat": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"})
    )


def _with_special_tokens_map(folder: Path) -> None:
    write_word_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    names = {"pad_token": {"content": "[PAD]", "lstrip": False, "rstrip": False, "normalized": False}, "cls_token": "[CLS]"}
    (folder / "special_tokens_map.json").write_text(json.dumps(names))


def _padded_and_truncated(folder: Path) -> None:
    write_word_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=32)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    "write",
    [
        write_word_tokenizer,
        write_byte_tokenizer,
        _sentencepiece,
        _bytes_with_additions,
        _without_post_processor,
        _with_special_tokens_map,
        _padded_and_truncated,
    ],
)
def test_every_kind_of_tokenizer_equals_that_of_transformers(tmp_path: Path, write: Any) -> None:
    write(tmp_path)
    _assert_equal(tmp_path)


@pytest.mark.parametrize("case", [{"do_lower_case": False}, {"do_lower_case": True, "strip_accents": False}])
def test_bert_tokenizer_follows_the_case_of_its_configuration(tmp_path: Path, case: dict[str, Any]) -> None:
    write_word_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **case}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    for text in ("The Cat", "thé cat"):
        assert load_tokenizer(tmp_path).encode(text).ids == theirs(text)["input_ids"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("limit", [3, 4, 7, 12, 100])
def test_truncation_keeps_special_tokens_as_transformers_does(tmp_path: Path, side: Any, limit: int) -> None:
    write_word_tokenizer(tmp_path)
    ours, theirs = load_tokenizer(tmp_path), _theirs(tmp_path)
    theirs.truncation_side = side
    cut = {"truncation": True, "max_length": limit, "padding": False}
    text, other = "the cat is a good dog", "and it was one day on the cat with his dog"
    assert ours.encode(text, max_tokens=limit, side=side).ids == theirs(text, **cut)["input_ids"]
    for first, second in ((text, other), (other, text), (text, text)):
        if limit > 3:
            assert ours.encode(first, second, max_tokens=limit, side=side).ids == theirs(first, second, **cut)["input_ids"]


def test_the_second_text_of_a_pair_can_be_cut_alone(tmp_path: Path) -> None:
    write_word_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("the cat", "a good dog", max_pair_tokens=1).ids == tokenizer.encode("the cat", "a").ids


def test_ids_from_outside_the_vocabulary_are_refused_by_name(tmp_path: Path) -> None:
    write_word_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.check_ids([0, tokenizer.size - 1], "inputs")
    for bad, param in (([-1], "inputs.2.0"), ([0, 1, tokenizer.size], "inputs.2.2"), ([], "inputs.2")):
        with pytest.raises(InvalidRequest) as refused:
            tokenizer.check_ids(bad, "inputs.2")
        assert refused.value.param == param


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the conversion, in the libraries
def test_a_folder_without_tokenizer_json_is_converted(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("The cats").ids == [2, 5, 6, 7, 3]
    assert tokenizer.id_of("pad_token") == 0


def test_a_folder_without_any_tokenizer_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has no tokenizer that can be loaded[\s\S]*tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokenizer_says_which_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json cannot be read"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"tokenizer_config\.json is not valid JSON"):
        load_tokenizer(tmp_path)


def test_loading_a_tokenizer_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    write_word_tokenizer(tmp_path)
    code = (
        "import sys; from pathlib import Path; from modelport_hf.tokenizer import load_tokenizer;"
        f"load_tokenizer(Path({str(tmp_path)!r})).encode('the cat');"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
