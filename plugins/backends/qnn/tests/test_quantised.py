"""Quantised models on QNN's emulation of the NPU: recorded, calibrated, compared, served; and a reason for every refusal."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from modelport.contract import ArraySpec, ConfigurationError, Device, Forward, Item, Media, Output, Program
from modelport.contract.session import pad_and_stack
from modelport.testing.checkpoints import tiny_bert
from modelport_backend_qnn.agreement import Agreement, Tally
from modelport_backend_qnn.calibration import batches, read
from modelport_backend_qnn.record import Recorder

TEXT = (ArraySpec("input_ids", pad=None), ArraySpec("attention_mask"))
ENCODER = Program({"main": Forward(head="feature-extraction", inputs=TEXT, outputs=(Output("last_hidden_state"),))})
IMAGE = (ArraySpec("pixel_values", "float32", ("batch", 3, 4, 4)),)
IMAGES = Program({"main": Forward(head="image-classification", inputs=IMAGE, outputs=(Output("logits"),))})
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SHAPES = [[2, 16]]


def texts(count: int, seed: int) -> list[Item]:
    draw = np.random.default_rng(seed)
    ids = [draw.integers(5, 99, draw.integers(3, 17)) for _ in range(count)]
    return [Item({"input_ids": row, "attention_mask": np.ones_like(row)}, len(row)) for row in ids]


def batch_of(items: list[Item], shape: tuple[int, int] = (2, 16)) -> dict[str, Any]:
    return dict(pad_and_stack(TEXT, items, shape, {"input_ids": 1}))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(folder, model): attention that chooses, as a trained model's does; near-equal weights would hide a bad mask."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=100, max_position_embeddings=64, initializer_range=0.2, **SMALL)
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def recorded(encoder: Any, load: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What 31 requests in float16 left behind: the file is there, whole, when the last of them was answered."""
    path = tmp_path_factory.mktemp("recorded") / "new" / "bert.npz"
    runner = load(encoder[0], ENCODER, shapes=SHAPES, record=31, calibration=str(path))
    assert runner.facts["recording"] == f"the inputs of the first 31 items, to {path}"
    items = texts(33, seed=1)
    for start in range(0, 30, 2):
        runner.submit("main", batch_of(items[start : start + 2])).result()
    assert not path.exists()
    runner.submit("main", batch_of(items[30:31])).result()  # its second row is padding, and no item
    runner.submit("main", batch_of(items[31:33])).result()  # more than was asked for
    found = np.load(path)
    assert sorted(found.files) == ["attention_mask", "input_ids"]
    assert len(found["input_ids"]) == 31
    for item, ids, mask in zip(items[:31], found["input_ids"], found["attention_mask"], strict=True):
        assert ids[mask != 0].tolist() == np.asarray(item.arrays["input_ids"]).tolist()
    assert [child.name for child in path.parent.iterdir()] == ["bert.npz"]
    return path


@pytest.mark.parametrize(
    ("dtype", "weights", "least"), [("int16", None, 0.995), ("int16", "int16", 0.998), ("int8", "int8", 0.99)]
)
def test_quantised_texts_are_nearly_what_torch_says(
    dtype: str, weights: str | None, least: float, encoder: Any, recorded: Path, load: Callable[..., Any]
) -> None:
    """With items that were not calibrated with, of other lengths, hidden tokens beside seen ones."""
    folder, model = encoder
    options = {} if weights is None else {"weights": weights}
    runner = load(folder, ENCODER, dtype=dtype, shapes=SHAPES, calibration=str(recorded), **options)
    assert (runner.facts["dtype"], runner.facts["weights"]) == (dtype, weights or "int8")
    agreement = Agreement.read(Path(runner.facts["converted"]))
    assert runner.facts["agreement"] == str(agreement)
    assert least < agreement.worst <= agreement.mean < 1
    assert agreement.answers == 7, "to a quarter of the examples, none of which it was calibrated with"
    for seed in (2, 3, 4):
        items = texts(2, seed)
        found = runner.submit("main", batch_of(items)).result()["last_hidden_state"]
        for row, item in zip(found, items, strict=True):
            ids = torch.from_numpy(np.asarray(item.arrays["input_ids"]))[None]
            with torch.no_grad():
                expected = model(ids).last_hidden_state[0].numpy()
            tally = Tally()
            tally.add(expected, row[: len(expected)], None)
            assert tally.agreement().worst > least


