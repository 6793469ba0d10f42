"""`POST /v1/chat/completions` from the caller's side: faithful, metered, safe to leave."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import pytest

from config.hot import in_thread
from tests.api.conftest import chat, error_of, events, text_of
from usage.models import ApiToken, UsageLog

# Left to `make test`: a table this long costs more than the fast part may take.
pytestmark = pytest.mark.slow


async def rows():
    return [row async for row in UsageLog.objects.order_by("id")]


async def test_a_plain_answer_is_metered(door, upstream):
    answer = await door.post(chat("echo", "the quick brown fox"))
    body = json.loads(answer.body)
    assert answer.status == 200 and "the quick brown fox" in body["choices"][0]["message"]["content"]
    (row,) = await rows()
    assert (row.status, row.door, row.attempt, row.model_id) == ("success", "api", 1, "echo")
    assert row.prompt_tokens == body["usage"]["prompt_tokens"]
    assert row.token_id == (await ApiToken.objects.aget()).pk
    assert upstream.chats[0].authorization == f"Bearer {upstream.key}"


async def test_a_stream_keeps_the_upstreams_bytes(door, upstream):
    answer = await door.post(chat("echo", "same bytes", stream=True))
    assert answer.status == 200 and answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert answer.body.endswith(b"data: [DONE]\n\n") and answer.body.count(b"[DONE]") == 1
    assert "same bytes" in text_of(answer)
    assert len({(e["id"], e["model"], e["created"]) for e in events(answer)[:-1]}) == 1
    (row,) = await rows()
    assert row.status == "success" and row.first_token_ms is not None


async def test_usage_is_always_asked_upstream_but_told_only_when_asked(door, upstream):
    without = await door.post(chat("echo", stream=True))
    assert all("usage" not in event and event["choices"] for event in events(without)[:-1])
    with_usage = await door.post(chat("echo", stream=True, stream_options={"include_usage": True}))
    told = [event for event in events(with_usage)[:-1] if event.get("usage")]
    assert len(told) == 1 and told[0]["choices"] == [] and events(with_usage)[-2] is not None
    assert all(seen.json["stream_options"] == {"include_usage": True} for seen in upstream.chats)
    first, second = await rows()
    assert first.prompt_tokens and second.prompt_tokens == told[0]["usage"]["prompt_tokens"]


async def test_i10_the_row_is_there_before_the_upstream_hears_of_the_call(door, upstream):
    upstream.gate(after=0)
    call = door.open(chat("markdown", stream=True))
    await asyncio.to_thread(upstream.wait, held=1)
    (row,) = await rows()
    assert row.status == "pending"
    upstream.open()
    await call.finished()
    (row,) = await rows()
    assert row.status == "success"


@pytest.mark.parametrize("after", [0, 3])
async def test_f15_a_caller_who_leaves_closes_the_upstream_and_the_row_settles(door, upstream, after):
    upstream.gate(after=after)
    call = door.open(chat("markdown", stream=True))
    await asyncio.to_thread(upstream.wait, held=1)
    if after:
        await call.received(b"data: ")
    call.leave()
    await asyncio.to_thread(upstream.wait, seconds=5, left=1)
    await call.finished()
    (row,) = await rows()
    assert row.status == "cancelled" and not call.answer.is_complete


async def test_f15_a_caller_who_leaves_a_plain_call_closes_the_upstream_too(door, upstream, add_model):
    await in_thread(add_model, "fault-silent-headers")
    call = door.open(chat("fault-silent-headers"))
    await asyncio.to_thread(upstream.wait, requests=1)
    call.leave()
    await call.finished()
    await asyncio.to_thread(upstream.wait, seconds=5, left=1)
    (row,) = await rows()
    assert row.status == "cancelled"


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("fault-status-400", 400, "bad_request"),
        ("fault-status-401", 502, "key_rejected"),
        ("fault-status-402", 402, "no_balance"),
        ("fault-status-403", 403, "forbidden"),
        ("fault-status-404", 404, "model_not_found"),
        ("fault-status-413", 413, "too_large"),
        ("fault-status-429-retry-after-7", 429, "rate_limited"),
        ("fault-status-500", 502, "upstream_error"),
        ("fault-status-503", 503, "overloaded"),
        ("fault-status-529", 503, "overloaded"),
        ("fault-redirect-302", 502, "unexpected_redirect"),
        ("fault-html", 502, "unexpected_content"),
        ("fault-reset-first", 502, None),
        ("fault-gzip-bomb", 502, "unexpected_content"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_f9_a_failing_upstream_is_a_status_with_a_code_and_one_settled_row(
    door, add_model, model, status, code, stream
):
    await in_thread(add_model, model)
    answer = await door.post(chat(model, stream=stream))
    assert error_of(answer)[0] == status
    if code is not None:
        assert error_of(answer)[1] == code
    (row,) = await rows()
    assert row.status == "error" and row.settled_at is not None
    if "retry-after" in model:
        assert answer.header("retry-after") == "7"


@pytest.mark.parametrize("model", ["fault-mid-error", "fault-reset-mid", "fault-eof", "fault-event-error"])
async def test_f5_f8_an_error_after_the_first_byte_is_a_frame_and_no_done(door, add_model, model):
    await in_thread(add_model, model)
    answer = await door.post(chat(model, stream=True))
    assert answer.status == 200
    last = events(answer)[-1]
    assert last != "[DONE]" and last["error"]["code"]
    assert text_of_before_error(answer)
    (row,) = await rows()
    assert row.status == "error" and row.error_code == last["error"]["code"]


def text_of_before_error(answer):
    return "".join(c["delta"].get("content") or "" for e in events(answer)[:-1] for c in e["choices"])


async def test_k5_an_upstream_that_echoes_the_key_does_not_reach_the_caller(door, upstream, add_model):
    await in_thread(add_model, "echo-key")
    for stream in (False, True):
        answer = await door.post(chat("echo-key", stream=stream))
        assert upstream.key.encode() not in answer.body


async def test_fail_over_before_the_first_byte_is_two_rows_and_says_so(
    door, upstream, alice, upstream_account, add_model
):
    from providers import vault
    from providers.models import ProviderAccount

    def second_account():
        account = ProviderAccount(owner=alice, provider=upstream_account.provider, label="Broken", priority=-1)
        vault.seal_key(account, "sk-bad-0123456789abcdef")
        account.save()
        add_model("echo", account)
        return account.pk

    broken = await in_thread(second_account)
    answer = await door.post(chat("echo", stream=True))
    assert answer.status == 200 and answer.header("x-switchboard-account") == "Trial"
    assert answer.header("x-switchboard-failed-over") == "Broken: key_rejected"
    first, second = await rows()
    assert (first.status, first.error_code, first.attempt) == ("error", "key_rejected", 1)
    assert (second.status, second.attempt) == ("success", 2)
    assert (await ProviderAccount.objects.aget(pk=broken)).status == "attention", "one 401 is asked about again"


@pytest.mark.parametrize("name", ["api_base", "base_url", "api_key", "headers", "proxy"])
async def test_s4_a_body_cannot_route(door, upstream, name):
    answer = await door.post(chat("echo", **{name: "http://127.0.0.1:9/"}))
    assert error_of(answer) == (400, "unsupported_parameter") and upstream.connections == 0
    assert await rows() == []


async def test_a2_another_users_model_is_as_missing_as_one_that_does_not_exist(door, bob, upstream):
    from catalog.models import AccountModel, AggregatorModel
    from providers.models import Provider, ProviderAccount

    def private():
        provider = Provider.objects.create(name="home", display_name="Home", owner=bob, base_url="http://home.test/v1")
        account = ProviderAccount.objects.create(owner=bob, provider=provider, label="b", status="valid")
        model = AggregatorModel.objects.create(provider=provider, model_id="bobs", display_name="Bob's")
        AccountModel.objects.create(account=account, model=model)

    await in_thread(private)
    foreign, missing = await door.post(chat("bobs")), await door.post(chat("none"))
    assert error_of(foreign) == error_of(missing) == (404, "model_not_found")
    assert foreign.body.replace(b"bobs", b"none") == missing.body
    assert (await door.get("/v1/models/bobs")).status == 404


async def test_k6_every_odd_credential_is_a_401_as_json(door, token):
    from tests.asgi import ask

    near = token[:-1] + ("A" if token[-1] != "A" else "B")
    for header in (
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic abc",
        f"Bearer {near}",
        "Bearer \xff\xfe",
        f"Bearer {token} ",
        "Bearer " + "a" * 60_000,
        token,
    ):
        headers = {} if header is None else {"authorization": header}
        answer = await ask(door.app, "GET", "/v1/models", headers=headers)
        assert error_of(answer) == (401, "invalid_api_key"), header
    answer = await ask(door.app, "GET", f"/v1/models?api_key={token}", headers={})
    assert error_of(answer) == (401, "invalid_api_key")


async def test_a_revoked_token_is_refused_within_seconds(door, monkeypatch):
    from chat.api import auth

    monkeypatch.setattr(auth, "REMEMBER_SECONDS", 0.2)
    assert (await door.get("/v1/models")).status == 200
    await in_thread(lambda: ApiToken.objects.get().revoke())
    await asyncio.sleep(0.3)
    assert error_of(await door.get("/v1/models")) == (401, "invalid_api_key")


async def test_i18_revoking_ends_a_running_stream_with_a_frame_that_says_so(door, upstream, monkeypatch):
    from chat.api import auth
    from config import sessions

    monkeypatch.setattr(auth, "REMEMBER_SECONDS", 0.1)
    monkeypatch.setattr(sessions, "RECHECK_SECONDS", 0.2)
    upstream.gate(after=3)
    call = door.open(chat("markdown", stream=True))
    await call.received(b"data: ")
    await in_thread(lambda: ApiToken.objects.get().revoke())
    answer = await call.finished()
    assert events(answer)[-1]["error"]["code"] == "invalid_api_key"
    await asyncio.to_thread(upstream.wait, seconds=5, left=1)
    (row,) = await rows()
    assert (row.status, row.error_code) == ("error", "interrupted")


async def test_f21_a_stopping_worker_ends_streams_as_interrupted(door, upstream, settings):
    settings.DRAIN_SECONDS = 0.2
    upstream.gate(after=3)
    call = door.open(chat("markdown", stream=True))
    await call.received(b"data: ")
    await door.app.drain()
    answer = await call.finished()
    assert events(answer)[-1]["error"]["code"] == "shutting_down"
    (row,) = await rows()
    assert (row.status, row.error_code) == ("error", "interrupted")
    assert error_of(await door.post(chat("echo")))[0] == 503


async def test_the_list_and_one_model(door, upstream_account):
    answer = await door.get("/v1/models")
    listed = json.loads(answer.body)
    assert listed["object"] == "list" and {"id", "object", "created", "owned_by"} <= listed["data"][0].keys()
    assert "markdown" in {row["id"] for row in listed["data"]}
    one = json.loads((await door.get("/v1/models/markdown")).body)
    assert one["id"] == "markdown" and Decimal(one["pricing"]["input"]) == Decimal("0.5")


async def test_ids_with_slashes_are_found_however_the_sdk_encodes_them(door, add_model):
    await in_thread(add_model, "vendor/model:free")
    for path in ("/v1/models/vendor/model:free", "/v1/models/vendor%2Fmodel%3Afree"):
        assert json.loads((await door.get(path)).body)["id"] == "vendor/model:free"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/embeddings", 404, "not_found"),
        ("GET", "/v1/nothing/here", 404, "model_not_found"),
    ],
)
async def test_i21_wrong_paths_and_methods_answer_as_json(door, method, path, status, code):
    from tests.asgi import ask

    answer = await ask(door.app, method, path, headers=door.headers())
    assert answer.status == status and answer.header("x-request-id")
    assert json.loads(answer.body)["error"]["code"] in (code, "not_found")


async def test_p1_odd_bodies_are_400s_and_write_no_row(door, upstream):
    for raw in (
        b"",
        b"{",
        b"[" * 200_000,
        b'{"model":"echo","model":"x","messages":[]}',
        b'{"a":' + b"9" * 5_000 + b"}",
    ):
        assert error_of(await door.post(raw))[0] == 400
    assert error_of(await door.post(chat("echo"), content_type="text/plain")) == (415, "invalid_content_type")
    assert error_of(await door.post([b"x" * 1_000_000] * 21)) == (413, "request_too_large")
    assert await rows() == [] and upstream.connections == 0


async def test_i22_hot_answers_carry_the_headers(door):
    for answer in (
        await door.post(chat("echo", stream=True)),
        await door.get("/v1/models"),
        await door.get("/v1/none/x"),
    ):
        assert answer.header("x-content-type-options") == "nosniff" and answer.header("x-request-id")
        assert answer.header("content-security-policy") and answer.header("set-cookie") is None
