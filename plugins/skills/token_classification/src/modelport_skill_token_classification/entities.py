"""From scores of tokens to entities. Pure; the strategies and their names are those of the Hub's token-classification task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from modelport.tasks.tokens import Entity

__all__ = ["Spelled", "Token", "entities_of", "without_overlaps"]

Spelled = Callable[[Sequence[str]], str]
"""Tokens to text, as the tokenizer spells them."""


class Token(msgspec.Struct, frozen=True):
    """A token that is not special: its spelling, its place, whether it continues a word, and its score for each label."""

    word: str
    index: int
    start: int
    end: int
    continues: bool
    scores: np.ndarray


class _Piece(msgspec.Struct, frozen=True):
    """A token or a word with one label."""

    label: str
    score: float
    words: tuple[str, ...]
    start: int
    end: int


def entities_of(tokens: Sequence[Token], labels: Sequence[str], strategy: str, spell: Spelled) -> list[Entity]:
    """All entities of a text, those of every label."""
    if strategy == "none":
        found = []
        for token in tokens:
            best = int(token.scores.argmax())
            found.append(
                Entity(
                    entity=labels[best],
                    score=float(token.scores[best]),
                    index=token.index,
                    word=token.word,
                    start=token.start,
                    end=token.end,
                )
            )
        return found
    groups = [[token] for token in tokens] if strategy == "simple" else _words(tokens)
    return _joined([_piece(group, labels, strategy) for group in groups], spell)


def without_overlaps(entities: Sequence[Entity]) -> list[Entity]:
    """Of entities from overlapping windows those that cover the most, and of equal ones the surer."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda entity: entity.start):
        last = kept[-1] if kept else None
        if last is None or not last.start <= entity.start < last.end:
            kept.append(entity)
        elif (entity.end - entity.start, entity.score) > (last.end - last.start, last.score):
            kept[-1] = entity
    return kept


def _words(tokens: Sequence[Token]) -> list[list[Token]]:
    words: list[list[Token]] = []
    for token in tokens:
        if token.continues and words:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def _piece(group: Sequence[Token], labels: Sequence[str], strategy: str) -> _Piece:
    if strategy == "max":
        scores = max((token.scores for token in group), key=lambda scores: float(scores.max()))
    elif strategy == "average":
        scores = np.mean([token.scores for token in group], axis=0)
    else:
        scores = group[0].scores
    best = int(scores.argmax())
    words = tuple(token.word for token in group)
    return _Piece(labels[best], float(scores[best]), words, group[0].start, group[-1].end)


def _joined(pieces: Sequence[_Piece], spell: Spelled) -> list[Entity]:
    groups: list[list[_Piece]] = []
    last = None
    for piece in pieces:
        begins, name = _tag(piece.label)
        if groups and name == last and not begins:
            groups[-1].append(piece)
        else:
            groups.append([piece])
        last = name
    return [
        Entity(
            entity_group=group[0].label.split("-", 1)[-1],
            score=float(np.mean([piece.score for piece in group])),
            word=spell([word for piece in group for word in piece.words]),
            start=group[0].start,
            end=group[-1].end,
        )
        for group in groups
    ]


def _tag(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity (`B-`), and of which kind; one without a mark goes on with its kind."""
    return (label.startswith("B-"), label[2:]) if label.startswith(("B-", "I-")) else (False, label)
