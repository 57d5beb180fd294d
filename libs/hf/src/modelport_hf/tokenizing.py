"""The tasks `tokenization` and `detokenization`, for any skill over text: its model's tokenizer answers, and no device runs."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from modelport.contract import Claim, InvalidRequest, ModelCard, Program, Run, Session, SessionContext, Skill
from modelport.tasks.tokenization import (
    DETOKENIZATION,
    TOKENIZATION,
    DetokenizationRequest,
    DetokenizationResult,
    TokenizationRequest,
    TokenizationResult,
    TokenSpan,
)

if TYPE_CHECKING:
    from modelport_hf.tokenizer import Tokenizer

__all__ = ["detokenized", "tokenized", "tokenizing"]

_TASKS = (TOKENIZATION, DETOKENIZATION)
_NAMES = tuple(task.name for task in _TASKS)

S = TypeVar("S", bound=type[Skill])


def tokenizing(skill: S) -> S:
    """A decorator of skills: what they serve, with `tokenization` and `detokenization` beside it, from the same loaded model.

    ::

        @tokenizing
        class TextEmbedding(Skill): ...

    The two tasks come last, with the program of the skill's first task. A session that has a `modelport_hf` tokenizer as its
    `tokenizer` lends it; otherwise the checkpoint's is read when it is first asked for. Models that do one of the skill's
    `untokenized` tasks, if it has such an attribute, are left as they are: their tokenizers take no plain text.
    """
    untokenized = frozenset(getattr(skill, "untokenized", ()))

    class Tokenizing(skill):  # type: ignore[valid-type, misc]
        tasks = (*skill.tasks, *_TASKS)

        def claim(self, card: ModelCard) -> Claim | None:
            claim: Claim | None = super().claim(card)
            if claim is None or not untokenized.isdisjoint(claim.tasks):
                return claim
            return msgspec.structs.replace(claim, tasks=(*claim.tasks, *_NAMES))

        def programs(self, card: ModelCard) -> Mapping[str, Program]:
            programs = dict(super().programs(card))
            if not untokenized.isdisjoint(programs):
                return programs
            return {**programs, **dict.fromkeys(_NAMES, next(iter(programs.values())))}

        def session(self, context: SessionContext) -> Session:
            own = tuple(task for task in context.tasks if task not in _NAMES)
            first = context.task if context.task in own else next(iter(own), skill.tasks[0].name)
            session: Session = super().session(msgspec.structs.replace(context, task=first, tasks=own))
            session.handle = Handler(session)  # type: ignore[method-assign]
            return session

    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(Tokenizing, name, getattr(skill, name))
    return Tokenizing  # type: ignore[return-value]


class Handler:
    """Takes the place of a session's `handle`: answers the two tasks, and leaves everything else to what was there."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._handle = session.handle
        self._reading = threading.Lock()
        self._tokenizer: Tokenizer | None = None

    def __call__(self, request: Any, run: Run) -> AsyncGenerator[Any, None]:
        if isinstance(request, TokenizationRequest | DetokenizationRequest):
            return self._convert(request, run)
        return self._handle(request, run)

    async def _convert(self, request: TokenizationRequest | DetokenizationRequest, run: Run) -> AsyncGenerator[Any, None]:
        tokenizer = await run.cpu(self._read)
        if isinstance(request, TokenizationRequest):
            yield await run.cpu(tokenized, tokenizer, request)
        else:
            yield await run.cpu(detokenized, tokenizer, request)

    def _read(self) -> Tokenizer:
        from modelport_hf.tokenizer import Tokenizer, load_tokenizer

        with self._reading:
            if self._tokenizer is None:
                lent = getattr(self._session, "tokenizer", None)
                context = self._session.context
                self._tokenizer = (
                    lent
                    if isinstance(lent, Tokenizer)
                    else load_tokenizer(context.folder, trust_remote_code=context.card.trust_remote_code)
                )
            return self._tokenizer


def tokenized(tokenizer: Tokenizer, request: TokenizationRequest) -> TokenizationResult:
    """The tokens of each text.

    Raises:
        InvalidRequest: there is no text.
    """
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    if not texts:
        raise InvalidRequest("inputs is empty; give at least one text.", param="inputs")
    encodings = tokenizer.backend.encode_batch(texts, add_special_tokens=request.add_special_tokens)
    special = tokenizer.table.special
    results = []
    for text, encoding in zip(texts, encodings, strict=True):
        spans = []
        for token, name, (start, stop), is_added in zip(
            encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True
        ):
            if is_added:
                spans.append(TokenSpan(id=token, text=name, special=True))
            else:
                spans.append(TokenSpan(id=token, text=text[start:stop], special=token in special, start=start, stop=stop))
        results.append(spans)
    return TokenizationResult(results=results)


def detokenized(tokenizer: Tokenizer, request: DetokenizationRequest) -> DetokenizationResult:
    """The text of each list of ids.

    Raises:
        InvalidRequest: there are no ids, or one is outside the vocabulary.
    """
    several = bool(request.ids) and isinstance(request.ids[0], list)
    lists: list[Any] = request.ids if several else [request.ids]
    for index, ids in enumerate(lists):
        tokenizer.check_ids(ids, f"ids.{index}" if several else "ids")
    return DetokenizationResult(results=[tokenizer.decode(ids, skip_special=request.skip_special_tokens) for ids in lists])
