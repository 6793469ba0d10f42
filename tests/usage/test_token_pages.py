"""Making, seeing and revoking personal access tokens, on the page and by command (K6, A1)."""

from __future__ import annotations

import re
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tests.usage.conftest import make_route
from usage import tokens
from usage.models import ApiToken, UsageLog

TOKEN = re.compile(r"sb_[0-9A-Za-z]{10}_[0-9A-Za-z]{38}")


def test_k6_a_new_token_is_shown_once_and_stored_as_a_hash(alice, alice_client):
    answer = alice_client.post("/usage/tokens/new/", {"name": "editor", "days": "30"})
    text = TOKEN.search(answer.content.decode())[0]
    row = ApiToken.objects.get(owner=alice)
    assert row.name == "editor" and tokens.same(row.token_hash, tokens.parse(text.encode()).hash)
    assert timedelta(days=29) < row.expires_at - timezone.now() < timedelta(days=31)
    again = alice_client.get("/usage/tokens/").content.decode()
    assert not TOKEN.search(again) and row.token_hash not in again and f"sb_{row.lookup}…" in again
    assert answer["Cache-Control"] and "no-store" in answer["Cache-Control"]


def test_a_token_needs_a_name_and_the_page_says_so_beside_the_field(alice_client):
    answer = alice_client.post("/usage/tokens/new/", {"name": "  ", "days": "0"})
    assert answer.status_code == 422 and "Give it a name" in answer.content.decode()
    assert not ApiToken.objects.exists()


def test_revoking_ends_it_for_good(alice, alice_client):
    row, _ = tokens.create(alice, "editor")
    assert alice_client.post(f"/usage/tokens/{row.pk}/revoke/").status_code == 302
    row.refresh_from_db()
    assert not row.is_live and not ApiToken.objects.live().exists()
    first = row.revoked_at
    alice_client.post(f"/usage/tokens/{row.pk}/revoke/")
    row.refresh_from_db()
    assert row.revoked_at == first


def test_a1_another_users_token_is_as_missing_as_none(alice, bob_client):
    row, _ = tokens.create(alice, "alices-secret-editor")
    assert bob_client.post(f"/usage/tokens/{row.pk}/revoke/").status_code == 404
    assert "alices-secret-editor" not in bob_client.get("/usage/tokens/").content.decode()
    row.refresh_from_db()
    assert row.is_live


def test_a7_revoking_is_a_post(alice, alice_client):
    row, _ = tokens.create(alice, "editor")
    assert alice_client.get(f"/usage/tokens/{row.pk}/revoke/").status_code == 405


def test_the_command_prints_a_token_and_nothing_else(alice):
    out = StringIO()
    call_command("create_token", user="alice", name="nightly", days=7, stdout=out)
    assert TOKEN.fullmatch(out.getvalue().strip())
    assert ApiToken.objects.get().name == "nightly"


@pytest.mark.parametrize(
    ("options", "sentence"), [({"user": "nobody"}, "no user called"), ({"user": "alice", "days": 0}, "1 to 3650")]
)
def test_the_command_says_what_is_wrong(alice, options, sentence):
    with pytest.raises(CommandError, match=sentence):
        call_command("create_token", **options)


def test_a4_a_token_of_a_disabled_user_is_not_live(alice):
    tokens.create(alice, "editor")
    alice.is_active = False
    alice.save()
    assert not ApiToken.objects.live().exists()


def test_the_example_names_the_model_that_was_used_last_and_each_id_once(alice, alice_client):
    make_route(alice, model_id="a-model")
    _, last = make_route(alice, model_id="z-model", display_name="Zed")
    make_route(alice, model_id="z-model", provider_name="Elsewhere")
    UsageLog.objects.create(user_id=alice.pk, provider_name="Testhub", model_id="z-model", model_pk=last.pk)
    html = alice_client.get("/usage/tokens/").content.decode()
    assert re.search(r'id="try-model"[^>]*value="z-model"', html)
    assert html.count('<option value="z-model">') == 1
