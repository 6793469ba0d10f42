"""The providers we know: one declaration each. Facts and their sources are in upstreams.md §3.

A preset is data. It becomes a row of `Provider` (`add_missing`), which staff may change; what its dialect needs to know
goes into the row's `features`, read by `providers.clients.declared`. Only a dialect of its own needs a class.
Other packages bring presets by an entry point: docs/adding-a-provider.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from providers.clients import registry

PLAIN_LIST = "ids only: no price, no context"
PER_TOKEN_TEXT = "pricing.*, USD per token as text"  # noqa: S105


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One provider, as the gallery offers it and as its dialect is spoken.

    `models`, `reasoning` and `errors` say in words what the client copes with by itself. `price_shape`, `details`,
    `probe` and `balance` are options of `providers.clients.declared`; without a probe, the key is checked by the
    difference between it and a wrong one, which is honest where nothing better is known.
    """

    name: str
    display_name: str
    monogram: str
    tagline: str
    base_url: str
    needs: str
    """What to paste, as a sentence for the form."""
    documentation_url: str
    keys_url: str = ""
    client: str = "openai_compatible"
    api_standard: Literal["openai", "anthropic", "google", "custom"] = "openai"
    provider_type: Literal["aggregator", "direct"] = "direct"
    key: Literal["needed", "optional", "none"] = "needed"
    asks_address: bool = False
    """Runs on the user's own machine or server: the form asks where. `base_url` is then its usual address."""
    models: str = PLAIN_LIST
    price_shape: str | Mapping[str, str] = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    probe: Mapping[str, Any] = field(default_factory=dict)
    balance: Mapping[str, Any] = field(default_factory=dict)
    reasoning: str = ""
    errors: str = "OpenAI's"
    headers: tuple[str, ...] = ()
    """Optional request headers the provider knows."""
    reports_cost: bool = False

    def features(self) -> dict[str, Any]:
        """What the pages and the client read from the provider's row: only what is set."""
        found: dict[str, Any] = {
            "keyless": self.key == "none",
            "key_optional": self.key == "optional",
            "asks_address": self.asks_address,
            "price_shape": self.price_shape if isinstance(self.price_shape, str) else dict(self.price_shape),
            "details": dict(self.details),
            "probe": dict(self.probe),
            "balance": dict(self.balance),
            "headers": list(self.headers),
            "reports_cost": self.reports_cost,
        }
        return {name: value for name, value in found.items() if value}

    def row(self) -> dict[str, Any]:
        """The columns of its `Provider`."""
        return {
            "name": self.name,
            "display_name": self.display_name,
            "monogram": self.monogram,
            "tagline": self.tagline,
            "base_url": self.base_url,
            "client": self.client,
            "api_standard": self.api_standard,
            "provider_type": self.provider_type,
            "documentation_url": self.documentation_url,
            "keys_url": self.keys_url,
            "features": self.features(),
        }


_ON_YOUR_MACHINE = (
    "Its address, as seen from the machine that runs Switchboard. Whoever runs Switchboard must have allowed it in "
    "OUTBOUND_PRIVATE_TARGETS."
)

