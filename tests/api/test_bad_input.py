"""Issue 3, "Bad input": whatever a caller or an upstream does at this door, the answer is JSON with the right code,
never a 5xx that is our own fault; an attempt that was made is one settled row; and the worker lives.

In one process with the real dispatcher (tests/api/conftest.py), and over real sockets where sockets matter.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time

import psutil
import pytest

from chat.api import views
from config.hot import in_thread
from tests.api.conftest import Door, chat, error_of, events, text_of
from tests.asgi import Connection, ask
from tests.chat.live import Web
from usage import tokens
from usage.models import UsageLog

pytestmark = pytest.mark.slow


async def settled(within=5.0):
    """All rows, once none is open."""
    deadline = time.monotonic() + within
    while True:
        rows = [row async for row in UsageLog.objects.order_by("id")]
        if all(row.status != "pending" for row in rows) or time.monotonic() > deadline:
            return rows
        await asyncio.sleep(0.05)


# -- Credentials -------------------------------------------------------------------------------------------------------


async def test_k6_two_authorization_headers_are_refused_whichever_is_good(door, token):
    for pair in ((f"Bearer {token}",) * 2, (f"Bearer {token}", "Bearer x"), ("x", f"Bearer {token}")):
        connection = Connection(door.app, "GET", "/v1/models")
        connection.task.cancel()
        scope = dict(connection.scope)
        scope["headers"] = [*scope["headers"], *((b"authorization", value.encode()) for value in pair)]
        sent = []

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message, sent=sent):
            sent.append(message)

        await door.app(scope, receive, send)
        assert sent[0]["status"] == 401
        assert json.loads(sent[1]["body"])["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "credential",
    [
        "Bearer \xe4\xf6\xfc",
        "Bearer sb_\x00",
        "Bearer\t{token}",
        "bearer  {token}",
        "Bearer {token}\xa0",
        "Bearer {upper}",
    ],
)
async def test_k6_odd_bytes_in_the_header_are_a_401(door, token, credential):
    header = credential.replace("{token}", token).replace("{upper}", token.upper())
    answer = await ask(door.app, "GET", "/v1/models", headers={"authorization": header})
    assert error_of(answer) == (401, "invalid_api_key")


async def test_k6_the_scheme_is_read_in_any_case_and_a_cookie_opens_nothing(door, token, alice_client, settings):
    assert (await ask(door.app, "GET", "/v1/models", headers={"authorization": f"BEARER {token}"})).status == 200
    cookie = alice_client.cookies[settings.SESSION_COOKIE_NAME].value
    answer = await ask(door.app, "GET", "/v1/models", headers={"cookie": f"{settings.SESSION_COOKIE_NAME}={cookie}"})
    assert error_of(answer) == (401, "invalid_api_key")
    for place in (f"?authorization=Bearer%20{token}", f"?token={token}", f"?key={token}"):
        assert error_of(await ask(door.app, "GET", f"/v1/models{place}")) == (401, "invalid_api_key")


async def test_k6_guesses_do_not_push_out_what_is_remembered(door, token, monkeypatch):
    from chat.api import auth
    from usage import tokens

    assert (await door.get("/v1/models")).status == 200
    asked = []
    real = auth.caller_behind
    monkeypatch.setattr(auth, "caller_behind", lambda parts: asked.append(parts) or real(parts))
    for _ in range(20):
        guess, _parts = tokens.generate()
        assert (await ask(door.app, "GET", "/v1/models", headers={"authorization": f"Bearer {guess}"})).status == 401
    assert len(asked) == 20
    assert (await door.get("/v1/models")).status == 200
    assert len(asked) == 20


# -- Bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "invalid_json"),
        (b"\xff\xfe{\x00}\x00", "invalid_json"),
        (b'{"model":"echo","messages":[{"role":"user","content":"a"}],"n":NaN}', "invalid_json"),
        (b'{"model":"echo","messages":[{"role":"user","content":"a"}],"n":1e999}', "invalid_json"),
        (b'{"model":"echo","messages":[{"role":"user","content":"a"}],"n":%b}' % (b"9" * 5_000), "invalid_json"),
        (b'{"model":"echo","messages":[{"role":"user","content":"a"}],"x":%b}' % (b"[" * 200_000), "invalid_json"),
        (b'{"model":"echo","messages":[{"role":"user","content":"a","content":"b"}]}', "invalid_json"),
        (b'{"model":"echo\\u0000","messages":[{"role":"user","content":"a"}]}', "model_not_found"),
        (b'{"model":"\\ud800","messages":[{"role":"user","content":"a"}]}', "model_not_found"),
        (b'{"model":"../../etc/passwd","messages":[{"role":"user","content":"a"}]}', "model_not_found"),
        (b'{"model":{"$gt":""},"messages":[{"role":"user","content":"a"}]}', "invalid_request"),
        (b'{"model":"echo","messages":[{"role":"user","content":"a"}]} trailing', "invalid_json"),
    ],
)
async def test_p1_a_body_that_will_not_do_is_a_4xx_with_its_code_and_nothing_is_sent(door, upstream, raw, code):
    status, found = error_of(await door.post(raw))
    assert found == code and 400 <= status < 500
    assert upstream.connections == 0 and await settled() == []


@pytest.mark.parametrize("value", [b"{}", b"[]", b'{"a":1}', b'""', b"1", b'{"":"a"}'])
async def test_p1_p3_a_bomb_of_small_values_is_refused_before_it_is_built(door, upstream, value):
    """18 MB of them kept the reader, and so every stream and page of the process, busy for ten seconds."""
    count = 18_000_000 // (len(value) + 1)
    bomb = b'{"model":"echo","messages":[{"role":"user","content":"a"}],"tools":[' + (value + b",") * count + b"1]}"
    began = time.process_time()
    assert error_of(await door.post(bomb)) == (400, "invalid_json")
    assert time.process_time() - began < 2  # 0.2 s here
    assert upstream.connections == 0


async def test_p1_marks_inside_strings_are_no_values_and_many_messages_are_fine(door, upstream):
    code = 'rows = [{"a": 1, "b": "\\\\"}, [2, 3]]  # ' + '{[,"' * 60_000
    turns = [{"role": ("user", "assistant")[n % 2], "content": [{"type": "text", "text": "a"}]} for n in range(4_999)]
    answer = await door.post({"model": "markdown", "messages": [*turns, {"role": "user", "content": code}]})
    assert answer.status == 200
    assert upstream.chats[0].json["messages"][-1]["content"] == code


async def test_p1_what_json_allows_arrives_upstream_as_it_was(door, upstream):
    """Lone surrogates, 2^64, NUL in text, unknown fields, deep but allowed nesting (S6: nothing is expanded)."""
    text = "\ud800 \x00 ${HOME} {{7*7}} %s {0} \u2028"
    extra = {"seed": 2**64, "metadata": {"a": [[[["${PATH}"]]]]}, "reasoning": {"effort": "low"}, "temperature": 0.1}
    await door.post(chat("code", text, **extra))  # which may quote it, as bytes that are no UTF-8: its own affair
    (seen,) = upstream.chats
    assert seen.json["messages"] == [{"role": "user", "content": text}]
    assert {name: seen.json[name] for name in extra} == extra


async def test_p1_a_hundred_megabytes_are_refused_before_they_are_kept(door, upstream):
    before = psutil.Process().memory_info().rss
    piece = b"x" * 1_000_000
    assert error_of(await door.post([piece] * 100)) == (413, "request_too_large")
    assert error_of(await door.post(b"{}", content_length="104857600")) == (413, "request_too_large")
    assert psutil.Process().memory_info().rss - before < 60_000_000
    assert upstream.connections == 0


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "\xe4"]
)
async def test_p1_wrong_content_types_are_a_415(door, kind):
    assert error_of(await door.post(chat("echo"), content_type=kind)) == (415, "invalid_content_type")


async def test_p3_a_body_that_drips_ends_at_the_deadline_although_it_is_never_silent(door, monkeypatch):
    """Slow bodies: the total counts, not only the pause between two pieces."""
    monkeypatch.setattr("config.dispatcher.BODY_SECONDS", 0.6)
    monkeypatch.setattr("config.dispatcher.ROUND_SECONDS", 0.05)
    body = json.dumps(chat("echo", "x" * 4_000)).encode()
    call = Connection(door.app, "POST", "/v1/chat/completions", headers=door.headers(), body=[b"{", b""])
    await call._incoming.get()
    call._incoming._queue.clear()

    async def drip():
        for at in range(0, len(body), 10):
            call._incoming.put_nowait({"type": "http.request", "body": body[at : at + 10], "more_body": True})
            await asyncio.sleep(0.05)

    began = time.monotonic()
    dripping = asyncio.create_task(drip())
    answer = await call.finished()
    dripping.cancel()
    assert error_of(answer) == (408, "request_timeout") and time.monotonic() - began < 5
    assert await settled() == []


async def test_s4_nothing_in_a_body_or_a_header_leads_elsewhere(door, upstream):
    """Fields that route are refused by name; the like inside `metadata` or a header is just data."""
    for name in ("base_url", "api_base", "api_key", "azure_endpoint", "proxy", "extra_headers", "organization"):
        assert error_of(await door.post(chat("echo", **{name: "http://127.0.0.1:9"})))[0] == 400
    await door.post(
        chat("echo", metadata={"base_url": "http://127.0.0.1:9"}),
        x_portkey_custom_host="http://127.0.0.1:9",
        openai_organization="org-x",
        host_override="127.0.0.1:9",
    )
    (seen,) = upstream.chats
    assert seen.authorization == f"Bearer {upstream.key}" and not any("portkey" in name for name in seen.headers)


# -- Upstreams: F1-F12, streamed and not -------------------------------------------------------------------------------

FAULTS = [
    # (model, codes a plain call may end with, codes a stream may end with; "" is a whole answer)
    ("fault-refuse", {"interrupted"}, {"interrupted"}),
    ("fault-reset-first", {"interrupted"}, {"interrupted"}),
    ("fault-reset-mid", None, {"interrupted"}),
    ("fault-reset-after-text", None, {"interrupted"}),
    ("fault-reset-before-usage", None, {""}),
    ("fault-eof", {"interrupted", "unexpected_content"}, {"interrupted"}),
    ("fault-eof-in-event", None, {"interrupted"}),
    ("fault-eof-chunked", None, {"interrupted"}),
    ("fault-short-length", {"interrupted"}, {"interrupted"}),
    ("fault-broken-chunking", None, {"unexpected_content", "interrupted"}),
    ("fault-no-done", None, {""}),
    ("fault-no-finish", None, {""}),
    ("fault-no-blank-line", None, {""}),
    ("fault-silent-end", None, {""}),
    ("fault-html", {"unexpected_content"}, {"unexpected_content"}),
    ("fault-html-502", {"upstream_error"}, {"upstream_error"}),
    ("fault-empty", {"unexpected_content"}, {"interrupted"}),
    ("fault-json-for-sse", {""}, {"unexpected_content"}),
    ("fault-sse-for-json", {"unexpected_content"}, {""}),
    ("fault-200-error", {"upstream_error"}, {"upstream_error"}),
    ("fault-first-error", {"unexpected_content"}, {"upstream_error"}),
    ("fault-mid-error", {"upstream_error"}, {"upstream_error"}),
    ("fault-gzip-bomb", {"unexpected_content"}, {"unexpected_content"}),
    ("fault-redirect-307", {"unexpected_redirect"}, {"unexpected_redirect"}),
    ("fault-status-408", {"timeout"}, {"timeout"}),
    ("fault-status-504", {"timeout"}, {"timeout"}),
]
STATUS = {
    "interrupted": 502,
    "unexpected_content": 502,
    "unexpected_redirect": 502,
    "upstream_error": 502,
    "timeout": 504,
}


def test_the_trial_upstream_knows_these_faults():
    from providers.sandbox.faults import find

    assert all(find(model) for model, *_ in FAULTS)


async def test_f1_to_f12_every_fault_is_a_code_and_one_settled_row(door, upstream, add_model):
    """… and afterwards the same door answers as ever (I19)."""
    wrong = {}
    for model, plain, streamed in FAULTS:
        for stream, codes in ((False, plain), (True, streamed)):
            if codes is None:
                continue
            await in_thread(fresh, add_model, model)
            answer = await door.post(chat(model, stream=stream))
            (row,) = await settled()
            code = code_of(answer)
            status = 200 if answer.body.startswith(b"data: ") or not code else STATUS.get(code)
            ends = "success" if not code else "timeout" if code == "timeout" else "error"
            if code not in codes or answer.status != status or (row.status, row.error_code) != (ends, code):
                wrong[model, stream] = (answer.status, code, row.status, row.error_code, answer.body[-200:])
    assert not wrong, wrong
    assert "still here" in text_of(await door.post(chat("echo", "still here", stream=True)))


def fresh(add_model, model):
    from chat.api import views
    from providers.models import ProviderAccount

    UsageLog.objects.all().delete()
    ProviderAccount.objects.update(status="valid", cooldown_until=None)
    add_model(model)
    views._routes._answers.clear()


def code_of(answer):
    """The error's code, wherever it stands; "" for a whole answer."""
    if answer.body.startswith(b"data: "):
        last = events(answer)[-1]
        return "" if last == "[DONE]" else last["error"]["code"]
    return json.loads(answer.body).get("error", {}).get("code", "")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["fault-silent-headers", "fault-silent-body", "fault-drip-headers"])
