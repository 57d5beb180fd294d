"""Who runs: sequences that wait, sequences that have a row of the cache, and the rules between them. No tensor in here."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable

from modelport_torch.engine.sequence import Sequence

__all__ = ["Scheduler", "groups"]

_BLOCK = 64
_BESIDE = 4
_LEAST_PIECE = 128
_CALM_STEPS = 512


class Scheduler:
    """Rows of the cache, handed out by priority, then by age.

    The cache is a rectangle: rows × the longest sequence, rounded up to blocks. Sequences are admitted while the rectangle with
    one more block fits; when growing sequences outgrow it, the one that would be served last gives its row back and starts over
    later from all its tokens (a preemption), so memory is never promised twice nor reserved for output that may not come.

    Args:
        max_rows: Most sequences at once.
        max_tokens: Most tokens that the cache may hold, padding included.
        prefill_tokens: Most prompt tokens to take in one step while nobody runs.
    """

    def __init__(self, max_rows: int, max_tokens: int, prefill_tokens: int) -> None:
        self.max_rows = self._most_rows = max_rows
        self._calm = 0
        self.max_tokens = max_tokens
        self.prefill_tokens = prefill_tokens
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.joining: list[Sequence] = []
        """Choices whose common prompt is being prefilled piece by piece; the first has the row after the running ones."""

    def budget(self) -> int:
        """Most prompt tokens to take in this step.

        While others run, who wait for it between two of their tokens, a quarter; and of a prompt that does not fit into that, and
        will keep them waiting many times, half as much.
        """
        if not self.running:
            return self.prefill_tokens
        beside = max(self.prefill_tokens // _BESIDE, 1)
        is_long = self.joining or (self.waiting and self.waiting[0].length > beside)
        return max(beside // 2, 1) if is_long else beside

    def shrink(self, aboard: int) -> bool:
        """Memory ran out with so many sequences aboard: from now on half as many, or pieces of prompts half as long.

        Whether there is anything left to halve.
        """
        self._calm = 0
        if aboard > 1:
            self.max_rows = max(aboard // 2, 1)
            return True
        if aboard and self.prefill_tokens > _LEAST_PIECE:
            self.prefill_tokens = max(self.prefill_tokens // 2, _LEAST_PIECE)
            return True
        return False

    def ease(self) -> None:
        """A step fitted: after many of them, twice as many sequences may be tried again."""
        if self.max_rows < self._most_rows:
            self._calm += 1
            if self._calm >= _CALM_STEPS:
                self._calm, self.max_rows = 0, min(self.max_rows * 2, self._most_rows)

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence behind those of its priority."""
        insort(self.waiting, sequence, key=lambda other: other.rank)

    def used(self) -> int:
        """Tokens of the rectangle that running sequences take now."""
        rows, longest = self.footprint()
        return rows * self._extent(longest)

    def footprint(self) -> tuple[int, int]:
        """(rows, tokens of the longest) in use now."""
        aboard = [*self.running, *self.joining]
        return len(aboard), max((s.length for s in aboard), default=0)

    def fits(self, rows: int, longest: int) -> bool:
        """Whether `rows` sequences, the longest of `longest` tokens, fit the cache."""
        return rows <= self.max_rows and rows * self._extent(longest) <= self.max_tokens

    def admit(self) -> list[Sequence]:
        """The sequences that join now, taken off the queue, in its order; nobody is overtaken by who is smaller.

        A prompt over the budget is admitted alone. Choices of one request share a prefill: only the first counts.
        """
        if not self.waiting or self.joining:
            return []
        admitted: list[Sequence] = []
        longest = self.footprint()[1]
        spent, budget = 0, self.budget()
        for sequence in self.waiting:
            rows = len(self.running) + len(admitted) + 1
            reach = max(longest, sequence.length + 1)
            # One block to grow into, unless it is alone: it was found to fit when it was added.
            if rows > 1 and not self.fits(rows, reach + _BLOCK):
                break
            if not (admitted and shares_prefill(admitted[-1], sequence)):
                if admitted and spent + sequence.length > budget:
                    break
                spent += sequence.length
            admitted.append(sequence)
            longest = reach
        del self.waiting[: len(admitted)]
        return admitted

    def preempt(self) -> list[int]:
        """Rows to give back, largest first, so that all others can grow by one token. Their sequences are to be queued again.

        Sequences that are still joining have produced nothing and must be given up first, by the caller.
        """
        kept = list(range(len(self.running)))
        victims: list[int] = []
        while len(kept) > 1 and not self.fits(len(kept), max(self.running[row].length for row in kept) + 1):
            last = max(kept, key=lambda row: self.running[row].rank)
            kept.remove(last)
            victims.append(last)
        return sorted(victims, reverse=True)

    def can_grow(self) -> bool:
        """Whether every sequence aboard can take one more token."""
        rows, longest = self.footprint()
        return rows <= 1 or self.fits(rows, longest + 1)

    def leave(self, row: int) -> tuple[Sequence, int]:
        """Takes the sequence of `row` out; returns it and the row whose content moves there (`row` itself if it was the last)."""
        sequence, last = self.running[row], len(self.running) - 1
        self.running[row] = self.running[last]
        self.running.pop()
        return sequence, last

    def drop(self, unwanted: Callable[[Sequence], bool]) -> list[Sequence]:
        """Takes those that are `unwanted` out of the queue and returns them."""
        dropped = [s for s in self.waiting if unwanted(s)]
        if dropped:
            self.waiting = [s for s in self.waiting if not unwanted(s)]
        return dropped

    @staticmethod
    def _extent(length: int) -> int:
        return -(-length // _BLOCK) * _BLOCK


def shares_prefill(first: Sequence, second: Sequence) -> bool:
    """Whether both are choices of one request that have not begun."""
    return first.request is second.request and not first.tokens and not second.tokens


def groups(sequences: list[Sequence], budget: int) -> list[list[Sequence]]:
    """Sequences to prefill together: of similar length, so that little is computed for padding, and within `budget`."""
    out: list[list[Sequence]] = []
    for sequence in sorted(sequences, key=lambda s: -s.length):
        group = out[-1] if out else []
        longest = group[0].length if group else 0
        if group and sequence.length * 4 >= longest * 3 and longest * (len(group) + 1) <= budget:
            group.append(sequence)
        else:
            out.append([sequence])
    return out