BUILT_IN: tuple[Preset, ...] = (
    Preset(
        name="openai",
        display_name="OpenAI",
        monogram="Oa",
        tagline="GPT and o-series, direct",
        base_url="https://api.openai.com/v1",
        needs="A secret key of a project; it starts with sk-.",
        documentation_url="https://platform.openai.com/docs",
        keys_url="https://platform.openai.com/api-keys",
        reasoning="hidden; counted in usage",
        errors="error{message, type, param, code}; 429 is both too fast and insufficient_quota",
        headers=("OpenAI-Organization", "OpenAI-Project"),
    ),
    Preset(
        name="anthropic",
        display_name="Anthropic",
        monogram="An",
        tagline="Claude, direct",
        base_url="https://api.anthropic.com/v1",
        needs="An API key of a workspace; it starts with sk-ant-.",
        documentation_url="https://docs.anthropic.com",
        keys_url="https://console.anthropic.com/settings/keys",
        client="anthropic",
        api_standard="anthropic",
        models="data[] in pages, names and limits, no price",
        reasoning="thinking blocks",
        errors="{type: error, error{type, message}}",
        headers=("anthropic-beta",),
    ),
    Preset(
        name="google",
        display_name="Google Gemini",
        monogram="Ge",
        tagline="Gemini, direct",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        needs="A Gemini API key from AI Studio.",
        documentation_url="https://ai.google.dev/gemini-api/docs",
        keys_url="https://aistudio.google.com/apikey",
        client="google",
        api_standard="google",
        models="models[] in pages, names and limits, no price",
        reasoning="parts marked as thought",
        errors="error{code: int, message, status}",
    ),
    Preset(
        name="together",
        display_name="Together",
        monogram="To",
        tagline="Open models, hosted",
        base_url="https://api.together.ai/v1",
        needs="An API key.",
        documentation_url="https://docs.together.ai",
        keys_url="https://api.together.ai/settings/api-keys",
        models="a bare array with types; pricing.input and .output, USD per 1M tokens; 0 for images and sound",
        price_shape="input_per_million",
        reasoning="delta.reasoning; older models <think> in the text",
    ),
    Preset(
        name="groq",
        display_name="Groq",
        monogram="Gq",
        tagline="Open models, very fast",
        base_url="https://api.groq.com/openai/v1",
        needs="An API key; it starts with gsk_.",
        documentation_url="https://console.groq.com/docs",
        keys_url="https://console.groq.com/keys",
        models=PER_TOKEN_TEXT,
        reasoning="delta.reasoning",
        errors="OpenAI's, and `event: error` inside a stream with status 200",
    ),
    Preset(
        name="deepseek",
        display_name="DeepSeek",
        monogram="Ds",
        tagline="DeepSeek, direct",
        base_url="https://api.deepseek.com/v1",
        needs="An API key; it starts with sk-.",
        documentation_url="https://api-docs.deepseek.com",
        keys_url="https://platform.deepseek.com/api_keys",
        probe={"path": "/user/balance", "expects": "balance_infos"},
        balance={
            "path": "/user/balance",
            "amount": "balance_infos.total_balance",
            "currency_in": "balance_infos.currency",
        },
        reasoning="delta.reasoning_content",
        errors="OpenAI's; 402 is an empty balance",
    ),
    Preset(
        name="deepinfra",
        display_name="DeepInfra",
        monogram="Di",
        tagline="Open models, hosted",
        base_url="https://api.deepinfra.com/v1/openai",
        needs="An API key.",
        documentation_url="https://deepinfra.com/docs",
        keys_url="https://deepinfra.com/dash/api_keys",
        models="metadata.pricing.input_tokens and .output_tokens, USD per 1M tokens; metadata may be null",
        price_shape="deepinfra",
        reasoning="delta.reasoning_content or <think> in the text",
        reports_cost=True,
    ),
    Preset(
        name="fireworks",
        display_name="Fireworks",
        monogram="Fw",
        tagline="Open models, hosted",
        base_url="https://api.fireworks.ai/inference/v1",
        needs="An API key; it starts with fw_.",
        documentation_url="https://docs.fireworks.ai",
        keys_url="https://app.fireworks.ai/settings/users/api-keys",
        models="no price; context_length, may be null",
        errors="OpenAI's; 412 is a suspended account",
    ),
    Preset(
        name="siliconflow",
        display_name="SiliconFlow",
        monogram="Sf",
        tagline="Open models, international account",
        base_url="https://api.siliconflow.com/v1",
        needs="An API key of an account at siliconflow.com; it starts with sk-.",
        documentation_url="https://docs.siliconflow.com",
        keys_url="https://cloud.siliconflow.com/account/ak",
        reasoning="delta.reasoning_content",
        errors="{code: int, message, data}; 401 and 404 are a bare JSON string",
    ),
    Preset(
        name="siliconflow-cn",
        display_name="SiliconFlow (China)",
        monogram="Sf",
        tagline="Open models, account in yuan",
        base_url="https://api.siliconflow.cn/v1",
        needs="An API key of an account at siliconflow.cn; it starts with sk-.",
        documentation_url="https://docs.siliconflow.cn",
        keys_url="https://cloud.siliconflow.cn/account/ak",
        balance={"path": "user/info", "amount": "data.totalBalance", "currency": "CNY"},
        reasoning="delta.reasoning_content",
        errors="{code: int, message, data}; 401 and 404 are a bare JSON string",
    ),
    Preset(
        name="mistral",
        display_name="Mistral",
        monogram="Mi",
        tagline="Mistral, direct",
        base_url="https://api.mistral.ai/v1",
        needs="An API key of a workspace.",
        documentation_url="https://docs.mistral.ai",
        keys_url="https://console.mistral.ai/api-keys",
        models="no price; max_context_length, capabilities; ids repeated",
        reasoning="content parts of type thinking",
        errors="flat: {object: error, message, type, code}; 422 is {detail[]}",
    ),
    Preset(
        name="xai",
        display_name="xAI",
        monogram="Xa",
        tagline="Grok, direct",
        base_url="https://api.x.ai/v1",
        needs="An API key; it starts with xai-.",
        documentation_url="https://docs.x.ai",
        keys_url="https://console.x.ai",
        models="ids; /language-models adds *_text_token_price, 1/10000 USD per 1M tokens",
        price_shape="xai",
        details={"path": "language-models", "id": "id"},
        probe={
            "path": "api-key",
            "expects": "api_key_id",
            "blocked": ["api_key_blocked", "api_key_disabled", "team_blocked"],
        },
        reasoning="delta.reasoning_content; counted beside the completion",
        errors="{code, error: text}",
        reports_cost=True,
    ),
    Preset(
        name="vercel",
        display_name="Vercel AI Gateway",
        monogram="Ve",
        tagline="Many vendors, list prices",
        base_url="https://ai-gateway.vercel.sh/v1",
        needs="An AI Gateway key; it starts with vck_.",
        documentation_url="https://vercel.com/docs/ai-gateway",
        keys_url="https://vercel.com/docs/ai-gateway/authentication-and-byok",
        provider_type="aggregator",
        models="pricing.input and .output, USD per token as text; public",
        probe={"path": "credits", "expects": "balance"},
        balance={"path": "credits", "amount": "balance", "currency": "USD"},
        errors="error{message, type}; 402 insufficient_funds, 403 customer_verification_required",
    ),
    Preset(
        name="requesty",
        display_name="Requesty",
        monogram="Rq",
        tagline="Many vendors, one router",
        base_url="https://router.requesty.ai/v1",
        needs="An API key.",
        documentation_url="https://docs.requesty.ai",
        keys_url="https://app.requesty.ai/api-keys",
        provider_type="aggregator",
        models="input_price, output_price, cached_price, caching_price: numbers, USD per token",
        price_shape="requesty",
        reports_cost=True,
    ),
    Preset(
        name="poe",
        display_name="Poe",
        monogram="Po",
        tagline="Many bots, paid in points",
        base_url="https://api.poe.com/v1",
        needs="An API key. Calls use up points, not dollars.",
        documentation_url="https://creator.poe.com/docs",
        keys_url="https://poe.com/api/keys",
        provider_type="aggregator",
        models=f"{PER_TOKEN_TEXT}, or null; public; created in milliseconds",
        probe={"path": "/usage/current_balance", "expects": "current_point_balance"},
        balance={"path": "/usage/current_balance", "amount": "current_point_balance", "currency": "points"},
    ),
    Preset(
        name="nanogpt",
        display_name="NanoGPT",
        monogram="Na",
        tagline="Many vendors, pay as you go",
        base_url="https://nano-gpt.com/api/v1",
        needs="An API key.",
        documentation_url="https://docs.nano-gpt.com",
        keys_url="https://nano-gpt.com/api",
        provider_type="aggregator",
        models="ids; ?detailed=true adds prices that say their unit; answers any key",
        price_shape="none",
        details={"path": "models?detailed=true", "id": "id"},
        reasoning="delta.reasoning",
        errors="{code, message}",
    ),
    Preset(
        name="chutes",
        display_name="Chutes",
        monogram="Ch",
        tagline="Open models, decentralised",
        base_url="https://llm.chutes.ai/v1",
        needs="An API key; it starts with cpk_.",
        documentation_url="https://chutes.ai/docs",
        keys_url="https://chutes.ai/app/api",
        provider_type="aggregator",
        models="pricing.prompt and .completion, USD per 1M tokens as numbers; max_model_len",
        price_shape="prompt_per_million",
        reasoning="by engine: delta.reasoning or delta.reasoning_content",
    ),
    Preset(
        name="ollama",
        display_name="Ollama",
        monogram="Ol",
        tagline="Your own machine",
        base_url="http://localhost:11434/v1",
        needs=_ON_YOUR_MACHINE,
        documentation_url="https://docs.ollama.com",
        key="optional",
        asks_address=True,
        reasoning="delta.reasoning",
    ),
    Preset(
        name="lm-studio",
        display_name="LM Studio",
        monogram="Lm",
        tagline="Your own machine",
        base_url="http://localhost:1234/v1",
        needs=_ON_YOUR_MACHINE,
        documentation_url="https://lmstudio.ai/docs",
        key="optional",
        asks_address=True,
        models="ids; /api/v0/models adds max_context_length and type",
        details={"path": "/api/v0/models", "id": "id"},
        reasoning="delta.reasoning_content, where switched on",
    ),
    Preset(
        name="vllm",
        display_name="vLLM",
        monogram="vL",
        tagline="Your own server",
        base_url="http://localhost:8000/v1",
        needs=f"{_ON_YOUR_MACHINE} A key only if the server was started with one.",
        documentation_url="https://docs.vllm.ai",
        key="optional",
        asks_address=True,
        models="no price; max_model_len",
        reasoning="delta.reasoning, up to 0.10 delta.reasoning_content",
        errors="OpenAI's with an int code; older ones flat: {object: error, message, code}",
    ),
    Preset(
        name="llama-cpp",
        display_name="llama.cpp",
        monogram="Lc",
        tagline="Your own machine",
        base_url="http://localhost:8080/v1",
        needs=f"{_ON_YOUR_MACHINE} A key only if the server was started with one.",
        documentation_url="https://github.com/ggml-org/llama.cpp/tree/master/tools/server",
        key="optional",
        asks_address=True,
        models="no price; meta.n_ctx",
        reasoning="delta.reasoning_content",
        errors="error{code: int, message, type}; 503 while loading",
    ),
    Preset(
        name="litellm",
        display_name="LiteLLM proxy",
        monogram="Li",
        tagline="Your team's gateway",
        base_url="http://localhost:4000/v1",
        needs=f"The proxy's address and a virtual key of it; it starts with sk-. {_ON_YOUR_MACHINE}",
        documentation_url="https://docs.litellm.ai/docs/simple_proxy",
        provider_type="aggregator",
        asks_address=True,
        models="ids; /model/info adds *_cost_per_token, USD per token, and limits",
        details={"path": "model/info", "id": "model_name"},
        errors="OpenAI's, code is the status as text",
    ),
    Preset(
        name="one-api",
        display_name="one-api, new-api",
        monogram="1a",
        tagline="A relay of your own or a friend's",
        base_url="https://relay.example/v1",
        needs="The relay's address and a token of it; tokens start with sk-.",
        documentation_url="https://docs.newapi.pro",
        provider_type="aggregator",
        asks_address=True,
        probe={"path": "dashboard/billing/subscription", "expects": "hard_limit_usd"},
        balance={
            "path": "dashboard/billing/subscription",
            "amount": "hard_limit_usd",
            "currency": "USD",
            "unlimited": 100_000_000,
            "used": {"path": "dashboard/billing/usage", "amount": "total_usage", "divisor": 100},
        },
        errors="error{message with a request id, type: one_api_error or new_api_error}, often in Chinese",
    ),
)

