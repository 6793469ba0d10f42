"""Issue 3, item 2: what every recorded upstream said, as the official `openai` package reads it through our `/v1`.

A real web process, real sockets on both sides. The expected values are those of tests/providers/recordings.py, noted
from the raw files before any client of ours read them. Where `/v1` honestly differs from that table:

- `<think>` tags stay in the content: they are the upstream's own bytes, and only the chat page parts them.
- Usage keeps the vendor's own counting (xAI: reasoning beside the completion); normalised it is the table's.
- Reasoning has the vendor's own field names, which the package hands over as extras; some say it under two at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from decimal import Decimal
from pathlib import Path

import openai
import pytest

from providers.clients.openai_compatible import read_usage
from providers.models import ProviderAccount
from tests.api.replay import Replay, Reply
from tests.chat.live import Web
from tests.providers.recordings import REFUSALS, STREAMS, Recording
from tests.providers.test_recordings import DATA, body_of, error_lines
from usage import tokens
from usage.models import UsageLog

pytestmark = [
    pytest.mark.recordings,
    pytest.mark.slow,
    pytest.mark.once,
    pytest.mark.skipif(
        not DATA.is_dir() and os.environ.get("REQUIRE_RECORDINGS") != "1", reason="../shared/data is not here"
    ),
]

HOST = "upstream.test"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
def replay():
    replay = Replay()
    yield replay
    replay.close()


@pytest.fixture
def sdk(transactional_db, alice, replay, tmp_path):
    """The official package, pointed at a web process of ours whose accounts lead to `replay`."""
    from catalog.models import AccountModel, AggregatorModel
    from providers import net, vault
    from providers.models import Provider

    net.configure(net.Policy(hosts={HOST: ("127.0.0.1", replay.port)}))
    names = [*STREAMS, *(f"refusal-{at}" for at in range(len(REFUSALS)))]
    for kind in ("openrouter", "aihubmix", "openai_compatible"):
        provider = Provider.objects.create(
            name=f"replay-{kind}", display_name=kind, base_url=f"http://{HOST}/v1", client=kind
        )
        account = ProviderAccount(owner=alice, provider=provider, label=kind, status=ProviderAccount.Status.VALID)
        vault.seal_key(account, f"sk-replay-{kind}-0123456789")
        account.save()
        for name in names:
            if next((k for k in ("openrouter", "aihubmix") if k in name), "openai_compatible") == kind:
                model = AggregatorModel.objects.create(
                    provider=provider, model_id=name, display_name=name, model_type="chat"
                )
                AccountModel.objects.create(account=account, model=model)
    web = Web(tmp_path, f"{HOST}=127.0.0.1:{replay.port}").start()
    client = openai.OpenAI(
        base_url=f"http://127.0.0.1:{web.port}/v1", api_key=tokens.create(alice, "sdk")[1], max_retries=0, timeout=20
    )
    yield client
    client.close()
    web.stop()


def reasoning_of(delta) -> str:
    """The vendor's reasoning, under whichever of its names, once."""
    extra = delta.model_extra or {}
    for name in ("reasoning", "reasoning_content", "thinking"):
        if isinstance(extra.get(name), str) and extra[name]:
            return extra[name]
    rows = extra.get("reasoning_details") or []
    rows = [rows] if isinstance(rows, dict) else rows
    return "".join(row.get("text") or row.get("summary") or row.get("thinking") or "" for row in rows)


