"""Presets as data (issue 4, items 1, 3, 4): rows, what the form asks, what a check says, over a loopback provider."""

from __future__ import annotations

import re
from decimal import Decimal
from importlib import import_module
from urllib.parse import urlsplit

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps

from providers import net, presets
from providers.clients import declared, endpoint, errors, registry
from providers.forms import tidy_address
from providers.models import Provider, ProviderAccount

from .conftest import GOOD_KEY, account_of, add

HTMX = {"HX-Request": "true"}
migration = import_module("providers.migrations.0003_presets")

ASKED_FOR = {  # issue 4, item 4, and the two of item 5
    *("openai", "together", "groq", "deepseek", "deepinfra", "fireworks", "siliconflow", "mistral", "xai", "vercel"),
    *("requesty", "poe", "nanogpt", "chutes", "ollama", "lm-studio", "vllm", "llama-cpp", "litellm", "one-api"),
    *("anthropic", "google"),
}

# -- Declarations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", presets.every().values(), ids=lambda preset: preset.name)
def test_a_preset_says_everything_the_gallery_and_the_form_show(preset):
    assert preset.client in dict(registry.choices())
    assert re.fullmatch(r"[A-Za-z0-9]{1,2}", preset.monogram)
    assert preset.needs.endswith(".")
    assert preset.documentation_url.startswith("https://")
    assert len(preset.tagline) <= 40
    assert not preset.base_url.endswith("/")
    if preset.asks_address:
        assert urlsplit(preset.base_url).hostname in ("localhost", "relay.example")
    else:
        assert preset.base_url.startswith("https://")
        assert preset.keys_url.startswith("https://")
    for option in (preset.details, preset.probe, preset.balance, preset.balance.get("used", {})):
        if option:
            client = registry.create(preset.client, base_url=preset.base_url, options=preset.features())
            url = declared.address(client, option)
            assert net.origin_of(url) == net.origin_of(preset.base_url), "the key goes nowhere else (S4)"


def test_every_provider_asked_for_is_there():
    assert {preset.name for preset in presets.BUILT_IN} >= ASKED_FOR
    names = [preset.name for preset in (*presets.AGGREGATORS, *presets.BUILT_IN)]
    assert len(names) == len(set(names))
    assert set(presets.FRONT) <= set(names)


def test_what_a_row_declares_wrongly_is_not_followed():
    """Staff may write anything into features: no other origin, no exception, the behaviour of an unknown provider."""
    for path in ("//evil.example/x", "https://evil.example", "/../x", "a b", "@evil", "", 3, None, "x?y=1&k=%0a"):
        options = {
            "probe": {"path": path},
            "balance": {"path": path},
            "details": {"path": path},
            "price_shape": {"a": 1},
        }
        client = registry.create("openai_compatible", base_url="https://x.test/v1", options=options)
        assert declared.address(client, options["probe"]) == "", path
        assert client.price_shape() == ""


# -- Rows ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(db):
    migration.add(apps, None)
    return Provider.objects.filter(owner=None)


def test_the_migration_adds_a_row_for_each_preset(rows):
    for preset in presets.BUILT_IN:
        row = rows.get(name=preset.name)
        row.full_clean()
        assert row.is_active
        assert row.asks_address is preset.asks_address
        assert not row.is_keyless


def test_adding_again_keeps_what_staff_wrote(rows):
    rows.filter(name="groq").update(tagline="Ours", is_active=False, features={})
    before = list(rows.order_by("pk").values())
    migration.add(apps, None)
    assert list(rows.order_by("pk").values()) == before


def test_taking_it_back_keeps_what_is_used_and_what_staff_changed(rows, alice):
    account_of(alice, rows.get(name="mistral"))
    rows.filter(name="groq").update(tagline="Ours")
    rows.filter(name="poe").update(is_active=False)
    Provider.objects.create(owner=alice, name="together", display_name="Mine", base_url="https://x.test/v1")
    migration.remove(apps, None)
    left = set(rows.filter(name__in=[preset.name for preset in presets.BUILT_IN]).values_list("name", flat=True))
    assert left == {"mistral", "groq", "poe"}
    assert Provider.objects.filter(owner=alice, name="together").exists()
    assert ProviderAccount.objects.count() == 1


# -- Checks ----------------------------------------------------------------------------------------------------------


