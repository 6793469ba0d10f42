"""catalog.grouping: which ids are the same model, and what a group tells a user.

The pairs were read by eye from the recorded lists of AiHubMix (A), OpenRouter (O), and others (Fireworks F, Groq G,
Google K, DeepInfra D, Together T, Naga N, Vercel V, Mistral M, Chutes C, GitHub H, Nvidia I), with the makers' pages beside
them. A false merge is worse than a missed one: it shows somebody a wrong price.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from catalog import grouping, sync
from catalog.grouping import group_key, offers, price_of
from catalog.models import AccountModel, AggregatorModel, CatalogVersion, ModelGroupRule
from providers.models import Provider, ProviderAccount
from tests.catalog.conftest import listing, model
from usage.models import UsageLog

pytestmark = pytest.mark.slow

SAME = [
    # vendor folders
    ("gpt-4o", "openai/gpt-4o"),  # A O
    ("gpt-4.1", "GPT-4.1"),  # A, Poe
    ("glm-4.6", "z-ai/glm-4.6"),  # A O
    ("glm-4.5", "zai-org/GLM-4.5"),  # A C
    ("minimax-m2.5", "minimax/minimax-m2.5"),  # A O
    ("step-3.5-flash", "stepfun/step-3.5-flash"),  # A O
    ("deepseek-v3.2", "deepseek/deepseek-v3.2"),  # A O
    ("DeepSeek-R1", "deepseek-ai/DeepSeek-R1"),  # A D
    ("gemini-2.5-pro", "models/gemini-2.5-pro"),  # A K
    ("google/gemini-3-flash-preview", "models/gemini-3-flash-preview"),  # O K
    ("mistralai/codestral-2501", "mistral-ai/codestral-2501"),  # O H
    ("openai/gpt-oss-120b", "accounts/fireworks/models/gpt-oss-120b"),  # O F
    ("deepinfra/meta-llama/Llama-3.3-70B-Instruct", "meta-llama/llama-3.3-70b-instruct"),  # Requesty O
    ("netmind/deepseek-ai/DeepSeek-R1-0528", "deepseek/deepseek-r1-0528"),  # Requesty O
    ("unsloth/gemma-3-27b-it", "google/gemma-3-27b-it"),  # C O
    ("chutesai/Devstral-Small-2505", "mistralai/Devstral-Small-2505"),  # C D
    # letter case and separators
    ("deepseek-v3", "DeepSeek-v3"),  # A A
    ("DeepSeek-V3", "deepseek-v3"),  # A A
    ("qwen3-32b", "Qwen/Qwen3-32B"),  # A A
    ("qwen-3-32b", "qwen/qwen3-32b"),  # A O
    ("qwen2.5-72b-instruct", "qwen/qwen-2.5-72b-instruct"),  # A O
    ("claude-opus-4-6", "anthropic/claude-opus-4.6"),  # A O
    ("claude-haiku-4-5", "claude-haiku-4.5-20251001"),  # A N
    ("grok-4-1-fast-reasoning", "grok-4.1-fast-reasoning"),  # A N
    ("nvidia/Llama-3_1-Nemotron-Ultra-253B-v1", "nvidia/llama-3.1-nemotron-ultra-253b-v1"),  # HF I
    ("nvidia/Llama-3_3-Nemotron-Super-49B-v1_5", "nvidia-llama-3.3-nemotron-super-49b-v1.5"),  # C A
    ("accounts/fireworks/models/llama-v3p1-405b-instruct", "meta-llama/llama-3.1-405b-instruct"),  # F O
    ("accounts/fireworks/models/deepseek-v3p1", "deepseek-ai/DeepSeek-V3.1"),  # F D
    ("accounts/fireworks/models/qwen2p5-vl-32b-instruct", "Qwen/Qwen2.5-VL-32B-Instruct"),  # F D
    ("accounts/fireworks/models/glm-4p5-air", "glm-4.5-air"),  # F A
    ("gemma2-9b-it", "google/gemma-2-9b-it"),  # G O
    ("black-forest-labs/FLUX-1.1-pro", "black-forest-labs/FLUX.1.1-pro"),  # D T
    ("meta-llama/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),  # D HF
    ("meta/llama3-70b-instruct", "meta-llama/llama-3-70b-instruct"),  # I O
    # dates of names that were released once, and one spelling of those that stay
    ("claude-3-haiku@20240307", "anthropic/claude-3-haiku"),  # A O
    ("claude-opus-4-5-20251101", "claude-opus-4-5"),  # Anthropic A
    ("claude-3-7-sonnet-20250219", "anthropic/claude-3.7-sonnet"),  # Anthropic O
    ("claude-3-5-sonnet-20241022", "anthropic/claude-3.5-sonnet"),  # Anthropic O
    ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),  # A A
    ("gpt-5.1-2025-11-13", "openai/gpt-5.1"),  # N O
    ("o3-2025-04-16", "o3"),  # OpenAI A
    ("gpt-4o-2024-11-20", "openai/gpt-4o-2024-11-20"),  # A O
    ("google/gemini-2.0-flash-001", "models/gemini-2.0-flash"),  # O K
    ("grok-4-0709", "x-ai/grok-4"),  # N O
    # names that sellers write in their own way
    ("anthropic/claude-4-opus", "anthropic/claude-opus-4"),  # D O
    ("anthropic/claude-4-sonnet", "claude-sonnet-4-20250514"),  # V Anthropic
    ("google/gemini-flash-1.5-8b", "google/gemini-1.5-flash-8b"),  # O D
    ("deepseek/deepseek-chat-v3.1", "deepseek/deepseek-v3.1"),  # O Novita
    ("moonshotai/kimi-k2-0905", "moonshotai/Kimi-K2-Instruct-0905"),  # O T
    ("qwen/qwen3-235b-a22b-2507", "Qwen/Qwen3-235B-A22B-Instruct-2507"),  # O D
    ("meta-llama/llama-4-maverick", "meta-llama/llama-4-maverick-17b-128e-instruct"),  # O G
    ("gpt-5-chat-latest", "openai/gpt-5-chat"),  # A O
    # what AiHubMix puts before a name, and makers' names before their own families
    ("alicloud-deepseek-v3.2", "azure-deepseek-v3.2"),  # A A
    ("aihubmix-Mistral-Large-2411", "mistralai/mistral-large-2411"),  # A O
    ("ahm-Phi-3-5-mini-instruct", "microsoft/phi-3.5-mini-instruct"),  # A I
    ("groq-llama-3.3-70b-versatile", "llama-3.3-70b-versatile"),  # A G
    ("nvidia-nemotron-3-super-120b-a12b", "nvidia/nemotron-3-super-120b-a12b"),  # A O
    ("xiaomi-mimo-v2.5-pro", "xiaomi/mimo-v2.5-pro"),  # A O
    ("moonshot-kimi-k2.5", "moonshotai/kimi-k2.5"),  # A O
    # free offers, among themselves
    ("meta-llama/llama-4-scout:free", "llama-4-scout-17b-16e-instruct:free"),  # O N
    ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B-free", "deepseek/deepseek-r1-distill-llama-70b:free"),  # T O
]

APART = [
    # free, thinking and other variants of a seller
    ("openai/gpt-oss-20b", "openai/gpt-oss-20b:free"),  # O
    ("gpt-4o", "gpt-4o-free"),  # A
    ("anthropic/claude-3.7-sonnet", "anthropic/claude-3.7-sonnet:thinking"),  # O
    ("claude-opus-4-6", "claude-opus-4-6-think"),  # A
    ("gemini-2.5-flash", "gemini-2.5-flash-nothink"),  # A
    ("gemini-2.5-pro", "gemini-2.5-pro-search"),  # A
    ("grok-4-fast-reasoning", "grok-4-fast-non-reasoning"),  # A
    ("openai/gpt-4o", "openai/gpt-4o:extended"),  # O
    ("openai/o3", "openai/o3:flex"),  # Requesty
    ("openai/o3-mini", "openai/o3-mini-high"),  # O
    ("gpt-5.4", "gpt-5.4-high"),  # A
    ("glm-5.1", "coding-glm-5.1"),  # A: for coding tools alone
    ("glm-5", "cc-glm-5"),  # A
    ("gpt-4o-mini", "gpt-4o-mini-global"),  # A
    ("anthropic/claude-opus-4.8", "anthropic/claude-opus-4.8-fast"),  # O
    # sizes and kinds
    ("gpt-4o", "gpt-4o-mini"),
    ("gpt-4.1-mini", "gpt-4.1-nano"),
    ("gpt-5", "gpt-5-codex"),
    ("qwen3-8b", "qwen3-14b"),
    ("qwen3-1.7b", "qwen3.1-7b"),
    ("qwen3-0.6b", "qwen3-embedding-0.6b"),
    ("qwen3-30b-a3b", "qwen3-coder-30b-a3b-instruct"),
    ("qwen3-235b-a22b-instruct-2507", "qwen3-235b-a22b-thinking-2507"),
    ("llama-3.1-8b-instruct", "llama-3.2-1b-instruct"),
    ("gemini-2.5-flash", "gemini-2.5-flash-lite"),
    ("gemini-2.5-flash", "gemini-2.5-flash-image"),
    ("claude-sonnet-4-5", "claude-opus-4-5"),
    ("deepseek-r1", "deepseek-r1-distill-llama-70b"),
    ("deepseek-r1", "deepseek-r1:14b"),  # Ollama's is a distillation
    ("text-embedding-3-small", "text-embedding-3-large"),
    ("Qwen/Qwen3-14B", "Qwen/Qwen3-14B-Base"),
    ("gpt-3.5-turbo", "gpt-3.5-turbo-16k"),
    ("moonshot-v1-8k", "moonshot-v1-32k"),
    # quantised, cut or hurried
    ("zai-org/GLM-4.5", "zai-org/GLM-4.5-FP8"),  # C
    ("Qwen/Qwen3-32B", "qwen/qwen3-32b-fp8"),  # Novita
    ("meta-llama/Llama-3.3-70B-Instruct", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),  # D
    ("deepseek-ai/DeepSeek-R1-0528", "deepseek-ai/DeepSeek-R1-0528-Turbo"),  # D
    ("Qwen/Qwen3-32B", "Qwen/Qwen3-32B-fast"),  # Nebius
    ("osmosis-structure-0.6b@q5_k_m", "osmosis-structure-0.6b@q8_0"),  # LM Studio
    ("Qwen/Qwen3-235B-A22B-Instruct-2507", "Qwen/Qwen3-235B-A22B-Instruct-2507-tput"),  # T
    ("meta-llama/llama-3-8b-instruct", "meta-llama/llama-3-8b-instruct-awq"),  # Redpill
    # releases
    ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06"),
    ("gpt-4o", "gpt-4o-2024-05-13"),
    ("claude-3-5-sonnet-20240620", "claude-3-5-sonnet-20241022"),
    ("deepseek-v3", "deepseek-v3-0324"),
    ("deepseek-r1", "deepseek-r1-0528"),
    ("moonshotai/kimi-k2", "moonshotai/kimi-k2-0905"),
    ("mistral-large-2407", "mistral-large-2411"),
    ("gemini-2.5-pro-preview-05-06", "gemini-2.5-pro-preview-06-05"),
    ("qwen/qwen3-235b-a22b", "qwen/qwen3-235b-a22b-2507"),
    ("gemini-1.5-flash-001", "gemini-1.5-flash-002"),
    ("gpt-3.5-turbo-0613", "gpt-3.5-turbo-1106"),
    ("qwen-plus", "qwen-plus-2025-07-28"),
    ("glm-4.5", "glm-4.6"),
    ("claude-2", "claude-2.1"),
    ("grok-4", "grok-4.20"),
    ("gpt-4-turbo", "gpt-4-turbo-preview"),
    # somebody else's folder may hold anything
    ("llama-3.3-70b-instruct", "my-lab/llama-3.3-70b-instruct"),
    ("qwen/qwq-32b", "arliai/qwq-32b-arliai-rpr-v1"),
    ("openai/gpt-oss-120b", "phala/gpt-oss-120b"),  # Redpill: inside an enclave
]

IN_NONE = [
    "auto",  # A: picks a model
    "openrouter/auto",
    "openrouter/free",
    "~openai/gpt-latest",
    "~anthropic/claude-sonnet-latest",
    "mistralai/mistral-large",  # moves, and at each seller in its own time
    "mistral/mistral-large",
    "deepseek-chat",
    "cohere/command-r",
    "x-ai/grok-2",
    "meta-llama/Meta-Llama-3.1-405B",  # Hyperbolic: the raw one; Poe: the one that chats
    "Llama-3.1-405B",
    "evil",
    "openai",
    "V3",
    "embedding-2",
    "",
    "///",
    "openai/",
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_model_has_the_same_key(one, other):
    assert group_key(one) == group_key(other) != ""


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_is_not_surely_the_same_stays_apart(one, other):
    assert group_key(one) != group_key(other)


@pytest.mark.parametrize("model_id", IN_NONE)
def test_what_names_no_one_model_is_in_no_group(model_id):
    assert group_key(model_id) == ""


def test_the_table_is_long_enough_and_names_no_pair_twice():
    pairs = [frozenset(pair) for pair in (*SAME, *APART)]
    assert len(SAME) >= 55 and len(APART) >= 55 and len(pairs) == len(set(pairs))


@pytest.mark.parametrize(
    ("model_id", "key"),
    [
        ("openai/gpt-4o", "gpt-4o"),
        ("anthropic/claude-3.5-sonnet", "claude-sonnet-3.5"),
        ("gpt-4o-2024-11-20", "gpt-4o-20241120"),
        ("qwen/qwen3-235b-a22b-2507", "qwen-3-235b-a22b-instruct-2507"),
        ("gpt-4o-free", "gpt-4o:free"),
        ("my-lab/Llama_3.3-70B", "my-lab/llama-3.3-70b-instruct"),
        ("模型-4", "模型-4"),
        ("x" * 301, ""),
    ],
)
def test_keys_can_be_read(model_id, key):
    assert group_key(model_id) == key


# -- Over everything that was recorded -------------------------------------------------------------------------------

RECORDINGS = Path(settings.BASE_DIR).parent / "shared" / "data"
TRAITS = re.compile(
    r"free|think(?:ing)?|nothink|non-reasoning|reasoning|search|mini|nano|lite|turbo|fast|flash|pro|max|plus|high|low|coder"
    r"|code|vl|vision|audio|tts|image|embed(?:ding)?s?|base|fp8|fp16|bf16|awq|gptq|int4|int8|q\d\w*|distill|preview|exp|beta|ocr"
    r"|guard|realtime|transcribe|live|\d+(?:\.\d+)?[bk]|a\d+b|\d+x\d+b"
)
WORDS = re.compile(r"[a-z0-9.]+")


def traits(model_id: str) -> frozenset[str]:
    """The words of an id that make it another model or another offer, found without any of the code under test."""
    name = re.sub(r"(?<=\d)p(?=\d)", ".", model_id.lower().rsplit("/", 1)[-1])
    return frozenset(word for word in WORDS.findall(name.replace(":", "-").replace("_", "-")) if TRAITS.fullmatch(word))


def recorded() -> dict[str, set[str]]:
    """Key → every recorded id of it."""
    found = defaultdict(set)
    for file in RECORDINGS.glob("models-*.json"):
        document = json.loads(file.read_text())
        rows = document if isinstance(document, list) else document.get("data") or document.get("models") or document
        for row in rows.values() if isinstance(rows, dict) else rows:
            name = row.get("id") or row.get("model_id") or row.get("name")
            found[group_key(name)].add(name)
    return found


SIZE_LEFT_OUT = {
    # keys whose sellers leave out a size that only one model of that name has
    "llama-4-maverick-17b-128e-instruct",
    "llama-4-scout-17b-16e-instruct",
    "llama-4-scout-17b-16e-instruct:free",
    "qwen-3-coder-480b-a35b-instruct",
    "qwen-3-coder-480b-a35b-instruct:free",
}


@pytest.mark.recordings
def test_no_recorded_group_mixes_sizes_variants_or_precisions():
    groups = recorded() if RECORDINGS.is_dir() else pytest.skip("no recordings here")
    groups.pop("")
    assert sum(len(ids) > 1 for ids in groups.values()) > 350, "the recorded lists do hold the same models"
    mixed = {
        key: sorted(ids)
        for key, ids in groups.items()
        if len({traits(name) for name in ids}) > 1 and key not in SIZE_LEFT_OUT
    }
    assert mixed == {}


# -- In the catalog --------------------------------------------------------------------------------------------------


@pytest.fixture
def other(db):
    return Provider.objects.create(name="other", display_name="Other", base_url="http://other.test/v1")


@pytest.fixture
def second(other, alice):
    return ProviderAccount.objects.create(owner=alice, provider=other, label="Alice at Other", status="valid")


@pytest.fixture
def sold_twice(account, second, upstream):
    """gpt-4o at two providers: dearer at Lister, where it also has a free offer."""
    upstream(
        listing(model("openai/gpt-4o", "2.5", "10"), model("openai/gpt-4o:free", "0", "0"), model("auto")), account
    )
    upstream(listing(model("gpt-4o", "2", "9"), model("GPT-4o-mini", "0.15", "0.6")), second)
    ProviderAccount.objects.filter(pk=account.pk).update(status="valid")
    sync.sync_account(account)
    sync.sync_account(second)
    return AggregatorModel.objects.get(model_id="openai/gpt-4o")


def keys():
    return dict(AggregatorModel.objects.values_list("model_id", "group_key"))


def test_a_sync_writes_the_groups_in_its_one_write(sold_twice):
    assert keys() == {
        "openai/gpt-4o": "gpt-4o",
        "openai/gpt-4o:free": "gpt-4o:free",
        "auto": "",
        "gpt-4o": "gpt-4o",
        "GPT-4o-mini": "gpt-4o-mini",
    }


def test_rows_of_an_earlier_release_get_their_groups_when_it_is_upgraded(sold_twice):
    from importlib import import_module

    from django.apps import apps

    before = keys()
    AggregatorModel.objects.update(group_key="")
    import_module("catalog.migrations.0004_model_groups").group_what_is_there(apps, None)
    assert keys() == before


def test_the_offers_of_a_group_come_with_the_cheapest_in_two_queries(sold_twice, alice):
    with CaptureQueriesContext(
        connection,
    ) as queries:
        found = offers(alice, sold_twice)
        shown = [(o.account.label, o.model.model_id, o.price, o.account.provider.display_name) for o in found.rows]
    assert len(queries) == 2
    # three tokens read for each one written: (3 × 2 + 9) / 4 and (3 × 2.5 + 10) / 4
    assert shown == [
        ("Alice at Other", "gpt-4o", Decimal("3.75"), "Other"),
        ("Alice's key", "openai/gpt-4o", Decimal("4.375"), "Lister"),
    ]
    assert found.cheapest is found.rows[0]
    assert found.healthiest is None, "both are well: neither is healthier"


def test_the_healthiest_is_the_one_that_does_not_rest_and_fails_less(sold_twice, account, second, alice):
    ProviderAccount.objects.filter(pk=second.pk).update(
        cooldown_until=timezone.now() + timedelta(minutes=5), trouble="rate_limited"
    )
    assert offers(alice, sold_twice).healthiest.account == account
    ProviderAccount.objects.update(cooldown_until=None, trouble="")
    record = {(second.pk, "gpt-4o"): (20, 1), (account.pk, "openai/gpt-4o"): (20, 6)}
    assert offers(alice, sold_twice, record=record).healthiest.account == second


def test_a_price_that_varies_or_is_unknown_is_never_the_cheapest(sold_twice, alice):
    AggregatorModel.objects.filter(model_id="gpt-4o").update(price_input=None)
    found = offers(alice, sold_twice)
    assert found.cheapest is None and found.rows[-1].model.model_id == "gpt-4o"
    AggregatorModel.objects.filter(model_id="gpt-4o").update(price_input=0, price_kind="variable")
    assert offers(alice, sold_twice).cheapest is None


@pytest.mark.parametrize(
    ("columns", "price"),
    [
        ({"price_kind": "free"}, Decimal(0)),
        ({"price_kind": "known", "price_input": Decimal(1), "price_output": Decimal(5)}, Decimal(2)),
        ({"price_kind": "known", "price_input": Decimal(1), "price_output": Decimal(5), "price_request": Decimal("0.01")}, None),
        ({"price_kind": "unknown"}, None),
        ({"price_kind": "variable", "price_input": Decimal(1), "price_output": Decimal(5)}, None),
    ],
)  # fmt: skip
def test_prices_are_compared_only_where_they_can_be(columns, price):
    assert price_of(AggregatorModel(**columns)) == price


def test_nobody_sees_the_offers_of_another_users_accounts(sold_twice, bob, bobs_account, upstream):  # A1
    upstream(listing(model("openai/gpt-4o", "2.5", "10")), bobs_account)
    sync.sync_account(bobs_account)
    assert [offer.account for offer in offers(bob, sold_twice).rows] == [bobs_account]
    assert grouping.others_by_key(bob, ["gpt-4o", ""]) == {"gpt-4o": 1}


def test_a_model_in_no_group_has_its_own_accounts_alone(sold_twice, alice, second, upstream):
    upstream(listing(model("auto"), model("gpt-4o", "2", "9")), second)
    sync.sync_account(second)
    auto = AggregatorModel.objects.get(model_id="auto", provider__name="lister")
    assert [offer.model for offer in offers(alice, auto).rows] == [auto]


# -- What staff correct ----------------------------------------------------------------------------------------------

ADD = "/admin/catalog/modelgrouprule/add/"


def correct(client, provider, model_id, group, **more):
    return client.post(
        ADD, {"provider": provider.pk, "model_id": model_id, "group_key": group, "note": "by hand"} | more
    )


def test_a_correction_is_applied_at_once_and_survives_syncs(sold_twice, provider, account, upstream, sam_client):
    version = CatalogVersion.objects.get(provider=provider).version
    assert correct(sam_client, provider, "auto", " GPT-4o ").status_code == 302
    assert keys()["auto"] == "gpt-4o"
    assert CatalogVersion.objects.get(provider=provider).version == version + 1, "lists in memory reload"

    upstream(listing(model("openai/gpt-4o", "2", "10"), model("auto", "7", "8"), model("new")), account)
    sync.sync_account(account)
    assert keys()["auto"] == "gpt-4o"

    rule = ModelGroupRule.objects.get()
    change = f"/admin/catalog/modelgrouprule/{rule.pk}/change/"
    data = {"provider": provider.pk, "model_id": "openai/gpt-4o", "group_key": "", "note": ""}
    assert sam_client.post(change, data).status_code == 302
    assert (keys()["auto"], keys()["openai/gpt-4o"]) == ("", ""), "the one it was for goes back, the other leaves"

    delete = {"action": "delete_selected", "_selected_action": [rule.pk], "post": "yes"}
    sam_client.post("/admin/catalog/modelgrouprule/", delete)
    assert keys()["openai/gpt-4o"] == "gpt-4o" and not ModelGroupRule.objects.exists()


def test_a_correction_says_what_is_wrong_with_it(sold_twice, provider, sam_client):
    page = correct(sam_client, provider, "no-such", "gpt-4o").content.decode()
    assert "lists no such model" in page and not ModelGroupRule.objects.exists()
    page = correct(sam_client, provider, "auto", "x" * 301).content.decode()
    assert "at most 300 characters" in page and keys()["auto"] == ""
    page = sam_client.post(ADD, {"provider": provider.pk, "model_id": "auto", "group_key": "gtp-4o"}, follow=True)
    assert "No other model is in the group “gtp-4o” yet" in page.content.decode()
    page = correct(sam_client, provider, "auto", "gpt-4o").content.decode()
    assert "already exists" in page
    assert "a wrong group shows people a wrong price" in sam_client.get(ADD).content.decode()


def test_one_model_has_one_correction(provider):
    ModelGroupRule.objects.create(provider=provider, model_id="m", group_key="a")
    with pytest.raises(ValidationError):
        ModelGroupRule(provider=provider, model_id="m", group_key="b").full_clean()


# -- On the page -----------------------------------------------------------------------------------------------------


def sellers(client, model):
    return client.get(reverse("catalog:model-sellers", args=[model.pk]))


def used(alice, account, model_id, *statuses, days=0):
    for status in statuses:
        UsageLog.objects.create(
            user_id=alice.pk, account_id=account.pk, model_id=model_id, provider_name="x", status=status,
            started_at=timezone.now() - timedelta(days=days),
        )  # fmt: skip


def test_the_page_shows_all_sellers_the_cheapest_and_the_healthiest(sold_twice, alice, alice_client, account, second):
    used(alice, account, "openai/gpt-4o", "success", "success", "cancelled")
    used(alice, account, "openai/gpt-4o", "error", "error", days=8)
    used(alice, second, "gpt-4o", "success", "error")
    html = sellers(alice_client, sold_twice).content.decode()
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.S)[1:]
    assert [re.findall("cheapest|healthiest", row) for row in rows] == [["cheapest"], ["healthiest"]]
    assert "Alice at Other" in rows[0] and "$2.00" in rows[0] and "$9.00" in rows[0]
    assert "1 of 2 calls failed" in rows[0] and "0 of 2 calls failed" in rows[1]
    assert "this one" in rows[1] and "gpt-4o:free" not in html
    assert "correct it" not in html


def test_a_models_page_names_each_of_your_accounts_once(sold_twice, alice, alice_client, account, second):
    rejected = ProviderAccount.objects.create(
        owner=alice, provider=account.provider, label="Old key", status="invalid", status_reason="The key was refused."
    )
    AccountModel.objects.create(account=rejected, model=sold_twice)
    ProviderAccount.objects.filter(pk=second.pk).update(
        cooldown_until=timezone.now() + timedelta(minutes=9), trouble="rate_limited"
    )
    html = alice_client.get(reverse("catalog:model-detail", args=[sold_twice.pk])).content.decode()
    assert html.count("Your accounts that offer it") == 1 and "several sellers" not in html
    piece = html[html.index('id="sellers"') : html.index('id="probe"')]
    for one in (account, second, rejected):
        assert piece.count(one.get_absolute_url()) == 1, one
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", piece, re.S)[1:]
    assert "Tried last for another" in rows[0] and "The key was refused." in rows[2] and "this one" in rows[2]


def test_a_model_that_is_gone_shows_who_sells_the_same(sold_twice, alice_client):
    AggregatorModel.objects.filter(pk=sold_twice.pk).update(is_available=False)
    html = sellers(alice_client, sold_twice).content.decode()
    assert "Alice at Other" in html and "under another id" not in html and "Grouped as" in html


def test_the_page_says_why_there_is_nothing_to_compare(sold_twice, alice_client, bob_client, sam_client):
    mini = AggregatorModel.objects.get(model_id="GPT-4o-mini")
    assert (
        'None of your accounts sells <code dir="auto">gpt-4o-mini</code> under another id'
        in sellers(alice_client, mini).content.decode()
    )
    auto = AggregatorModel.objects.get(model_id="auto")
    assert "does not say surely enough" in sellers(alice_client, auto).content.decode()
    assert sellers(bob_client, mini).status_code == 404, "no account of Bob's lists it"
    assert sellers(sam_client, mini).status_code == 200 and "Alice" not in sellers(sam_client, mini).content.decode()


def test_the_sidebar_counts_models_as_the_explorer_does_one_for_all_their_sellers(sold_twice, alice_client):
    html = alice_client.get("/models/").content.decode()
    assert re.search(r'id="side-models"[^>]*>4<', html) and "1–4 of 4" in html  # five rows of the catalog
