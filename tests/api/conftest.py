"""The whole door in one process: the real dispatcher, a real token, the trial upstream on a real socket."""

from __future__ import annotations

import json

import pytest

from catalog.models import AccountModel, AggregatorModel
from config import hot
from config.dispatcher import Dispatcher
from providers import net
from tests.asgi import Connection, ask
from usage import tokens


async def no_django(scope, receive, send):
    raise AssertionError(f"{scope['path']} is not a hot route")


class Door:
    """`/v1` with Alice's token in hand."""

    def __init__(self, app, token):
        self.app, self.token = app, token

    def headers(self, **more):
        return {"authorization": f"Bearer {self.token}", "content-type": "application/json"} | {
            name.replace("_", "-"): value for name, value in more.items()
        }

    async def get(self, path, **headers):
        return await ask(self.app, "GET", path, headers=self.headers(**headers))

    async def post(self, body, path="/v1/chat/completions", **headers):
        raw = body if isinstance(body, bytes | list) else json.dumps(body).encode()
        return await ask(self.app, "POST", path, headers=self.headers(**headers), body=raw)

    def open(self, body):
        """A call in flight, for callers who leave."""
        return Connection(
            self.app, "POST", "/v1/chat/completions", headers=self.headers(), body=json.dumps(body).encode()
        )


@pytest.fixture
def add_model(upstream_account):
    """add_model(id, …) puts a model the trial upstream does not list on Alice's account."""

    def add(model_id, account=upstream_account, **fields):
        model, _ = AggregatorModel.objects.get_or_create(
            provider=account.provider,
            model_id=model_id,
            defaults={"display_name": model_id, "model_type": "chat", **fields},
        )
        AccountModel.objects.get_or_create(account=account, model=model)
        return model

    return add


@pytest.fixture
def token(alice):
    return tokens.create(alice, "editor")[1]


@pytest.fixture
async def door(transactional_db, upstream_account, token):
    yield Door(Dispatcher(no_django, hot.ROUTES), token)
    await net.close()


def chat(model="markdown", text="hi", **extra):
    return {"model": model, "messages": [{"role": "user", "content": text}], **extra}


def events(answer):
    """The data of each event of a streamed answer, JSON read, `[DONE]` as text."""
    data = [block.removeprefix("data: ") for block in answer.body.decode().split("\n\n") if block]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


def text_of(answer):
    return "".join(
        choice["delta"].get("content") or ""
        for event in events(answer)
        if event != "[DONE]"
        for choice in event["choices"]
    )


def error_of(answer):
    body = json.loads(answer.body)
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return answer.status, body["error"]["code"]
