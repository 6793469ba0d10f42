"""Try what a model can do: a few small real calls, metered like all others (door "probe").

    await run(probe_pk)      carries out one waiting CapabilityProbe, to an end state, whatever happens

Each capability is one call of at most MAX_TOKENS, judged by what came back: *yes* only where the answer proves it, *no*
where the provider refuses it or the model plainly cannot, *unclear* with the reason for everything else. A picture is
made of two colours picked at random, so that a lucky guess is rare.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import re
import struct
import zlib
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import DatabaseError
from django.utils import timezone

from catalog import probes
from catalog.models import AggregatorModel, CapabilityProbe
from catalog.routes import NoRoute, Route, routes_for_model
from config.hot import in_thread
from providers import health, net
from providers.clients.base import Usage
from providers.clients.errors import ProviderBroken, ProviderError, ProviderUnreachable
from usage import ledger, pricing
from usage.ledger import Attempt
from usage.models import Door, UsageLog

logger = logging.getLogger(__name__)

MAX_TOKENS = 300
"""Of one answer. Models that reason need some before the first word; more would cost more."""

PROMPT_TOKENS = {"vision": 1_200, "tools": 150, "json": 60, "stream_usage": 30}
"""What a call is estimated to send; pictures count for up to a thousand tokens at some providers."""

MOST_TEXT = 100_000
"""Characters of an answer, arguments of tools included; far more than MAX_TOKENS can be (M6)."""

MOST_TOOLS = 20
CALL_SECONDS = 60.0
LOOK_SECONDS = 1.0
"""How often a running call looks whether its owner wants it to stop."""

Status = UsageLog.Status
State = CapabilityProbe.State


def estimate(model: AggregatorModel, asked: list[str]) -> Decimal | None:
    """USD that trying `asked` costs at most, by the model's prices; None where they are not known."""
    noted = pricing.snapshot(model)
    total = Decimal(0)
    for name in asked:
        used = Usage(prompt_tokens=PROMPT_TOKENS[name], completion_tokens=MAX_TOKENS)
        cost = pricing.cost_by_snapshot(used, noted, at=timezone.now(), is_estimated=True).amount
        if cost is None:
            return None
        total += cost
    return total


# -- What is asked, and what the answer says -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    verdict: str
    reason: str


@dataclass(slots=True)
class Heard:
    """What came back of one call."""

    text: str = ""
    tools: tuple[str, ...] = ()
    arguments: str = ""
    finish_reason: str = ""
    has_usage: bool = False
    error: ProviderError | None = None

    @property
    def was_cut(self) -> bool:
        return self.finish_reason == "length"


Judge = Callable[[Heard], Verdict]

TOOL = {
    "type": "function",
    "function": {
        "name": "read_thermometer",
        "description": "Reads the thermometer in a room of this house, in degrees Celsius.",
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string", "description": "Which room, such as kitchen."}},
            "required": ["room"],
        },
    },
}
COLOURS = {
    "red": (220, 20, 20),
    "green": (20, 160, 40),
    "blue": (20, 40, 220),
    "yellow": (245, 225, 20),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}
REFUSES = {
    "vision": re.compile(r"image|vision|multi-?modal|picture|content (?:type|part)", re.IGNORECASE),
    "tools": re.compile(r"tool|function", re.IGNORECASE),
    "json": re.compile(r"response_format|json", re.IGNORECASE),
    "stream_usage": re.compile(r"stream", re.IGNORECASE),
}
"""What a refusal of this very capability speaks of."""

BLIND = re.compile(
    r"(?:can(?:no|')t|can not|unable to|do(?:n't| not)|not able to) (?:\w+ ){0,3}(?:see|view|process|look|have|display)"
    r"|no image",
    re.IGNORECASE,
)


def question(name: str) -> tuple[dict[str, Any], Judge]:
    """(the body without its model, how to judge the answer) for one capability."""
    body: dict[str, Any] = {"max_tokens": MAX_TOKENS, "stream": True}
    if name == "vision":
        upper, lower = random.sample(list(COLOURS), 2)
        ask = "This picture has one colour above and another one below. Name both, the upper one first, in two words."
        url = "data:image/png;base64," + base64.b64encode(picture(COLOURS[upper], COLOURS[lower])).decode()
        parts = [{"type": "text", "text": ask}, {"type": "image_url", "image_url": {"url": url}}]
        return {**body, "messages": [{"role": "user", "content": parts}]}, lambda heard: _saw(heard, upper, lower)
    if name == "tools":
        ask = "How warm is it in the kitchen? Use the tool to find out."
        return {**body, "messages": [{"role": "user", "content": ask}], "tools": [TOOL]}, _called
    if name == "json":
        ask = 'Reply with a JSON object that has one key, "capital", whose value is the capital of France.'
        wanted = {"response_format": {"type": "json_object"}}
        return {**body, "messages": [{"role": "user", "content": ask}], **wanted}, _wrote_json
    return {**body, "messages": [{"role": "user", "content": "Say hello in one word."}]}, _counted