async def test_f3_f4_a_silent_upstream_ends_at_the_deadline(door, upstream_account, add_model, model, stream):
    def quick():
        upstream_account.settings = {"header_timeout": 0.5, "idle_timeout": 0.5, "total_timeout": 1}
        upstream_account.save()
        fresh(add_model, model)

    await in_thread(quick)
    began = time.monotonic()
    answer = await door.post(chat(model, stream=stream))
    assert error_of(answer) == (504, "timeout") and time.monotonic() - began < 8
    (row,) = await settled()
    assert (row.status, row.error_code) == ("timeout", "timeout")


@pytest.mark.parametrize("model", ["fault-silent-mid", "fault-drip", "fault-drip-bytes"])
async def test_f3_f4_a_stream_that_goes_silent_or_drips_ends_with_an_error_frame(
    door, upstream_account, add_model, model
):
    def quick():
        upstream_account.settings = {"idle_timeout": 0.6, "total_timeout": 2}
        upstream_account.save()
        fresh(add_model, model)

    await in_thread(quick)
    answer = await door.post(chat(model, stream=True))
    assert answer.status == 200 and code_of(answer) == "timeout"
    (row,) = await settled()
    assert row.status == "timeout" and row.cost_source in ("estimated", "unknown")


async def test_f1_an_address_where_nobody_listens_is_a_502_within_ten_seconds(door, upstream):
    from providers import net

    net.configure(net.Policy(hosts={"sandbox.internal": ("127.0.0.1", 9)}))
    began = time.monotonic()
    answer = await door.post(chat("echo"))
    assert error_of(answer) == (502, "unreachable") and time.monotonic() - began < 10
    (row,) = await settled()
    assert (row.status, row.cost) == ("error", 0)


