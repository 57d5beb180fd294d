"""Tiny checkpoints of every kind of model with images and texts, each with a processor and a tokenizer of its own family."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelport.contract import Media, ModelCard
from modelport.testing.backend import card_of
from modelport.testing.checkpoints import write_word_tokenizer
from modelport.testing.skill import SkillSuite
from modelport_backend_cpu.backend import CpuBackend
from modelport_skill_multimodal import Multimodal

WORDS = 128
"""More than the word tokenizer has."""

LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SEES = LAYERS | {"image_size": 32, "patch_size": 8}
READS = LAYERS | {"vocab_size": WORDS, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
SQUARE = {"size": {"height": 32, "width": 32}}
CROPPED = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}

Made = tuple[Any, Any, str, dict[str, Any]]


def _pair(name: str, t: Any, text: dict[str, Any], image: dict[str, Any], projection_dim: int = 16) -> Any:
    return getattr(t, f"{name}Config")(text_config=text, vision_config=image, projection_dim=projection_dim)


def clip(t: Any) -> Made:
    return t.CLIPModel, _pair("CLIP", t, READS, SEES), "clip.CLIP", CROPPED


def metaclip_2(t: Any) -> Made:
    return t.MetaClip2Model, _pair("MetaClip2", t, READS, SEES), "clip.CLIP", CROPPED


def clipseg(t: Any) -> Made:
    return t.CLIPSegModel, _pair("CLIPSeg", t, READS, SEES), "vit.ViT", SQUARE


def blip(t: Any) -> Made:
    text = READS | {"encoder_hidden_size": 32, "sep_token_id": 3}
    return t.BlipModel, _pair("Blip", t, text, SEES), "blip.Blip", SQUARE


def altclip(t: Any) -> Made:
    text = READS | {"project_dim": 24, "pad_token_id": 0, "type_vocab_size": 1}
    return t.AltCLIPModel, _pair("AltCLIP", t, text, SEES), "clip.CLIP", CROPPED


def chinese_clip(t: Any) -> Made:
    return t.ChineseCLIPModel, _pair("ChineseCLIP", t, READS, SEES), "chinese_clip.ChineseCLIP", CROPPED


def align(t: Any) -> Made:
    image = {
        "image_size": 32, "width_coefficient": 0.3, "depth_coefficient": 0.3, "hidden_dim": 16, "in_channels": [32, 16, 24],
        "kernel_sizes": [3, 3, 5], "out_channels": [16, 24, 40], "strides": [1, 2, 2], "num_block_repeats": [1, 1, 2],
        "expand_ratios": [1, 6, 6],
    }  # fmt: skip
    config = t.AlignConfig(text_config=READS, vision_config=image, projection_dim=16)
    return t.AlignModel, config, "efficientnet.EfficientNet", SQUARE


def siglip(t: Any) -> Made:
    config = t.SiglipConfig(text_config=READS | {"projection_size": 32}, vision_config=SEES)
    return t.SiglipModel, config, "siglip.Siglip", SQUARE


def siglip2(t: Any) -> Made:
    image = LAYERS | {"num_patches": 16, "patch_size": 8}
    config = t.Siglip2Config(text_config=READS | {"projection_size": 32}, vision_config=image)
    return t.Siglip2Model, config, "siglip2.Siglip2", {"patch_size": 8, "max_num_patches": 24}


def blip_2(t: Any) -> Made:
    former = READS | {"encoder_hidden_size": 32, "cross_attention_frequency": 1, "use_qformer_text_input": True}
    config = t.Blip2Config(
        vision_config=SEES, qformer_config=former, text_config={"model_type": "opt"}, num_query_tokens=4,
        image_text_hidden_size=16, image_token_index=None,
    )  # fmt: skip
    return t.Blip2ForImageTextRetrieval, config, "blip.Blip", SQUARE


def owlvit(t: Any) -> Made:
    return t.OwlViTForObjectDetection, _pair("OwlViT", t, READS, SEES, 32), "owlvit.OwlViT", SQUARE


def owlv2(t: Any) -> Made:
    return t.Owlv2ForObjectDetection, _pair("Owlv2", t, READS, SEES, 32), "owlv2.Owlv2", SQUARE


def _grounding(t: Any) -> dict[str, Any]:
    swin = t.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    return {
        "backbone_config": swin, "text_config": READS | {"model_type": "bert"}, "d_model": 32, "encoder_layers": 1,
        "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "num_queries": 6, "max_text_len": 32, "num_feature_levels": 4,
    }  # fmt: skip


def grounding_dino(t: Any) -> Made:
    size = {"size": {"shortest_edge": 96, "longest_edge": 144}}
    config = t.GroundingDinoConfig(**_grounding(t))
    return t.GroundingDinoForObjectDetection, config, "grounding_dino.GroundingDino", size


def mm_grounding_dino(t: Any) -> Made:
    size = {"size": {"shortest_edge": 96, "longest_edge": 144}}
    config = t.MMGroundingDinoConfig(**_grounding(t))
    return t.MMGroundingDinoForObjectDetection, config, "grounding_dino.GroundingDino", size


def vilt(t: Any) -> Made:
    names = {0: "yes", 1: "no", 2: "2", 3: "a cat"}
    config = t.ViltConfig(**READS, image_size=32, patch_size=8, id2label=names, label2id={v: k for k, v in names.items()})
    return t.ViltForQuestionAnswering, config, "vilt.Vilt", {"size": {"shortest_edge": 32}, "size_divisor": 8}


def layoutlm(t: Any) -> Made:
    return t.LayoutLMForQuestionAnswering, t.LayoutLMConfig(**READS), "", {}


def layoutlmv3(t: Any) -> Made:
    reads = READS | {"max_position_embeddings": 33}  # one is the padding's
    config = t.LayoutLMv3Config(**reads, input_size=32, patch_size=8, coordinate_size=6, shape_size=4, type_vocab_size=1)
    return t.LayoutLMv3ForQuestionAnswering, config, "layoutlmv3.LayoutLMv3", SQUARE


MAKERS = {
    maker.__name__: maker
    for maker in (
        clip, metaclip_2, clipseg, blip, altclip, chinese_clip, align, siglip, siglip2, blip_2, owlvit, owlv2, grounding_dino,
        mm_grounding_dino, vilt, layoutlm, layoutlmv3,
    )
}  # fmt: skip


def write(folder: Path, kind: str) -> Path:
    """The checkpoint `kind`; weights are wide and biases are not zero, so that answers differ."""
    import torch
    import transformers

    model_class, config, processor, options = MAKERS[kind](transformers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config).eval()
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                # Convolutions in a row must neither drown the image in their biases nor blow it up.
                few = parameter[0].numel() ** -0.5 * 1.5
                torch.nn.init.normal_(parameter, std=few if parameter.dim() == 4 else 0.2)
            elif name not in ("logit_scale", "temperature"):
                parameter.data.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    if processor:
        processor_class(kind)(**options).save_pretrained(folder)
    if kind == "siglip":
        write_pieces(folder)
    else:
        write_word_tokenizer(folder, 32)
    if kind == "siglip2":
        tokenizer = folder / "tokenizer_config.json"
        told = json.loads(tokenizer.read_text()) | {"model_input_names": ["input_ids"], "padding_side": "right"}
        tokenizer.write_text(json.dumps(told))
    return folder


def processor_class(kind: str) -> Any:
    """transformers' image processor of a kind, on Pillow."""
    import transformers

    module, _, name = MAKERS[kind](transformers)[2].partition(".")
    file = {"blip": "blip", "chinese_clip": "chinese_pil_clip"}.get(module, f"pil_{module}")
    found = importlib.import_module(f"transformers.models.{module}.image_processing_{file}")
    return getattr(found, f"{name}ImageProcessorPil")