def picture(upper: tuple[int, int, int], lower: tuple[int, int, int], size: int = 64) -> bytes:
    """A PNG of two colours, one above the other."""
    rows = b"".join(b"\0" + bytes(upper if row < size // 2 else lower) * size for row in range(size))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _saw(heard: Heard, upper: str, lower: str) -> Verdict:
    named = [word for word in re.findall(r"[a-z]+", heard.text.lower()) if word in COLOURS]
    if named[:2] == [upper, lower]:
        return Verdict("yes", f"It named {upper} above {lower}, which is what the picture shows.")
    if BLIND.search(heard.text):
        return Verdict("no", f"It says that it sees no picture: “{_quote(heard.text)}”")
    if len(named) >= 2:
        return Verdict("no", f"It named {named[0]} above {named[1]}, but the picture shows {upper} above {lower}.")
    return _nothing_said(heard) or Verdict("unclear", f"It named no two colours: “{_quote(heard.text)}”")


def _called(heard: Heard) -> Verdict:
    if "read_thermometer" in heard.tools:
        try:
            given = json.loads(heard.arguments or "{}")
        except ValueError:
            given = None
        if isinstance(given, dict):
            return Verdict("yes", "It called the tool that was offered, with arguments that can be read.")
        if heard.was_cut:
            return Verdict("unclear", f"It called the tool, and was cut off at {MAX_TOKENS} tokens.")
        return Verdict("no", f"It called the tool with arguments that are no JSON: “{_quote(heard.arguments)}”")
    if heard.tools:
        return Verdict("no", f"It called {_quote(heard.tools[0])}, which nobody had offered.")
    return _nothing_said(heard) or Verdict("no", f"It answered without the tool: “{_quote(heard.text)}”")


def _wrote_json(heard: Heard) -> Verdict:
    if nothing := _nothing_said(heard):
        return nothing
    try:
        found = json.loads(heard.text)
    except ValueError:
        if heard.was_cut:
            return Verdict("unclear", f"The answer was cut off at {MAX_TOKENS} tokens.")
        return Verdict("no", f"The answer is no JSON: “{_quote(heard.text)}”")
    if isinstance(found, dict):
        return Verdict("yes", "The answer is one JSON object.")
    return Verdict("no", f"The answer is JSON, but no object: “{_quote(heard.text)}”")


def _counted(heard: Heard) -> Verdict:
    if heard.has_usage:
        return Verdict("yes", "The stream told how many tokens were read and written.")
    return Verdict("no", "The stream ended without token counts, so its cost can only be estimated.")


def _nothing_said(heard: Heard) -> Verdict | None:
    if heard.text.strip():
        return None
    if heard.was_cut:
        return Verdict("unclear", f"It used all {MAX_TOKENS} tokens before its first word, probably by reasoning.")
    return Verdict("unclear", "It ended its answer without a word.")


def judge(name: str, heard: Heard, judged: Judge) -> Verdict:
    """What one call says about one capability."""
    error = heard.error
    if error is None:
        return judged(heard)
    if error.code == "bad_request" and REFUSES[name].search(f"{error.public_message} {error.detail}"):
        return Verdict("no", f"The provider refused it: {_quote(error.public_message)}")
    return Verdict("unclear", f"The call failed: {_quote(error.public_message)}")


def _quote(text: str) -> str:
    line = " ".join(ledger.clean(text, 400).split())
    return line if len(line) <= 160 else f"{line[:160]}…"


# -- Carrying it out -------------------------------------------------------------------------------------------------


async def run(pk: UUID) -> None:
    """Carry out one waiting probe. Never raises for what providers do; a process that dies leaves an open row, which
    `probes.end_abandoned` ends."""
    probe = await in_thread(probes.claim, pk)
    if probe is None:
        return
    state: str = State.FAILED
    message = "Something went wrong on our side. Try again."
    try:
        state, message = await _run(probe)
    except ledger.LedgerError as exc:  # without its row nothing may be sent
        message = str(exc)
    except Exception:
        logger.exception("probe %s failed", pk)
    finally:
        await in_thread(probes.finish, pk, state, message)


async def _run(probe: CapabilityProbe) -> tuple[str, str]:
    try:
        route = await in_thread(_route, probe)
        client = await in_thread(route.client)
    except NoRoute as exc:
        return State.FAILED, exc.message
    except ProviderError as exc:  # vault.Locked: no request may leave
        return State.FAILED, exc.public_message
    results: list[dict[str, Any]] = []
    total: Decimal | None = Decimal(0)
    for number, name in enumerate(probe.asked, start=1):
        if not await in_thread(probes.is_wanted, probe.pk):
            return State.STOPPED, "You stopped it. What was found until then is kept."
        body, judged = question(name)
        attempt = Attempt.begin(
            user_id=probe.owner_id,
            account=route.account,
            model=route.model,
            door=Door.PROBE,
            attempt=1,
            prompt_chars=PROMPT_TOKENS[name] * 4,
        )
        await ledger.aopen(attempt)
        heard = await _call(probe.pk, client, {**body, "model": route.model.model_id}, attempt)
        await _settle(attempt, heard)
        await _tell_health(route, heard, attempt)
        amount = attempt.cost.amount if attempt.cost else None
        total = None if total is None or amount is None else total + amount
        if heard is None:
            await in_thread(probes.note, probe.pk, results, total)
            return State.STOPPED, "You stopped it. What was found until then is kept."
        verdict = judge(name, heard, judged)
        results.append(
            {
                "capability": name,
                "verdict": verdict.verdict,
                "reason": verdict.reason,
                "cost": None if amount is None else format(amount, "f"),
                "request_id": str(attempt.request_id),
                "at": timezone.now().isoformat(),
            }
        )
        await in_thread(probes.note, probe.pk, results, total)
        if heard.error is not None and heard.error.code in health.CONSEQUENCES and number < len(probe.asked):
            left = ", ".join(probes.CAPABILITIES[other][0] for other in probe.asked[number:])
            return State.FAILED, f"{heard.error.public_message} Not tried: {left}."
    return State.DONE, ""


def _route(probe: CapabilityProbe) -> Route:
    """The way through the chosen account, and no other. Raises NoRoute."""
    if not probe.owner.is_active:
        raise NoRoute("no_account", "This user is switched off.")
    if probe.account is None:
        raise NoRoute("no_account", "The account was removed.")
    route = routes_for_model(probe.owner, probe.model, account=probe.account)[0]
    if route.account.pk != probe.account.pk:
        raise NoRoute("no_account", f"“{probe.account.label}” cannot call this model now. See Accounts.")
    return route


async def _call(pk: UUID, client: Any, body: dict[str, Any], attempt: Attempt) -> Heard | None:
    """One call, read to its end or to a deadline. None: its owner stopped it."""
    heard = Heard()
    reading = asyncio.create_task(_read(client, body, attempt, heard))
    try:
        async with asyncio.timeout(CALL_SECONDS):
            while not reading.done():
                await asyncio.wait({reading}, timeout=LOOK_SECONDS)
                if not reading.done() and not await in_thread(probes.is_wanted, pk):
                    return None
        reading.result()
    except TimeoutError:
        heard.error = ProviderUnreachable("timeout")
    except ProviderError as exc:
        heard.error = exc
    finally:
        reading.cancel()
        await asyncio.wait({reading}, timeout=5)
    heard.has_usage = attempt.usage is not None
    return heard


async def _read(client: Any, body: dict[str, Any], attempt: Attempt, heard: Heard) -> None:
    """Raises ProviderError for what the provider says or fails to say."""
    is_done = False
    async with aclosing(client.stream(body)) as frames:
        async for frame in frames:
            delta = frame.delta
            attempt.read(delta)
            if delta.error is not None:
                raise delta.error if isinstance(delta.error, ProviderError) else ProviderBroken("upstream_error")
            heard.text += delta.text
            for call in delta.tool_calls:
                if call.name and len(heard.tools) < MOST_TOOLS:
                    heard.tools = (*heard.tools, call.name)
                heard.arguments += call.arguments if call.index == 0 else ""
            if delta.finish_reason:
                heard.finish_reason = delta.finish_reason
            if len(heard.text) + len(heard.arguments) > MOST_TEXT:
                raise ProviderBroken("response_too_large", permanent=True)
            if frame.done:
                is_done = True
                break
    if not heard.finish_reason and not is_done:
        raise ProviderBroken("interrupted")


async def _settle(attempt: Attempt, heard: Heard | None) -> None:
    if heard is None:
        status, error = Status.CANCELLED, None
    elif heard.error is None:
        status, error = Status.SUCCESS, None
    else:
        status = Status.TIMEOUT if heard.error.code == "timeout" else Status.ERROR
        error = heard.error
    with suppress(ledger.LedgerUnavailable):  # it is queued, and written when the database comes back
        await ledger.asettle(attempt, status, error)


async def _tell_health(route: Route, heard: Heard | None, attempt: Attempt) -> None:
    """What a real call found out about the account (providers/health.py)."""
    if heard is None:
        return
    with suppress(DatabaseError):
        if heard.error is None:
            if not health.is_well(route.account):
                await in_thread(health.succeeded, route.account, attempt.started_at)
        elif heard.error.code in health.CONSEQUENCES:
            await in_thread(health.failed, route.account, heard.error)


def run_now(pk: UUID) -> None:
    """`run` for a worker: over connections of this loop alone."""

    async def whole() -> None:
        try:
            await run(pk)
        finally:
            await net.close()

    asyncio.run(whole())