async def test_m6_one_user_has_so_many_calls_at_once_and_no_more(door, upstream, settings, bob):
    settings.API_CALLS_AT_ONCE = 2
    calls = [door.open(chat("slow", stream=True)) for _ in range(2)]
    for call in calls:
        await call.received(b"data: ")
    for stream in (False, True):
        refused = await door.post(chat("echo", stream=stream))
        assert error_of(refused) == (429, "too_many_requests")
        assert (refused.header("retry-after"), refused.header("x-should-retry")) == ("1", "true")
    theirs = Door(door.app, (await in_thread(tokens.create, bob, "his"))[1])
    assert error_of(await theirs.post(chat("echo"))) == (403, "no_account"), "another user's calls are their own"
    assert len(upstream.chats) == 2
    calls[0].leave()
    await calls[0].finished()
    assert (await door.post(chat("echo"))).status == 200, "a place is free again"
    assert (await door.post(chat("echo", stream=True))).is_complete
    assert (await door.post(chat("no-such-model"))).status == 404
    calls[1].leave()
    await calls[1].finished()
    assert not views._under_way, "every place was given back"


# -- Over real sockets -------------------------------------------------------------------------------------------------


@pytest.fixture
def web(transactional_db, upstream, upstream_account, tmp_path):
    process = Web(tmp_path, upstream.outbound_hosts).start()
    yield process
    assert process.process.poll() is None, "the worker is alive"
    process.stop()