def read_by(client: openai.OpenAI, model: str) -> Recording:
    """One stream as a user of the package collects it."""
    text = reasoning = ""
    tools: dict[int, list[str]] = {}
    finish = usage = None
    annotations, end, identities = 0, "complete", set()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    try:
        for event in client.chat.completions.create(model=model, messages=MESSAGES, **options):
            identities.add((event.id, event.model, event.created))
            assert event.object == "chat.completion.chunk"
            if event.usage is not None:
                assert usage is None and not event.choices, "usage comes once, in a frame of its own"
                usage = event.usage.model_dump(exclude_unset=True)
            for choice in event.choices:
                text += choice.delta.content or ""
                reasoning += reasoning_of(choice.delta)
                annotations += len((choice.delta.model_extra or {}).get("annotations") or ())
                finish = choice.finish_reason or finish
                for call in choice.delta.tool_calls or ():
                    known = tools.setdefault(call.index, ["", "", ""])
                    known[0] = known[0] or call.id or ""
                    known[1] = known[1] or call.function.name or ""
                    known[2] += call.function.arguments or ""
    except openai.APIError as error:
        end = f"error:{error.code}"
        assert identities, error
    assert len(identities) == 1 and all(identities.pop())
    return collected(text, reasoning, tools, usage, finish, end, annotations)


def collected(text, reasoning, tools, usage, finish, end, annotations) -> Recording:
    """What a package collected, in the table's shape."""
    if "<think>" in text:
        thought, _, text = text.removeprefix("<think>").partition("</think>")
        reasoning += thought
    counted = read_usage(json.loads(json.dumps(usage))) if usage else None
    return Recording(
        text=hashlib.sha256(text.encode()).hexdigest(),
        length=len(text),
        usage=counted
        and (
            counted.prompt_tokens,
            counted.completion_tokens,
            counted.total_tokens,
            counted.cached_tokens,
            counted.cache_write_tokens,
            counted.reasoning_tokens,
        ),
        reasoning=(len(reasoning), hashlib.sha256(reasoning.encode()).hexdigest()[:16]) if reasoning else (0, ""),
        tools=tuple(tuple(tools[index]) for index in sorted(tools)),
        finish=finish,
        end=end,
        annotations=annotations,
    )


def test_every_recorded_stream_reads_the_same_by_the_official_package(sdk, replay):
    """… and its row says what the table says, cost included (I10)."""
    wrong = {}
    for name, expected in STREAMS.items():
        replay.replies[name] = Reply(body_of(name))
        try:
            found = read_by(sdk, name)
        except Exception as exc:
            wrong[name] = repr(exc)
            continue
        if found != expected._replace(cost=None, done=True):
            wrong[name] = (found, expected)
        row = UsageLog.objects.get(model_id=name)
        counts = (
            row.prompt_tokens,
            row.completion_tokens,
            row.total_tokens,
            row.cached_tokens,
            row.cache_write_tokens,
            row.reasoning_tokens,
        )
        if expected.end == "complete" and (row.status != "success" or counts != expected.usage):
            wrong[f"row of {name}"] = (row.status, counts, expected.usage)
        if expected.cost is not None and (row.cost_source, row.cost) != ("provider", pico(expected.cost)):
            wrong[f"cost of {name}"] = (row.cost_source, row.cost, expected.cost)
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())
    assert all(asked["stream_options"] == {"include_usage": True} for asked in replay.asked)
    assert UsageLog.objects.count() == len(STREAMS)


if os.environ.get("OPENAI_JS"):  # a folder with the npm package `openai`; without one there is no such test to skip

    def test_every_recorded_stream_reads_the_same_by_the_javascript_package(sdk, replay):
        for name in STREAMS:
            replay.replies[name] = Reply(body_of(name))
        script = Path(__file__).parent.parent / "js" / "openai_stream.mjs"
        env = {**os.environ, "BASE_URL": str(sdk.base_url), "TOKEN": sdk.api_key}
        result = subprocess.run(["node", script, *STREAMS], env=env, capture_output=True, text=True, timeout=100)
        assert result.returncode == 0, result.stderr
        answers = [json.loads(line) for line in result.stdout.splitlines()]
        assert [answer["model"] for answer in answers] == list(STREAMS)
        for answer in answers:
            end = f"error:{answer['error']}" if answer["error"] else "complete"
            tools = {int(index): call for index, call in answer["tools"].items()}
            found = collected(
                answer["text"],
                answer["reasoning"],
                tools,
                answer["usage"],
                answer["finish"],
                end,
                answer["annotations"],
            )
            assert found == STREAMS[answer["model"]]._replace(cost=None, done=True), answer["model"]
            assert answer["identities"] == 1


