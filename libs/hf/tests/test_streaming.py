"""Text that grows: characters are never cut, stop strings never shown, whatever the pieces are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from modelport.testing.checkpoints import write_byte_tokenizer
from modelport_hf.detokenize import Detokenizer
from modelport_hf.reasoning import ReasoningSplitter
from modelport_hf.stop import StopStrings
from modelport_hf.tokenizer import Tokenizer as Ours
from modelport_hf.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Ours:
    folder = tmp_path_factory.mktemp("bytes")
    write_byte_tokenizer(folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def fallback() -> Ours:
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "\u2581the", *"abcdefgh"]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True))
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return Ours(backend, {}, {})


def _pieces(tokenizer: Ours, ids: list[int], size: int = 1) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.push(ids[at : at + size]) for at in range(0, len(ids), size)), detokenizer.finish()]


@given(text=st.text(max_size=40), size=st.integers(1, 5))
def test_byte_level_pieces_add_up_and_cut_no_character(byte_level: Ours, text: str, size: int) -> None:
    ids = byte_level.encode(text, special=False).ids
    pieces = _pieces(byte_level, ids, size)
    assert "".join(pieces) == byte_level.decode(ids)
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@given(text=st.text(alphabet="ab é你🎉", max_size=24))
def test_fallback_bytes_add_up_and_cut_no_character(fallback: Ours, text: str) -> None:
    ids = fallback.encode(text.replace(" ", "\u2581"), special=False).ids
    pieces = _pieces(fallback, ids)
    assert "".join(pieces) == fallback.decode(ids)
    assert all("\ufffd" not in piece for piece in pieces)


@given(ids=st.lists(st.integers(5, 260), max_size=30))
def test_bytes_that_are_no_text_end_as_in_transformers(byte_level: Ours, ids: list[int]) -> None:
    assert "".join(_pieces(byte_level, ids)) == byte_level.decode(ids)


def test_endless_broken_bytes_are_let_go_in_bounded_steps(fallback: Ours) -> None:
    detokenizer = Detokenizer(fallback)
    shown = [detokenizer.push([1 + 0xFF]) for _ in range(100)]
    assert any(shown[:20])


def test_special_tokens_are_hidden_unless_kept(byte_level: Ours) -> None:
    end = byte_level.table.id_of("<|im_end|>")
    assert end is not None
    ids = [*byte_level.encode("a", special=False).ids, end]
    assert "".join(_pieces(byte_level, ids)) == "a"
    assert Detokenizer(byte_level, keep=frozenset({end})).push(ids) == "a<|im_end|>"


def test_a_first_word_keeps_its_space_behind_a_prompt(fallback: Ours) -> None:
    the = fallback.table.id_of("\u2581the")
    letter = fallback.table.id_of("a")
    assert the is not None
    assert letter is not None
    assert Detokenizer(fallback, before=[letter]).push([the]) == " the"
    assert Detokenizer(fallback).push([the]) == "the"


def test_bytes_of_tokens_are_known_without_their_neighbours(byte_level: Ours, fallback: Ours) -> None:
    assert b"".join(byte_level.table[i] for i in byte_level.encode("é🎉", special=False).ids) == "é🎉".encode()
    assert fallback.table[1 + 0xC3] == b"\xc3"
    assert fallback.table[fallback.table.id_of("\u2581the") or 0] == b" the"
    assert byte_level.table[10**6] == b""


@given(
    text=st.text("abc", max_size=30), stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), size=st.integers(1, 6)
)
def test_stop_strings_cut_at_the_first_match_whatever_the_pieces(text: str, stops: list[str], size: int) -> None:
    watch = StopStrings(stops)
    shown = ""
    for at in range(0, len(text), size):
        shown += watch.push(text[at : at + size])
        assert not any(stop in shown for stop in stops)
    shown += watch.finish() if watch.matched is None else ""
    ends = [text.find(stop) for stop in stops if stop in text]
    if size == 1 and ends:  # letter by letter, the match that ends first wins
        assert watch.matched is not None
    elif ends:
        assert text.startswith(shown)
        assert text[len(shown) :].startswith(watch.matched or "?")
    else:
        assert shown == text


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("prompt", "output", "expected"),
    [
        ("", "<think>\nhm\n</think>\n\nYes", ("\nhm\n", "Yes")),
        ("<think>\n", "hm</think>Yes", ("hm", "Yes")),
        ("<think>\n\n</think>\n\n", "Yes", ("", "Yes")),
        ("", " <b>Yes</b>", ("", " <b>Yes</b>")),
        ("", "<thi", ("", "<thi")),
        ("", "<think>never</thin", ("never</thin", "")),
        ("", "Say <think> is text", ("", "Say <think> is text")),
    ],
)
def test_thoughts_are_divided_from_the_answer(size: int, prompt: str, output: str, expected: tuple[str, str]) -> None:
    splitter = ReasoningSplitter(prompt)
    parts = [splitter.push(output[at : at + size]) for at in range(0, len(output), size)] + [splitter.finish()]
    assert ("".join(part[0] for part in parts), "".join(part[1] for part in parts)) == expected
