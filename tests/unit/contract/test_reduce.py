"""The NumPy reference of every reduction, against figures worked out by hand or by another route."""

import numpy as np
import pytest

from modelport.contract import (
    Argmax,
    At,
    Cast,
    Dense,
    LogSoftmax,
    Normalize,
    Output,
    Pool,
    Sigmoid,
    Softmax,
    Splade,
    TopK,
)
from modelport.contract.reduce import apply, dense_reader, finish, split_chain

HIDDEN = np.arange(2 * 3 * 2, dtype=np.float32).reshape(2, 3, 2)
RIGHT = {"attention_mask": np.array([[1, 1, 0], [1, 1, 1]])}
LEFT = {"attention_mask": np.array([[0, 1, 1], [1, 1, 1]])}


@pytest.mark.parametrize(
    ("mode", "inputs", "expected"),
    [
        ("mean", RIGHT, [[1, 2], [8, 9]]),
        ("cls", RIGHT, [[0, 1], [6, 7]]),
        ("last", RIGHT, [[2, 3], [10, 11]]),
        ("max", RIGHT, [[2, 3], [10, 11]]),
        ("cls", LEFT, [[2, 3], [6, 7]]),
        ("last", LEFT, [[4, 5], [10, 11]]),
    ],
)
def test_pool_ignores_padding_on_either_side(mode, inputs, expected):
    assert apply(Pool(mode), HIDDEN, inputs)[0].tolist() == expected


def test_pool_of_a_row_without_tokens_is_finite():
    pooled = apply(Pool("mean"), HIDDEN[:1], {"attention_mask": np.zeros((1, 3))})[0]
    assert pooled.tolist() == [[0, 0]]


def test_normalize_leaves_a_zero_vector_at_zero():
    assert apply(Normalize(), np.array([[3.0, 4.0], [0.0, 0.0]]), {})[0].tolist() == [[0.6, 0.8], [0.0, 0.0]]


def test_softmax_and_log_softmax_agree_and_survive_large_logits():
    logits = np.array([[1000.0, 0.0, -1000.0], [1.0, 2.0, 3.0]])
    soft, log = apply(Softmax(), logits, {})[0], apply(LogSoftmax(), logits, {})[0]
    np.testing.assert_allclose(soft.sum(-1), 1)
    np.testing.assert_allclose(np.exp(log), soft)


def test_sigmoid_survives_large_logits_of_either_sign():
    assert apply(Sigmoid(), np.array([-1000.0, 0.0, 1000.0]), {})[0].tolist() == [0.0, 0.5, 1.0]


def test_topk_gives_values_descending_with_their_indices():
    values, indices = apply(TopK(2), np.array([[1.0, 9.0, 5.0]]), {})
    assert (values.tolist(), indices.tolist()) == ([[9.0, 5.0]], [[1, 2]])


def test_argmax_at_cast_and_splade_do_what_their_names_say():
    assert apply(Argmax(), np.array([[1.0, 9.0, 5.0]]), {})[0].tolist() == [1]
    assert apply(At("rows"), HIDDEN, {"rows": np.array([[2], [0]])})[0].tolist() == [[[4, 5]], [[6, 7]]]
    assert apply(Cast("float16"), HIDDEN, {})[0].dtype == np.float16
    expected = np.log1p(HIDDEN[0, 1])
    np.testing.assert_allclose(apply(Splade(), HIDDEN, RIGHT)[0][0], expected)


def test_dense_reads_weight_and_bias_of_the_checkpoint(tmp_path):
    from safetensors.numpy import save_file

    save_file(
        {"linear.weight": np.eye(2, dtype=np.float32) * 2, "linear.bias": np.ones(2, np.float32)}, tmp_path / "d.safetensors"
    )
    out = apply(Dense("d.safetensors", "tanh"), np.array([[1.0, -1.0]], np.float32), {}, dense_reader(tmp_path))[0]
    np.testing.assert_allclose(out, np.tanh([[3.0, -1.0]]))


def test_dense_without_a_linear_layer_says_what_the_file_has(tmp_path):
    from safetensors.numpy import save_file

    save_file({"other": np.zeros(1, np.float32)}, tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match=r"no tensor 'linear.weight'; it has other"):
        dense_reader(tmp_path)("d.safetensors")


def test_chain_is_divided_at_the_first_step_the_backend_lacks():
    chain = (Pool("mean"), Normalize(), Cast("float16"))
    assert split_chain(chain, frozenset({"pool", "cast"})) == (chain[:1], chain[1:])
    assert split_chain(chain, frozenset({"pool", "normalize", "cast"})) == (chain, ())


def test_finish_applies_what_the_runner_left_and_nothing_twice():
    outputs = (Output("v", chain=(Pool("mean"), Normalize())), Output("raw"))
    none = finish(outputs, {"v": HIDDEN, "raw": HIDDEN}, RIGHT, frozenset())
    pooled = finish(outputs, {"v": apply(Pool("mean"), HIDDEN, RIGHT)[0], "raw": HIDDEN}, RIGHT, frozenset({"pool"}))
    np.testing.assert_allclose(none["v"], pooled["v"])
    assert none["raw"] is HIDDEN
