"""Issue 3, item 5: two web processes on one database and one Redis are one door: revocation and cooldown hold in both.

(That they share generations, listened to and stopped from either, is tests/chat/test_live.py's part.)
"""

from __future__ import annotations

import http.client
import json
import time

import pytest

from tests.api.conftest import chat
from tests.api.replay import Replay, Reply
from tests.chat.live import Browser, Web
from usage.models import ApiToken, UsageLog

pytestmark = [
    pytest.mark.installation, pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.redis_server,
]  # fmt: skip

OTHER = "other.test"


@pytest.fixture
def replay():
    replay = Replay()
    yield replay
    replay.close()


@pytest.fixture
def webs(tmp_path, upstream, upstream_account, replay, redis_url):
    hosts = f"{upstream.outbound_hosts},{OTHER}=127.0.0.1:{replay.port}"
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        found.append(Web(tmp_path / name, hosts, REDIS_URL=redis_url).start())
    yield found
    for web in found:
        assert web.stop() == 0


def call(web, token, body):
    """(status, headers, body) of one call."""
    peer = http.client.HTTPConnection("127.0.0.1", web.port, timeout=40)
    head = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    peer.request("POST", "/v1/chat/completions", json.dumps(body), head)
    answer = peer.getresponse()
    said = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    peer.close()
    return said


def begin(web, token, body):
    """The same, handed over as soon as the stream has begun."""
    peer = http.client.HTTPConnection("127.0.0.1", web.port, timeout=40)
    head = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    peer.request("POST", "/v1/chat/completions", json.dumps(body), head)
    answer = peer.getresponse()
    assert answer.status == 200 and answer.read1(200).startswith(b"data: ")
    return answer


def test_a_token_revoked_on_one_processs_page_is_dead_in_both_and_ends_streams(webs, token, alice, upstream):
    """K6, A4, I18: refused within seconds everywhere; a running stream ends within 30 s and says why."""
    one, two = webs
    for web in webs:
        assert call(web, token, chat("echo"))[0] == 200
    upstream.gate(after=2)
    running = begin(two, token, chat("markdown", stream=True))
    row = ApiToken.objects.get()
    status, _ = Browser(alice, one.port).request("POST", f"/usage/tokens/{row.pk}/revoke/", {})
    assert status in (200, 302)
    began = time.monotonic()
    for web in webs:
        while call(web, token, chat("echo"))[0] != 401:
            assert time.monotonic() - began < 6, "still accepted"
            time.sleep(0.2)
    rest = running.read()
    assert time.monotonic() - began < 30
    last = json.loads(rest.decode().split("data: ")[-1])
    assert last["error"]["code"] == "invalid_api_key" and b"[DONE]" not in rest
    upstream.wait(seconds=5, left=1)
    cut = UsageLog.objects.get(model_id="markdown")
    assert (cut.status, cut.error_code) == ("error", "interrupted")


def test_an_account_that_rests_in_one_process_rests_in_the_other(webs, token, alice, replay, upstream):
    """F9: 429 at the first account makes way for the second, and the other process does not ask the first again."""
    from catalog.models import AccountModel, AggregatorModel
    from providers import net, vault
    from providers.models import Provider, ProviderAccount

    one, two = webs
    net.configure(
        net.Policy(hosts={OTHER: ("127.0.0.1", replay.port), "sandbox.internal": ("127.0.0.1", upstream.port)})
    )
    provider = Provider.objects.create(name="busy", display_name="Busy", base_url=f"http://{OTHER}/v1")
    account = ProviderAccount(owner=alice, provider=provider, label="Busy", priority=-5, status="valid")
    vault.seal_key(account, "sk-busy-0123456789abcdef")
    account.save()
    model = AggregatorModel.objects.create(provider=provider, model_id="echo", display_name="echo", model_type="chat")
    AccountModel.objects.create(account=account, model=model)
    limited = json.dumps({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}).encode()
    replay.replies["echo"] = Reply(limited, 429, "application/json")

    status, headers, _ = call(one, token, chat("echo"))
    assert (status, headers["x-switchboard-account"], headers["x-switchboard-attempt"]) == (200, "Trial", "2")
    assert headers["x-switchboard-failed-over"] == "Busy: rate_limited" and len(replay.asked) == 1
    account.refresh_from_db()
    assert account.cooldown_until is not None

    for web in (one, two):
        status, headers, _ = call(web, token, chat("echo"))
        assert (status, headers["x-switchboard-account"], headers["x-switchboard-attempt"]) == (200, "Trial", "1")
    assert len(replay.asked) == 1, "nobody asked the resting account again"
    assert [row.status for row in UsageLog.objects.order_by("id")] == ["error", "success", "success", "success"]