def write_pieces(folder: Path) -> None:
    """SigLIP's tokenizer: a SentencePiece model, and no tokenizer.json."""
    import sentencepiece

    file = io.BytesIO()
    text = ["a photo of a good cat and a bad dog on this day", "this is a picture of two cats, the one with the other"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 20), model_writer=file, vocab_size=60, hard_vocab_limit=False, minloglevel=2,
        add_dummy_prefix=False, bos_id=-1, pad_id=-1, eos_id=1, unk_id=2, control_symbols=["<pad>"],
    )  # fmt: skip
    (folder / "spiece.model").write_bytes(file.getvalue())
    told = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 64, "model_input_names": ["input_ids"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root, made = tmp_path_factory.mktemp("multimodal"), {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = write(root / kind, kind)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def picture() -> Callable[..., Media]:
    """A PNG of smooth random colours, other ones for every seed."""

    def draw(seed: int = 0, width: int = 61, height: int = 47) -> Media:
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "PNG")
        return Media(data=file.getvalue())

    return draw


class Server(SkillSuite):
    """The real worker on the cpu backend, for tests that bring their checkpoint; collected by nobody."""

    __test__ = False
    skill = Multimodal()
    backend = CpuBackend()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def card(self, folder: Path) -> ModelCard:
        return card_of(self.folder)


async def _all(served: Any, requests: Sequence[Any]) -> list[Any]:
    names = {task.request: task.name for task in Multimodal.tasks}
    calls = (served.ask(names[type(request)], request) for request in requests)
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.fixture(scope="session")
def ask() -> Callable[..., list[Any]]:
    """Answers, or errors, of requests that the worker of a folder gets at once."""

    def answers(folder: Path, requests: Sequence[Any]) -> list[Any]:
        return Server(folder)._serve(folder.parent, lambda served: _all(served, requests))

    return answers


@pytest.fixture(scope="session")
def ask_twice() -> Callable[..., tuple[list[Any], list[Any]]]:
    """Answers, or errors, of requests that the worker of a folder gets at once, and then one after another."""

    def answers(folder: Path, requests: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        async def scenario(served: Any) -> tuple[list[Any], list[Any]]:
            return await _all(served, requests), [(await _all(served, [request]))[0] for request in requests]

        return Server(folder)._serve(folder.parent, scenario)

    return answers


class Reference:
    """transformers alone: the model, its image processor and its tokenizer."""

    def __init__(self, folder: Path) -> None:
        import transformers

        self.kind = folder.name
        self.config = json.loads((folder / "config.json").read_text())
        self.model = getattr(transformers, self.config["architectures"][0]).from_pretrained(folder).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.processor = processor_class(self.kind).from_pretrained(folder) if MAKERS[self.kind](transformers)[2] else None

    def texts(self, texts: list[str]) -> dict[str, Any]:
        padding = {"padding": "max_length", "max_length": 32} if "siglip" in self.kind else {"padding": True}
        made = self.tokenizer(texts, return_tensors="pt", **padding)
        return {name: made[name] for name in ("input_ids", "attention_mask") if name in made}

    def image(self, media: Media, **options: Any) -> dict[str, Any]:
        return dict(self.processor([image_of(media)], return_tensors="pt", **options))

    def size(self, media: Media) -> tuple[int, int]:
        """(height, width)."""
        return image_of(media).size[::-1]

    def __call__(self, **inputs: Any) -> Any:
        import torch

        with torch.inference_mode():
            return self.model(**inputs)


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    return Reference


def image_of(media: Media) -> Image.Image:
    return Image.open(io.BytesIO(media.data)).convert("RGB")
