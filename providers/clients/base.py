"""What every dialect gives the rest of the product: models, probes, streams, in one shape.

Nothing here knows Django. A client is built by `registry.create()` for one account, is cheap, and holds no
connection of its own: the outbound door (`providers.net`) keeps those.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer, normalised. None is unknown.

    `cached_tokens` and `cache_write_tokens` are part of `prompt_tokens`; `reasoning_tokens` is part of
    `completion_tokens`: clients whose upstream counts otherwise add up before they build this.
    `cost` is the provider's own figure in USD, if it names one.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: Decimal | None = None


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call. `id` and `name` come once; `arguments` pieces are appended."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Delta:
    """What one upstream event adds to the answer. Every field may be empty. Read it, do not write it.

    Not frozen, like Frame: that costs 4 µs per event where parsing its JSON costs 6.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    error: Exception | None = None
    model: str = ""
    id: str = ""
    annotations: tuple[dict[str, Any], ...] = ()


@dataclass(slots=True)
class Frame:
    """One event of an upstream's stream: its original bytes, the JSON read from it, and what it adds.

    `raw` includes the blank line that ended the event; its line ends are LF. It is empty in a frame that has nothing
    to pass on: text held back until the end, counts for whoever meters. `data` is None for `[DONE]` and for those.
    Clients of other protocols than OpenAI's write both: `data` is a `chat.completion.chunk`, `raw` its bytes.
    """

    raw: bytes
    data: dict[str, Any] | None
    delta: Delta
    done: bool = False


class Whole(NamedTuple):
    """An answer in one piece: its JSON in OpenAI's shape, the same read into one Delta, and the bytes it was read from.

    `raw` is empty where the upstream's bytes are of another shape, or must not be passed on.
    """

    data: dict[str, Any]
    delta: Delta
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per 1M tokens (or per image, call, search). None is unknown; `variable` means the seller decides per call."""

    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    reasoning: Decimal | None = None
    image: Decimal | None = None
    request: Decimal | None = None
    search: Decimal | None = None
    variable: bool = False
    rules: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One row of a provider's model list, read and normalised. `raw_pricing` keeps the seller's own figures."""

    model_id: str
    display_name: str
    model_name: str = ""
    description: str = ""
    model_type: str = "unknown"
    capabilities: tuple[str, ...] = ()
    input_modalities: tuple[str, ...] = ()
    output_modalities: tuple[str, ...] = ()
    context_window: int | None = None
    max_output_tokens: int | None = None
    prices: Prices = field(default_factory=Prices)
    raw_pricing: Mapping[str, Any] = field(default_factory=dict)
    released_at: datetime | None = None
    retires_at: date | None = None
    successor: str = ""
    is_available: bool = True


@dataclass(frozen=True, slots=True)
class ModelList:
    """A provider's whole list. `skipped` counts rows that could not be read; `not_modified` means: as before."""

    # Not in the repr: asyncio.run makes one of what it returns (signal.signal looks its handler up in an enum), twice.
    models: tuple[ModelInfo, ...] = field(default=(), repr=False)
    skipped: int = 0
    etag: str = ""
    not_modified: bool = False


EXAMPLES = 5
"""Names of models that a check shows."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a key check found. `request` names the call made, such as "GET /key"; `reason` is a sentence.

    A network failure is a verdict too ("unverified"); probing never raises ProviderError. `models` is how many the key
    lists, `examples` the names of a few: set where the check read the list.
    """

    verdict: Literal["valid", "invalid", "unverified"]
    request: str
    reason: str
    code: str = ""
    balance: Decimal | None = None
    limit: Decimal | None = None
    models: int | None = None
    examples: tuple[str, ...] = ()

    def with_models(self, models: Sequence[ModelInfo]) -> Probe:
        """The same verdict, and what was listed: chat models first, in the provider's own order."""
        chat = [model for model in models if model.is_available and model.model_type in ("chat", "unknown")]
        names = tuple(model.display_name for model in (chat or models)[:EXAMPLES])
        return replace(self, models=len(models), examples=names)


class ProviderClient(ABC):
    """Speaks one provider's dialect for one account. `repr` shows class and host, never the key."""

    max_output_tokens: int | None = None
    """The most that the model of the route can answer, where the catalog knows it; whoever picks the route sets it."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str = "",
        extra_headers: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._extra_headers = dict(extra_headers or {})
        self.options = dict(options or {})

    def __repr__(self) -> str:
        from providers import net

        return f"<{type(self).__name__} {net.origin_of(self.base_url)}>"

    @abstractmethod
    async def list_models(self, *, etag: str = "") -> ModelList:
        """Every model this key can reach. Raises ProviderError. One bad row is skipped, never the whole list."""

    @abstractmethod
    async def probe(self) -> Probe:
        """Whether the provider accepts this key, by a call that truly authenticates and costs nothing."""

    async def list_is_proof(self) -> bool:
        """Whether having read the list proves the key: a wrong one is refused it, or there is none. May ask once."""
        return False

    @abstractmethod
    def stream(self, body: Mapping[str, Any]) -> AsyncIterator[Frame]:
        """The answer to an OpenAI-shaped chat `body`, event by event. Use with contextlib.aclosing.

        Asks upstream for a stream with usage, whatever `body` says. Raises ProviderError before the first frame for
        a refusal, and later for a cut; an error inside the stream is a Frame whose `delta.error` is set.
        """

    @abstractmethod
    async def complete(self, body: Mapping[str, Any]) -> Whole:
        """The answer in one piece. Raises ProviderError."""
