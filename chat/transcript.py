"""What a reply has said so far: text and reasoning in order, and the HTML of what a page does not have yet.

Deltas are added as they come; `advance()` takes them over, numbers the new state and returns what changed. What is
stored is always a numbered state (`saved()`), so that a page drawn from the database and the events after that
number fit without gap or repeat (I9).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chat.rendering import pause_after, render_block, split
from chat.streams import Update
from providers.clients.base import Delta, ToolCallDelta


@dataclass(frozen=True, slots=True)
class Saved:
    """The state with number `seq`, as the database keeps it."""

    seq: int
    content: str
    reasoning: str
    tool_calls: list[dict[str, Any]]


class _Text:
    """Pieces of text in order, kept fit for a database: no NUL, no lone surrogates (threats.md P1).

    JSON may cut a character outside the BMP into two escapes, and a stream may cut between them: a high surrogate at
    the end of a piece waits for its other half.
    """

    __slots__ = ("_half", "length", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.length = 0
        self._half = ""

    def add(self, piece: str) -> str:
        """Take over `piece`; returns what it adds to the text."""
        if not piece:
            return ""
        piece = self._half + piece
        self._half = ""
        if "\ud800" <= piece[-1] <= "\udbff":
            self._half, piece = piece[-1], piece[:-1]
        return self._keep(_storable(piece))

    def close(self) -> str:
        """The text ended: a half character still waiting becomes U+FFFD."""
        half, self._half = self._half, ""
        return self._keep("\ufffd") if half else ""

    def _keep(self, piece: str) -> str:
        if piece:
            self.pieces.append(piece)
            self.length += len(piece)
        return piece

    def __str__(self) -> str:
        return "".join(self.pieces)


def _storable(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Transcript:
    """One reply's text, reasoning and tool calls. `add` may be called while `advance` runs in another thread."""

    def __init__(self) -> None:
        self.seq = 0
        self._text, self._reasoning = _Text(), _Text()
        self._new_text: list[str] = []
        self._new_reasoning: list[str] = []
        self._tools: dict[int, dict[str, Any]] = {}
        self._tail = ""
        self._published = (0, 0, 0)  # number, pieces of text, pieces of reasoning
        self.has_news = False
        self.received = 0
        """Characters of text and reasoning so far, published or not."""
        self.unsaved_bytes = 0
        """Bytes published since the caller last set this to 0: what a crash would lose."""

    @property
    def is_empty(self) -> bool:
        """Nothing came yet, so another route may still be asked."""
        return self.received == 0 and not self._tools

    @property
    def to_draw(self) -> int:
        """Characters that the next `advance` draws."""
        return len(self._tail) + sum(map(len, self._new_text))

    @property
    def pause(self) -> float:
        """Seconds until drawing again is worth its price: 1/15, longer for a long open block (X6)."""
        return pause_after(self._tail)

    def add(self, delta: Delta) -> None:
        """Take over what one upstream event added."""
        if delta.text:
            self._new_text.append(delta.text)
        if delta.reasoning:
            self._new_reasoning.append(delta.reasoning)
        for call in delta.tool_calls:
            self._add_tool_call(call)
        self.received += len(delta.text) + len(delta.reasoning)
        self.has_news = True

    def _add_tool_call(self, call: ToolCallDelta) -> None:
        known = self._tools.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
        known["id"] = known["id"] or _storable(call.id)
        known["name"] = known["name"] or _storable(call.name)
        known["arguments"] += call.arguments
        self.received += len(call.arguments)

    def advance(self, status: str = "") -> Update:
        """Number what came since the last call and return it, drawn. `published()` says when listeners can have it."""
        self.has_news = False  # first: what is added from here on counts as new
        texts, self._new_text = self._new_text, []
        reasonings, self._new_reasoning = self._new_reasoning, []
        added = self._text.add("".join(texts))
        thought = self._reasoning.add("".join(reasonings))
        self.unsaved_bytes += len(added.encode()) + len(thought.encode())
        parts = split(self._tail + added)
        self._tail = parts.tail
        self.seq += 1
        return Update(
            seq=self.seq,
            closed="".join(render_block(block) for block in parts.closed),
            tail=render_block(parts.tail, open=True),
            reasoning=thought,
            status=status,
        )

    def whole(self, status: str = "") -> Update:
        """All of it under a number of its own, for listeners that lost an update."""
        self.seq += 1
        parts = split(str(self._text))
        return Update(
            seq=self.seq,
            closed="".join(render_block(block) for block in parts.closed),
            tail=render_block(parts.tail, open=True),
            reasoning=str(self._reasoning),
            status=status,
            is_whole=True,
        )

    def published(self) -> None:
        """Listeners can have the last numbered state, so it may be saved: a page drawn from it never runs ahead."""
        self._published = (self.seq, len(self._text.pieces), len(self._reasoning.pieces))

    def saved(self) -> Saved:
        """The last published state. After `close()` it is all there is."""
        seq, texts, reasonings = self._published
        tools = [{**call, "arguments": _storable(call["arguments"])} for _, call in sorted(self._tools.items())]
        text, reasoning = "".join(self._text.pieces[:texts]), "".join(self._reasoning.pieces[:reasonings])
        return Saved(seq, text, reasoning, tools)

    def close(self) -> None:
        """The reply ended: take over what is left, undrawn, under the last number."""
        self._text.add("".join(self._new_text))
        self._reasoning.add("".join(self._new_reasoning))
        self._new_text, self._new_reasoning = [], []
        self._text.close()
        self._reasoning.close()
        self.has_news = False
        self.published()
