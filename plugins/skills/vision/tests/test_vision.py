"""Every task answers as transformers' model and processor do, called on one image, with the same weights."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from modelport.contract import ConfigurationError, InvalidRequest, Media, ModelCard, SessionContext
from modelport.tasks import vision as tasks
from modelport.testing.backend import card_of
from modelport.testing.skill import SkillSuite, assert_close
from modelport_backend_cpu.backend import CpuBackend
from modelport_hf import pictures
from modelport_skill_vision import Vision, results

Checkpoint = Callable[[str], Path]
Picture = Callable[..., Media]

KINDS = {
    "vit": "image-classification",
    "deit_teacher": "image-classification",
    "resnet": "image-classification",
    "convnext": "image-classification",
    "detr": "object-detection",
    "yolos": "object-detection",
    "rt_detr": "object-detection",
    "segformer": "image-segmentation",
    "mask2former": "image-segmentation",
    "maskformer": "image-segmentation",
    "dpt": "depth-estimation",
    "depth_anything": "depth-estimation",
    "dinov2": "image-feature-extraction",
    "superpoint": "keypoint-detection",
    "videomae": "video-classification",
}


class Server(SkillSuite):
    """The real worker on the cpu backend, for tests below; collected by nobody."""

    __test__ = False
    skill = Vision()
    backend = CpuBackend()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def card(self, folder: Path) -> ModelCard:
        return card_of(self.folder)


def ask(folder: Path, requests: Sequence[Any], *, together: bool = True) -> list[Any]:
    """Answers, or errors, of requests that the worker of `folder` gets at once, or one after another."""

    async def scenario(served: Any) -> list[Any]:
        task = KINDS[folder.name]
        if together:
            return await asyncio.gather(*(served.ask(task, request) for request in requests), return_exceptions=True)
        return [(await asyncio.gather(served.ask(task, request), return_exceptions=True))[0] for request in requests]

    return Server(folder)._serve(folder.parent, scenario)


def request_of(task: str, pictures: list[Media], **options: Any) -> Any:
    kinds = {known.name: known.request for known in Vision.tasks}
    return kinds[task](inputs=pictures if task == "video-classification" else pictures[0], **options)


class Reference:
    """transformers alone."""

    def __init__(self, folder: Path) -> None:
        import transformers

        config = json.loads((folder / "config.json").read_text())
        name = json.loads((folder / "preprocessor_config.json").read_text())["image_processor_type"].removesuffix("Pil")
        module = {"Bit": "bit", "DPT": "dpt", "DeiT": "deit", "ViT": "vit", "RTDetr": "rt_detr", "ConvNext": "convnext",
                  "VideoMAE": "videomae"}.get(stem := name.removesuffix("ImageProcessor"), stem.lower())  # fmt: skip
        made = getattr(importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}"), name + "Pil")
        self.processor = made.from_pretrained(folder)
        self.model = getattr(transformers, config["architectures"][0]).from_pretrained(folder).eval()

    def __call__(self, images: list[Image.Image]) -> Any:
        import torch

        inputs = self.processor([images] if len(images) > 1 else images, return_tensors="pt")
        with torch.inference_mode():
            return self.model(**inputs)


def image_of(media: Media) -> Image.Image:
    return Image.open(io.BytesIO(media.data)).convert("RGB")


def pixels(media: Media) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(media.data)))


SIZES = ((61, 47), (40, 70), (61, 47), (90, 30))


@pytest.mark.parametrize("kind", [kind for kind, task in KINDS.items() if "classification" in task])
def test_labels_and_scores(kind: str, checkpoint: Checkpoint, picture: Picture) -> None:
    folder = checkpoint(kind)
    frames = 4 if kind == "videomae" else 1
    groups = [[picture(10 * n + f, *size) for f in range(frames)] for n, size in enumerate(SIZES)]

    answers = ask(folder, [request_of(KINDS[kind], group) for group in groups])

    reference = Reference(folder)
    found = []
    for group, answer in zip(groups, answers, strict=True):
        expected = reference([image_of(media) for media in group]).logits[0].softmax(-1).numpy()
        order = np.argsort(-expected)
        assert [entry.label for entry in answer.results] == [f"LABEL_{i}" for i in order]
        np.testing.assert_allclose([entry.score for entry in answer.results], expected[order], atol=1e-4)
        found.append(expected)
    assert max(np.abs(found[0] - other).max() for other in found[1:]) > 1e-3, "a constant model proves nothing"


@pytest.mark.parametrize("kind", ["detr", "yolos", "rt_detr"])
def test_objects_and_boxes(kind: str, checkpoint: Checkpoint, picture: Picture) -> None:
    folder = checkpoint(kind)
    images = [picture(n, *size) for n, size in enumerate(SIZES)]

    answers = ask(folder, [request_of("object-detection", [image], threshold=0.05) for image in images])

    reference = Reference(folder)
    for media, answer in zip(images, answers, strict=True):
        image = image_of(media)
        output, size = reference([image]), [(image.height, image.width)]
        expected = reference.processor.post_process_object_detection(output, threshold=0.05, target_sizes=size)[0]
        order = np.argsort(-expected["scores"].numpy(), kind="stable")
        assert len(order) > 0
        assert [each.label for each in answer.results] == [f"LABEL_{expected['labels'][i]}" for i in order]
        np.testing.assert_allclose([each.score for each in answer.results], expected["scores"].numpy()[order], atol=1e-4)
        boxes = [(each.box.xmin, each.box.ymin, each.box.xmax, each.box.ymax) for each in answer.results]
        # whole pixels: a side may fall on either side of one
        np.testing.assert_allclose(boxes, np.trunc(expected["boxes"].numpy()[order]), atol=1, rtol=1e-3)


def test_every_pixel_has_its_class(checkpoint: Checkpoint, picture: Picture) -> None:
    folder = checkpoint("segformer")
    images = [picture(n, *size) for n, size in enumerate(SIZES)]

    answers = ask(folder, [request_of("image-segmentation", [image]) for image in images])

    reference = Reference(folder)
    for media, answer in zip(images, answers, strict=True):
        image = image_of(media)
        output = reference([image])
        (expected,) = reference.processor.post_process_semantic_segmentation(output, [(image.height, image.width)])
        shown = np.full(expected.shape, -1)
        for part in answer.results:
            assert part.score is None
            shown[pixels(part.mask) == 255] = int(part.label.removeprefix("LABEL_"))
        assert (shown == expected.numpy()).mean() > 0.999
        assert len(answer.results) > 1


@pytest.mark.parametrize("kind", ["mask2former", "maskformer"])
@pytest.mark.parametrize("subtask", ["panoptic", "instance", "semantic"])
def test_masks(kind: str, subtask: str, checkpoint: Checkpoint, picture: Picture) -> None:
    folder = checkpoint(kind)
    images = [picture(n, *size) for n, size in enumerate(SIZES[:2])]
    options = {"threshold": 0.05, "mask_threshold": 0.2, "overlap_mask_area_threshold": 0.01}

    answers = ask(folder, [request_of("image-segmentation", [image], subtask=subtask, **options) for image in images])

    reference = Reference(folder)
    for media, answer in zip(images, answers, strict=True):
        image = image_of(media)
        rules = getattr(reference.processor, f"post_process_{subtask}_segmentation")
        more = {} if subtask == "semantic" else options
        (expected,) = rules(reference([image]), target_sizes=[(image.height, image.width)], **more)
        if subtask == "semantic":
            labels = [f"LABEL_{i}" for i in np.unique(expected.numpy())]
            masks = [expected.numpy() == i for i in np.unique(expected.numpy())]
        else:
            labels = [f"LABEL_{part['label_id']}" for part in expected["segments_info"]]
            masks = [expected["segmentation"].numpy() == part["id"] for part in expected["segments_info"]]
        assert labels
        assert [part.label for part in answer.results] == labels
        for part, mask in zip(answer.results, masks, strict=True):
            assert ((pixels(part.mask) == 255) == mask).mean() > 0.999


@pytest.mark.parametrize("kind", ["dpt", "depth_anything"])
def test_depth(kind: str, checkpoint: Checkpoint, picture: Picture) -> None:
    folder = checkpoint(kind)
    images = [picture(n, *size) for n, size in enumerate(SIZES)]

    answers = ask(folder, [request_of("depth-estimation", [image]) for image in images])

    reference = Reference(folder)
    for media, answer in zip(images, answers, strict=True):
        image = image_of(media)
        output = reference([image])
        (expected,) = reference.processor.post_process_depth_estimation(output, [(image.height, image.width)])
        depth = expected["predicted_depth"].numpy()
        assert answer.predicted_depth.shape == (image.height, image.width)
        np.testing.assert_allclose(answer.predicted_depth, depth, rtol=1e-3, atol=1e-4)
        grey = np.clip(depth * 255 / depth.max(), 0, 255) if depth.max() > 0 else np.zeros_like(depth)
        assert np.abs(pixels(answer.depth).astype(int) - grey).max() <= 1


def test_features(checkpoint: Checkpoint, picture: Picture) -> None:
    folder = checkpoint("dinov2")
    images = [picture(n, *size) for n, size in enumerate(SIZES)]

    answers = ask(folder, [request_of("image-feature-extraction", [image]) for image in images])

    reference = Reference(folder)
    for media, answer in zip(images, answers, strict=True):
        np.testing.assert_allclose(answer.features, reference([image_of(media)]).last_hidden_state[0].numpy(), atol=1e-4)


def test_keypoints(checkpoint: Checkpoint, picture: Picture) -> None:
    folder = checkpoint("superpoint")
    images = [picture(n, *size) for n, size in enumerate(SIZES)]

    answers = ask(folder, [request_of("keypoint-detection", [image]) for image in images])

    reference = Reference(folder)
    for media, answer in zip(images, answers, strict=True):
        image = image_of(media)
        output = reference([image])
        (expected,) = reference.processor.post_process_keypoint_detection(output, [(image.height, image.width)])
        assert len(answer.results) == len(expected["keypoints"]) > 0
        assert [(point.x, point.y) for point in answer.results] == [tuple(xy) for xy in expected["keypoints"].tolist()]
        np.testing.assert_allclose([point.score for point in answer.results], expected["scores"].numpy(), atol=1e-4)
        np.testing.assert_allclose(answer.descriptors, expected["descriptors"].numpy(), atol=1e-4)


# ------------------------------------------------------------------------------------------------------------ company


@pytest.mark.parametrize("kind", ["convnext", "detr", "yolos", "depth_anything", "superpoint"])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.integers(8, 90), st.integers(8, 90)), max_size=4).map(lambda more: [(61, 47), (40, 70), *more])
)
def test_an_answer_does_not_depend_on_company(
    kind: str, sizes: list[tuple[int, int]], checkpoint: Checkpoint, picture: Picture
) -> None:
    folder = checkpoint(kind)
    options = {"threshold": 0.05} if KINDS[kind] == "object-detection" else {}
    requests = [request_of(KINDS[kind], [picture(n, *size)], **options) for n, size in enumerate(sizes * 2)]

    together, alone = ask(folder, requests), ask(folder, requests, together=False)
    for answer in (*together, *alone):
        if isinstance(answer, tasks.DepthResult):
            answer.depth = Media()  # a PNG of the same numbers: a rounding may turn one grey into the next

    assert not isinstance(alone[0], Exception)
    assert_close(_comparable(together), _comparable(alone), 1e-4)


def _comparable(answers: list[Any]) -> list[Any]:
    """Refusals (DPT's processor takes no image that is 8 times as long as it is wide) are equal if they say the same."""
    assert all(not isinstance(answer, Exception) or isinstance(answer, InvalidRequest) for answer in answers)
    return [answer.to_wire() if isinstance(answer, InvalidRequest) else answer for answer in answers]


# ------------------------------------------------------------------------------------------------------ what is refused


def test_bad_images_are_refused_and_the_worker_lives(checkpoint: Checkpoint, picture: Picture) -> None:
    whole = picture(1)
    bomb = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "PNG")
    bad = [
        (Media(), "inputs", "is empty"),
        (Media(data=b"not an image"), "inputs", "not an image"),
        (Media(data=whole.data[: len(whole.data) // 2]), "inputs", "cannot be decoded"),
        (Media(data=bomb.getvalue()), "inputs", "pixels"),
        (Media(url="http://example.com/cat.png"), "inputs.url", "fetches none"),
        (Media(url="file:///etc/passwd"), "inputs.url", "fetches none"),
        (Media(url="data:image/png;base64,%%%"), "inputs.url", "data URL"),
    ]
    good = [whole, picture(2, 1, 1)]

    answers = ask(checkpoint("vit"), [request_of("image-classification", [m]) for m in [*(b for b, _, _ in bad), *good]])

    for (_, field, words), error in zip(bad, answers, strict=False):
        assert isinstance(error, InvalidRequest), error
        assert error.param == field
        assert words in error.message
    assert all(len(answer.results) == 5 for answer in answers[-2:])


def test_an_image_that_would_grow_too_large_is_refused(checkpoint: Checkpoint) -> None:
    file = io.BytesIO()
    Image.new("L", (1, 200_000)).save(file, "PNG")

    (error,) = ask(checkpoint("resnet"), [request_of("image-classification", [Media(data=file.getvalue())])])

    assert isinstance(error, InvalidRequest)
    assert (error.param, "Cut out the part" in error.message) == ("inputs", True)


@pytest.mark.parametrize(
    ("kind", "bound", "subtask"),
    [
        ("segformer", "results._MOST_MASK_PIXELS", None),
        ("mask2former", "results._MOST_MASK_PIXELS", "instance"),
        ("mask2former", "results._MOST_MASK_PIXELS", "semantic"),
        ("dpt", "results._MOST_DEPTH_PIXELS", None),
        ("vit", "pictures._MOST_PREPARED", None),
    ],
)
def test_what_would_not_fit_into_memory_is_refused(
    kind: str, bound: str, subtask: str | None, checkpoint: Checkpoint, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, name = bound.partition(".")
    monkeypatch.setattr({"results": results, "pictures": pictures}[module], name, 1000)
    options = {"subtask": subtask} if subtask else {}

    (error,) = ask(checkpoint(kind), [request_of(KINDS[kind], [picture(1)], **options)])

    assert isinstance(error, InvalidRequest), error
    assert (error.param, "ake the image smaller" in error.message or "Make it smaller" in error.message) == ("inputs", True)


def test_the_classes_of_a_photograph_are_found_without_growing_them_all_at_once(
    checkpoint: Checkpoint, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 0
    interpolate = torch.nn.functional.interpolate

    def watched(*args: Any, **options: Any) -> torch.Tensor:
        nonlocal largest
        grown = interpolate(*args, **options)
        if tuple(grown.shape[-2:]) == (470, 610):
            largest = max(largest, grown.numel())
        return grown

    monkeypatch.setattr(torch.nn.functional, "interpolate", watched)
    (answer,) = ask(checkpoint("segformer"), [request_of("image-segmentation", [picture(1, 610, 470)])])
    assert len(answer.results) > 1
    assert largest <= 610 * 470


def test_a_video_is_let_go_of_when_its_caller_leaves(checkpoint: Checkpoint, picture: Picture) -> None:
    asked: list[Callable[[], bool]] = []

    class Thread:
        """A run whose pool is at work for ever."""

        async def cpu(self, function: Any, request: Any, is_unwanted: Callable[[], bool]) -> Any:
            asked.append(is_unwanted)
            await asyncio.get_running_loop().create_future()

    async def scenario() -> None:
        session = Vision().session(_context(checkpoint("videomae")))
        request = request_of("video-classification", [picture(n) for n in range(4)])
        waiting = asyncio.ensure_future(anext(session.handle(request, Thread())))
        await asyncio.sleep(0)
        assert [unwanted() for unwanted in asked] == [False]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(scenario())
    assert [unwanted() for unwanted in asked] == [True]


def test_options_are_refused_by_name(checkpoint: Checkpoint, picture: Picture) -> None:
    image = [picture(1)]
    asked = {
        "vit": request_of("image-classification", image, top_k=0),
        "detr": request_of("object-detection", image, threshold=2.0),
        "segformer": request_of("image-segmentation", image, subtask="panoptic"),
        "videomae": request_of("video-classification", image),
    }
    fields = {}
    for kind, request in asked.items():
        (error,) = ask(checkpoint(kind), [request])
        assert isinstance(error, InvalidRequest)
        fields[kind] = error.param
    assert fields == {"vit": "top_k", "detr": "threshold", "segformer": "subtask", "videomae": "inputs"}


def test_top_k_and_function(checkpoint: Checkpoint, picture: Picture) -> None:
    request = request_of("image-classification", [picture(1)], top_k=2, function_to_apply="sigmoid")

    (answer,) = ask(checkpoint("vit"), [request])

    expected = Reference(checkpoint("vit"))([image_of(picture(1))]).logits[0].sigmoid().sort(descending=True).values[:2]
    np.testing.assert_allclose([each.score for each in answer.results], expected.numpy(), atol=1e-4)


def test_a_backend_without_torch_gives_the_same_labels(checkpoint: Checkpoint, picture: Picture) -> None:
    openvino = pytest.importorskip("modelport_backend_openvino")
    folder = checkpoint("vit")
    images = [picture(n, *size) for n, size in enumerate(SIZES)]

    class OpenVino(Server):
        __test__ = False
        backend = openvino.register_backends()[0]

    async def scenario(served: Any) -> list[Any]:
        requests = [request_of("image-classification", [image]) for image in images]
        return await asyncio.gather(*(served.ask("image-classification", request) for request in requests))

    answers = OpenVino(folder)._serve(folder.parent, scenario)

    reference = Reference(folder)
    for media, answer in zip(images, answers, strict=True):
        expected = reference([image_of(media)]).logits[0].softmax(-1).numpy()
        assert [each.label for each in answer.results] == [f"LABEL_{i}" for i in np.argsort(-expected)]
        np.testing.assert_allclose([each.score for each in answer.results], np.sort(expected)[::-1], atol=1e-4)


def test_a_processor_of_another_kind_is_refused_when_the_model_is_loaded(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("vit"), tmp_path / "vit")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_channels": 4}))

    with pytest.raises(ConfigurationError, match="makes pixels of the shape"):
        Vision().session(_context(folder))


def _context(folder: Path) -> SessionContext:
    card = card_of(folder)
    (task, program), *_ = Vision().programs(card).items()
    return SessionContext(card=card, task=task, tasks=(task,), program=program, checkpoints={"main": folder})


def test_what_it_does_not_claim(checkpoint: Checkpoint, tmp_path: Path) -> None:
    card = card_of(checkpoint("dinov2"))
    assert Vision().claim(card) is not None
    (tmp_path / "preprocessor_config.json").write_text(
        '{"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000}'
    )
    strangers = [
        {"architectures": ("BertModel",), "path": str(tmp_path)},
        {"architectures": ("Wav2Vec2Model",), "path": str(tmp_path)},
        {"architectures": ("CLIPModel",), "files": (*card.files, "tokenizer.json")},
        {"architectures": ("SamModel",), "config": {"vision_config": {}, "mask_decoder_config": {}}},
    ]
    for fields in strangers:
        assert Vision().claim(msgspec.structs.replace(card, **fields)) is None, fields


class TestSuite(SkillSuite):
    """What the core relies on."""

    skill = Vision()
    backend = CpuBackend()

    @pytest.fixture(autouse=True)
    def _given(self, checkpoint: Checkpoint, picture: Picture) -> None:
        self.folder, self.picture = checkpoint("resnet"), picture

    def card(self, folder: Path) -> ModelCard:
        return card_of(self.folder)

    def requests(self) -> dict[str, list[Any]]:
        pictures = [self.picture(n, *size) for n, size in enumerate(SIZES)]
        return {"image-classification": [tasks.ImageClassificationRequest(inputs=each) for each in pictures]}

    def bad_requests(self) -> list[tuple[str, Any, str]]:
        return [("image-classification", tasks.ImageClassificationRequest(inputs=self.picture(1), top_k=0), "top_k")]
