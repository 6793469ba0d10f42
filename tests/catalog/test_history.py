"""Every sync writes what changed: two lists made by hand for each kind, and the heading that counts them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from catalog import sync
from catalog.models import ChangeSet, ModelChange
from providers.clients.base import Prices
from tests.catalog.conftest import listing, model

OLD = model(
    "m",
    "3",
    "15",
    display_name="Em",
    context_window=8_000,
    max_output_tokens=1_000,
    capabilities=("tools",),
    input_modalities=("text",),
)


def prices(**figures):
    return Prices(**{name: Decimal(value) for name, value in {"input": "3", "output": "15", **figures}.items()})


def changed(**facts):
    return replace(OLD, **facts)


@pytest.mark.parametrize(
    ("then", "lines"),
    [
        (changed(display_name="Em 2"), [("renamed", "display_name", "Em", "Em 2")]),
        (changed(prices=prices(input="2.5")), [("price", "price_input", "3", "2.5")]),
        (changed(prices=prices(output="0")), [("price", "price_output", "15", "0")]),
        (changed(prices=prices(cache_read="0.3")), [("price", "price_cache_read", None, "0.3")]),
        (changed(prices=prices(cache_write="3.75")), [("price", "price_cache_write", None, "3.75")]),
        (changed(prices=prices(reasoning="60")), [("price", "price_reasoning", None, "60")]),
        (changed(prices=prices(image="0.01")), [("price", "price_image", None, "0.01")]),
        (changed(prices=prices(request="0.005")), [("price", "price_request", None, "0.005")]),
        (changed(prices=prices(search="0.01")), [("price", "price_search", None, "0.01")]),
        (
            changed(prices=Prices(variable=True)),
            [
                ("price", "price_input", "3", None),
                ("price", "price_kind", "known", "variable"),
                ("price", "price_output", "15", None),
            ],
        ),
        (
            changed(prices=Prices(Decimal(3), Decimal(15), rules=({"min_prompt_tokens": 200_000, "input": "6"},))),
            [("price", "pricing_rules", [], [{"min_prompt_tokens": 200_000, "input": "6"}])],
        ),
        (changed(context_window=16_000), [("context", "context_window", 8_000, 16_000)]),
        (changed(context_window=None), [("context", "context_window", 8_000, None)]),
        (changed(max_output_tokens=2_000), [("context", "max_output_tokens", 1_000, 2_000)]),
        (
            changed(capabilities=("tools", "reasoning")),
            [("capability", "capabilities", ["tools"], ["reasoning", "tools"])],
        ),
        (
            changed(input_modalities=("text", "image")),
            [("capability", "input_modalities", ["text"], ["image", "text"])],
        ),
        (changed(output_modalities=("text",)), [("capability", "output_modalities", [], ["text"])]),
        (changed(model_type="image"), [("capability", "model_type", "chat", "image")]),
        (changed(retires_at=date(2027, 1, 31)), [("retirement", "retires_at", None, "2027-01-31")]),
        (changed(successor="m2"), [("retirement", "successor", "", "m2")]),
        (changed(is_available=False), [("retirement", "is_available", True, False)]),
        (changed(description="new words"), []),
        (changed(capabilities=("tools", "tools")), []),
        (OLD, []),
    ],
)
def test_each_kind_of_change_is_written_once_and_counted(account, upstream, then, lines):
    upstream(listing(OLD, model("other")))
    sync.sync_account(account)
    upstream(listing(then, model("other")))

    for _ in range(2):  # the second finds nothing new (I15)
        sync.sync_account(account)

    sets = list(ChangeSet.objects.order_by("pk"))
    assert sets[0].counts == {"added": 2}
    written = ModelChange.objects.exclude(kind="added").order_by("field")
    assert [(row.kind, row.field, row.before, row.after) for row in written] == lines
    if lines:
        assert [one.counts for one in sets[1:]] == [{lines[0][0]: 1}]
        assert {row.change_set_id for row in written} == {sets[1].pk}
        assert {row.at for row in written} == {sets[1].at}
    else:
        assert len(sets) == 1


def test_gone_and_back_are_lines_of_their_own(account, upstream):
    both, one = listing(OLD, model("other")), listing(model("other"))
    for what in (both, one, both):
        upstream(what)
        sync.sync_account(account)
    assert [one.counts for one in ChangeSet.objects.order_by("pk")] == [{"added": 2}, {"gone": 1}, {"back": 1}]
    rows = ModelChange.objects.filter(model__model_id="m").order_by("pk")
    assert [(row.kind, row.field) for row in rows] == [("added", ""), ("gone", ""), ("back", "")]
    assert None not in {row.change_set_id for row in rows}


def test_one_model_that_changes_in_three_ways_counts_once_in_each(account, upstream):
    upstream(listing(OLD))
    sync.sync_account(account)
    upstream(listing(changed(prices=prices(input="4", output="20"), display_name="Em 2")))
    sync.sync_account(account)
    last = ChangeSet.objects.latest("pk")
    assert last.counts == {"price": 1, "renamed": 1}
    assert last.changes.count() == 3


def test_an_account_that_lists_less_than_another_changes_no_model(account, bobs_account, upstream):
    for who in (account, bobs_account):
        upstream(listing(OLD, model("other")), who)
        sync.sync_account(who)
    upstream(listing(model("other")), bobs_account)
    run = sync.sync_account(bobs_account)
    assert run.state == "done"
    assert ChangeSet.objects.count() == 1, "what one key may use is no change of the provider's"