def checked(preset_name: str, server, answers, key: str = GOOD_KEY):
    """What a check of `key` at the preset says, where `answers` is {path: (status, body)} for the good key.

    For another key: 401, except for paths in `answers` under ("any", path).
    """

    def answer(heard):
        if ("any", heard.path) in answers:
            return answers["any", heard.path]
        if heard.headers.get("authorization") != f"Bearer {GOOD_KEY}":
            return 401, {"error": {"message": "Invalid API key"}}
        return answers.get(heard.path, (404, {"error": {"message": "no such path"}}))

    server.answer = answer
    preset = presets.every()[preset_name]
    address = preset.base_url.replace("https://", "http://")
    net.configure(net.Policy(hosts={urlsplit(address).hostname: ("127.0.0.1", server.port)}))
    client = registry.create(preset.client, base_url=address, api_key=key, options=preset.features())
    return async_to_sync(client.probe)()


LIST = {"data": [{"id": "alpha"}]}
BALANCES = [
    # preset, paths of the good key, verdict's request, balance in USD, what the sentence says besides
    (
        "deepseek",
        {
            "/user/balance": (
                200,
                {"is_available": True, "balance_infos": [{"currency": "USD", "total_balance": "110.00"}]},
            )
        },
        "GET /user/balance",
        "110.00",
        "",
    ),
    (
        "deepseek",
        {"/user/balance": (200, {"balance_infos": [{"currency": "CNY", "total_balance": "110.00"}]})},
        "GET /user/balance",
        None,
        "Balance: 110.00 CNY.",
    ),
    (
        "deepseek",  # two wallets: one is money as we count it, the other is said
        {
            "/user/balance": (
                200,
                {
                    "balance_infos": [
                        {"currency": "CNY", "total_balance": "7.5"},
                        {"currency": "USD", "total_balance": "2"},
                    ]
                },
            )
        },
        "GET /user/balance",
        "2",
        "Balance: 7.5 CNY.",
    ),
    ("vercel", {"/v1/credits": (200, {"balance": "95.50", "total_used": "4.50"})}, "GET /v1/credits", "95.50", ""),
    (
        "poe",
        {"/usage/current_balance": (200, {"current_point_balance": 1234500})},
        "GET /usage/current_balance",
        None,
        "Balance: 1,234,500 points.",
    ),
    (
        "one-api",  # the limit in USD, what was used in cents
        {
            "/v1/dashboard/billing/subscription": (200, {"hard_limit_usd": 20.5, "access_until": 0}),
            "/v1/dashboard/billing/usage": (200, {"total_usage": 786.2}),
        },
        "GET /v1/dashboard/billing/subscription",
        "12.638",
        "",
    ),
    (
        "one-api",
        {
            "/v1/dashboard/billing/subscription": (200, {"hard_limit_usd": 100000000}),
            "/v1/dashboard/billing/usage": (200, {"total_usage": 786.2}),
        },
        "GET /v1/dashboard/billing/subscription",
        None,
        "It has no limit of its own.",
    ),
    ("xai", {"/v1/api-key": (200, {"api_key_id": "a", "api_key_blocked": False})}, "GET /v1/api-key", None, ""),
    (
        "siliconflow-cn",  # the list authenticates; the balance is asked for afterwards
        {"/v1/models": (200, LIST), "/v1/user/info": (200, {"data": {"totalBalance": "88.00"}})},
        "GET /models",
        None,
        "Balance: 88.00 CNY.",
    ),
    ("siliconflow-cn", {"/v1/models": (200, LIST), "/v1/user/info": (410, {})}, "GET /models", None, ""),
]


@pytest.mark.parametrize(("name", "answers", "request_", "balance", "said"), BALANCES)
def test_a_good_key_is_valid_by_the_call_that_authenticates(server, name, answers, request_, balance, said):
    probe = checked(name, server, answers)
    assert (probe.verdict, probe.request) == ("valid", request_)
    assert probe.balance == (None if balance is None else Decimal(balance))
    assert said in probe.reason
    assert ("Balance" in probe.reason) == ("Balance" in said)
    assert set(server.sent_keys) <= {GOOD_KEY, endpoint._WRONG_KEY}


@pytest.mark.parametrize("name", ["deepseek", "vercel", "poe", "one-api", "xai"])
def test_a_wrong_key_is_invalid_after_one_free_call(server, name):
    probe = checked(name, server, {("any", "/v1/models"): (200, LIST)}, key="sk-wrong-0123456789")
    assert probe.verdict == "invalid"
    assert [heard.method for heard in server.requests] == ["GET"]


def test_a_key_that_opens_nothing_is_not_called_valid(server):
    probe = checked("xai", server, {"/v1/api-key": (200, {"api_key_id": "a", "team_blocked": True})})
    assert probe.verdict == "invalid"
    assert "blocked" in probe.reason