def test_what_lost_too_much_is_refused_with_the_figure(encoder: Any, recorded: Path, load: Callable[..., Any]) -> None:
    """The bound is judged when the model is loaded: another one converts nothing anew."""

    def never(job: Any, tell: Any) -> None:
        raise AssertionError("converted again")

    options = {"dtype": "int8", "shapes": SHAPES, "calibration": str(recorded)}
    load(encoder[0], ENCODER, **options)
    with pytest.raises(ConfigurationError, match=r'float32 0\.99\d+ at worst .*least_cosine is 1\. Use dtype = "int16"'):
        load(encoder[0], ENCODER, by=never, least_cosine=1, **options)
    load(encoder[0], ENCODER, by=never, least_cosine=0.5, **options)
    with pytest.raises(ConfigurationError, match="must be a number, -1 to 1"):
        load(encoder[0], ENCODER, by=never, least_cosine="high", **options)


def test_served_by_a_worker_it_records_quantises_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    """From the checkpoint to the label, in processes of their own: the probe, the converter, the worker."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from modelport import Engine

    torch.manual_seed(0)
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=5, **SMALL)
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "m")
    processor = transformers.models.vit.image_processing_pil_vit.ViTImageProcessorPil(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path / "m")
    examples = tmp_path / "vit.npz"
    draw = np.random.default_rng(1)
    images = [Image.fromarray(draw.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(9)]
    with torch.no_grad():
        scores = model(**processor(images, return_tensors="pt")).logits.softmax(-1)

    def is_right(engine: Any, index: int, tolerance: float) -> bool:
        images[index].save(tmp_path / "image.png")
        request = {"inputs": Media(data=(tmp_path / "image.png").read_bytes())}
        found = engine.run("image-classification", "m", request).result.results
        expected = dict(zip(model.config.id2label.values(), scores[index].tolist(), strict=True))
        return {each.label: each.score for each in found} == pytest.approx(expected, abs=tolerance)

    source = f"m={tmp_path / 'm'}"
    with Engine(source, backend="qnn", backend_options={"record": 8, "calibration": str(examples)}) as engine:
        assert all(is_right(engine, index, 2e-3) for index in range(8))
    assert np.load(examples)["pixel_values"].shape == (8, 3, 32, 32)
    with Engine(source, backend="qnn", dtype="int16", backend_options={"calibration": str(examples)}) as engine:
        assert is_right(engine, 8, 5e-3)


def test_without_examples_it_says_how_to_get_some(load: Callable[..., Any], tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "m")
    with pytest.raises(ConfigurationError, match=r"dtype int8 needs calibration.*record = 64, calibration = \"FILE.npz\""):
        load(folder, ENCODER, dtype="int8")
    with pytest.raises(ConfigurationError, match=r"none.npz cannot be read \(No such file.*record = 64"):
        load(folder, ENCODER, dtype="int16", calibration=str(tmp_path / "none.npz"))


@pytest.mark.parametrize(
    ("dtype", "options", "why"),
    [
        ("auto", {"weights": "int8"}, 'weights are quantised together with activations: set dtype = "int16"'),
        ("int8", {"weights": "int16", "calibration": "x"}, "with dtype int8 it may be int8"),
        ("int16", {"weights": "int4", "calibration": "x"}, "with dtype int16 it may be int8 or int16"),
        ("auto", {"record": 64}, "record needs a file to write to"),
        ("auto", {"record": 0, "calibration": "x"}, "must be a number of items, 1 to 256"),
        ("int8", {"calibration": 3}, "must be the path of a .npz file"),
    ],
)
def test_options_that_cannot_work_are_refused(
    dtype: str, options: dict[str, Any], why: str, load: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        load(tiny_bert(tmp_path / "m"), ENCODER, dtype=dtype, **options)


def test_other_examples_are_another_conversion(load: Callable[..., Any], tmp_path: Path) -> None:
    """The name of a conversion's folder follows what the file holds, not where it lies."""
    folder, made = tiny_bert(tmp_path / "m"), []

    def note(job: Any, tell: Any) -> None:
        made.append(Path(job.out).name)
        raise ConfigurationError("noted")

    def name(path: Path, dtype: str = "int8", **options: Any) -> str:
        with pytest.raises(ConfigurationError, match="noted"):
            load(folder, ENCODER, dtype=dtype, by=note, calibration=str(path), **options)
        return made[-1]

    one, two, copy = tmp_path / "one.npz", tmp_path / "two.npz", tmp_path / "copy.npz"
    np.savez(one, input_ids=np.ones((1, 4), int), attention_mask=np.ones((1, 4), int))
    np.savez(two, input_ids=np.full((1, 4), 2), attention_mask=np.ones((1, 4), int))
    shutil.copy(one, copy)
    assert name(one) == name(copy)
    assert len({name(one), name(two), name(one, "int16"), name(one, "int16", weights="int16"), name(one, "auto")}) == 5
    assert name(one, "auto") == name(two, "auto")


