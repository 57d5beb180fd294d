"""One choice of a generation: its tokens become text, and the text becomes deltas."""

from __future__ import annotations

from collections.abc import Sequence

from modelport.contract import GenerateEvent, TokenLogprob
from modelport.tasks.text import GenerationDelta, TextToken, ToolCallDelta
from modelport_hf.detokenize import Detokenizer
from modelport_hf.reasoning import ReasoningSplitter
from modelport_hf.stop import StopStrings
from modelport_hf.tokens import TokenTable
from modelport_hf.tools import ToolParser

__all__ = ["Choice", "text_token"]


class Choice:
    """Reads the events of one choice and gives what can be shown.

    Text passes through the detokeniser, the stop strings, the reasoning splitter and the tool parser, in this order; each keeps
    back what it cannot decide yet.

    Args:
        index: Its number.
        detokenizer: Its detokeniser.
        stops: Its stop strings.
        reasoning: Splits thoughts from the answer, if the model thinks.
        parser: Finds tool calls, if there are tools.
        table: Bytes of tokens, if tokens are to be reported.
        prefix: Text to show before the output (echo).
    """

    def __init__(
        self,
        index: int,
        detokenizer: Detokenizer,
        stops: StopStrings,
        reasoning: ReasoningSplitter | None = None,
        parser: ToolParser | None = None,
        table: TokenTable | None = None,
        prefix: str = "",
    ) -> None:
        self._index = index
        self._detokenizer = detokenizer
        self._stops = stops
        self._reasoning = reasoning
        self._parser = parser
        self._table = table
        self._text = [prefix] if prefix else []
        self._thoughts: list[str] = []
        self._calls: list[ToolCallDelta] = []
        self._tokens: list[tuple[TextToken, int]] = []
        self._produced = self._visible = 0
        self.prompt_tokens: list[TextToken] | None = None
        self.is_stopped = False
        self.is_finished = False

    def push(self, event: GenerateEvent) -> None:
        """Takes an event. Sets `is_stopped` when a stop string matches and `is_finished` when it was the last."""
        text = self._detokenizer.push(event.tokens)
        if self._table is not None:
            self._note_tokens(event, self._table)
        if event.finish is not None:
            text += self._detokenizer.finish()
        shown = self._stops.push(text)
        if self._stops.matched is not None:
            self.is_stopped = self.is_finished = True
        elif event.finish is not None:
            shown += self._stops.finish()
            self.is_finished = True
        if self._table is not None:
            self._visible += len(shown.encode())
        self._divide(shown)
        if self.is_finished:
            self._finish()

    def take(self, event: GenerateEvent) -> GenerationDelta | None:
        """What has become known since the last call, or None. `event` is the one just pushed: it may carry the finish."""
        if not (self._text or self._thoughts or self._calls or self.is_finished):
            return None
        delta = GenerationDelta(
            index=self._index,
            text="".join(self._text),
            reasoning="".join(self._thoughts),
            tool_calls=self._calls or None,
            tokens=self._take_tokens(),
            prompt_tokens=self.prompt_tokens,
        )
        if self.is_finished:
            has_calls = self._parser is not None and self._parser.count > 0
            reason = "stop" if self.is_stopped else event.finish
            delta.finish_reason = "tool_calls" if reason == "stop" and has_calls else reason
            delta.stop_sequence = self._stops.matched
        self._text, self._thoughts, self._calls, self.prompt_tokens = [], [], [], None
        return delta

    def _divide(self, text: str) -> None:
        if text and self._reasoning is not None:
            self._think(*self._reasoning.push(text))
        else:
            self._answer(text)

    def _think(self, thought: str, text: str) -> None:
        if thought:
            self._thoughts.append(thought)
        self._answer(text)

    def _answer(self, text: str) -> None:
        if text and self._parser is not None:
            text, calls = self._parser.push(text)
            self._calls += calls
        if text:
            self._text.append(text)

    def _finish(self) -> None:
        if self._reasoning is not None:
            self._think(*self._reasoning.finish())
        if self._parser is not None:
            text, calls = self._parser.finish()
            self._calls += calls
            if text:
                self._text.append(text)

    def _note_tokens(self, event: GenerateEvent, table: TokenTable) -> None:
        logprobs: Sequence[float | None] = event.logprobs or (None,) * len(event.tokens)
        tops: Sequence[Sequence[TokenLogprob] | None] = event.top_logprobs or (None,) * len(event.tokens)
        for token, logprob, top in zip(event.tokens, logprobs, tops, strict=True):
            noted = text_token(table, token, logprob)
            if top:
                noted.top = [text_token(table, other.token, other.logprob) for other in top]
            self._tokens.append((noted, self._produced))
            self._produced += 0 if token in table.special else len(noted.data)

    def _take_tokens(self) -> list[TextToken] | None:
        """Noted tokens whose text is shown; at the end all others too, unless a stop string cut them off."""
        if self._table is None:
            return None
        is_all = self.is_finished and not self.is_stopped
        taken = [token for token, start in self._tokens if is_all or start < self._visible]
        self._tokens = self._tokens[len(taken) :]
        return taken or None


def text_token(table: TokenTable, id: int, logprob: float | None) -> TextToken:
    """A token with its text; bytes that are part of a character show as U+FFFD there."""
    data = table[id]
    return TextToken(id=id, text=data.decode("utf-8", "replace"), logprob=logprob, data=data, special=id in table.special)