@pytest.mark.slow
@pytest.mark.parametrize("body", [(200, {"something": "else"}), (404, {}), (200, b"<html>"), (500, {}), (403, {})])
def test_F7_a_declared_call_that_answers_otherwise_proves_nothing(server, body):
    """one-api's operators switch paths off: then the key is checked like a stranger's."""
    path = "/v1/dashboard/billing/subscription"
    public = checked("one-api", server, {("any", path): body, ("any", "/v1/models"): (200, LIST)})
    assert public.verdict == "unverified", "a public list and a path that is gone prove nothing"
    server.requests.clear()
    guarded = checked("one-api", server, {("any", path): body, "/v1/models": (200, LIST)})
    assert (guarded.verdict, guarded.request) == ("valid", "GET /models")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["openai", "together", "groq", "mistral", "fireworks", "nanogpt", "requesty", "chutes"]
)
def test_where_no_call_is_known_a_public_list_is_not_called_valid(server, name):
    base = urlsplit(presets.every()[name].base_url).path
    public = checked(name, server, {("any", f"{base}/models"): (200, LIST)}, key="sk-wrong-0123456789")
    assert public.verdict != "valid"
    guarded = checked(name, server, {f"{base}/models": (200, LIST)})
    assert guarded.verdict == "valid"


def test_details_add_prices_and_what_deployments_disagree_on_is_not_known(server):
    server.answer = lambda heard: {
        "/v1/models": (200, {"data": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}),
        "/v1/model/info": (
            200,
            {
                "data": [
                    {
                        "model_name": "a",
                        "model_info": {
                            "input_cost_per_token": 3e-07,
                            "output_cost_per_token": 1e-06,
                            "max_input_tokens": 1000,
                        },
                    },
                    {
                        "model_name": "b",
                        "model_info": {
                            "input_cost_per_token": 3e-07,
                            "output_cost_per_token": 1e-06,
                            "max_input_tokens": 9,
                        },
                    },
                    {
                        "model_name": "b",
                        "model_info": {
                            "input_cost_per_token": 4e-07,
                            "output_cost_per_token": 1e-06,
                            "max_input_tokens": 9,
                        },
                    },
                ]
            },
        ),
    }[heard.path]
    assert listed("litellm", server) == {
        "a": (Decimal("0.3"), Decimal("1"), 1000),
        "b": (None, Decimal("1"), 9),
        "c": (None, None, None),
    }


def test_the_second_lists_of_xai_and_lm_studio(server):
    server.answer = lambda heard: {
        "/v1/models": (200, {"data": [{"id": "grok-4"}, {"id": "grok-2-image"}]}),
        "/v1/language-models": (
            200,
            {"models": [{"id": "grok-4", "prompt_text_token_price": 30000, "completion_text_token_price": 150000}]},
        ),
    }[heard.path]
    assert listed("xai", server) == {"grok-4": (Decimal(3), Decimal(15), None), "grok-2-image": (None, None, None)}
    server.answer = lambda heard: {
        "/v1/models": (200, {"data": [{"id": "qwen"}]}),
        "/api/v0/models": (200, {"data": [{"id": "qwen", "max_context_length": 32768, "state": "loaded"}]}),
    }[heard.path]
    assert listed("lm-studio", server) == {"qwen": (None, None, 32768)}


@pytest.mark.parametrize(("status", "is_kept"), [(404, True), (401, True), (500, False), (429, False)])
def test_a_second_list_that_fails_does_not_unprice_the_catalog(server, status, is_kept):
    """Absent is an answer; broken is not, and the sync keeps yesterday's prices."""
    server.answer = lambda heard: (200, LIST) if heard.path == "/v1/models" else (status, {"error": {"message": "no"}})
    if is_kept:
        assert listed("xai", server) == {"alpha": (None, None, None)}
    else:
        with pytest.raises(errors.ProviderError):
            listed("xai", server)


def listed(name, server):
    preset = presets.every()[name]
    address = preset.base_url.replace("https://", "http://")
    net.configure(net.Policy(hosts={urlsplit(address).netloc: ("127.0.0.1", server.port)}))
    client = registry.create(preset.client, base_url=address, api_key=GOOD_KEY, options=preset.features())
    models = async_to_sync(client.list_models)().models
    return {model.model_id: (model.prices.input, model.prices.output, model.context_window) for model in models}


# -- The form --------------------------------------------------------------------------------------------------------


def test_the_gallery_shows_the_best_known_first_and_folds_the_rest(alice_client, rows):
    page = alice_client.get("/accounts/add/", headers=HTMX).content.decode()
    front, _, folded = page.partition('<details class="add-account__presets"')
    assert "Custom endpoint" in front
    assert front.index("OpenRouter") < front.index("Ollama") < front.index("Custom endpoint")
    assert "Groq" not in front
    assert "Groq" in folded
    assert "more presets…" in folded


