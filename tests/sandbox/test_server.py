"""The well-behaved half: models, keys, answers, usage, limits, knobs, and the process itself."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
from django.conf import settings

from providers.sandbox import answers, shelf
from providers.sandbox.companion import LOGICAL_HOST, command
from tests.sandbox.raw import chat, request, send

pytestmark = pytest.mark.slow


@pytest.fixture
def port(upstream):
    return upstream.port


def get(port, path, **headers):
    return send(port, request("GET", path, headers={"Connection": "close", **headers}), wait=10)


# -- Models and keys -------------------------------------------------------------------------------------------------


def test_the_list_is_short_named_and_described(port):
    rows = get(port, "/v1/models").json["data"]
    assert len(rows) == 14
    assert all(row["name"] and row["description"] and row["context_length"] for row in rows)
    assert rows[0]["pricing"] == {"prompt": "0.0000005", "completion": "0.0000015", "input_cache_read": "0.00000005"}
    assert "pricing" not in next(row for row in rows if row["id"] == "unpriced")


def test_faulty_models_are_listed_only_when_asked_for(port):
    assert not any("fault" in row["id"] for row in get(port, "/v1/models").json["data"])
    assert any(row["id"] == "fault-reset-mid" for row in get(port, "/v1/models?faults=1").json["data"])


def test_one_model_by_id(port):
    assert get(port, "/v1/models/echo").json["id"] == "echo"
    assert get(port, "/v1/models/nope").status == 404


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (None, 200),
        ("Bearer sk-anything", 200),
        ("bearer sk-anything", 200),
        ("Bearer sk-bad-1", 401),
        ("Bearer sk-not-a-real-key-0000000000000000", 401),
        ("Bearer ", 401),
        ("Basic eDp5", 401),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/key"])
def test_keys_are_judged_on_every_path(port, path, value, status):
    headers = {} if value is None else {"Authorization": value}
    assert get(port, path, **headers).status == status


def test_a_bad_key_gets_no_answer(port):
    reply = chat(port, "echo", key="sk-bad")
    assert (reply.status, reply.json["error"]["code"]) == (401, "invalid_api_key")


def test_unknown_paths_methods_and_bodies_are_refused(port):
    assert get(port, "/v2/models").status == 404
    assert get(port, "/v1/chat/completions").status == 405
    for body in (b"", b"{", b"[]", b"{}", b'{"model":"echo"}', b'{"model":"echo","messages":[]}', b"[" * 100_000):
        assert send(port, request("POST", "/v1/chat/completions", body, {"Connection": "close"})).status == 400
    assert chat(port, "nope").status == 404


@pytest.mark.parametrize(
    ("name", "count"),
    [("empty", 0), ("halved", 7), ("duplicate", 28), ("huge", 20_000), ("one-removed", 13), ("repriced", 14)],
)
def test_f13_other_lists(port, upstream, name, count):
    upstream.list(name)
    assert len(get(port, "/v1/models").json["data"]) == count


def test_f13_lists_with_wrong_types_and_odd_prices_still_hold_the_good_ones(port, upstream):
    for name in ("wrong-types", "odd-prices"):
        upstream.list(name)
        ids = [row.get("id") for row in get(port, "/v1/models").json["data"] if isinstance(row, dict)]
        assert set(shelf.MODELS) <= set(map(str, ids))


def test_f13_lists_that_are_none(port, upstream):
    upstream.list("fails")
    assert get(port, "/v1/models").status == 500
    upstream.list("html")
    assert get(port, "/v1/models").headers["content-type"].startswith("text/html")
    upstream.list("cut")
    with pytest.raises(json.JSONDecodeError):
        _ = get(port, "/v1/models").json


# -- Answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [m for m in shelf.MODELS if m not in ("slow", "long", "tools")])
def test_a_streamed_answer_and_one_in_one_piece_are_the_same(port, model):
    streamed, whole = chat(port, model), chat(port, model, stream=False).json
    assert streamed.text == whole["choices"][0]["message"]["content"]
    first, last = streamed.events[0], streamed.events[-2]
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert streamed.events[-1] == b"[DONE]"
    assert len({(e["id"], e["model"], e["created"]) for e in streamed.events[:-1]}) == 1


def test_answers_reflect_the_last_message():
    body = {"messages": [{"role": "user", "content": "Tell me about lighthouses"}]}
    for model in ("markdown", "reasoning", "code", "table", "long"):
        assert "lighthouses" in answers.answer(model, body).text, model
    assert "$n = 25$" in answers.answer("math", body).text
    assert 95_000 < len(answers.answer("long", body).text) < 115_000


def test_usage_counts_four_characters_as_a_token_and_earlier_messages_as_cached():
    body = {
        "model": "echo",
        "messages": [
            {"role": "user", "content": "12345678"},  # 2 tokens
            {"role": "assistant", "content": "1"},  # 1
            {"role": "user", "content": [{"type": "text", "text": "12345"}]},  # 2
        ],
    }
    assert answers.usage(None, body, answers.Answer("123456789", "12345")) == {
        "prompt_tokens": 5,
        "completion_tokens": 5,  # 3 of text, 2 of reasoning
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


def test_the_billed_model_names_its_cost():
    body = {"model": "billed", "messages": [{"role": "user", "content": "x" * 400}]}
    usage = answers.usage(shelf.MODELS["billed"], body, answers.Answer("y" * 40))
    # 100 tokens at 0.000003 and 10 at 0.000015 are 0.00045 USD, and a tenth more 0.000495.
    assert usage["cost"] == 0.000495
    assert "cost" not in answers.usage(shelf.MODELS["markdown"], body, answers.Answer("y"))


def test_reasoning_comes_before_the_text(port):
    kinds = [
        next(iter(event["choices"][0]["delta"]), "finish")
        for event in chat(port, "reasoning").events[1:-2]
        if event["choices"]
    ]
    assert kinds.index("content") > 5
    assert "reasoning_content" not in kinds[kinds.index("content") :]


def test_a_tool_is_called_in_pieces_and_its_answer_is_used(port):
    tool = {"type": "function", "function": {"name": "look", "parameters": {"properties": {"where": {}}}}}
    body = {"model": "tools", "messages": [{"role": "user", "content": "here"}], "tools": [tool], "stream": True}
    reply = send(port, request("POST", "/v1/chat/completions", json.dumps(body).encode(), {"Connection": "close"}))
    calls = [c for e in reply.events[:-1] for ch in e["choices"] for c in ch["delta"].get("tool_calls", [])]
    assert (calls[0]["id"], calls[0]["function"]["name"]) == ("call_1", "look")
    assert json.loads("".join(c["function"]["arguments"] for c in calls)) == {"where": "here"}
    assert len(calls) > 2
    body["messages"].append({"role": "tool", "tool_call_id": "call_1", "content": "A lighthouse."})
    assert "A lighthouse." in answers.answer("tools", body).text


def test_usage_comes_only_when_asked_for_and_max_tokens_cuts(port):
    body = {"model": "markdown", "messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 10}
    reply = send(port, request("POST", "/v1/chat/completions", json.dumps(body).encode(), {"Connection": "close"}))
    assert len(reply.text) == 40
    assert reply.events[-2]["choices"][0]["finish_reason"] == "length"
    assert not any("usage" in event for event in reply.events[:-1])


def test_a_conversation_longer_than_the_context_is_refused(port):
    body = {"model": "echo", "messages": [{"role": "user", "content": "x" * 33_000}]}
    reply = send(port, request("POST", "/v1/chat/completions", json.dumps(body).encode(), {"Connection": "close"}))
    assert (reply.status, reply.json["error"]["code"]) == (400, "context_length_exceeded")


# -- Connections and knobs -------------------------------------------------------------------------------------------


def test_a_connection_is_kept_and_counted_once(port, upstream):
    before = upstream.connections
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(3):
            connection.sendall(request("GET", "/v1/key"))
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
    assert upstream.connections == before + 1
    assert [seen.path for seen in upstream.requests] == ["/v1/key"] * 3


def test_requests_are_remembered_with_their_headers_and_how_they_ended(port, upstream):
    chat(port, "echo", key="sk-one")
    chat(port, "fault-reset-mid", key="sk-two")
    assert [(seen.authorization, seen.ended, seen.json["model"]) for seen in upstream.chats] == [
        ("Bearer sk-one", "answered", "echo"),
        ("Bearer sk-two", "cut", "fault-reset-mid"),
    ]


def test_the_gate_holds_a_stream_until_it_is_opened(port, upstream):
    upstream.gate(after=2)
    replies = []
    thread = threading.Thread(target=lambda: replies.append(chat(port, "markdown", wait=10)))
    thread.start()
    upstream.wait(held=1)
    assert upstream.chats[0].ended == "open"
    upstream.open()
    thread.join(10)
    assert replies[0].text.startswith("You wrote:") and replies[0].events[-1] == b"[DONE]"


def test_a_client_that_leaves_is_noticed_at_once(port, upstream):
    upstream.gate()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "x"}], "stream": True})
        connection.sendall(request("POST", "/v1/chat/completions", body.encode()))
        upstream.wait(held=1)
    upstream.wait(left=1, seconds=2)


@pytest.mark.parametrize(
    "junk",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_junk_gets_a_400_and_the_server_lives_on(port, junk):
    reply = send(port, junk)
    assert reply.raw.startswith(b"HTTP/1.1 400") and reply.end in ("fin", "reset")
    assert get(port, "/v1/key").status == 200


# -- The process -----------------------------------------------------------------------------------------------------


@pytest.fixture
def process():
    """The trial upstream as `make run` starts it, and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    child = subprocess.Popen(command(port), cwd=settings.BASE_DIR, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline().strip() == str(port).encode()
        yield child, port
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_the_process_is_small_and_stops_on_sigterm(process):
    child, port = process
    assert get(port, "/v1/models").status == 200
    seen = psutil.Process(child.pid)
    assert seen.memory_info().rss < 40 << 20
    assert sum(seen.cpu_times()[:2]) < 0.6, "seconds of CPU to start"
    assert {c.laddr.ip for c in seen.net_connections() if c.status == "LISTEN"} == {"127.0.0.1"}
    child.send_signal(signal.SIGTERM)
    assert child.wait(5) == 0


def test_the_process_remembers_nothing_and_has_no_knobs_unless_asked(process):
    _, port = process
    chat(port, "echo", key="sk-secret")
    assert get(port, "/_control/requests").status == 404


def test_the_knobs_work_over_http_when_asked_for():
    child = subprocess.Popen(
        [sys.executable, "-m", "providers.sandbox", "--control", "--speed", "0"],
        cwd=settings.BASE_DIR,
        stdout=subprocess.PIPE,
    )
    try:
        port = int(child.stdout.readline())
        chat(port, "echo", key="sk-one")
        [record] = get(port, "/_control/requests").json
        assert (record["headers"]["Authorization"], record["ended"]) == ("Bearer sk-one", "answered")
        post = lambda path: send(port, request("POST", path, headers={"Connection": "close"})).json  # noqa: E731
        assert post("/_control/gate?after=1")["gate"] == 1
        assert post("/_control/list?name=empty")["list"] == "empty"
        assert post("/_control/reset")["requests"] == 0
        begun = time.monotonic()
        assert get(port, "/_control/wait?chats=1&seconds=0.2").status == 408
        assert time.monotonic() - begun >= 0.2
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_importing_it_needs_the_standard_library_only():
    code = (
        "import sys; import providers.sandbox.routes, providers.sandbox.companion; "
        "print([m for m in sys.modules if m.split('.')[0] in ('django', 'httpx', 'aiohttp', 'yarl', 'celery')])"
    )
    out = subprocess.run([sys.executable, "-S", "-c", code], cwd=settings.BASE_DIR, capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stderr


def test_accounts_are_bound_to_a_name_and_not_to_a_port():
    assert LOGICAL_HOST == "sandbox.internal:80"
