"""Questions and tables to cells."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from modelport.contract import (
    Array,
    ConfigurationError,
    InputTooLong,
    InvalidRequest,
    Item,
    ModelportError,
    Run,
    Session,
    SessionContext,
    to_numpy,
)
from modelport.tasks.table import TableAnswer, TableAnswersResult, TableQuestionRequest
from modelport_hf.folder import position_limit
from modelport_skill_token_classification.table_tokenizer import frame_of, load_table_tokenizer

__all__ = ["TableSession"]

_SEGMENT, _COLUMN, _ROW, _PREVIOUS = range(4)
"""Which of a token's types says whether it is the table's, its column, its row, and whether it was the answer before."""

_MOST_CHARACTERS = 4096
"""Most characters of a cell: the tokenizer looks for numbers and dates in it, for each of its words in all of it."""

_REFUSALS = (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError)

Cells = dict[tuple[int, int], float]
"""The probability of each cell, by (row, column)."""


class TableSession(Session):
    """A question with the table is an item."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        card = context.card
        self.tokenizer = load_table_tokenizer(context.folder)
        self.pads = {"input_ids": self.tokenizer.pad_token_id or 0}
        own = self.tokenizer.model_max_length
        bounds = (card.limit, position_limit(card.config), own, context.limits.max_length if context.limits else None)
        self.limit = min(int(bound) for bound in bounds if bound is not None)
        self._operations = _operations(card.config)
        self._plain = card.config.get("no_aggregation_label_index")
        # Such a model also looks at the mean of all that is no cell, and padding is none.
        self._counts_padding = bool(card.config.get("allow_empty_column_selection", False))

    def handle(self, request: TableQuestionRequest, run: Run) -> AsyncGenerator[Any, None]:
        """All questions at once, or one after another where each may refer to the answer before it."""
        return self._handle(request, run)

    async def _handle(self, request: TableQuestionRequest, run: Run) -> AsyncGenerator[Any, None]:
        table = await run.cpu(self._frame, request)
        asked = _queries(request)
        # One by one: a large table takes a while to read, in which the caller may leave.
        items = [await run.cpu(self._question, request, table, query, param) for query, param in asked]
        if request.sequential:
            outputs = await self._in_turn(items, run)
        else:
            outputs = await asyncio.gather(*(run.forward("main", item) for item in items))
        yield await run.cpu(self.finish, request, items, outputs)

    async def _in_turn(self, items: list[Item], run: Run) -> list[dict[str, Array]]:
        outputs: list[dict[str, Array]] = []
        for index, item in enumerate(items):
            if index:
                before = await run.cpu(_cells, items[index - 1].arrays, outputs[-1])
                item = msgspec.structs.replace(item, arrays=_with_answer(item.arrays, before))
            outputs.append(await run.forward("main", item))
        return outputs

    def finish(
        self, request: TableQuestionRequest, items: list[Item], outputs: Sequence[Mapping[str, Array]]
    ) -> TableAnswersResult:
        """The answers of a request from its items and their outputs."""
        pairs = zip(items, outputs, strict=True)
        return TableAnswersResult(results=[self._answer(request, _cells(item.arrays, output), output) for item, output in pairs])

    def _frame(self, request: TableQuestionRequest) -> Any:
        lengths = {len(column) for column in request.table.values()}
        if not lengths or lengths == {0}:
            raise InvalidRequest("The table is empty; give at least one column with one cell.", param="table")
        if len(lengths) > 1:
            raise InvalidRequest(
                f"The columns have different lengths ({min(lengths)} to {max(lengths)}); give each row a cell in every column.",
                param="table",
            )
        if any(len(cell) > _MOST_CHARACTERS for column in request.table.values() for cell in column):
            raise InvalidRequest(
                f"A cell has more than {_MOST_CHARACTERS} characters. Leave out what is no answer to a question.", param="table"
            )
        return frame_of(request.table)

    def _question(self, request: TableQuestionRequest, table: Any, query: str, param: str) -> Item:
        if not query.strip():
            raise InvalidRequest("The question is empty; give at least one word.", param=param)
        return self._item(self._encode(table, query, param, truncated=request.truncation))

    def _encode(self, table: Any, query: str, param: str, *, truncated: bool) -> dict[str, Any]:
        options = {"truncation": "drop_rows_to_fit"} if truncated else {}
        try:
            encoded = self.tokenizer(table=table, queries=query, max_length=self.limit, verbose=False, **options)
        except _REFUSALS as error:
            why = " ".join(str(error).split())[:200].rstrip(".")
            if "max_length" in why or "given the maximum" in why:
                raise self._too_long(param, truncated) from None
            raise InvalidRequest(f"The table cannot be read: {why}. Leave out what is unusual in it.", param="table") from error
        if not any(types[_ROW] for types in encoded["token_type_ids"]):
            raise self._too_long(param, truncated)
        return dict(encoded)

    def _too_long(self, param: str, truncated: bool) -> ModelportError:
        what = "Not even one row fits" if truncated else "The table does not fit"
        advice = "Shorten the question, or leave out columns" + ("." if truncated else " or rows, or set truncation.")
        return InputTooLong(f"{what} beside the question in the {self.limit} tokens that this model takes. {advice}", param=param)

    def _item(self, encoded: Mapping[str, Any]) -> Item:
        arrays: dict[str, Array] = {
            name: np.array(encoded[name], dtype=np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")
        }
        length = len(encoded["input_ids"])
        return Item(arrays, cost=length, group=str(length) if self._counts_padding else "")

    def _answer(self, request: TableQuestionRequest, cells: Cells, output: Mapping[str, Array]) -> TableAnswer:
        chosen = sorted(place for place, probability in cells.items() if probability > 0.5)
        columns = list(request.table.values())
        texts = [columns[column][row] for row, column in chosen]
        answer, operation = ", ".join(texts), ""
        if self._operations:
            index = int(to_numpy(output["logits_aggregation"]).argmax())
            operation = self._operations[index]
            if index != self._plain:
                answer = f"{operation} > {answer}"
        return TableAnswer(answer=answer, coordinates=chosen, cells=texts, aggregator=operation)


def _queries(request: TableQuestionRequest) -> list[tuple[str, str]]:
    """Each question with the name of its field."""
    if isinstance(request.query, str):
        return [(request.query, "query")]
    if not request.query:
        raise InvalidRequest("query is empty; give at least one question.", param="query")
    return [(query, f"query.{index}") for index, query in enumerate(request.query)]


def _operations(config: Mapping[str, Any]) -> dict[int, str]:
    """What the model can do with cells, by index; empty for one that only selects.

    Raises:
        ConfigurationError: if there are such, and they have no names.
    """
    count = config.get("num_aggregation_labels") or 0
    names = {int(index): str(name) for index, name in (config.get("aggregation_labels") or {}).items()}
    if names and count and not set(range(count)) <= set(names):
        raise ConfigurationError(f"config.json names {len(names)} of the model's {count} aggregation labels; it must name all.")
    return names if count else {}


def _cells(arrays: Mapping[str, Array], output: Mapping[str, Array]) -> Cells:
    """Of each cell the mean probability of its tokens."""
    types = to_numpy(arrays["token_type_ids"])
    logits = to_numpy(output["logits"]).astype(np.float64)[: len(types)]
    tokens: dict[tuple[int, int], list[float]] = defaultdict(list)
    for kinds, logit in zip(types.tolist(), np.clip(logits, -88.7, None), strict=True):
        if kinds[_SEGMENT] == 1 and kinds[_COLUMN] > 0 and kinds[_ROW] > 0:
            tokens[kinds[_ROW] - 1, kinds[_COLUMN] - 1].append(1 / (1 + np.exp(-logit)))
    return {place: float(np.mean(probabilities)) for place, probabilities in tokens.items()}


def _with_answer(arrays: Mapping[str, Array], selected: Cells) -> dict[str, Array]:
    """The arrays of a question whose tokens say which cells were the answer before."""
    types = to_numpy(arrays["token_type_ids"]).copy()
    for kinds in types:
        if kinds[_SEGMENT] == 1 and kinds[_COLUMN] > 0 and kinds[_ROW] > 0:
            kinds[_PREVIOUS] = selected.get((int(kinds[_ROW]) - 1, int(kinds[_COLUMN]) - 1), 0.0) > 0.5
    return {**arrays, "token_type_ids": types}
