"""A new aggregator from a separate package: an entry point, no line of ours (docs/adding-a-provider.md)."""

from __future__ import annotations

import logging
import sys
import textwrap
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.core.management.sql import emit_post_migrate_signal

from providers import net, presets
from providers.clients import registry
from providers.models import Provider

from .conftest import GOOD_KEY

PACKAGE = """
    from providers.clients.base import ModelInfo
    from providers.clients.openai_compatible import OpenAICompatibleClient
    from providers.clients.registry import register
    from providers.presets import Preset


    @register("acorn_dialect", "Acorn")
    class AcornClient(OpenAICompatibleClient):
        def parse_model(self, row):
            return super().parse_model({**row, "id": row["acorn"]})


    PRESETS = [
        Preset(
            name="acorn", display_name="Acorn", monogram="Ac", tagline="Models from trees", client="acorn_dialect",
            base_url="http://acorn.internal/v1", needs="An acorn.", documentation_url="https://acorn.example/docs",
            provider_type="aggregator",
            price_shape={"input": "cost.in", "output": "cost.out", "unit": "USD per token"},
            probe={"path": "/whoami", "expects": "owner"},
            balance={"path": "/whoami", "amount": "left.dollars", "currency": "USD"},
        ),
        Preset(
            name="openai", display_name="Not OpenAI", monogram="!!", tagline="", base_url="https://evil.example/v1",
            needs="", documentation_url="https://evil.example",
        ),
    ]
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package as pip would leave it: a module, and metadata that names the entry point. `broken` ones come along."""

    def install(name: str, source: str, entry: str) -> None:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[switchboard.providers]\n{entry}\n")

    clients = dict(registry.CLIENTS)
    monkeypatch.syspath_prepend(tmp_path)
    registry.extensions.cache_clear()
    yield install
    registry.extensions.cache_clear()
    registry.CLIENTS.clear()
    registry.CLIENTS.update(clients)
    for module in [name for name in sys.modules if name.startswith("acorn")]:
        del sys.modules[module]


def test_a_package_brings_a_dialect_and_a_preset(installed):
    installed("acorn_provider", PACKAGE, "acorn = acorn_provider")
    assert ("acorn_dialect", "Acorn") in registry.choices()
    assert presets.every()["acorn"].tagline == "Models from trees"
    assert presets.every()["openai"].display_name == "OpenAI", "the names of ours are taken"


async def test_its_client_lists_prices_and_checks_keys_by_what_it_declares(installed, server):
    installed("acorn_provider", PACKAGE, "acorn = acorn_provider")
    preset = presets.every()["acorn"]

    def answer(heard):
        if heard.headers.get("authorization") != f"Bearer {GOOD_KEY}":
            return 401, {"error": {"message": "No such acorn"}}
        if heard.path == "/whoami":
            return 200, {"owner": "oak", "left": {"dollars": "7.25"}}
        return 200, {"data": [{"acorn": "oak-1", "cost": {"in": 3e-7, "out": "0.0000015"}}]}

    server.answer = answer
    net.configure(net.Policy(hosts={"acorn.internal": ("127.0.0.1", server.port)}))
    try:
        for key, verdict, balance in ((GOOD_KEY, "valid", Decimal("7.25")), ("sk-wrong-0000000", "invalid", None)):
            client = registry.create(preset.client, base_url=preset.base_url, api_key=key, options=preset.features())
            probe = await client.probe()
            assert (probe.verdict, probe.balance, probe.request) == (verdict, balance, "GET /whoami")
        client = registry.create(preset.client, base_url=preset.base_url, api_key=GOOD_KEY, options=preset.features())
        [model] = (await client.list_models()).models
    finally:
        await net.close()
    assert (model.model_id, model.prices.input, model.prices.output) == ("oak-1", Decimal("0.3"), Decimal("1.5"))


@pytest.mark.django_db
def test_migrate_offers_it_once_and_staff_keep_the_last_word(installed):
    installed("acorn_provider", PACKAGE, "acorn = acorn_provider")
    call_command("migrate", verbosity=0)
    row = Provider.objects.get(name="acorn", owner=None)
    assert (row.client, row.monogram, row.is_active) == ("acorn_dialect", "Ac", True)
    row.full_clean()
    Provider.objects.filter(pk=row.pk).update(is_active=False, tagline="Not here")
    call_command("migrate", verbosity=0)
    row = Provider.objects.get(name="acorn", owner=None)
    assert (row.is_active, row.tagline) == (False, "Not here")


@pytest.mark.django_db
def test_flush_names_no_app_state_and_offers_it_too(installed):
    installed("acorn_provider", PACKAGE, "acorn = acorn_provider")
    emit_post_migrate_signal(0, False, "default")
    assert Provider.objects.filter(name="acorn", owner=None).count() == 1


def test_a_package_that_does_not_load_is_logged_and_stops_nobody(installed, caplog):
    installed("acorn_broken", "raise RuntimeError('no tree')", "acorn_broken = acorn_broken")
    installed("acorn_missing", "", "acorn_missing = acorn_missing:nothing")
    taken = """
        from providers.clients.registry import register

        @register("openai_compatible", "Mine")
        class OpenAICompatibleClient: ...
    """
    installed("acorn_taken", taken, "acorn_taken = acorn_taken")
    with caplog.at_level(logging.ERROR):
        choices = dict(registry.choices())
    assert choices["openai_compatible"] == "OpenAI-compatible"
    assert registry.extensions() == ()
    assert {"acorn_broken", "acorn_missing", "acorn_taken"} == {
        name for name in ("acorn_broken", "acorn_missing", "acorn_taken") if name in caplog.text
    }
