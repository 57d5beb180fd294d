"""Texts to sounds, as each model itself makes them of one text: with chance from the request's seed, or without any."""

from __future__ import annotations

import importlib.machinery
import io
import json
import sys
import types
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from build import CannotBuild
from seamless import LETTERS, write_generation, write_seamless
from text import read_tokenizer, write_tokenizer

SETTINGS: dict[str, Any] = {}
TEXTS = ("good", "this is a bad day", "you have a cat and they had two dogs")
GREEDY = {"do_sample": False}
SEED = 5
SILENCE = 1e-3
"""A sound whose standard deviation is smaller proves nothing once it is rounded to 16 bits."""
HIFIGAN = {
    "model_in_dim": 8, "upsample_initial_channel": 16, "upsample_rates": [4, 4], "upsample_kernel_sizes": [8, 8],
    "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]],
}  # fmt: skip

Speak = Callable[[str], Any]
"""Makes the samples of a text."""


def equip(pair: Any, model: Any, folder: Path) -> tuple[Speak, dict[str, Any]]:
    if pair.model_type not in SPEAKERS:
        raise CannotBuild(f"the sweep does not ask {pair.model_type} to speak yet")
    folder.mkdir(parents=True, exist_ok=True)
    _widen(model)
    return SPEAKERS[pair.model_type](model, folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    _, fields = tools
    chosen = {"seed": SEED, **fields.get("generate_parameters", {})}
    return [{"inputs": text, "format": "wav", **fields, "generate_parameters": chosen} for text in TEXTS]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    import torch

    speak, _ = tools
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        samples = torch.as_tensor(speak(request["inputs"])).detach().reshape(-1).double().numpy().clip(-1, 1)
    if samples.std() < SILENCE:
        raise ValueError(f"{len(samples)} samples of silence")
    return samples


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    with wave.open(io.BytesIO(result.audio.data)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64) / 32768


def _widen(model: Any) -> None:
    """Weights by which texts sound different, and none so large that durations explode."""
    import torch

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for name, parameter in model.named_parameters():
            if name.endswith("original0"):  # the length of a normalised weight
                parameter.fill_(1.0)
            elif "duration" in name:
                parameter.mul_(0.3)
            elif parameter.dim() > 1 and parameter.requires_grad:
                parameter.normal_(std=0.3)
        for name, buffer in model.named_buffers():
            if name.endswith(("codebook.embed", "codebook.embed_sum")):  # zeros before training: all codes would sound alike
                buffer.normal_()


def _vits(model: Any, folder: Path) -> tuple[Speak, dict[str, Any]]:
    from transformers import VitsTokenizer

    names = ["<pad>", " ", *LETTERS, "<unk>"]
    (folder / "vocab.json").write_text(json.dumps({name: at for at, name in enumerate(names)}))
    tokenizer = VitsTokenizer(folder / "vocab.json", language="eng", phonemize=False)
    tokenizer.save_pretrained(folder)
    return lambda text: model(**tokenizer(text, return_tensors="pt")).waveform, {}


def _speecht5(model: Any, folder: Path) -> tuple[Speak, dict[str, Any]]:
    import sentencepiece
    import torch
    import transformers

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, "quick brown fox jumps over a lazy whiz vex"] * 9), model_writer=made, model_type="char",
        vocab_size=32, hard_vocab_limit=False, minloglevel=2, bos_id=0, pad_id=1, eos_id=2, unk_id=3,
    )  # fmt: skip
    (folder / "letters.model").write_bytes(made.getvalue())
    tokenizer = transformers.SpeechT5Tokenizer(str(folder / "letters.model"))
    tokenizer.save_pretrained(folder)
    model.speech_decoder_postnet.prob_out.bias.data.fill_(-2.5)  # it would end at once
    vocoder = _vocoder("SpeechT5HifiGan", folder)
    voice = np.random.default_rng(0).standard_normal(model.config.speaker_embedding_dim).astype(np.float32)
    (folder / "voices").mkdir(exist_ok=True)
    np.save(folder / "voices/ann.npy", voice)

    def speak(text: str) -> Any:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        return model.generate_speech(ids, torch.from_numpy(voice)[None], vocoder=vocoder)

    return speak, {}


