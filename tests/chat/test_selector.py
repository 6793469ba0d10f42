"""The selector as the composer opens it: what is chosen now, what was used lately, what the draft would cost."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from django.urls import reverse

from catalog.models import AccountModel, AggregatorModel
from chat.models import Message
from tests.world import things_of
from usage.models import UsageLog

pytestmark = pytest.mark.slow

URL = reverse("chat:model-select")
CATALOG_URL = reverse("catalog:model-select")


@pytest.fixture
def mine(alice):
    """Alice's things, with a conversation of 1,600 bytes: "é" is two of them."""
    things = things_of(alice)
    Message.objects.filter(pk=things.question.pk).update(content="é" * 500)
    Message.objects.filter(pk=things.reply.pk).update(content="b" * 600)
    AggregatorModel.objects.filter(pk=things.model.pk).update(price_input=Decimal(3), price_output=Decimal(15))
    things.own_price.delete()
    return things


def another(things, model_id, **columns):
    model = AggregatorModel.objects.create(
        provider=things.provider, model_id=model_id, display_name=model_id.title(), **{"model_type": "chat", **columns}
    )
    AccountModel.objects.create(account=things.account, model=model)
    return model


def option(html, model_id):
    return re.search(rf'<model-option[^>]*data-model-id="{re.escape(model_id)}".*?</model-option>', html, re.S)[0]


def draft(html, model_id):
    """The words of the draft's column, on one line."""
    cell = re.search(
        r'class="option__draft[^>]*>(.*?)</span>\s*<span class="option__acts"', option(html, model_id), re.S
    )[1]
    return " ".join(re.sub(r"<[^>]+>", " ", cell).split())


def test_each_row_says_what_the_draft_with_all_before_it_would_cost(mine, alice_client):
    another(mine, "free", price_kind="free", price_input=Decimal(0), price_output=Decimal(0))
    another(mine, "odd", price_kind="unknown")
    another(mine, "half", price_kind="known", price_input=Decimal(1))
    another(mine, "auto", price_kind="variable")
    another(mine, "painter", model_type="image", price_kind="known", price_input=Decimal(1), price_output=Decimal(1))
    another(
        mine, "tiered", price_kind="known", price_input=Decimal(1), price_output=Decimal(2),
        pricing_rules=[{"min_prompt_tokens": "499", "input": "10"}],
    )  # fmt: skip
    html = alice_client.get(URL, {"parent": mine.reply.pk, "draft": "400", "model": mine.model.pk}).content.decode()
    # (1,000 + 600 + 400) bytes are 500 tokens: × $3 / 1M = $0.0015; and 500 × $15 / 1M = $0.0075 for the answer.
    assert draft(html, mine.model.model_id) == "This draft ≈ $0.0015 , for an answer + $0.0075"
    assert draft(html, "free") == "This draft free"
    assert draft(html, "auto") == "This draft varies"
    assert draft(html, "odd") == draft(html, "half") == "This draft –"
    assert draft(html, "tiered") == "This draft ≈ $0.005 , for an answer + $0.001"
    assert "Draft and context ≈ 500 tokens, + 500 assumed for the answer" in html
    # The rows that typing brings know the draft, too.
    assert '<input type="hidden" name="tokens" value="500">' in html
    html = alice_client.get(CATALOG_URL, {"q": "free", "tokens": "500"}).content.decode()
    assert draft(html, "free") == "This draft free"
    html = alice_client.get(CATALOG_URL, {"q": "painter", "tokens": "500"}).content.decode()
    assert draft(html, "painter") == "This draft –"


def test_without_a_draft_there_is_no_column_of_costs(mine, alice_client):
    for asked in ({}, {"draft": "0"}, {"draft": "x"}, {"draft": "-5"}):
        assert "option__draft" not in alice_client.get(URL, asked).content.decode()


def test_the_model_in_use_is_marked_and_first_then_what_was_used_lately_then_favourites(mine, alice, alice_client):
    models = [another(mine, f"m{n}") for n in range(4)]
    for model in (models[2], models[1], models[2]):
        UsageLog.objects.create(
            user_id=alice.pk, door="api", provider_name="x", model_pk=model.pk, model_id=model.model_id,
            cost_source="computed", cost=Decimal(0), status="success",
        )  # fmt: skip
    UsageLog.objects.create(
        user_id=alice.pk, door="probe", provider_name="x", model_pk=models[3].pk, model_id="m3", cost_source="unknown"
    )
    html = alice_client.get(URL, {"model": models[0].pk, "account": str(mine.account.pk)}).content.decode()
    order = re.findall(r'data-name="([^"]+)" data-model-id', html)
    assert order == ["M0", "M2", "M1", mine.model.display_name, "M3"]
    assert html.count('aria-current="true"') == 1 and 'aria-current="true"' in option(html, "m0")
    assert re.findall(r'class="selector__part"[^>]*>([^<]+)', html) == ["Aliases", "Recent", "Favourites", "All models"]


def test_aliases_are_offered_and_the_one_in_use_is_marked(mine, alice_client, bob):
    theirs = things_of(bob).alias
    another(mine, "alice-only-a")
    html = alice_client.get(URL, {"alias": mine.alias.pk, "model": mine.model.pk}).content.decode()
    row = re.search(rf'<model-option[^>]*data-alias="{mine.alias.pk}"[^>]*>', html)[0]
    assert 'aria-current="true"' in row and html.count('aria-current="true"') == 1
    assert theirs.alias not in html and ">Aliases</p>" in html
    html = alice_client.get(CATALOG_URL, {"q": "alice only-al"}).content.decode()
    assert f'data-alias="{mine.alias.pk}"' in html
    assert "data-alias" not in alice_client.get(CATALOG_URL, {"q": "only-al"}).content.decode()
    # Enter takes the best model, not an alias that only begins like what was typed; an alias whose name it is, wins.
    html = alice_client.get(CATALOG_URL, {"q": "alice-only-a"}).content.decode()
    assert "data-best" in option(html, "alice-only-a") and "data-alias" in html
    assert "data-best" not in alice_client.get(CATALOG_URL, {"q": mine.alias.alias}).content.decode()


def test_a_strangers_conversation_costs_nothing_to_know_i2(mine, bob):
    from django.test import Client

    things_of(bob)
    client = Client()
    client.force_login(bob)
    html = client.get(URL, {"parent": mine.reply.pk, "model": mine.model.pk}).content.decode()
    assert "option__draft" not in html and 'aria-current="true"' not in html


def test_the_picker_opens_this_selector(mine, alice_client):
    assert f'hx-get="{URL}"' in alice_client.get(reverse("chat:conversation-list")).content.decode()
