"""Issue 4, item 4: every list in shared/data, through the preset of its provider, gives the figures noted by hand."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings

from providers import net, presets
from providers.clients import registry

from .model_lists import LISTS, OTHER_DIALECTS

DATA = Path(settings.BASE_DIR).parent / "shared" / "data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.recordings,
    pytest.mark.skipif(
        not DATA.is_dir() and os.environ.get("REQUIRE_RECORDINGS") != "1", reason="../shared/data is not here"
    ),
]


def client_of(preset: str, server):
    """The client of a preset, or of an address somebody entered; the host leads to `server`, over plain http."""
    if "://" in preset:
        row = {"base_url": preset, "client": "openai_compatible", "features": {}}
    else:
        row = presets.every()[preset].row()
    address = row["base_url"].replace("https://", "http://")
    net.configure(net.Policy(hosts={urlsplit(address).netloc: ("127.0.0.1", server.port)}))
    return registry.create(row["client"], base_url=address, api_key="sk-test-0123456789", options=row["features"])


def test_every_list_of_the_dialect_is_in_the_table():
    assert {path.name for path in DATA.glob("models-*.json")} == {*LISTS, *OTHER_DIALECTS}


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_reads_as_noted_over_a_real_socket(server, name):
    expected = LISTS[name]
    body = (DATA / name).read_bytes()
    server.answer = lambda heard: (200, body) if heard.path.endswith("/models") else (404, {})
    client = client_of(expected.preset, server)
    try:
        listed = await client.list_models()
    finally:
        await net.close()
    by_id = {model.model_id: model for model in listed.models}
    found = {
        model_id: (
            by_id[model_id].prices.input,
            by_id[model_id].prices.output,
            by_id[model_id].prices.cache_read,
            by_id[model_id].context_window,
        )
        for model_id in expected.rows
    }
    assert found == {
        model_id: (*(None if figure is None else Decimal(figure) for figure in figures), context)
        for model_id, (*figures, context) in expected.rows.items()
    }
    rows, ids, priced, with_context = expected.counts
    raw = json.loads(body)
    assert len(raw if isinstance(raw, list) else raw["data"]) == rows
    assert (len(listed.models), listed.skipped) == (ids, 0)
    assert sum(model.prices.input is not None for model in listed.models) == priced
    assert sum(model.context_window is not None for model in listed.models) == with_context


def test_a_price_per_1M_is_never_read_as_one_per_token():
    """The trap: Chutes' keys are OpenRouter's, its figures a million times larger."""
    row = {"id": "x", "pricing": {"prompt": 0.27, "completion": 1.1}}
    client = registry.create(
        "openai_compatible", base_url="https://x.test/v1", options=presets.every()["chutes"].features()
    )
    assert (client.parse_model(row).prices.input, client.parse_model(row).prices.output) == (
        Decimal("0.27"),
        Decimal("1.1"),
    )
    stranger = registry.create("openai_compatible", base_url="https://x.test/v1")
    assert stranger.parse_model(row).prices.input is None, "a number that does not say its unit is not a price"


def test_presets_and_addresses_typed_by_hand_agree_on_the_unit():
    """Who enters a known provider's address as a custom endpoint gets the same prices as by its preset."""
    for preset in presets.BUILT_IN:
        if preset.client == "openai_compatible" and not preset.asks_address:
            by_hand = registry.create("openai_compatible", base_url=preset.base_url)
            by_preset = registry.create("openai_compatible", base_url=preset.base_url, options=preset.features())
            assert by_hand.price_shape() == by_preset.price_shape() == preset.price_shape, preset.name
