"""Every fault of the trial upstream, as bytes on a socket, in the browser's chat: a named end, the text kept, Retry."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from catalog.models import AggregatorModel
from catalog.sync import sync_account
from chat import turns, writing
from chat.models import Generation
from providers.sandbox import faults
from usage.models import UsageLog

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


# By hand, from threats.md §3; every other fault needs only some named end.
EXPECTED = {
    "fault-silent-headers": ("failed", "timeout"),
    "fault-silent-body": ("failed", "timeout"),
    "fault-silent-mid": ("failed", "timeout"),
    "fault-silent-end": ("complete", ""),  # it had said that it was finished
    "fault-drip": ("failed", "timeout"),
    "fault-reset-first": ("interrupted", "interrupted"),
    "fault-reset-mid": ("interrupted", "interrupted"),
    "fault-reset-after-text": ("interrupted", "interrupted"),
    "fault-reset-before-usage": ("complete", ""),
    "fault-eof": ("interrupted", "interrupted"),
    "fault-short-length": ("interrupted", "interrupted"),
    "fault-no-done": ("complete", ""),
    "fault-html": ("failed", "unexpected_content"),
    "fault-json-for-sse": ("failed", "unexpected_content"),
    "fault-200-error": ("failed", "upstream_error"),
    "fault-mid-error": ("failed", "upstream_error"),
    "fault-finish-error": ("failed", "upstream_error"),
    "fault-status-401": ("failed", "key_rejected"),
    "fault-status-402": ("failed", "no_balance"),
    "fault-status-429": ("failed", "rate_limited"),
    "fault-status-503": ("failed", "overloaded"),
    "fault-redirect": ("failed", "unexpected_redirect"),
    "fault-split": ("complete", ""),
    "fault-bad-json": ("complete", ""),
    "fault-bad-json-only": ("failed", "unexpected_content"),
    "fault-gzip-bomb": ("failed", "unexpected_content"),
    "fault-endless": ("failed", "response_too_large"),
}
TEXT_KEPT = ("fault-silent-mid", "fault-drip", "fault-reset-mid", "fault-eof", "fault-mid-error", "fault-finish-error")


@pytest.mark.timeout(300)
def test_every_fault_of_the_upstream_ends_in_a_named_state(
    web, alice, upstream, upstream_account, settings, monkeypatch
):
    """F1-F11 (and F12): I8, I9, I10."""

    def deadlines(quiet, total):
        settings.REPLY_FIRST_WORD_SECONDS = settings.REPLY_IDLE_SECONDS = quiet
        settings.REPLY_TOTAL_SECONDS = total

    monkeypatch.setattr(writing, "MAX_OPEN_PER_USER", 1000)
    upstream.list("faults")
    assert sync_account(upstream_account, force=True).state == "done"
    upstream.reset()
    names = sorted(faults.FAULTS)
    assert len(names) > 50
    models = {model.model_id: model for model in AggregatorModel.objects.all()}
    missing = [name for name in names if name not in models]
    assert not missing, "the list of faults names them all"

    def ask(name):
        try:
            sent = writing.send(alice, text=f"Fault {name}", model=models[name], account=None)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                reply = Generation.objects.select_related("message").get(message=sent.reply)
                if not reply.is_open:
                    return name, reply
                time.sleep(0.05)
            return name, reply
        finally:
            connections.close_all()

    waiting = [name for name in names if "silent" in name or "drip" in name]
    with ThreadPoolExecutor(4) as threads:
        deadlines(30, 60)
        results = dict(threads.map(ask, [name for name in names if name not in waiting]))
        deadlines(2, 4)
        results |= threads.map(ask, waiting)

    for name, reply in results.items():
        assert not reply.is_open, f"{name} never ends"
        assert reply.state in ("complete", "failed", "interrupted"), name
        assert reply.error_code != "internal", f"{name}: an error of ours"
        if reply.state != "complete":
            assert reply.error_code and reply.error_message, name
        html = turns.finished_html(reply.message_id)
        assert "Retry" in html, name
        assert upstream.key not in html, f"{name} shows the key (K5)"
        rows = list(UsageLog.objects.filter(generation_id=reply.pk))
        assert len(rows) == 1 and rows[0].status != "pending", name
        assert (rows[0].status == "success") == (reply.state == "complete"), name
    ends = {name: (reply.state, reply.error_code) for name, reply in results.items()}
    assert {name: ends[name] for name in EXPECTED} == EXPECTED
    assert all(results[name].message.content for name in TEXT_KEPT)
