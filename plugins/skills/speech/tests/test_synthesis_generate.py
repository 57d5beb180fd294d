"""Models that generate codes of sound token by token say what transformers' own class says, called on one text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from modelport.contract import InputTooLong, InvalidRequest
from modelport.testing.checkpoints import write_byte_tokenizer, write_word_tokenizer

from .speaking import ask, assert_sounds, request, save

TEXTS = ["the cat was good", "a bad day for the dog and his cat"]

ENCODEC = {
    "sampling_rate": 16_000,
    "num_filters": 4,
    "hidden_size": 8,
    "codebook_size": 32,
    "codebook_dim": 8,
    "upsampling_ratios": [4, 2],
    "num_residual_layers": 1,
    "num_lstm_layers": 1,
}


def rewrite(folder: Path, name: str, **changes: Any) -> None:
    """Changes a JSON file of a checkpoint."""
    file = folder / name
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | changes))


# -------------------------------------------------------------------------------------------------------------- Bark


@pytest.fixture(scope="module")
def bark(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("bark") / "model"
    block = {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "block_size": 128, "dropout": 0.0}
    model = transformers.BarkModel(
        transformers.BarkConfig(
            semantic_config={"input_vocab_size": 280, "output_vocab_size": 60} | block,
            coarse_acoustics_config={"input_vocab_size": 130, "output_vocab_size": 130} | block,
            fine_acoustics_config={"input_vocab_size": 33, "output_vocab_size": 33, "n_codes_total": 4} | block,
            codec_config={"model_type": "encodec", "target_bandwidths": [40.0], **ENCODEC},
        )
    )
    save(model, folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    drawn = {"do_sample": True, "temperature": 0.7}
    rewrite(
        folder,
        "generation_config.json",
        semantic_config=drawn
        | {
            "semantic_vocab_size": 40,
            "semantic_pad_token": 41,
            "eos_token_id": 41,
            "semantic_infer_token": 270,
            "text_encoding_offset": 60,
            "text_pad_token": 269,
            "max_input_semantic_length": 24,
            "max_new_tokens": 12,
            "semantic_rate_hz": 49.9,
        },
        coarse_acoustics_config=drawn
        | {
            "coarse_semantic_pad_token": 128,
            "coarse_infer_token": 129,
            "n_coarse_codebooks": 2,
            "coarse_rate_hz": 75,
            "max_coarse_input_length": 16,
            "max_coarse_history": 24,
            "sliding_window_len": 10,
        },
        fine_acoustics_config={
            "max_fine_history_length": 16,
            "max_fine_input_length": 32,
            "n_fine_codebooks": 4,
            "temperature": 0.5,
        },
        sample_rate=16_000,
        codebook_size=32,
    )
    write_word_tokenizer(folder, 512)
    draw = np.random.default_rng(0)
    shapes = {"semantic_prompt": (9,), "coarse_prompt": (2, 13), "fine_prompt": (4, 13)}
    (folder / "speaker_embeddings").mkdir()
    files = {}
    for name, shape in shapes.items():
        files[name] = f"speaker_embeddings/ann_{name}.npy"
        np.save(folder / files[name], draw.integers(0, 31, shape))
    escape = {name: f"../{file}" for name, file in files.items()}
    rewrite(folder, "speaker_embeddings_path.json", repo_or_path="somebody/bark", **{"v2/ann": files, "out": escape})
    return folder, transformers.BarkModel.from_pretrained(folder).eval()


def bark_speech(folder: Path, model: Any, text: str, voice: str | None = None, **options: Any) -> torch.Tensor:
    """By the processor of the checkpoint, on one text."""
    processor = transformers.BarkProcessor.from_pretrained(folder)
    given = processor(text, voice_preset=voice, max_length=24)
    torch.manual_seed(5)
    return torch.as_tensor(model.generate(**given, **options))


def test_bark_speaks_without_chance_and_with_it(bark: tuple[Path, Any]) -> None:
    folder, model = bark
    found = ask(folder, *(request(text, do_sample=False) for text in TEXTS), request(TEXTS[0]), request(TEXTS[0], voice="v2/ann"))
    greedy = {"do_sample": False, "fine_temperature": None}
    expected = [bark_speech(folder, model, text, **greedy) for text in TEXTS]
    expected += [bark_speech(folder, model, TEXTS[0]), bark_speech(folder, model, TEXTS[0], "v2/ann")]
    for one, other in zip(found, expected, strict=True):
        assert_sounds(one, other)
    assert len({one.audio.data for one in found}) == 4


def test_what_bark_cannot_do_is_refused(bark: tuple[Path, Any]) -> None:
    """A voice whose files lie outside of the checkpoint is none."""
    folder, _ = bark
    fields = [{"voice": "v2/bob"}, {"voice": "out"}, {"max_new_tokens": 13}, {"num_beams": 2}]
    *errors, long = ask(folder, *(request("a", **each) for each in fields), request("a" * 30))
    parameters = [f"generate_parameters.{name}" for name in ("max_new_tokens", "num_beams")]
    assert [error.param for error in errors] == ["voice", "voice", *parameters]
    assert isinstance(long, InputTooLong)


# ---------------------------------------------------------------------------------------------------------- MusicGen


def music(folder: Path) -> Any:
    text = transformers.T5Config(vocab_size=160, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    decoder = {
        "vocab_size": 32,
        "hidden_size": 16,
        "ffn_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_codebooks": 2,
        "pad_token_id": 32,
        "bos_token_id": 32,
    }
    codec = {"model_type": "encodec", "target_bandwidths": [20.0], **ENCODEC}
    config = transformers.MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=codec, decoder=decoder)
    model = transformers.MusicgenForConditionalGeneration(config)
    model.generation_config.update(
        do_sample=True, guidance_scale=3.0, max_new_tokens=12, decoder_start_token_id=32, pad_token_id=32, bos_token_id=32
    )
    write_word_tokenizer(folder, 64)
    return save(model, folder)


def test_music_is_what_a_text_describes(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = music(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = ask(folder, *(request(text, do_sample=False) for text in TEXTS), request(TEXTS[0], max_new_tokens=9))
    assert len({one.audio.data for one in found}) == len(found)
    greedy = {"do_sample": False}
    for text, options, one in zip((*TEXTS, TEXTS[0]), (greedy, greedy, {"max_new_tokens": 9}), found, strict=True):
        torch.manual_seed(5)
        given = tokenizer(text, return_tensors="pt")
        given.pop("token_type_ids", None)
        assert_sounds(one, model.generate(**given, **options))
    (error,) = ask(folder, request("a " * 70))
    assert isinstance(error, InputTooLong)


# ---------------------------------------------------------------------------------------------------------- Seamless


SIZES = {
    "vocab_size": 40,
    "t2u_vocab_size": 40,
    "t2u_max_new_tokens": 16,
    "unit_hifi_gan_vocab_size": 40,
    "hidden_size": 16,
    "max_position_embeddings": 64,
    "t2u_max_position_embeddings": 64,
    "vocoder_num_langs": 3,
    "vocoder_num_spkrs": 2,
    "vocoder_offset": 0,
    "unit_embed_dim": 8,
    "lang_embed_dim": 4,
    "spkr_embed_dim": 4,
    "upsample_initial_channel": 16,
    "upsample_rates": [4, 4],
    "upsample_kernel_sizes": [8, 8],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "speech_encoder_layers": 1,
    "speech_encoder_attention_heads": 2,
    "speech_encoder_intermediate_size": 16,
    **{
        f"{part}_{what}": size
        for part in ("encoder", "decoder", "t2u_encoder", "t2u_decoder")
        for what, size in (("layers", 1), ("ffn_dim", 16), ("attention_heads", 2))
    },
}


@pytest.mark.parametrize("kind", ["SeamlessM4T", "SeamlessM4Tv2"])
def test_seamless_speaks_the_language_of_the_text(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    more = {"char_vocab_size": 40, "t2u_variance_predictor_embed_dim": 16, "t2u_variance_predictor_hidden_dim": 8}
    config = getattr(transformers, f"{kind}Config")(**SIZES, **(more if kind.endswith("v2") else {}))
    model = getattr(transformers, f"{kind}ForTextToSpeech")(config)
    marks = {"deu": 32, "eng": 33, "fra": 34}
    names = ["<pad>", "<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    save(model, folder, std=0.5)
    (folder / "generation_config.json").unlink()
    rewrite(
        folder,
        "generation_config.json",
        text_decoder_lang_to_code_id=marks,
        t2u_lang_code_to_id={"deu": 36, "eng": 37, "fra": 38},
        vocoder_lang_code_to_id={"deu": 0, "eng": 1, "fra": 2},
        id_to_text={str(at): name for at, name in enumerate(names)},
        char_to_id={name: at for at, name in enumerate(names)},
        max_new_tokens=12,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=3,
    )
    model = type(model).from_pretrained(folder).eval()
    vocabulary = {name: at for at, name in enumerate(names)} | {f"__{name}__": at for name, at in marks.items()}
    tokenizer = transformers.SeamlessM4TTokenizer(
        vocab=vocabulary, merges=[], additional_special_tokens=[f"__{name}__" for name in marks]
    )
    tokenizer.save_pretrained(folder)
    asked = [("eng", "0", TEXTS[0]), ("fra", "1", TEXTS[0]), ("deu", "0", TEXTS[1])]
    speaker = "speaker_id" if kind.endswith("v2") else "spkr_id"
    found = ask(folder, *(request(text, language=language, voice=voice) for language, voice, text in asked))
    for (language, voice, text), one in zip(asked, found, strict=True):
        given = tokenizer(text, src_lang=language, tgt_lang=language, return_tensors="pt")
        waveform, _ = model.generate(**given, tgt_lang=language, **{speaker: int(voice)})
        assert_sounds(one, waveform)
    assert len({one.audio.data for one in found}) == len(found)
    missing, unknown = ask(folder, request("a"), request("a", language="spa"))
    assert (missing.param, unknown.param) == ("language", "language")
    assert "deu, eng, fra" in str(missing)
    assert isinstance(unknown, InvalidRequest)


# --------------------------------------------------------------------------------------------------------------- CSM


def test_csm_speaks_as_one_of_its_speakers(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    block = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, **heads}
    depth = {"num_codebooks": 3, "backbone_hidden_size": 16, "vocab_size": 35, "max_position_embeddings": 4, **block}
    codec = {
        "model_type": "mimi",
        "sampling_rate": 16_000,
        "num_filters": 4,
        "upsampling_ratios": [4, 2],
        "codebook_size": 64,
        "codebook_dim": 8,
        "vector_quantization_hidden_dimension": 8,
        "num_quantizers": 3,
        "num_semantic_quantizers": 1,
        "upsample_groups": 16,
        "frame_rate": 1000.0,
        **block,
    }
    model = transformers.CsmForConditionalGeneration(
        transformers.CsmConfig(
            num_codebooks=3,
            vocab_size=35,
            text_vocab_size=270,
            codebook_pad_token_id=33,
            codebook_eos_token_id=34,
            pad_token_id=0,
            bos_token_id=1,
            audio_token_id=262,
            audio_eos_token_id=263,
            depth_decoder_config=depth,
            codec_config=codec,
            **block,
        )
    )
    model.generation_config.update(max_new_tokens=8, do_sample=True, pad_token_id=0)
    model.generation_config.depth_decoder_config = {"do_sample": False}
    model = save(model, folder)
    template = "{% for m in messages %}<s>[{{ m['role'] }}]{{ m['content'][0]['text'] }}</s>{% endfor %}"
    write_byte_tokenizer(folder, template)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    asked = [(None, TEXTS[0]), ("1", TEXTS[0]), ("0", TEXTS[1])]
    found = ask(folder, *(request(text, voice=voice, do_sample=False) for voice, text in asked))
    for (voice, text), one in zip(asked, found, strict=True):
        ids = tokenizer(f"<s>[{voice or 0}]{text}</s>", return_tensors="pt")["input_ids"]
        (made,) = model.generate(ids, attention_mask=torch.ones_like(ids), output_audio=True, do_sample=False)
        assert_sounds(one, made)
    assert len({one.audio.data for one in found}) == len(found)
