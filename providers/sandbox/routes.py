"""What the paths answer: the model list, keys, chat, and the control knobs of tests."""

from __future__ import annotations

import asyncio
import hmac
import json
from typing import Any

from providers.sandbox import answers, faults, shelf
from providers.sandbox.server import Exchange, encode

BAD_KEYS = ("sk-bad", "sk-not", "sk-wrong")
"""Keys that begin like this are refused. Any other is accepted, and so is a request without Authorization."""


async def handle(exchange: Exchange) -> None:
    """Answer one request."""
    path = exchange.path.rstrip("/")
    if path.startswith("/_control/"):
        if exchange.server.keep:
            await _control(exchange, path.removeprefix("/_control/"))
        else:
            await exchange.refuse(404, "Not found.", "not_found")
        return
    if not _is_known_key(exchange):
        await exchange.refuse(401, "Incorrect API key provided.", "invalid_api_key")
        return
    route = (exchange.method, path)
    if route == ("GET", "/v1/models"):
        await _models(exchange)
    elif exchange.method == "GET" and path.startswith("/v1/models/"):
        await _model(exchange, path.removeprefix("/v1/models/"))
    elif route == ("GET", "/v1/key"):
        await exchange.json({"data": {"label": "trial", "usage": 0, "limit": None, "is_free_tier": True}})
    elif route == ("POST", "/v1/chat/completions"):
        await _chat(exchange)
    elif path in ("/v1/models", "/v1/key", "/v1/chat/completions"):
        await exchange.refuse(405, f"{exchange.method} is not allowed here.", "method_not_allowed")
    else:
        await exchange.refuse(404, "Unknown path.", "not_found")


def _is_known_key(exchange: Exchange) -> bool:
    value = exchange.headers.get("authorization")
    if value is None:
        return True
    scheme, _, key = value.partition(" ")
    key = key.strip()
    return hmac.compare_digest(scheme.lower(), "bearer") and bool(key) and not key.startswith(BAD_KEYS)


# -- Models ----------------------------------------------------------------------------------------------------------


async def _models(exchange: Exchange) -> None:
    listing = exchange.query.get("list", exchange.server.listing)
    if exchange.query.get("faults") == "1" or listing == "faults":
        await exchange.json({"object": "list", "data": shelf.rows(faults=tuple(faults.FAULTS))})
    elif listing in shelf.LISTS:
        await exchange.json({"object": "list", "data": shelf.LISTS[listing]()})
    elif listing == "html":
        await exchange.answer(200, faults.PAGE, "text/html; charset=utf-8")
    elif listing == "cut":
        await exchange.answer(200, encode({"object": "list", "data": shelf.rows()})[:-200])
    elif listing == "fails":
        await exchange.refuse(500, "The list of models is not available.", "server_error")
    else:
        await exchange.refuse(404, "No such list.", "not_found")


async def _model(exchange: Exchange, model_id: str) -> None:
    if model_id in shelf.MODELS:
        await exchange.json(shelf.MODELS[model_id].row())
    else:
        await exchange.refuse(404, f"The model `{model_id[:80]}` does not exist.", "model_not_found")


# -- Chat ------------------------------------------------------------------------------------------------------------


async def _chat(exchange: Exchange) -> None:
    try:
        body: Any = json.loads(exchange.body)
    except (ValueError, RecursionError):
        await exchange.refuse(400, "The request body is not JSON.", "invalid_json")
        return
    if not isinstance(body, dict) or not isinstance(body.get("model"), str) or not body["model"]:
        await exchange.refuse(400, "You must provide a model.", "missing_model")
        return
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        await exchange.refuse(400, "`messages` must be a list that is not empty.", "missing_messages")
        return
    model_id = body["model"]
    if fault := faults.find(model_id):
        await fault(exchange, body)
        return
    model = shelf.MODELS.get(model_id)
    if model is None:
        await exchange.refuse(404, f"The model `{model_id[:80]}` does not exist.", "model_not_found")
        return
    holds = {
        "pictures": answers.pictures(body),
        "tools": body.get("tools"),
        "response_format": body.get("response_format"),
    }
    if refused := next((name for name in model.refuses if holds[name]), None):
        what = {"pictures": "image input", "tools": "tool use"}.get(refused, f"the parameter {refused}")
        await exchange.refuse(400, f"This model does not support {what}.", "unsupported_value")
        return
    if sum(answers.tokens(answers.text_of(m)) for m in messages) > model.context:
        await exchange.refuse(
            400,
            f"This model's maximum context length is {model.context} tokens. Please shorten the messages.",
            "context_length_exceeded",
        )
        return
    answer, finish = _limited(answers.answer(model_id, body), body.get("max_completion_tokens", body.get("max_tokens")))
    usage = answers.usage(model, body, answer)
    talk = faults.Talk(exchange, body, answer, usage, finish)
    if body.get("stream") is True:
        await talk.stream(per_piece=0.05 if model_id == "slow" else 0.015, scaled=model_id != "slow")
    else:
        await exchange.json(talk.whole(), x_request_id=talk.id)


def _limited(answer: answers.Answer, limit: Any) -> tuple[answers.Answer, str]:
    """The answer cut to `limit` tokens, and its finish reason."""
    if type(limit) is int and limit > 0 and not answer.tool_calls and len(answer.text) > limit * 4:
        return answers.Answer(answer.text[: limit * 4], answer.reasoning), "length"
    return answer, answer.finish_reason


# -- Control: loopback, tests only -----------------------------------------------------------------------------------


async def _control(exchange: Exchange, name: str) -> None:
    """GET requests, state, wait?requests=&left=&held=&seconds= · POST reset, gate?after=N, open, list?name=, refuse."""
    server = exchange.server
    match exchange.method, name:
        case "GET", "requests":
            await exchange.json([record.as_json() for record in server.records])
            return
        case "GET", "wait":
            wanted = {key: int(value) for key, value in exchange.query.items() if key in _COUNTS}
            try:
                async with asyncio.timeout(float(exchange.query.get("seconds", 10))):
                    while any(_COUNTS[key](server) < value for key, value in wanted.items()):
                        await server.change()
            except TimeoutError:
                await exchange.json(_state(server), 408)
                return
        case "GET", "state":
            pass
        case "POST", "reset":
            server.reset()
        case "POST", "gate":
            server.gate.shut(int(exchange.query.get("after", 0)))
        case "POST", "open":
            server.gate.open()
        case "POST", "list":
            server.listing = exchange.query.get("name", "normal")
        case "POST", "speed":
            server.speed = float(exchange.query.get("value", 1))
        case _:
            await exchange.refuse(404, "No such knob.", "not_found")
            return
    await exchange.json(_state(server))


_COUNTS = {
    "requests": lambda server: len(server.records),
    "chats": lambda server: sum(r.path.startswith("/v1/chat/") for r in server.records),
    "left": lambda server: sum(r.ended == "left" for r in server.records),
    "ended": lambda server: sum(r.ended != "open" for r in server.records),
    "held": lambda server: server.gate.waiting,
}


def _state(server: Any) -> dict[str, Any]:
    return {name: count(server) for name, count in _COUNTS.items()} | {
        "connections": server.connections,
        "open_connections": server.open_connections,
        "gate": "open" if server.gate.event is None else server.gate.after,
        "list": server.listing,
    }