AGGREGATORS: tuple[Preset, ...] = (
    Preset(
        name="aihubmix",
        display_name="AiHubMix",
        monogram="Ai",
        tagline="Hundreds of models, one bill",
        base_url="https://aihubmix.com/v1",
        needs="An API key; it starts with sk-. A Manage key answers no chats.",
        documentation_url="https://docs.aihubmix.com",
        keys_url="https://aihubmix.com/token",
        client="aihubmix",
        provider_type="aggregator",
        models="/api/v1/models: pricing.*, USD per 1M tokens; types; placeholders on image rows",
        headers=("APP-Code",),
    ),
    Preset(
        name="openrouter",
        display_name="OpenRouter",
        monogram="Or",
        tagline="Hundreds of models, cost per answer",
        base_url="https://openrouter.ai/api/v1",
        needs="An ordinary API key; it starts with sk-or-. A management key answers no chats.",
        documentation_url="https://openrouter.ai/docs",
        keys_url="https://openrouter.ai/settings/keys",
        client="openrouter",
        provider_type="aggregator",
        models="pricing.*, USD per token as text; -1 is variable; conditional prices",
        headers=("HTTP-Referer", "X-OpenRouter-Title"),
        reports_cost=True,
    ),
)
"""Two with classes of their own, which check keys and balances by themselves. Migration 0002 made their rows."""