def pico(cost: str) -> Decimal:
    """The cost as stored: 10⁻¹² USD."""
    return Decimal(cost).quantize(Decimal("1E-12"))


def test_a_stream_never_shows_usage_to_who_did_not_ask(sdk, replay):
    for name in STREAMS:
        replay.replies[name] = Reply(body_of(name))
        try:
            for event in sdk.chat.completions.create(model=name, messages=MESSAGES, stream=True):
                assert event.usage is None and event.choices, name
                assert "usage" not in (event.model_extra or {}).get("x_groq", {}), name
        except openai.APIError:
            assert STREAMS[name].end != "complete"


STATUS_OF = {
    "key_rejected": (502, openai.InternalServerError),
    "no_balance": (402, openai.APIStatusError),
    "model_not_found": (404, openai.NotFoundError),
    "rate_limited": (429, openai.RateLimitError),
    "bad_request": (400, openai.BadRequestError),
    "upstream_error": (502, openai.InternalServerError),
    "unexpected_content": (502, openai.InternalServerError),
    "content_filtered": (400, openai.BadRequestError),
}


@pytest.mark.parametrize("stream", [False, True])
def test_every_recorded_refusal_is_the_packages_exception(sdk, replay, stream):
    """F8, F9: also those that came with status 200. Permanent ones say that trying again is pointless."""
    for at, (line, expected) in enumerate(zip(error_lines(), REFUSALS, strict=True)):
        name = f"refusal-{at}"
        replay.replies[name] = Reply(json.dumps(line["body"]).encode(), line["http_status"], "application/json")
        ProviderAccount.objects.update(status="valid", cooldown_until=None)  # the last refusal had its consequence
        with pytest.raises(openai.APIStatusError) as caught:
            for _ in sdk.chat.completions.create(model=name, messages=MESSAGES, stream=stream):
                pass
        status, kind = STATUS_OF[expected.code]
        error = caught.value
        assert (error.status_code, error.code) == (status, expected.code), line
        assert isinstance(error, kind)
        assert error.response.headers["x-should-retry"] == ("false" if expected.permanent else "true"), line
        assert error.request_id and set(error.body) == {"message", "type", "param", "code"}
        if expected.detail not in ("…",):
            assert expected.detail.removeprefix("…").strip() in error.body["message"]
        row = UsageLog.objects.get(model_id=name)
        assert (row.status, row.error_code) == ("error", expected.code)


def test_whole_answers_read_the_same(sdk, replay):
    documents = json.loads((DATA / "aihubmix-chat-nonstream.json").read_text())
    name = next(name for name in STREAMS if "aihubmix" in name)
    seen = 0
    for document in documents.values():
        if not isinstance(document, dict) or "choices" not in document:
            continue
        seen += 1
        replay.replies[name] = Reply(json.dumps(document).encode(), 200, "application/json")
        answer = sdk.chat.completions.create(model=name, messages=MESSAGES)
        message, got = document["choices"][0]["message"], answer.choices[0].message
        assert (got.role, got.content, answer.id) == ("assistant", message["content"], document["id"])
        for call, expected in zip(got.tool_calls or (), message.get("tool_calls") or (), strict=True):
            assert (call.id, call.function.arguments) == (expected["id"], expected["function"]["arguments"])
        usage, row = document["usage"], UsageLog.objects.latest("id")
        assert (row.status, row.prompt_tokens) == ("success", usage["prompt_tokens"])
        assert answer.usage.total_tokens == usage["total_tokens"]
    assert seen >= 2


def test_the_package_lists_and_finds_models(sdk):
    listed = {model.id for model in sdk.models.list()}
    assert set(STREAMS) <= listed
    one = sdk.models.retrieve("sse-openai-text.txt")
    assert one.id == "sse-openai-text.txt" and one.created > 0 and one.owned_by
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.models.retrieve("vendor/none")
    assert caught.value.code == "model_not_found"
