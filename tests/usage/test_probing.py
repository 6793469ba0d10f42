"""Capability probes through their pages: the price first, real calls only by POST, metered, kept, and stopped on demand.

The upstream is real HTTP: `able` can do everything, `plain` refuses, `markdown` claims pictures and does not see them,
and the faults fail in their own ways.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import threading
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from django.db import connections
from django.urls import reverse
from django.utils import timezone

from catalog import probes
from catalog.models import AccountModel, AggregatorModel, CapabilityProbe
from providers.clients.base import Delta, Frame, ToolCallDelta
from providers.clients.errors import ProviderBroken
from providers.models import ProviderAccount
from usage import probing
from usage.models import UsageLog
from usage.probing import Heard, judge, question

pytestmark = pytest.mark.slow

HTMX = {"HTTP_HX_REQUEST": "true"}
ALL = ["vision", "tools", "json", "stream_usage"]


def page(response):
    return html.unescape(response.content.decode())


def url(model):
    return reverse("catalog:model-probe", args=[model.pk])


@pytest.fixture
def model_called(upstream_account):
    """model_called(id): the row; faults, which no list names, are added."""

    def find(model_id):
        row = AggregatorModel.objects.filter(model_id=model_id).first()
        if row is None:
            row = AggregatorModel.objects.create(
                provider=upstream_account.provider, model_id=model_id, display_name=model_id, model_type="chat"
            )
            AccountModel.objects.create(account=upstream_account, model=row)
        return row

    return find


# -- By its pages ----------------------------------------------------------------------------------------------------


class TestByItsPages:
    @pytest.fixture(autouse=True)
    def _commits(self, transactional_db):
        pass

    def tried(self, client, model, what=ALL, **data):
        """What a probe of these found, by the page: {capability: verdict}."""
        response = client.post(url(model), {"what": what, **data}, **HTMX)
        assert response.status_code == 200, page(response)
        probe = CapabilityProbe.objects.latest("queued_at")
        return probe, {result["capability"]: result["verdict"] for result in probe.results}

    def test_the_price_is_shown_before_and_looking_calls_nobody(self, alice_client, model_called, upstream):
        able = model_called("able")
        shown = page(alice_client.get(url(able)))
        # $0.50 and $1.50 per 1M: (1200 + 150 + 60 + 30) × 0.0000005 + 4 × 300 × 0.0000015 = 0.00072 + 0.0018
        assert "Costs <strong>at most $0.0026</strong>" in shown and "4 calls through Trial" in shown
        fewer = page(alice_client.get(url(able), {"what": ["", "tools"]}))
        assert "at most $0.00053" in fewer and "1 call through Trial" in fewer
        assert fewer.count("checked") == 1
        none = alice_client.get(url(able), {"what": [""]})
        assert "Tick at least one thing" in page(none)
        assert "is <strong>unknown</strong>" in page(alice_client.get(url(model_called("unpriced"))))
        assert "Costs <strong>nothing</strong>" in page(alice_client.get(url(model_called("free"))))
        for method in ("get", "head", "options"):
            getattr(alice_client, method)(url(able), {"what": ALL})
        assert upstream.chats == [] and not CapabilityProbe.objects.exists() and not UsageLog.objects.exists()

    def test_a_model_that_can_is_found_able_with_date_and_cost(self, alice, alice_client, model_called, upstream):
        able = model_called("able")
        probe, verdicts = self.tried(alice_client, able)
        assert verdicts == dict.fromkeys(ALL, "yes")
        assert probe.state == "done" and probe.account_label == "Trial" and probe.estimate == Decimal("0.00252")
        rows = list(UsageLog.objects.order_by("id"))
        assert [(row.door, row.status, row.model_id, row.user_id) for row in rows] == [
            ("probe", "success", "able", alice.pk)
        ] * 4
        assert probe.cost == sum(row.cost for row in rows) and 0 < probe.cost < probe.estimate
        assert {result["request_id"] for result in probe.results} == {str(row.request_id) for row in rows}
        assert len(upstream.chats) == 4
        assert all(seen.json["max_tokens"] == 300 for seen in upstream.chats)

        shown = page(alice_client.get(reverse("catalog:model-detail", args=[able.pk])))
        assert shown.count(">yes</span>") == 4 and "probed" in shown and 'through <span dir="auto">Trial' in shown
        assert "The answer is one JSON object." in shown
        assert "vision probed: yes" in shown and "JSON mode probed: yes" in shown, "beside what the provider states"

    def test_a_model_that_refuses_says_no_with_the_providers_words(self, alice_client, model_called, upstream_account):
        probe, verdicts = self.tried(alice_client, model_called("plain"))
        assert verdicts == {"vision": "no", "tools": "no", "json": "no", "stream_usage": "yes"}
        reasons = {result["capability"]: result["reason"] for result in probe.results}
        assert "This model does not support image input." in reasons["vision"]
        assert "does not support tool use" in reasons["tools"] and "response_format" in reasons["json"]
        upstream_account.refresh_from_db()
        assert upstream_account.trouble == "", "a refusal is about the request, not about the account"
        assert probe.cost is not None

    def test_a_model_that_only_claims_to_is_not_believed(self, alice_client, model_called):
        _, verdicts = self.tried(alice_client, model_called("markdown"))
        assert verdicts["vision"] in ("no", "unclear") and verdicts["tools"] == "no" and verdicts["json"] != "yes"

    @pytest.mark.parametrize(
        ("model_id", "verdict", "reason"),
        [
            ("fault-no-usage", "no", "without token counts"),
            ("fault-status-404", "unclear", "The call failed"),
            ("fault-status-400", "unclear", "The call failed"),
            ("fault-html", "unclear", "The call failed"),
            ("fault-no-finish", "unclear", "The call failed"),
            ("fault-mid-error", "unclear", "The call failed"),
        ],
    )
    def test_a_call_that_fails_proves_nothing(self, model_id, verdict, reason, alice_client, model_called):
        probe, verdicts = self.tried(alice_client, model_called(model_id), ["stream_usage"])
        if model_id == "fault-no-finish":
            assert verdicts["stream_usage"] in ("yes", "unclear")
        else:
            assert verdicts == {"stream_usage": verdict} and reason in probe.results[0]["reason"]
        assert UsageLog.objects.get().status in ("success", "error")

    def test_an_account_in_trouble_ends_the_probe_and_rests(self, alice_client, model_called, upstream_account):
        probe, verdicts = self.tried(alice_client, model_called("fault-status-429"))
        assert verdicts == {"vision": "unclear"}, "the rest is not tried"
        assert probe.state == "failed" and "Not tried: Tools, JSON mode, Usage in streams." in probe.message
        upstream_account.refresh_from_db()
        assert (upstream_account.trouble, upstream_account.is_resting) == ("rate_limited", True)
        assert UsageLog.objects.count() == 1

    def test_a_cost_nobody_knows_stays_unknown(self, alice_client, model_called):
        probe, verdicts = self.tried(alice_client, model_called("unpriced"), ["stream_usage"])
        assert (verdicts, probe.cost, probe.estimate) == ({"stream_usage": "yes"}, None, None)
        shown = page(alice_client.get(reverse("catalog:model-detail", args=[probe.model_id])))
        assert "cost unknown" in shown

    def test_it_goes_through_the_chosen_account_alone(
        self, alice, alice_client, model_called, upstream_account, upstream
    ):
        from providers import vault

        able = model_called("able")
        second = ProviderAccount(owner=alice, provider=upstream_account.provider, label="Second", status="valid")
        vault.seal_key(second, "sk-trial-second-0123456789abcdef")
        second.save()
        AccountModel.objects.create(account=second, model=able)
        probe, _ = self.tried(alice_client, able, ["stream_usage"], account=second.pk)
        assert probe.account == second and UsageLog.objects.get().account_label == "Second"
        assert upstream.chats[0].authorization == "Bearer sk-trial-second-0123456789abcdef"
        ProviderAccount.objects.filter(pk=second.pk).update(is_active=False)
        response = alice_client.post(url(able), {"what": ["tools"], "account": second.pk})
        assert response.status_code == 422 and "cannot call this model now" in page(response)
        assert len(upstream.chats) == 1

    def test_one_at_a_time_per_user_and_model(self, alice, alice_client, model_called, upstream_account, upstream):
        able = model_called("able")
        probes.request(alice, able, upstream_account, ["tools"], estimate=None)
        response = alice_client.post(url(able), {"what": ["tools"]})
        assert response.status_code == 422 and "being tried already" in page(response)
        assert CapabilityProbe.objects.count() == 1 and upstream.chats == []

    def test_a_second_delivery_of_the_task_does_nothing(self, alice_client, model_called, upstream):  # F28
        probe, _ = self.tried(alice_client, model_called("able"), ["json"])
        probing.run_now(probe.pk)
        assert len(upstream.chats) == 1 and UsageLog.objects.count() == 1

    def test_stopping_ends_a_running_call_and_keeps_what_was_found(
        self, alice, alice_client, model_called, upstream_account, upstream
    ):
        slow = model_called("slow")
        probe = probes.request(alice, slow, upstream_account, ["stream_usage", "json"], estimate=None)
        upstream.gate(after=1)

        def carry_out():
            try:
                probing.run_now(probe.pk)
            finally:
                connections.close_all()

        worker = threading.Thread(target=carry_out)
        worker.start()
        upstream.wait(held=1)
        shown = page(alice_client.get(reverse("catalog:probe-status", args=[probe.pk])))
        assert "0 of 2 tried through Trial" in shown and "every 1s" in shown and ">Stop</button>" in shown
        stopped = page(alice_client.post(reverse("catalog:probe-stop", args=[probe.pk]), **HTMX))
        assert "Stopping…" in stopped
        worker.join(15)
        assert not worker.is_alive()
        upstream.wait(left=1)
        probe.refresh_from_db()
        assert (probe.state, probe.results) == ("stopped", [])
        assert UsageLog.objects.get().status == "cancelled"
        shown = page(alice_client.get(reverse("catalog:probe-status", args=[probe.pk])))
        assert "You stopped it" in shown and "load delay" not in shown

    def test_a_key_that_does_not_open_sends_nothing(self, alice_client, model_called, upstream_account, upstream):
        able = model_called("able")
        ProviderAccount.objects.filter(pk=upstream_account.pk).update(api_key_encrypted="v1.nonsense")
        probe, verdicts = self.tried(alice_client, able)
        assert (verdicts, probe.state) == ({}, "failed") and probe.message
        assert upstream.chats == [] and not UsageLog.objects.exists()


# -- Without calls ---------------------------------------------------------------------------------------------------


def test_what_was_never_carried_out_is_ended_and_can_be_asked_again(alice, model_called, upstream_account):
    able = model_called("able")
    lost = probes.request(alice, able, upstream_account, ["tools"], estimate=None)
    assert probes.request(alice, able, upstream_account, ["tools"], estimate=None) is None
    CapabilityProbe.objects.update(queued_at=timezone.now() - timedelta(minutes=3))
    again = probes.request(alice, able, upstream_account, ["json", "nonsense", "vision"], estimate=None)
    lost.refresh_from_db()
    assert lost.state == "failed" and "Is the worker running?" in lost.message
    assert again.asked == ["vision", "json"]

    probes.claim(again.pk)
    CapabilityProbe.objects.filter(pk=again.pk).update(alive_at=timezone.now() - timedelta(minutes=4))
    probes.end_abandoned(alice, able)
    again.refresh_from_db()
    assert again.state == "failed" and "The server stopped" in again.message
    probes.finish(again.pk, "done")
    again.refresh_from_db()
    assert again.state == "failed", "an end is final"


def test_a_waiting_probe_is_stopped_at_once(alice, model_called, upstream_account):
    probe = probes.request(alice, model_called("able"), upstream_account, ["tools"], estimate=None)
    probes.request_stop(probe)
    probe.refresh_from_db()
    assert probe.state == "stopped" and probes.claim(probe.pk) is None


def test_the_latest_finding_of_each_capability_is_shown(alice, model_called, upstream_account):
    able = model_called("able")
    for days, verdicts in ((2, {"tools": "no", "json": "yes"}), (1, {"tools": "yes"})):
        at = timezone.now() - timedelta(days=days)
        CapabilityProbe.objects.create(
            owner=alice, model=able, account_label="Trial", state="done", queued_at=at,
            results=[
                {"capability": name, "verdict": verdict, "reason": "", "cost": "0.1", "request_id": "", "at": at.isoformat()}
                for name, verdict in verdicts.items()
            ],
        )  # fmt: skip
    assert {f.capability: f.verdict for f in probes.findings(alice, able)} == {
        "vision": "",
        "tools": "yes",
        "json": "yes",
        "stream_usage": "",
    }


def test_another_users_findings_are_theirs(alice, bob, bob_client, model_called, upstream_account):  # A1
    able = model_called("able")
    bobs = ProviderAccount.objects.create(owner=bob, provider=upstream_account.provider, label="Trial of Bob")
    AccountModel.objects.create(account=bobs, model=able)
    probe = CapabilityProbe.objects.create(
        owner=alice, model=able, account=upstream_account, account_label="Trial of Alice", state="running"
    )
    assert bob_client.get(reverse("catalog:probe-status", args=[probe.pk])).status_code == 404
    assert bob_client.post(reverse("catalog:probe-stop", args=[probe.pk])).status_code == 404
    assert "Alice" not in page(bob_client.get(reverse("catalog:model-detail", args=[able.pk])))
    response = bob_client.post(url(able), {"what": ["tools"], "account": upstream_account.pk})
    assert response.status_code == 422 and "That account cannot call" in page(response)


def test_a_model_that_paints_is_not_asked_to_chat(alice_client, model_called):
    painter = model_called("able")
    AggregatorModel.objects.filter(pk=painter.pk).update(model_type="image")
    response = alice_client.post(url(painter), {"what": ["vision"]})
    assert response.status_code == 422 and "Only models that chat" in page(response)
    assert not CapabilityProbe.objects.exists()


# -- How answers are judged ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "heard", "verdict"),
    [
        ("vision", Heard("UPPER, lower."), "yes"),
        ("vision", Heard("The upper half is **UPPER** and the lower one lower"), "yes"),
        ("vision", Heard("lower upper"), "no"),
        ("vision", Heard("I can't see any image here."), "no"),
        ("vision", Heard("I am unable to view images, but perhaps it is upper."), "no"),
        ("vision", Heard("A nice picture."), "unclear"),
        ("vision", Heard("", finish_reason="length"), "unclear"),
        ("vision", Heard(""), "unclear"),
        ("tools", Heard(tools=("read_thermometer",), arguments='{"room": "kitchen"}'), "yes"),
        ("tools", Heard(tools=("read_thermometer",), arguments=""), "yes"),
        ("tools", Heard(tools=("read_thermometer",), arguments='{"room": '), "no"),
        ("tools", Heard(tools=("read_thermometer",), arguments='{"room": ', finish_reason="length"), "unclear"),
        ("tools", Heard(tools=("read_thermometer",), arguments="[1]"), "no"),
        ("tools", Heard(tools=("search",), arguments="{}"), "no"),
        ("tools", Heard("It is 20 degrees."), "no"),
        ("tools", Heard("", finish_reason="length"), "unclear"),
        ("json", Heard('{"capital": "Paris"}'), "yes"),
        ("json", Heard(' {"capital": "Paris"}\n'), "yes"),
        ("json", Heard('```json\n{"capital": "Paris"}\n```'), "no"),
        ("json", Heard('["Paris"]'), "no"),
        ("json", Heard("Paris"), "no"),
        ("json", Heard('{"capital": "Pa', finish_reason="length"), "unclear"),
        ("json", Heard(""), "unclear"),
        ("stream_usage", Heard("Hello", has_usage=True), "yes"),
        ("stream_usage", Heard("", has_usage=True), "yes"),
        ("stream_usage", Heard("Hello"), "no"),
    ],
)
def test_only_what_proves_it_is_a_yes(name, heard, verdict):
    body, judged = question(name)
    if name == "vision":
        shown = upper_and_lower(body)
        heard.text = re.sub(r"\bUPPER\b|\bupper\b(?! half)", shown[0], heard.text)
        heard.text = re.sub(r"(?<!the )\blower\b", shown[1], heard.text)
    assert judge(name, heard, judged).verdict == verdict


def upper_and_lower(body):
    from providers.sandbox import answers

    return answers.colours(body["messages"][0]["content"][1]["image_url"]["url"])


def test_the_picture_is_a_png_that_others_can_read():
    """Two colours of the palette, read by code that shares nothing with what drew them; and not always the same two."""
    seen = {upper_and_lower(question("vision")[0]) for _ in range(60)}
    assert len(seen) > 10 and all(upper != lower for upper, lower in seen)
    assert {colour for pair in seen for colour in pair} == set(probing.COLOURS)


def test_bodies_ask_for_little_and_can_be_sent():
    for name in probes.CAPABILITIES:
        body, _ = question(name)
        assert body["max_tokens"] == 300 and len(json.dumps(body)) < 3_000


# -- What never ends -------------------------------------------------------------------------------------------------


class Endless:
    """A client whose model calls tools for ever."""

    def __init__(self, arguments):
        self.arguments = arguments

    async def stream(self, body):
        while True:
            calls = (ToolCallDelta(index=0, name="read_thermometer", arguments=self.arguments),)
            yield Frame(raw=b"", data=None, delta=Delta(tool_calls=calls))


def test_an_answer_that_is_all_tool_calls_has_an_end_m6():
    heard = Heard()
    with pytest.raises(ProviderBroken, match="response_too_large"):
        asyncio.run(probing._read(Endless("x" * 1_000), {}, SimpleNamespace(read=lambda delta: None), heard))
    assert len(heard.tools) <= 20 and len(heard.arguments) <= 102_000