def _fastspeech2(model: Any, folder: Path) -> tuple[Speak, dict[str, Any]]:
    import torch
    from transformers.utils.import_utils import is_g2p_en_available

    # Stands for the package g2p_en, whose dictionary is fetched from the net: every letter is a phoneme.
    module = types.ModuleType("g2p_en")
    module.__spec__ = importlib.machinery.ModuleSpec("g2p_en", None)
    module.G2p = lambda: list  # type: ignore[attr-defined]
    sys.modules["g2p_en"] = module
    is_g2p_en_available.cache_clear()
    names = ["<blank>", "<unk>", " ", *LETTERS.upper(), "<sos/eos>"]
    (folder / "vocab.json").write_text(json.dumps({name: at for at, name in enumerate(names)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "FastSpeech2ConformerTokenizer"}))
    vocoder = None if hasattr(model, "vocoder") else _vocoder("FastSpeech2ConformerHifiGan", folder)

    def speak(text: str) -> Any:
        ids = torch.tensor([[*(names.index(letter.upper()) for letter in text), names.index("<sos/eos>")]])
        made = model(ids, return_dict=True)
        return made.waveform if vocoder is None else vocoder(made.spectrogram)

    return speak, {}


def _bark(model: Any, folder: Path) -> tuple[Speak, dict[str, Any]]:
    from transformers import BarkProcessor

    drawn = {"do_sample": True, "temperature": 0.7}
    semantic = drawn | {
        "semantic_vocab_size": 40, "semantic_pad_token": 41, "eos_token_id": 41, "semantic_infer_token": 270,
        "text_encoding_offset": 60, "text_pad_token": 269, "max_input_semantic_length": 40, "max_new_tokens": 12,
        "semantic_rate_hz": 49.9,
    }  # fmt: skip
    coarse = drawn | {
        "coarse_semantic_pad_token": 128, "coarse_infer_token": 129, "n_coarse_codebooks": 2, "coarse_rate_hz": 75,
        "max_coarse_input_length": 16, "max_coarse_history": 24, "sliding_window_len": 10,
    }  # fmt: skip
    fine = {"max_fine_history_length": 16, "max_fine_input_length": 32, "n_fine_codebooks": 4, "temperature": 0.5}
    write_generation(
        model, folder, semantic_config=semantic, coarse_acoustics_config=coarse, fine_acoustics_config=fine, sample_rate=16_000,
        codebook_size=32,
    )  # fmt: skip
    write_tokenizer(folder, encloses=False)
    processor = BarkProcessor(read_tokenizer(folder))

    def speak(text: str) -> Any:
        return model.generate(**processor(text, max_length=40), do_sample=False, fine_temperature=None)

    return speak, {"generate_parameters": GREEDY}


def _csm(model: Any, folder: Path) -> tuple[Speak, dict[str, Any]]:
    import torch

    model.generation_config.update(max_new_tokens=8, do_sample=True, pad_token_id=0)
    model.generation_config.depth_decoder_config = {"do_sample": False}
    write_tokenizer(folder, encloses=False)
    template = "{% for m in messages %}<s>[{{ m['role'] }}]{{ m['content'][0]['text'] }}</s>{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    tokenizer = read_tokenizer(folder)

    def speak(text: str) -> Any:
        ids = tokenizer(f"<s>[0]{text}</s>", return_tensors="pt")["input_ids"]
        return model.generate(ids, attention_mask=torch.ones_like(ids), output_audio=True, do_sample=False)[0]

    return speak, {"generate_parameters": GREEDY}


def _musicgen(model: Any, folder: Path) -> tuple[Speak, dict[str, Any]]:
    model.generation_config.update(
        do_sample=True, guidance_scale=3.0, max_new_tokens=12, decoder_start_token_id=32, pad_token_id=32, bos_token_id=32
    )
    write_tokenizer(folder, encloses=True)
    tokenizer = read_tokenizer(folder)

    def speak(text: str) -> Any:
        read = tokenizer(text, return_tensors="pt")
        return model.generate(input_ids=read["input_ids"], attention_mask=read["attention_mask"])

    return speak, {}


def _seamless(model: Any, folder: Path) -> tuple[Speak, dict[str, Any]]:
    tokenizer = write_seamless(model, folder)

    def speak(text: str) -> Any:
        return model.generate(**tokenizer(text, src_lang="eng", tgt_lang="eng", return_tensors="pt"), tgt_lang="eng")[0]

    return speak, {"language": "eng"}


def _vocoder(kind: str, folder: Path) -> Any:
    """Makes sound of spectrograms; written beside the model."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        made = getattr(transformers, kind)(getattr(transformers, f"{kind}Config")(**HIFIGAN)).eval()
    _widen(made)
    made.save_pretrained(folder / "vocoder")
    return made


SPEAKERS: dict[str, Callable[[Any, Path], tuple[Speak, dict[str, Any]]]] = {
    "vits": _vits, "speecht5": _speecht5, "fastspeech2_conformer": _fastspeech2,
    "fastspeech2_conformer_with_hifigan": _fastspeech2, "bark": _bark, "csm": _csm, "musicgen": _musicgen,
    "seamless_m4t": _seamless, "seamless_m4t_v2": _seamless,
}  # fmt: skip