def test_a_preset_says_what_it_needs_where_its_key_is_and_which_headers_it_knows(alice_client, rows):
    row = rows.get(name="openai")
    page = alice_client.get(f"/accounts/add/?provider={row.pk}", headers=HTMX).content.decode()
    assert "A secret key of a project; it starts with sk-." in page
    assert 'href="https://platform.openai.com/api-keys"' in page
    assert 'href="https://platform.openai.com/docs"' in page
    assert "OpenAI knows OpenAI-Organization, OpenAI-Project." in page
    assert 'name="base_url"' not in page
    assert '<details class="add-account__presets" open>' in page


def test_a_local_preset_asks_where_and_gets_a_private_provider_of_its_dialect(alice, alice_client, rows, server):
    row = rows.get(name="lm-studio")
    page = alice_client.get(f"/accounts/add/?provider={row.pk}", headers=HTMX).content.decode()
    assert 'value="http://localhost:1234/v1"' in page
    data = {"provider": row.pk, "base_url": "http://local.internal/v1/chat/completions", "label": ""}
    response = add(alice_client, data)
    assert response.status_code == 200, response.content.decode()
    account = ProviderAccount.objects.get()
    own = account.provider
    assert (own.owner, own.base_url, own.display_name, own.monogram) == (
        alice,
        "http://local.internal/v1",
        "LM Studio",
        "Lm",
    )
    assert own.features == {"key_optional": True, "details": {"path": "/api/v0/models", "id": "id"}}
    assert account.label == "LM Studio"
    row.refresh_from_db()
    assert row.base_url == "http://localhost:1234/v1"
    assert "http://local.internal/v1/chat/completions" in response.content.decode()


def test_S5_a_local_address_nobody_allowed_is_refused_beside_its_field(alice_client, rows, server):
    row = rows.get(name="ollama")
    data = {"provider": row.pk, "base_url": "http://localhost:11434/v1"}
    response = alice_client.post("/accounts/create/", data, headers=HTMX)
    assert response.status_code == 422
    assert 'id="id_base_url_error"' in response.content.decode()
    assert server.requests == []
    assert not ProviderAccount.objects.exists()


@pytest.mark.parametrize(
    ("typed", "base"),
    [
        ("api.example.org", "https://api.example.org/v1"),
        ("api.example.org/", "https://api.example.org/v1"),
        ("api.example.org/v1", "https://api.example.org/v1"),
        ("//api.example.org/v1", "https://api.example.org/v1"),
        ("https://api.example.org/v1/", "https://api.example.org/v1"),
        ("https://api.example.org/v1/chat/completions", "https://api.example.org/v1"),
        ("https://api.example.org/v1/chat/completions/", "https://api.example.org/v1"),
        ("  POST https://api.example.org/v1/chat/completions \n", "https://api.example.org/v1"),
        ("curl 'https://api.example.org/v1/models'", "https://api.example.org/v1"),
        ('"https://api.example.org/v1",', "https://api.example.org/v1"),
        ("https://api.example.org/openai/v1/responses", "https://api.example.org/openai/v1"),
        ("https://api.example.org/v1/messages", "https://api.example.org/v1"),
        ("https://api.example.org/v1/audio/speech", "https://api.example.org/v1"),
        ("https://api.example.org/api/v3/openai", "https://api.example.org/api/v3/openai"),
        ("local.internal", "http://local.internal/v1"),
        ("local.internal/api/chat", "http://local.internal/v1"),
        ("http://local.internal/api/tags", "http://local.internal/v1"),
        ("https:/api.example.org/v1", "https://api.example.org/v1"),
        ("https//api.example.org/v1", "https://api.example.org/v1"),
        ("HTTPS:api.example.org/v1", "https://api.example.org/v1"),
    ],
)
def test_what_was_pasted_becomes_the_base_that_was_meant(server, typed, base):
    assert tidy_address(typed) == base


@pytest.mark.parametrize("typed", ["ftp:/bad", "file:/etc/passwd", "http", "https:", "https:/", "https://"])
def test_what_is_no_web_address_is_told_how_one_begins(alice_client, typed):
    page = alice_client.post("/accounts/address/", {"base_url": typed}).content.decode()
    assert "https://" in page or "host name" in page
    assert "port" not in page


@pytest.mark.parametrize(
    ("typed", "scheme"),
    [
        ("ollama:11434", "http"),
        ("box.lan:8080", "http"),
        ("box.local", "http"),
        ("192.168.1.5:1234", "http"),
        ("api.example.org:8443", "https"),
        ("internal.example.org", "https"),
    ],
)
def test_a_host_without_a_scheme_gets_the_likely_one(monkeypatch, typed, scheme):
    seen = []
    monkeypatch.setattr("providers.forms.net.parse_base_url", lambda text: seen.append(text) or text)
    tidy_address(typed)
    assert seen == [f"{scheme}://{typed}"]
