"""The tokenizer of tables: transformers' own, which exists in Python only, made quick with long tables and fit for any pandas."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelport.contract import ConfigurationError

__all__ = ["frame_of", "load_table_tokenizer"]


def frame_of(table: Mapping[str, Sequence[str]]) -> Any:
    """The data frame that the tokenizer takes: columns are numbered, and their headings beside them.

    transformers asks for cells by number, which pandas 3 takes for the column's name.
    """
    import pandas as pd

    frame = pd.DataFrame(dict(enumerate(table.values())), dtype=object)  # cells become objects while they are read
    frame.attrs["headings"] = list(table)
    return frame


def load_table_tokenizer(folder: Path) -> Any:
    """The `TapasTokenizer` of the checkpoint in `folder`.

    Raises:
        ConfigurationError: if its files do not make one.
    """
    from transformers.models.tapas.tokenization_tapas import TapasTokenizer

    class TableTokenizer(TapasTokenizer):  # type: ignore[misc]
        """Takes frames of `frame_of`, and halves its way to the rows that fit where the original leaves out one after another."""

        def _tokenize_table(self, table: Any = None) -> Any:
            return super()._tokenize_table(table.set_axis(table.attrs["headings"], axis="columns"))

        def _get_truncated_table_rows(
            self, query_tokens: Any, tokenized_table: Any, num_rows: int, num_columns: int, max_length: int, **options: Any
        ) -> tuple[int, int]:
            def room(rows: int) -> int | None:
                """The tokens of each cell that fit, or None. More rows never leave more room."""
                found: int | None = self._get_max_num_tokens(
                    query_tokens, tokenized_table, num_rows=rows, num_columns=num_columns, max_length=max_length
                )
                return found

            most = bisect.bisect_left(range(1, num_rows + 1), True, key=lambda rows: room(rows) is None)
            return most, (room(most) if most else None) or 1

    try:
        return TableTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = " ".join(str(error).split())[:200].rstrip(".")
        raise ConfigurationError(f"The tokenizer of tables in {folder} cannot be loaded: {why}. It needs vocab.txt.") from error
