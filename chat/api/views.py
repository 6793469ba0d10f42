"""The `/v1` routes as coroutines (upstreams.md §4). Each returns a whole answer or raises ApiError; the dispatcher's
table (config/hot.py) says who may call them and how large a body may be."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any
from urllib.parse import unquote

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import F

from catalog import own_prices
from catalog.models import AggregatorModel, ModelAlias
from chat.api.errors import ApiError
from chat.api.relay import Call
from chat.api.routing import Routes
from chat.api.schemas import read_chat_request
from config import hot

_routes = Routes()

EVENT_STREAM = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-store",
    "x-accel-buffering": "no",
}


TOO_MANY = "You have {} calls under way, which is as many as this server lets one user have. Wait for one to end."

_under_way: Counter[int] = Counter()
"""User → calls that this process is answering (M6)."""


async def chat_completions(request: hot.HotRequest) -> hot.HotResponse:
    """`POST /v1/chat/completions`, streamed or not."""
    kind = request.headers.get("content-type", "application/json")
    if kind != "application/json" and kind.partition(";")[0].strip().lower() != "application/json":
        raise ApiError("invalid_content_type", "Send the body as application/json.")
    chat = read_chat_request(await request.body())
    user_id = request.user_id
    if _under_way[user_id] >= settings.API_CALLS_AT_ONCE:
        raise ApiError("too_many_requests", TOO_MANY.format(settings.API_CALLS_AT_ONCE), retry_after=1)
    _under_way[user_id] += 1
    try:
        call = Call(chat, await _routes.to(user_id, chat.model), request, _routes.forget)
        if not chat.stream:
            answer = await call.complete()
            return hot.HotResponse(200, {"content-type": "application/json"} | call.headers(), answer)
        await call.begin()
        _under_way[user_id] += 1  # the stream's own, given back when it is over

        async def close() -> None:
            try:
                await call.close()
            finally:
                _is_over(user_id)

        return hot.HotResponse(200, EVENT_STREAM | call.headers(), call.relay(), call.farewell, close)
    finally:
        _is_over(user_id)


def _is_over(user_id: int) -> None:
    _under_way[user_id] -= 1
    if not _under_way[user_id]:
        del _under_way[user_id]


async def model_list(request: hot.HotRequest) -> hot.HotResponse:
    """`GET /v1/models`: every name this user may ask for, in OpenAI's shape."""
    return _json({"object": "list", "data": await hot.in_thread(_models, request.user_id)})


async def model_detail(request: hot.HotRequest, model_id: str) -> hot.HotResponse:
    """`GET /v1/models/{id}`. SDKs percent-encode the id, which may hold slashes."""
    for name in dict.fromkeys((model_id, unquote(model_id))):
        if name.isprintable():  # databases refuse NUL and half surrogate pairs
            for row in await hot.in_thread(_models, request.user_id, name):
                return _json(row)
    raise ApiError("model_not_found", f"None of your accounts lists a model called {model_id:.80}.", param="model")


async def nothing_here(request: hot.HotRequest, rest: str) -> hot.HotResponse:
    """Every other path under `/v1`: JSON, as an API client expects."""
    raise ApiError("not_found", f"There is no {request.method} /v1/{rest:.80} here.")


def _models(user_id: int, name: str | None = None) -> list[dict[str, Any]]:
    user = get_user_model().objects.get(pk=user_id)
    models = AggregatorModel.objects.available_to(user).select_related("provider").order_by("model_id", "pk")
    aliases = ModelAlias.objects.for_user(user)
    if name is not None:
        models, aliases = models.filter(model_id=name), aliases.filter(alias=name)
    rows: dict[str, dict[str, Any]] = {}
    own = own_prices.of(user)
    for model in models.iterator(chunk_size=2_000):
        if model.model_id not in rows:
            prices = own_prices.laid_over(model, own[model.pk]) if model.pk in own else vars(model)
            rows[model.model_id] = {
                "id": model.model_id,
                "object": "model",
                "created": int((model.released_at or model.created_at).timestamp()),
                "owned_by": model.provider.name,
                "name": model.display_name,
                "context_length": model.context_window,
                "max_output_tokens": model.max_output_tokens,
                "pricing": {
                    "unit": "USD per 1M tokens",
                    "input": _figure(prices["price_input"]),
                    "output": _figure(prices["price_output"]),
                },
            }
    # As routes_for decides: an own alias wins over a model's id, a global one does not.
    for alias in aliases.order_by(F("owner_id").asc(nulls_last=True), "alias"):
        if alias.is_global and alias.alias in rows:
            continue
        rows[alias.alias] = {
            "id": alias.alias,
            "object": "model",
            "created": int(alias.created_at.timestamp()),
            "owned_by": "alias",
        }
    return list(rows.values())


def _figure(price: Any) -> str | None:
    return None if price is None else format(price, "f")


def _json(document: Any, **headers: str) -> hot.HotResponse:
    return hot.HotResponse(200, {"content-type": "application/json", **headers}, json.dumps(document).encode())
