"""Output held to a language: JSON schemas (judged by jsonschema), regexes, choices and grammars."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from modelport.contract import Constraint, GenerateRequest, InvalidRequest, Sampling, UnsupportedParameter
from modelport.testing import checkpoints
from modelport.testing.schemas import random_schema
from modelport_torch.engine.constraint import byte_level

DRAW = {"do_sample": True, "temperature": 1.0}
PROMPT = [10, 20, 30]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that knows bytes, and has room for JSON with many blanks."""
    return checkpoints.tiny_llama(tmp_path_factory.mktemp("long") / "llama", max_position_embeddings=4096)


@pytest.fixture
def said(long: Path) -> Callable[[list[int]], str]:
    """The text of tokens."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(long / "tokenizer.json"))
    return lambda tokens: tokenizer.decode(tokens)


def test_fifty_random_schemas_hold_in_a_crowd(long: Path, crowd: Callable[..., Any], said: Callable[..., str]) -> None:
    draw = random.Random(3)
    schemas = [random_schema(draw) for _ in range(50)]
    people = crowd(long, max_items=10)
    for key, schema in enumerate(schemas):
        people.add(key, PROMPT, constraint=Constraint("json_schema", json.dumps(schema)), seed=key, max_new_tokens=3000, **DRAW)
    people.drain(20_000)
    for key, schema in enumerate(schemas):
        assert people.finish[key, 0] == "stop", schema
        jsonschema.validate(json.loads(said(people.tokens[key, 0])), schema)


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        (Constraint("regex", r"(\d{3}-)+ü"), r"(\d{3}-)+ü"),
        (Constraint("choice", '["yes", "no", "a \\"b\\"\\n"]'), 'yes|no|a "b"\n'),
        (Constraint("choice", '["a", "ab", "abc"]'), "a|ab|abc"),
        (Constraint("grammar", 'start: "x" | "(" start ")"'), r"\(*x\)*"),
        (Constraint("grammar", 'root ::= "x" | "[" root "]"'), r"\[*x\]*"),
    ],
)
@pytest.mark.parametrize("options", [{}, DRAW, DRAW | {"n": 3}, {"min_new_tokens": 4}, {"ignore_eos": True}])
def test_output_is_in_the_language_however_tokens_are_chosen(
    constraint: Constraint, pattern: str, options: dict[str, Any], long: Path, crowd: Callable[..., Any], said: Callable[..., str]
) -> None:
    people = crowd(long)
    people.add(1, PROMPT, constraint=constraint, seed=4, max_new_tokens=200, **options)
    people.drain()
    for key, tokens in people.tokens.items():
        text = said(tokens)
        if people.finish[key] == "stop":
            assert re.fullmatch(pattern, text), text
        else:
            assert len(tokens) == 200, "a language without end was cut"


def test_any_json_object_is_an_object(long: Path, crowd: Callable[..., Any], said: Callable[..., str]) -> None:
    people = crowd(long)
    people.add(1, PROMPT, constraint=Constraint("json_object"), seed=1, max_new_tokens=3000, **DRAW)
    people.drain(5000)
    assert isinstance(json.loads(said(people.tokens[1, 0])), dict)


def test_neighbours_do_not_notice(long: Path, crowd: Callable[..., Any]) -> None:
    people = crowd(long)
    people.add(1, PROMPT, max_new_tokens=20)
    people.drain()
    people.add(2, PROMPT, max_new_tokens=20)
    people.add(3, PROMPT, constraint=Constraint("choice", '["yes", "no"]'), max_new_tokens=20)
    people.drain()
    assert people.tokens[2, 0] == people.tokens[1, 0]
    assert people.finish[3, 0] == "stop"


@pytest.mark.parametrize(
    ("constraint", "why"),
    [
        (Constraint("json_schema", '{"type": "obj"}'), "JSON schema: Invalid type: obj"),
        (Constraint("json_schema", '{"type": "object", "not": {"type": "string"}}'), 'Unimplemented keys: ["not"]'),
        (Constraint("json_schema", '{"allOf": [{"type": "string"}, {"type": "null"}]}'), "Unsatisfiable"),
        (Constraint("json_schema", "no JSON"), "the JSON schema cannot be read"),
        (Constraint("json_schema", "[" * 60_000), "the JSON schema cannot be read"),
        (Constraint("json_schema", "[" * 100_000), "the JSON schema has 100000 characters, and may have 65536"),
        (Constraint("grammar", "root ::= ("), "the grammar cannot be read"),
        (Constraint("regex", "a("), "the regex: .*unclosed group"),
        (Constraint("regex", "(?=a)b"), "look-around"),
        (Constraint("choice", "[]"), "at least one text"),
        (Constraint("choice", '"yes"'), "must be a list"),
        (Constraint("grammar", 'start: "a" | foo'), "unknown name"),
    ],
)
def test_what_is_no_language_is_refused_with_the_cause(
    constraint: Constraint, why: str, long: Path, crowd: Callable[..., Any]
) -> None:
    people = crowd(long)
    with pytest.raises(InvalidRequest, match=re.escape(why) if "[" in why else why) as caught:
        people.add(1, PROMPT, constraint=constraint)
    assert caught.value.param == "constraint"
    assert people.engine.load().waiting == 0


def test_a_checkpoint_without_a_tokenizer_refuses_constraints_by_name(
    tmp_path: Path, crowd: Callable[..., Any], load: Callable[..., Any], long: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).symlink_to(long / name)
    people = crowd(bare)
    assert "constraint" not in people.engine.params
    request = GenerateRequest(id=1, inputs={"input_ids": np.array([5])}, params=Sampling(), constraint=Constraint("regex", "a+"))
    with pytest.raises(UnsupportedParameter) as caught:
        people.engine.add(request)
    assert caught.value.param == "constraint"


def test_a_byte_level_decoder_among_others_is_found() -> None:
    plain = {"type": "ByteLevel"}
    converted = {"decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}, plain]}}
    assert byte_level(converted)["decoder"] == plain
    for other in ({"decoder": None}, {"decoder": plain}, {"decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}]}}):
        assert byte_level(other) == other


def test_a_language_that_refers_ever_deeper_ends_no_process(long: Path) -> None:
    """On a thread with the stack of the worker's: llguidance recurses once for each reference."""
    code = f"""
import json, threading
from pathlib import Path
from modelport.contract import Constraint, InvalidRequest
from modelport.core.worker.device import _STACK_BYTES
from modelport_torch.engine.constraint import Grammars

def chain(links):
    definitions = {{f"d{{i}}": {{"items": {{"$ref": f"#/$defs/d{{i + 1}}"}}}} for i in range(links)}}
    return json.dumps({{"$ref": "#/$defs/d0", "$defs": {{**definitions, f"d{{links}}": {{"type": "null"}}}}}})

def compile():
    grammars = Grammars(Path({str(long / "tokenizer.json")!r}), 261, [2])
    rules = "start: r0\\n" + "\\n".join(f"r{{i}}: r{{i + 1}}" for i in range(3000)) + '\\nr3000: "a"'
    for constraint in (Constraint("json_schema", chain(1500)), Constraint("grammar", rules)):
        try:
            grammars.start(constraint).allowed([2])
        except InvalidRequest as error:
            print(error)

threading.stack_size(_STACK_BYTES)
thread = threading.Thread(target=compile)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