GOOD = {"input_ids": np.full((2, 4), 7), "attention_mask": np.ones((2, 4), np.int8)}


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"input_ids": GOOD["input_ids"]}, "it has no array 'attention_mask'; it has input_ids"),
        (GOOD | {"input_ids": np.full(4, 7)}, "'input_ids' has the shape 4, and the model takes examples × sequence"),
        (GOOD | {"input_ids": np.full((2, 4), 7.0)}, "'input_ids' is of float64, and the model takes int64"),
        (GOOD | {"input_ids": np.full((2, 4), 100)}, "'input_ids' has tokens that are none of 0 to 99"),
        (GOOD | {"input_ids": np.full((3, 4), 7)}, "different numbers of examples (3 of input_ids, 2 of attention_mask)"),
        (GOOD | {"input_ids": np.zeros((0, 4), int)}, "'input_ids' is empty"),
        (GOOD | {"attention_mask": np.zeros((2, 4), int)}, "'attention_mask' hides every token"),
        (GOOD | {"input_ids": np.array([["a"]], object)}, "it is no .npz file of NumPy's"),
    ],
)
def test_examples_that_do_not_fit_are_refused(arrays: dict[str, Any], why: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ConfigurationError) as refused:
        read(tmp_path / "x.npz", ENCODER, "main", ["input_ids", "attention_mask"], 100)
    assert why in refused.value.message


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 4, 4), np.float32)
    for wrong, why in (
        (pixels[:, :, :2], "3 × 2 × 4, and the model takes examples × 3 × 4 × 4"),
        (pixels + np.inf, "not finite"),
    ):
        np.savez(tmp_path / "x.npz", pixel_values=wrong)
        with pytest.raises(ConfigurationError, match=why):
            read(tmp_path / "x.npz", IMAGES, "main", ["pixel_values"], None)
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(ConfigurationError, match="NumPy's"):
        read(tmp_path / "x.npz", IMAGES, "main", ["pixel_values"], None)


def test_examples_are_cut_padded_and_filled_up() -> None:
    ids = np.array([[5, 6, 7], [5, 0, 0], [0, 0, 7]])
    made = list(batches(ENCODER.forward("main"), {"input_ids": ids, "attention_mask": (ids != 0).astype(int)}, (2, 2)))  # type: ignore[arg-type]
    assert [batch["input_ids"].tolist() for batch, _ in made] == [[[5, 6], [5, 0]]], "nothing of the third is left"
    (wide, real), *_ = batches(ENCODER.forward("main"), {"input_ids": ids[:1], "attention_mask": np.ones((1, 3), int)}, (2, 5))  # type: ignore[arg-type]
    assert wide["attention_mask"].tolist() == [[1, 1, 1, 0, 0]] * 2
    assert real.tolist() == [True, False]


def test_entries_are_recorded_side_by_side(tmp_path: Path) -> None:
    """A program of several entries is written when each has been asked often enough; names say whose inputs they are."""
    program = Program({"text": ENCODER.entries["main"], "image": IMAGES.entries["main"]})
    recorder = Recorder(program, tmp_path / "x.npz", 1)
    recorder.take("text", batch_of(texts(2, 0)))
    recorder.take("text", batch_of(texts(2, 1)))
    assert not (tmp_path / "x.npz").exists()
    recorder.take("image", {"pixel_values": np.ones((1, 3, 4, 4), np.float32)})
    assert sorted(np.load(tmp_path / "x.npz").files) == ["image.pixel_values", "text.attention_mask", "text.input_ids"]
    assert read(tmp_path / "x.npz", program, "image", ["pixel_values"], None)["pixel_values"].shape == (1, 3, 4, 4)
    before = (tmp_path / "x.npz").read_bytes()
    again = Recorder(program, tmp_path / "x.npz", 1)
    again.take("text", batch_of(texts(2, 5)))
    again.take("image", {"pixel_values": np.full((1, 3, 4, 4), 2, np.float32)})
    assert (tmp_path / "x.npz").read_bytes() == before, "a file that is there is kept"


@pytest.mark.skipif(os.name == "nt", reason="permissions are another matter there")
def test_what_is_recorded_is_the_users_alone(tmp_path: Path) -> None:
    recorder = Recorder(IMAGES, tmp_path / "x.npz", 1)
    recorder.take("main", {"pixel_values": np.ones((1, 3, 4, 4), np.float32)})
    assert (tmp_path / "x.npz").stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_ends_the_recording_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    recorder = Recorder(IMAGES, tmp_path / "file" / "x.npz", 1)
    with caplog.at_level(logging.ERROR):
        recorder.take("main", {"pixel_values": np.ones((1, 3, 4, 4), np.float32)})
    assert "could not be written" in caplog.text
    assert recorder.is_done


def test_answers_that_are_no_numbers_agree_with_nothing() -> None:
    tally = Tally()
    tally.add(np.ones(3), np.ones(3), None)
    tally.add(np.ones(3), np.full(3, np.nan), None)
    assert tally.agreement().worst == -1
