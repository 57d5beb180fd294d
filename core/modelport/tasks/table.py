"""Questions about tables, under the Hub's pipeline tag and with the field names of its inference clients."""

from __future__ import annotations

from typing import Any

import msgspec

from modelport.contract.errors import InvalidRequest
from modelport.contract.task import Task

__all__ = [
    "MOST_CELLS",
    "MOST_QUERIES",
    "TABLE_QUESTION_ANSWERING",
    "TableAnswer",
    "TableAnswersResult",
    "TableQuestionRequest",
]

MOST_CELLS = 4096
"""Most cells of a table."""

MOST_QUERIES = 64
"""Most questions of one request."""

_MOST_CHARACTERS = 65_536


class TableQuestionRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Questions to answer from the cells of one table.

    Args:
        query: One question or several, at most 64.
        table: The columns by their headings, all of one length: at most 4096 cells and 65536 characters. Numbers are texts too.
        sequential: Whether each question may refer to the answer before it ("and of these?").
        truncation: Whether the last rows are left out where the table is longer than the model takes; else it is refused.
    """

    query: str | list[str]
    table: dict[str, list[str]]
    sequential: bool = False
    truncation: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.query, list) and len(self.query) > MOST_QUERIES:
            raise InvalidRequest(
                f"query has {len(self.query)} entries, and a request holds at most {MOST_QUERIES}. Send several requests.",
                param="query",
            )
        cells = sum(len(column) for column in self.table.values())
        if cells > MOST_CELLS:
            raise InvalidRequest(f"The table has {cells} cells, at most {MOST_CELLS} are taken. Leave some out.", param="table")
        letters = sum(len(heading) + sum(map(len, column)) for heading, column in self.table.items())
        if letters > _MOST_CHARACTERS:
            raise InvalidRequest(
                f"The table has {letters} characters, and at most {_MOST_CHARACTERS} are taken. Leave some out.", param="table"
            )


class TableAnswer(msgspec.Struct, kw_only=True):
    """The cells that answer a question.

    Args:
        answer: The texts of the cells, joined by commas; behind "SUM > " or another operation, if they are to be aggregated.
        coordinates: (row, column) of each cell, from 0, in the order of the table.
        cells: Their texts.
        aggregator: What is to be done with them (`SUM`, `COUNT`, `AVERAGE`, `NONE`); empty for models that only select.
    """

    answer: str
    coordinates: list[tuple[int, int]]
    cells: list[str]
    aggregator: str = ""


class TableAnswersResult(msgspec.Struct, kw_only=True):
    """The answer to each question, in order."""

    results: list[TableAnswer]


TABLE_QUESTION_ANSWERING: Task[TableQuestionRequest, TableAnswersResult, Any] = Task(
    "table-question-answering", TableQuestionRequest, TableAnswersResult, summary="Questions to cells of a table"
)
