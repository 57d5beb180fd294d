"""The ways to say what an answer must be: OpenAI's `response_format`, and vLLM's additions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from modelport.contract.generate import Constraint
from modelport_api_openai.errors import invalid

__all__ = ["ConstrainedBody", "ResponseFormat", "StructuredOutputs"]

Schema = str | dict[str, Any]
Choices = Annotated[list[str], Meta(min_length=1)]


class JsonSchema(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A named schema. The output is always held to it, so `strict` changes nothing."""

    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the answer must be. `value` is how `huggingface_hub` writes a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    value: dict[str, Any] | None = None

    def constraint(self) -> Constraint | None:
        """The language of the answer; None for text.

        Raises:
            InvalidRequest: for a schema that is missing, or not asked for.
        """
        if self.json_schema is not None and self.type != "json_schema":
            raise invalid("response_format.json_schema", f"'response_format.json_schema' does not go with type '{self.type}'.")
        if self.value is not None and self.type != "json_object":
            raise invalid("response_format.value", f"'response_format.value' does not go with type '{self.type}'.")
        if self.type == "text":
            return None
        schema = self.value
        if self.type == "json_schema":
            schema = None if self.json_schema is None else self.json_schema.schema
            if schema is None:
                param = "response_format.json_schema.schema"
                raise invalid(param, f"The field '{param}' is required for the type 'json_schema'.")
        return Constraint("json_object") if schema is None else _json(schema)


class StructuredOutputs(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """vLLM's: exactly one of them. `grammar` is Lark or GBNF."""

    json: Schema | None = None
    json_object: bool | None = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None

    def constraints(self) -> list[Constraint]:
        """All that are asked for."""
        asked = [
            None if self.json is None else _json(self.json),
            Constraint("json_object") if self.json_object else None,
            None if self.regex is None else Constraint("regex", self.regex),
            None if self.choice is None else Constraint("choice", msgspec.json.encode(self.choice).decode()),
            None if self.grammar is None else Constraint("grammar", self.grammar),
        ]
        return [constraint for constraint in asked if constraint is not None]


class ConstrainedBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The part of a request that says what the answer must be.

    All but `response_format` are vLLM's; the last four are its old names.
    """

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None

    @property
    def constraint_field(self) -> str:
        """Which field speaks of it in this very request."""
        names = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
        return next((name for name in names if getattr(self, name) is not None), "response_format")

    def constraint(self) -> Constraint | None:
        """The language of the answer, if one is asked for.

        Raises:
            InvalidRequest: if several are.
        """
        outputs = self.structured_outputs
        if outputs is not None and len(outputs.constraints()) != 1:
            raise invalid("structured_outputs", "The field 'structured_outputs' holds exactly one of json, json_object, regex,"
                          " choice and grammar.")  # fmt: skip
        old = StructuredOutputs(
            json=self.guided_json, regex=self.guided_regex, choice=self.guided_choice, grammar=self.guided_grammar
        )
        asked = old.constraints() + (outputs.constraints() if outputs else [])
        if self.response_format is not None and (constraint := self.response_format.constraint()) is not None:
            asked.append(constraint)
        if len(asked) > 1:
            raise invalid(self.constraint_field, f"The field '{self.constraint_field}' is not the only one that says what the"
                          " answer must be. Leave all but one out.")  # fmt: skip
        return asked[0] if asked else None


def _json(schema: Schema) -> Constraint:
    return Constraint("json_schema", schema if isinstance(schema, str) else msgspec.json.encode(schema).decode())
