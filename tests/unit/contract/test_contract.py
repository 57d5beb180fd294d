"""Programs, tasks, errors, items and the wire: the data that crosses boundaries."""

import pickle

import msgspec
import numpy as np
import pytest

from modelport.contract import (
    ArraySpec,
    Forward,
    Generate,
    GenerateRequest,
    InvalidRequest,
    Item,
    ModelCard,
    Normalize,
    Output,
    Pool,
    Program,
    Sampling,
    Task,
    Unavailable,
)
from modelport.contract.errors import WireError, error_from_wire
from modelport.contract.session import pad_and_stack
from modelport.contract.wire import decode, encode
from modelport.tasks.text import (
    TEXT_GENERATION,
    EmbeddingResult,
    GenerationDelta,
    ToolCallDelta,
    join_generation,
    merge_generation,
)

PROGRAM = Program(
    {
        "main": Forward(
            head="feature-extraction",
            inputs=(ArraySpec("input_ids", pad=None), ArraySpec("attention_mask")),
            outputs=(Output("embedding", "last_hidden_state", (Pool("mean"), Normalize())),),
        ),
        "text": Generate(),
    }
)


def test_program_survives_msgpack_and_keeps_its_digest():
    copy = msgspec.msgpack.decode(msgspec.msgpack.encode(PROGRAM), type=Program)
    assert copy == PROGRAM
    assert (copy.digest, hash(copy)) == (PROGRAM.digest, hash(PROGRAM))


def test_program_digest_ignores_the_order_of_entries():
    assert Program(dict(reversed(PROGRAM.entries.items()))).digest == PROGRAM.digest


def test_program_forward_refuses_an_entry_that_generates():
    with pytest.raises(TypeError, match="'text' generates"):
        PROGRAM.forward("text")


def test_error_survives_the_wire_and_pickle_as_the_same_kind():
    error = Unavailable("loading", retry_after_s=3)
    for copy in (error_from_wire(error.to_wire()), pickle.loads(pickle.dumps(error))):
        assert type(copy) is Unavailable
        assert (copy.message, copy.retry_after_s) == ("loading", 3)


def test_error_of_an_unknown_kind_becomes_a_plain_one():
    assert error_from_wire(WireError("from_the_future", "x")).kind == "internal"


def test_wire_carries_arrays_beside_the_head_without_copying():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    head, buffers = encode(EmbeddingResult(embeddings=array))
    assert len(head) < 100
    assert np.shares_memory(np.frombuffer(buffers[0], np.float32), array)
    result = decode(head, buffers, EmbeddingResult)
    np.testing.assert_array_equal(result.embeddings, array)
    assert result.embeddings.dtype == np.float32


@pytest.mark.parametrize("array", [np.zeros((0, 4), np.float32), np.array(3, np.int64), np.array([True, False])])
def test_wire_carries_empty_scalar_and_boolean_arrays(array):
    copy = decode(*encode(EmbeddingResult(embeddings=array)), EmbeddingResult).embeddings
    assert (copy.shape, copy.dtype, copy.tolist()) == (array.shape, array.dtype, array.tolist())


def test_pad_and_stack_pads_named_axes_to_the_longest_and_leaves_out_absent_inputs():
    specs = (ArraySpec("input_ids", pad=None), ArraySpec("attention_mask"), ArraySpec("token_type_ids"))
    items = [Item({"input_ids": np.arange(n), "attention_mask": np.ones(n)}) for n in (2, 3)]
    batch = pad_and_stack(specs, items, pads={"input_ids": 9})
    assert batch["input_ids"].tolist() == [[0, 1, 9], [0, 1, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert "token_type_ids" not in batch


def test_pad_and_stack_takes_arrays_of_one_number():
    specs = (ArraySpec("seed", axes=("batch",)), ArraySpec("rate", "float32", ("batch",)))
    items = [Item({"seed": np.array(seed), "rate": np.array(1.5)}) for seed in (3, 4)]
    batch = pad_and_stack(specs, items)
    assert batch["seed"].tolist() == [3, 4]
    assert batch["rate"].tolist() == [1.5, 1.5]


def test_pad_and_stack_fills_a_fixed_shape_and_refuses_what_does_not_fit():
    specs, items = (ArraySpec("input_ids"),), [Item({"input_ids": np.arange(3)})]
    assert pad_and_stack(specs, items, (2, 4))["input_ids"].tolist() == [[0, 1, 2, 0], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match="3 does not fit the sequence axis of 2"):
        pad_and_stack(specs, items, (2, 2))


def test_pad_and_stack_refuses_items_that_differ_in_their_inputs():
    items = [Item({"a": np.arange(1), "b": np.arange(1)}), Item({"a": np.arange(1)})]
    with pytest.raises(ValueError, match="lacks the input 'b'"):
        pad_and_stack((ArraySpec("a"), ArraySpec("b")), items)


def test_generate_request_names_everything_an_engine_must_honour():
    request = GenerateRequest(
        id=1, inputs={}, params=Sampling(temperature=0.0, logit_bias={1: 2.0}), n=2, logprobs=0, adapter="x"
    )
    assert request.needs() == {"temperature", "logit_bias", "n", "logprobs", "adapter"}


def test_deltas_of_one_choice_merge_and_a_merged_stream_joins_to_the_same_result():
    deltas = [
        GenerationDelta(index=0, text="a"),
        GenerationDelta(index=0, text="b", tool_calls=[ToolCallDelta(index=0, id="c1", name="f", arguments="{")]),
        GenerationDelta(index=1, text="x", finish_reason="length"),
        GenerationDelta(index=0, tool_calls=[ToolCallDelta(index=0, arguments="}")], finish_reason="tool_calls"),
    ]
    merged = merge_generation(deltas[0], deltas[1])
    assert merged is not None
    assert merge_generation(deltas[1], deltas[2]) is None
    plain = join_generation(deltas)
    assert join_generation([merged, *deltas[2:]]) == plain
    assert plain.choices[0].text == "ab"
    assert plain.choices[0].tool_calls[0].function.arguments == "{}"
    assert plain.choices[1].finish_reason == "length"


def test_task_needs_join_and_merge_to_stream():
    class Empty(msgspec.Struct):
        pass

    with pytest.raises(TypeError, match="come together"):
        Task("x", Empty, Empty, Empty)


def test_task_schema_describes_requests_for_generic_surfaces():
    schema = TEXT_GENERATION.schema()
    assert set(schema) == {"request", "result", "delta", "$defs"}
    assert "messages" in schema["$defs"]["GenerationRequest"]["properties"]


def test_card_limit_is_the_smaller_of_checkpoint_and_configuration():
    assert ModelCard(name="m", context_length=512, max_length=128).limit == 128
    assert ModelCard(name="m").limit is None


def test_invalid_request_keeps_the_field_at_fault():
    assert InvalidRequest("bad", param="messages.0.role").to_wire().param == "messages.0.role"