def raw(port, data, *, seconds=15):
    """Everything a server says to these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as peer:
        try:
            peer.sendall(data)
            said = b""
            while piece := peer.recv(65536):
                said += piece
                head, end, body = said.partition(b"\r\n\r\n")
                if end and b"content-length: %d\r\n" % len(body) in (head + b"\r\n").lower():
                    break
        except (ConnectionResetError, BrokenPipeError):
            pass
        return said


def head(port, *lines, method="POST", path="/v1/chat/completions"):
    fixed = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json"]
    return "\r\n".join([*fixed, *lines, "", ""]).encode("latin-1")


@pytest.mark.once
def test_p3_a_body_that_comes_a_moment_after_its_head_is_not_late(web, token):
    """Longer than one round of the steward: it once took "nothing yet" for thirty seconds of nothing."""
    body = json.dumps(chat("echo")).encode()
    request = head(web.port, f"Authorization: Bearer {token}", f"Content-Length: {len(body)}")
    with socket.create_connection(("127.0.0.1", web.port), timeout=15) as peer:
        peer.sendall(request)
        time.sleep(1)
        peer.sendall(body)
        assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.once
def test_a_worker_survives_what_only_sockets_can_do(web, token):
    """1 MB headers, NUL and latin-1 in them, half requests, wrong lengths: an answer or a closed connection."""
    process = psutil.Process(web.process.pid)
    before = process.memory_info().rss
    body = json.dumps(chat("echo")).encode()
    for request, status in (
        (head(web.port, f"Authorization: Bearer {'a' * 1_000_000}", "Content-Length: 2") + b"{}", b" 401 "),
        (head(web.port, "Authorization: Bearer \xe4\xf6", "Content-Length: 2") + b"{}", b" 401 "),
        (head(web.port, "Authorization: Bearer \x00", "Content-Length: 2") + b"{}", b" 400 "),
        (
            head(web.port, f"Authorization: Bearer {token}", f"Authorization: Bearer {token}", "Content-Length: 2"),
            b" 401 ",
        ),
        (head(web.port, f"Authorization: Bearer {token}", "Content-Length: 999999999"), b" 413 "),
        (head(web.port, f"Authorization: Bearer {token}", "Content-Length: -5"), b" 400 "),
        (b"NONSENSE\r\n\r\n", b" 400 "),
        (b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n", b" 400 "),
    ):
        assert status in raw(web.port, request).split(b"\r\n", 1)[0], request[:200]
    with socket.create_connection(("127.0.0.1", web.port)) as peer:  # leaves in the middle of its body
        peer.sendall(head(web.port, f"Authorization: Bearer {token}", f"Content-Length: {len(body)}") + body[:10])
    good = head(web.port, f"Authorization: Bearer {token}", f"Content-Length: {len(body)}") + body
    assert b" 200 " in raw(web.port, good).split(b"\r\n", 1)[0]
    assert process.memory_info().rss - before < 40_000_000
    assert UsageLog.objects.filter(status="success").count() == UsageLog.objects.count() == 1


@pytest.mark.once
def test_f17_readers_who_take_nothing_cost_no_memory(web, token, upstream):
    """Twenty callers ask for 100 kB each … over and over, and never read: bounded memory; others are served."""
    process = psutil.Process(web.process.pid)
    body = json.dumps(chat("long", stream=True)).encode()
    request = head(web.port, f"Authorization: Bearer {token}", f"Content-Length: {len(body)}") + body
    raw(web.port, request.replace(b"POST", b"POST"), seconds=15)
    before = process.memory_info().rss
    peers = []
    for _ in range(20):
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", web.port))
        peer.sendall(request * 20)  # pipelined: twenty answers wait behind the first
        peers.append(peer)
    time.sleep(2)
    grown = process.memory_info().rss - before
    plain = json.dumps(chat("echo", "served")).encode()
    answer = raw(web.port, head(web.port, f"Authorization: Bearer {token}", f"Content-Length: {len(plain)}") + plain)
    assert b"served" in answer
    assert grown < 30_000_000, grown
    for peer in peers:
        peer.close()
    deadline = time.monotonic() + 20
    while UsageLog.objects.filter(status="pending").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not UsageLog.objects.filter(status="pending").exists()


def test_f15_leaving_over_a_real_socket_closes_the_upstream_within_five_seconds(web, token, upstream):
    upstream.gate(after=3)
    body = json.dumps(chat("markdown", stream=True)).encode()
    peer = socket.create_connection(("127.0.0.1", web.port))
    peer.sendall(head(web.port, f"Authorization: Bearer {token}", f"Content-Length: {len(body)}") + body)
    while b"data: " not in peer.recv(65536):
        pass
    upstream.wait(held=1)
    peer.close()
    upstream.wait(seconds=5, left=1)
    deadline = time.monotonic() + 5
    while (row := UsageLog.objects.get()).status == "pending" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert row.status == "cancelled"