FRONT = ("aihubmix", "openrouter", "ollama")
"""Presets the gallery shows first; the others unfold."""


def from_packages() -> tuple[Preset, ...]:
    """Presets of installed packages: entry points that name a Preset, a list of them, or something with PRESETS."""
    found: list[Preset] = []
    for loaded in registry.extensions():
        offered = getattr(loaded, "PRESETS", loaded)
        if isinstance(offered, Iterable) and not isinstance(offered, str | bytes | Mapping):
            found += [preset for preset in offered if isinstance(preset, Preset)]
        elif isinstance(offered, Preset):
            found.append(offered)
    return tuple(found)


def every() -> dict[str, Preset]:
    """Name → preset. A package cannot take the name of one of ours."""
    return {preset.name: preset for preset in (*from_packages(), *AGGREGATORS, *BUILT_IN)}


def add_missing(providers: Any, presets: Iterable[Preset]) -> list[str]:
    """Add a row for each preset whose name no built-in provider has; the names added. Rows that exist stay as they are.

    `providers` is the manager of Provider, or of its historical model in a migration.
    """
    taken = set(providers.filter(owner=None).values_list("name", flat=True))
    missing = [preset for preset in presets if preset.name not in taken]
    for preset in missing:
        providers.create(owner=None, **preset.row())
    return [preset.name for preset in missing]
