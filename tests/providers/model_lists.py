"""What every OpenAI-ish list in shared/data says, noted from the raw files before a client read them.

Made with throw-away scripts that know no client: they walked to the keys that upstreams.md §3.0 names, multiplied the
figures by the unit given there, as decimal text, and counted. Never regenerate it from the client.

`preset` is a preset's name, or the address a user would enter for a provider that has none. `counts` are rows,
distinct ids, ids with a known price for input tokens, ids with a known context. A row is (input, output, cache read)
in USD per 1M tokens as text, and the context in tokens; None is unknown.
"""

from __future__ import annotations

from typing import NamedTuple

Row = tuple[str | None, str | None, str | None, int | None]


class ModelFile(NamedTuple):
    preset: str
    counts: tuple[int, int, int, int]
    rows: dict[str, Row]


def _plain(*ids: str) -> dict[str, Row]:
    return dict.fromkeys(ids, (None, None, None, None))


LISTS: dict[str, ModelFile] = {
    # 672 rows are llm or have no type; `auto` is variable, two have the placeholder {2, 0}
    "models-aihubmix-api-v1.json": ModelFile(
        "aihubmix",
        (805, 805, 669, 259),
        {
            "auto": (None, None, None, 1_000_000),
            "gpt-4o-mini-global": ("0.15", "0.6", "0.075", None),
            "claude-instant-1": ("1.793", "1.793", None, None),
            "aihubmix-Mistral-large-2407": ("3", "9", None, None),
            "gemini-3-flash-preview-search": ("0.5", "3", "0.05", 1_048_576),
            "gpt-5.4-mini": ("0.75", "4.5", "0.075", 400_000),
            "gemini-2.5-flash-image-preview": (None, None, None, 32_800),  # image_generation: a placeholder
        },
    ),
    "models-aihubmix-v1.docs-sample.json": ModelFile("https://relay.test/v1", (1, 1, 0, 0), _plain("gpt-4o-mini")),
    # five routers say -1
    "models-openrouter.json": ModelFile(
        "openrouter",
        (344, 344, 339, 344),
        {
            "thinkingmachines/inkling": ("1", "4.05", "0.17", 1_048_576),
            "openai/gpt-4": ("30", "60", None, 8_191),
            "openai/gpt-5-mini": ("0.25", "2", "0.025", 400_000),
            "google/gemini-2.5-pro": ("1.25", "10", "0.125", 1_048_576),
            "nvidia/nemotron-3-nano-30b-a3b": ("0.05", "0.2", None, 262_144),
        },
    ),
    "models-openrouter-2025-09.json": ModelFile(
        "openrouter",
        (326, 326, 325, 326),
        {
            "agentica-org/deepcoder-14b-preview": ("0.015", "0.015", None, 96_000),
            "nousresearch/hermes-4-70b": ("0.09329544", "0.3733632", None, 131_072),
            "moonshotai/kimi-vl-a3b-thinking": ("0.02498985", "0.100008", None, 131_072),
            "openai/gpt-4o": ("2.5", "10", "1.25", 128_000),
            "z-ai/glm-4.5v": ("0.5", "1.8", None, 65_536),
        },
    ),
    "models-atlascloud.json": ModelFile(
        "https://api.atlascloud.test/v1",
        (30, 30, 30, 30),
        {
            "Qwen/Qwen3-235B-A22B-Instruct-2507": ("0.35", "1.2", None, 262_144),
            "openai/gpt-oss-120b": ("0.1", "0.5", None, 131_072),
            "claude-3-5-haiku-20241022": ("0.9", "4.5", None, 131_072),
            "deepseek-ai/DeepSeek-V3.1": ("0.45", "1.5", None, 65_535),
            "claude-opus-4-1-20250805-thinking": ("13.5", "67.5", None, 131_072),
        },
    ),
    # one row's price is the empty text
    "models-baseten.json": ModelFile(
        "https://inference.baseten.test/v1",
        (11, 11, 10, 11),
        {
            "Qwen/Qwen3-235B-A22B-Instruct-2507": ("0.22", "0.8", None, 262_144),
            "openai/gpt-oss-120b": ("0.1", "0.5", None, 128_072),
            "deepseek-ai/DeepSeek-R1-0528": ("2.55", "5.95", None, 163_840),
            "meta-llama/Llama-4-Maverick-17B-128E-Instruct": ("0.19", "0.72", None, 1_000_000),
            "moonshotai/Kimi-K2-Instruct": ("0.6", "2.5", None, 131_000),
        },
    ),
    "models-cerebras.json": ModelFile(
        "https://api.cerebras.test/v1", (3, 3, 0, 0), _plain("gpt-oss-120b", "zai-glm-4.7", "gemma-4-31b")
    ),
    # the same keys as OpenRouter, another unit
    "models-chutes-merged.json": ModelFile(
        "chutes",
        (66, 66, 66, 66),
        {
            "ArliAI/QwQ-32B-ArliAI-RpR-v1": ("0.01", "0.040003199999999996", None, 32_768),
            "deepseek-ai/DeepSeek-V3.1": ("0.1999188", "0.800064", None, 163_840),
            "Qwen/Qwen3-32B": ("0.017992692", "0.07200575999999999", None, 40_960),
            "Qwen/Qwen3-235B-A22B-Thinking-2507": ("0.077968332", "0.31202496", None, 262_144),
            "zai-org/GLM-Z1-32B-0414": ("0.01999188", "0.08000639999999999", None, 32_768),
        },
    ),
    # one figure per model, and nobody says for which tokens
    "models-chutes-raw.json": ModelFile(
        "chutes",
        (62, 62, 0, 62),
        {
            "deepseek-ai/DeepSeek-R1": (None, None, None, 163_840),
            "Qwen/Qwen2.5-Coder-32B-Instruct": (None, None, None, 32_768),
            "Qwen/QwQ-32B": (None, None, None, 131_072),
            "agentica-org/DeepCoder-14B-Preview": (None, None, None, 96_000),
            "tplr/TEMPLAR-I": (None, None, None, 2_048),
        },
    ),
    # 40 without metadata
    "models-deepinfra.json": ModelFile(
        "deepinfra",
        (151, 151, 111, 111),
        {
            "Austism/chronos-hermes-13b-v2": ("0.13", "0.13", None, 4_096),
            "mistralai/Mistral-7B-Instruct-v0.1": ("0.05499999999999999", "0.05499999999999999", None, 32_768),
            "google/gemini-2.5-pro": ("0.875", "7", None, 1_000_000),
            "deepseek-ai/DeepSeek-V3-0324-Turbo": ("1", "2.9999999999999996", None, 32_768),
            "Qwen/Qwen3-235B-A22B-Thinking-2507": ("0.13", "0.6", None, 262_144),
            "BAAI/bge-large-en-v1.5": (None, None, None, None),
        },
    ),
    "models-deepseek.json": ModelFile("deepseek", (2, 2, 0, 0), _plain("deepseek-chat", "deepseek-reasoner")),
    "models-fireworks.json": ModelFile(
        "fireworks",
        (37, 37, 0, 32),
        {
            "accounts/fireworks/models/deepseek-r1": (None, None, None, 163_840),
            "accounts/fireworks/models/flux-kontext-pro": (None, None, None, None),
            "accounts/fireworks/models/llama-v3p1-8b-instruct": (None, None, None, 131_072),
            "accounts/fireworks/models/qwen3-30b-a3b": (None, None, None, 131_072),
            "accounts/sentientfoundation/models/dobby-unhinged-llama-3-3-70b-new": (None, None, None, 131_072),
        },
    ),
    # 7 of 10 are priced by the second, not by the token
    "models-friendli.json": ModelFile(
        "https://api.friendli.ai/serverless/v1",
        (10, 10, 3, 10),
        {
            "LGAI-EXAONE/EXAONE-4.0.1-32B": ("0.6", "1", None, 131_072),
            "meta-llama-3.1-8b-instruct": ("0.1", "0.1", None, 131_072),
            "meta-llama-3.3-70b-instruct": ("0.6", "0.6", None, 131_072),
            "Qwen/Qwen3-30B-A3B": (None, None, None, 131_072),
            "deepseek-ai/DeepSeek-R1-0528": (None, None, None, 163_840),
        },
    ),
    "models-gemini-openai-compat.json": ModelFile(
        "https://gemini.test/v1beta/openai",
        (62, 62, 0, 0),
        _plain(
            "models/aqa",
            "models/gemini-2.0-flash-lite",
            "models/gemini-2.5-flash-preview-05-20",
            "models/gemma-3-27b-it",
            "models/veo-3.0-generate-preview",
        ),
    ),
    "models-github-copilot.json": ModelFile(
        "https://copilot.test",
        (24, 24, 0, 21),
        {
            "gpt-4.1": (None, None, None, 128_000),
            "gpt-4o-mini": (None, None, None, 128_000),
            "gpt-4o-2024-05-13": (None, None, None, 128_000),
            "claude-3.5-sonnet": (None, None, None, 90_000),
            "text-embedding-ada-002": (None, None, None, None),
        },
    ),
    # a bare array
    "models-github.json": ModelFile(
        "https://models.github.test/inference",
        (37, 37, 0, 37),
        {
            "openai/gpt-4.1": (None, None, None, 1_048_576),
            "openai/o1": (None, None, None, 200_000),
            "openai/gpt-4o": (None, None, None, 131_072),
            "deepseek/deepseek-r1": (None, None, None, 128_000),
            "microsoft/phi-4-reasoning": (None, None, None, 32_768),
        },
    ),
    "models-groq-2025-09.json": ModelFile(
        "groq",
        (21, 21, 0, 21),
        {
            "allam-2-7b": (None, None, None, 4_096),
            "meta-llama/llama-guard-4-12b": (None, None, None, 131_072),
            "qwen/qwen3-32b": (None, None, None, 131_072),
        },
    ),
    # 12 name prices, two of them for spoken characters
    "models-groq.json": ModelFile(
        "groq",
        (17, 17, 10, 17),
        {
            "meta-llama/llama-prompt-guard-2-22m": ("0.03", "0.03", "0.015", 512),
            "llama-3.1-8b-instant": ("0.05", "0.08", "0.025", 131_072),
            "qwen/qwen3-32b": ("0.29", "0.59", "0.145", 131_072),
            "openai/gpt-oss-120b": ("0.15", "0.6", "0.075", 131_072),
            "openai/gpt-oss-20b": ("0.075", "0.3", "0.0375", 131_072),
            "canopylabs/orpheus-arabic-saudi": (None, None, None, 4_000),
        },
    ),
    # prices per further provider: a row has several, so none
    "models-huggingface.json": ModelFile(
        "https://router.huggingface.test/v1",
        (105, 105, 0, 0),
        _plain(
            "CohereLabs/aya-expanse-32b",
            "Qwen/Qwen2.5-Coder-3B-Instruct",
            "aaditya/Llama3-OpenBioLLM-70B",
            "marin-community/marin-8b-instruct",
            "zai-org/GLM-4.5V",
        ),
    ),
    "models-hyperbolic.json": ModelFile(
        "https://api.hyperbolic.test/v1",
        (24, 24, 0, 19),
        {
            "FLUX.1-dev": (None, None, None, None),
            "Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8": (None, None, None, 262_144),
            "meta-llama/Meta-Llama-3.1-405B": (None, None, None, None),
        },
    ),
    "models-litellm-proxy-v1.json": ModelFile(
        "litellm",
        (37, 37, 0, 0),
        _plain(
            "deepseek-chat", "requesty-deepseek-r1", "venice-pony-realism", "perplexity-sonar", "venice-llama-3.1-405b"
        ),
    ),
    "models-lmstudio.json": ModelFile(
        "lm-studio",
        (64, 64, 0, 0),
        _plain(
            "darkidol-longwriter-v13-8b-uncensored-1048k",
            "mistralai_voxtral-mini-3b-2507",
            "qwen2.5-omni-7b",
            "slim-qa-gen-tiny-tool",
            "text-embedding-qwen3-embedding-8b",
        ),
    ),
    # two ids twice
    "models-mistral-2025-09.json": ModelFile(
        "mistral",
        (67, 65, 0, 65),
        {
            "codestral-2411-rc5": (None, None, None, 262_144),
            "codestral-2508": (None, None, None, 256_000),
            "devstral-small-2505": (None, None, None, 131_072),
            "mistral-tiny": (None, None, None, 32_768),
            "open-mixtral-8x7b": (None, None, None, 32_768),
        },
    ),
    "models-moonshot.json": ModelFile(
        "https://api.moonshot.test/v1",
        (12, 12, 0, 0),
        _plain(
            "kimi-k2-0711-preview",
            "kimi-latest",
            "moonshot-v1-128k-vision-preview",
            "moonshot-v1-8k",
            "moonshot-v1-auto",
        ),
    ),
    # 187 name a price per token, 8 of them speak
    "models-naga.json": ModelFile(
        "https://api.naga.test/v1",
        (235, 235, 179, 168),
        {
            "claude-sonnet-5": ("1", "5", "0.1", 1_000_000),
            "gemini-3.1-flash-image": ("0.25", "1.5", None, 131_072),
            "qwen3-vl-235b-a22b-thinking": ("0.35", "4.2", None, 262_144),
            "glm-4.6": ("0.25", "0.875", None, 202_752),
            "codestral-2501": ("0.15", "0.45", None, None),
            "eleven-multilingual-v1": (None, None, None, None),
        },
    ),
    "models-nebius.json": ModelFile(
        "https://api.nebius.test/v1",
        (65, 65, 0, 0),
        _plain(
            "BAAI/bge-en-icl",
            "Qwen/Qwen2.5-VL-72B-Instruct",
            "black-forest-labs/flux-schnell",
            "meta-llama/Llama-Guard-3-8B",
            "zai-org/GLM-4.5-Air",
        ),
    ),
    "models-newapi-relay.json": ModelFile(
        "one-api", (5, 5, 0, 0), _plain("gpt-5.6", "gpt-5.5", "gpt-5.4", "gpt-5.4-mini", "gpt-5.3-codex")
    ),
    # 1/10000 USD per 1M tokens: 7000 is $0.70
    "models-novita.json": ModelFile(
        "https://api.novita.test/v3/openai",
        (59, 59, 59, 59),
        {
            "Sao10K/L3-8B-Stheno-v3.2": ("0.05", "0.05", None, 8_192),
            "zai-org/glm-4.5v": ("0.6", "1.8", None, 65_536),
            "baidu/ernie-4.5-vl-424b-a47b": ("0.42", "1.25", None, 123_000),
            "qwen/qwen3-coder-480b-a35b-instruct": ("0.35", "1.5", None, 262_144),
            "moonshotai/kimi-k2-instruct": ("0.57", "2.3", None, 131_072),
        },
    ),
    "models-nscale.json": ModelFile(
        "https://inference.nscale.test/v1",
        (24, 24, 0, 0),
        _plain(
            "Qwen/Qwen3-235B-A22B",
            "Qwen/Qwen2.5-Coder-3B-Instruct",
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
            "meta-llama/Llama-3.1-8B-Instruct",
            "ByteDance/SDXL-Lightning-8step",
        ),
    ),
    "models-nvidia-nim.json": ModelFile(
        "https://integrate.nvidia.test/v1",
        (148, 148, 0, 0),
        _plain(
            "01-ai/yi-large",
            "ibm/granite-3.0-8b-instruct",
            "microsoft/phi-4-mini-flash-reasoning",
            "nvidia/mistral-nemo-minitron-8b-8k-instruct",
            "zyphra/zamba2-7b-instruct",
        ),
    ),
    "models-ollama-v1.json": ModelFile(
        "ollama",
        (11, 11, 0, 0),
        _plain(
            "dengcao/Qwen3-Embedding-4B:Q8_0", "codegemma:7b", "git-commit:latest", "deepseek-r1:14b", "llama3.2:latest"
        ),
    ),
    # two ids twice
    "models-omniroute.json": ModelFile(
        "https://omniroute.test/v1",
        (231, 229, 0, 227),
        {
            "auto/best-coding": (None, None, None, 1_048_576),
            "auto/vision": (None, None, None, 1_048_576),
            "kc/openrouter/free": (None, None, None, 128_000),
            "kilocode/openai/gpt-5.4-mini": (None, None, None, 400_000),
            "kc/google/gemini-3-flash-preview": (None, None, None, 1_000_000),
        },
    ),
    "models-openai.json": ModelFile(
        "openai",
        (83, 83, 0, 0),
        _plain("babbage-002", "gpt-4.1-mini", "gpt-4o-mini-tts", "o1-2024-12-17", "whisper-1"),
    ),
    "models-parasail.json": ModelFile(
        "https://api.parasail.test/v1",
        (34, 34, 0, 0),
        _plain(
            "deepseek-chat",
            "parasail-gemma3-27b-it",
            "parasail-mistral-small-32-24b",
            "parasail-skyfall-36b-v2-fp8",
            "positron-internal-rocinante12b",
        ),
    ),
    "models-poe.json": ModelFile(
        "poe",
        (287, 287, 0, 0),
        _plain("Aya-Expanse-32B", "GPT-3.5-Turbo-Instruct", "Kling-2.1-Pro", "QwQ-32B-Preview-T", "remove-background"),
    ),
    "models-pollinations.json": ModelFile(
        "https://text.pollinations.test/openai",
        (17, 17, 0, 0),
        _plain("bidara", "midijourney", "openai", "openai-reasoning", "unity"),
    ),
    # cache prices of 0 beside a real price are "not set"
    "models-redpill.json": ModelFile(
        "https://api.redpill.test/v1",
        (220, 220, 220, 220),
        {
            "01-ai/yi-large": ("3", "3", None, 32_768),
            "ai21/jamba-1-5-mini": ("0.2", "0.4", None, 256_000),
            "meta-llama/llama-3-70b-instruct:nitro": ("0.792", "0.792", None, 8_192),
            "anthropic/claude-opus-4": ("15", "75", None, 200_000),
            "xwin-lm/xwin-lm-70b": ("3.75", "3.75", None, 8_192),
        },
    ),
    # numbers per token: 5e-07
    "models-requesty-5.json": ModelFile(
        "requesty",
        (5, 5, 5, 5),
        {
            "netmind/deepseek-ai/DeepSeek-R1-0528": ("0.5", "1", "0.5", 128_000),
            "deepinfra/meta-llama/Llama-3.3-70B-Instruct": ("0.23", "0.4", "0.23", 131_072),
            "google/gemini-2.5-flash-lite-preview-06-17": ("0.1", "0.4", "0.025", 1_048_576),
            "openai/o3:flex": ("1", "4", "0.25", 200_000),
            "google/gemini-2.5-pro": ("1.25", "10", "0.31", 1_048_576),
        },
    ),
    "models-sambanova.json": ModelFile(
        "https://api.sambanova.test/v1",
        (11, 11, 11, 11),
        {
            "DeepSeek-R1-0528": ("5", "7", None, 32_768),
            "Qwen3-32B": ("0.4", "0.8", None, 32_768),
            "Llama-4-Maverick-17B-128E-Instruct": ("0.63", "1.8", None, 131_072),
            "Meta-Llama-3.1-8B-Instruct": ("0.1", "0.2", None, 16_384),
            "E5-Mistral-7B-Instruct": ("0.13", "0", None, 4_096),
        },
    ),
    "models-targon.json": ModelFile(
        "https://api.targon.test/v1",
        (9, 9, 9, 9),
        {
            "Qwen/Qwen3-235B-A22B-Instruct-2507": ("0.12", "0.59", None, 262_144),
            "zai-org/GLM-4.5": ("0.5", "1.8", None, 131_072),
            "moonshotai/Kimi-K2-Instruct": ("0.14", "2.49", None, 63_000),
            "deepseek-ai/DeepSeek-R1": ("0.4", "2", None, 163_840),
            "Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8": ("1", "2", None, 262_144),
        },
    ),
    # a bare array; images, sound and rerankers have no token price
    "models-together.json": ModelFile(
        "together",
        (90, 90, 75, 76),
        {
            "Alibaba-NLP/gte-modernbert-base": ("0.08", "0.08", None, 8_192),
            "zai-org/GLM-4.5-Air-FP8": ("0.2", "1.1", None, 131_072),
            "openai/gpt-oss-120b": ("0.15", "0.6", None, 131_072),
            "deepseek-ai/DeepSeek-R1-0528-tput": ("0.55", "2.19", None, 163_840),
            "meta-llama/Llama-3.2-3B-Instruct-Turbo": (
                "0.060000000000000005",
                "0.060000000000000005",
                None,
                131_072,
            ),
            "meta-llama/Llama-3.1-405B-Instruct": ("3.5", "3.5", None, 4_096),
        },
    ),
    "models-venice.json": ModelFile(
        "https://api.venice.ai/api/v1",
        (13, 13, 13, 13),
        {
            "venice-uncensored": ("0.5", "2", None, 32_768),
            "llama-3.1-405b": ("1.5", "6", None, 65_536),
            "deepseek-r1-671b": ("3.5", "14", None, 131_072),
            "qwen3-4b": ("0.15", "0.6", None, 32_768),
            "dolphin-2.9.2-qwen2-72b": ("0.7", "2.8", None, 32_768),
        },
    ),
    "models-vercel-ai-gateway.json": ModelFile(
        "vercel",
        (78, 78, 78, 78),
        {
            "alibaba/qwen-3-14b": ("0.08", "0.24", None, 40_960),
            "xai/grok-4": ("3", "15", None, 256_000),
            "anthropic/claude-3-opus": ("15", "75", None, 200_000),
            "openai/gpt-4.1": ("2", "8", None, 1_047_576),
            "mistral/mistral-small": ("0.1", "0.3", None, 32_000),
        },
    ),
    "models-xai-v1.json": ModelFile(
        "xai", (8, 8, 0, 0), _plain("grok-2-1212", "grok-3", "grok-3-mini", "grok-4-0709", "grok-2-image-1212")
    ),
}

OTHER_DIALECTS = ("models-anthropic.json", "models-anthropic-capabilities.json", "models-gemini-native.json")
"""Lists of clients of their own, tested with them."""
