"""What every OpenAI-dialect recording in shared/data says, noted from the raw files before a client read them.

Made with throw-away scripts that only split lines and joined strings, and then normalised by hand where upstreams.md
says that a vendor counts otherwise. Never regenerate it from the client: it is what the client is measured against.

`text` is the SHA-256 of the visible text in UTF-8, `reasoning` (length in characters, first 16 digits of its SHA-256),
`usage` (prompt, completion, total, cached, cache-write, reasoning tokens), `cost` the provider's own figure in USD,
`end` "complete", or "error:<our code>" for an error frame in the stream.
"""

from __future__ import annotations

from typing import NamedTuple

NO_TEXT = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
Count = int | None


class Recording(NamedTuple):
    text: str
    length: int
    usage: tuple[Count, Count, Count, Count, Count, Count] | None
    reasoning: tuple[int, str] = (0, "")
    tools: tuple[tuple[str, str, str], ...] = ()
    cost: str | None = None
    finish: str | None = "stop"
    end: str = "complete"
    annotations: int = 0
    done: bool = True


class Refusal(NamedTuple):
    code: str
    permanent: bool
    detail: str
    """How the shown detail begins."""


STREAMS: dict[str, Recording] = {
    "chunks-alibaba-qwen-reasoning.jsonl": Recording(
        "7c7a59b12a79eed8b1048ee8b7da6f6455eb4465768374ba7d738f18b3199b51",
        816,
        (24, 1355, 1379, 0, None, 1084),
        reasoning=(3301, "0aa0c3bc04e95c53"),
    ),
    "chunks-alibaba-tool-call-empty-ids.jsonl": Recording(
        NO_TEXT,
        0,
        (295, 22, 317, 0, None, None),
        tools=(("call_eee11723464a4b9eb8cee71d", "weather", '{"location": "San Francisco"}'),),
        finish="tool_calls",
    ),
    "chunks-azure-empty-first-choices.jsonl": Recording(
        "53f836c9fbdabf17eb44223ac5a576d45dae9abf3f6202b957726864c4506ae5", 19, (15, 78, 93, 0, None, 64)
    ),
    "chunks-deepseek-tool-call.jsonl": Recording(
        NO_TEXT,
        0,
        (339, 83, 422, 320, None, 39),
        reasoning=(191, "e9e5190a993cf891"),
        tools=(("call_00_ioIn7yN9p1ZOMNpDLwd4MgAF", "weather", '{"location": "San Francisco"}'),),
        finish="tool_calls",
    ),
    "chunks-groq-tool-call.jsonl": Recording(
        NO_TEXT,
        0,
        (210, 15, 225, None, None, None),
        tools=(("tk85n1k4m", "weather", "{}"),),
        finish="tool_calls",
    ),
    "chunks-mistral-incremental-tool-call.jsonl": Recording(
        NO_TEXT,
        0,
        (171, 14, 185, 128, None, None),
        tools=(("chatcmpl-tool-9f149c74c42f265b", "webSearchTool", '{"query": "current Berlin weather"}'),),
        finish="tool_calls",
    ),
    "chunks-mistral-thinking-parts.jsonl": Recording(
        "e93dff0d1076b537cd1bd659d14bb77d5fd47db13204a227cb3cd66e81dd454c",
        9,
        (10, 46, 56, None, None, None),
        reasoning=(60, "3ee98375cfe6fe4e"),
    ),
    "chunks-moonshot-kimi-k3.jsonl": Recording(
        "334d016f755cd6dc58c53a86e183882f8ec14f52fb05345887c8a5edd42c87b7",
        6,
        (9, 12, 21, None, None, 7),
        reasoning=(16, "7e3fc13c32e80b57"),
    ),
    # Usage on each of the 8 chunks, cumulative; this recording names no cost.
    "chunks-perplexity-cumulative-usage.jsonl": Recording(
        "8b92600836a081208ca4bd7f8d642cda6784aeec8b20a7a97ce240de5396fcdc", 22, (11, 434, 445, None, None, None)
    ),
    # xAI counts reasoning beside the completion: 1 + 290 = 291, and 12 + 291 = 303. 1466250 / 10^10 USD.
    "chunks-xai-grok3mini-reasoning.jsonl": Recording(
        "185f8db32271fe25f561a6fc938b2e264306ec304eda518007d1764826381969",
        5,
        (12, 291, 303, 11, None, 290),
        reasoning=(20, "77ca8189f8c592ca"),
        cost="0.000146625",
    ),
    # 2 + 340 = 342, and 12 + 342 = 354. 1721250 / 10^10 USD.
    "chunks-xai-text-long.jsonl": Recording(
        "dca61d32363b091bf130e0b539eaa6557a3a035be17a1be1e3dc2c183eafcd2f",
        4,
        (12, 342, 354, 11, None, 340),
        reasoning=(1455, "822137627c2158b3"),
        cost="0.000172125",
    ),
    # The reasoning is there twice, under two names: once counts.
    "sse-aihubmix-claude-reasoning.excerpt.txt": Recording(
        NO_TEXT, 0, (23, 264, 287, 0, 0, None), reasoning=(44, "ed821ce6c3efebc4")
    ),
    "sse-aihubmix-deepseek-reasoning.excerpt.txt": Recording(
        NO_TEXT, 0, (19, 350, 369, 0, None, 179), reasoning=(6, "e9ade926edb4af4a")
    ),
    # Zeros on three chunks, then the figures; no finish reason in the excerpt.
    "sse-aihubmix-gemini-reasoning.excerpt.txt": Recording(
        "74556f5cf169e546b66ee9acf0f9b507430f4131329b6d2470eb70ad9ce0ed48",
        22,
        (17, 496, 513, None, None, 476),
        reasoning=(262, "4118c6a3e445201d"),
        finish=None,
    ),
    "sse-aihubmix-gpt-hidden-reasoning.excerpt.txt": Recording(
        "19742476b8e9ccd58ed39e7a5702d4ccd04b48ab4cb389888c0c71ba8b82b137", 4, (21, 126, 147, 0, None, 42), finish=None
    ),
    "sse-crusoe-vllm.txt": Recording(
        "43f0c4c6d14f478ac3784e79c7b6cb713156c36287a307f056684ca529e4cfe8", 13, (46, 14, 60, 0, None, None)
    ),
    "sse-deepseek-reasoner.txt": Recording(
        "cf0e60278f7fbdc36fdaf5630f08ec831d6d051d936563171e86258ad95ae574",
        40,
        (6, 212, 218, 0, None, 198),
        reasoning=(882, "d29146ea4f40dfde"),
    ),
    # `event: error` at the end, no usage, no [DONE]: the model's own tool call was malformed.
    "sse-groq-error-event.txt": Recording(
        NO_TEXT,
        0,
        None,
        reasoning=(412, "42abcfd444c13a25"),
        finish=None,
        end="error:upstream_error",
        done=False,
    ),
    "sse-groq-reasoning-text.txt": Recording(
        "f61c3c07ce56563107c84af5c4240577447342695396329feab5fdf44a9364ef",
        57,
        (339, 58, 397, None, None, 38),
        reasoning=(176, "82eb5729bf9d4cfe"),
    ),
    "sse-groq-tool-call.txt": Recording(
        NO_TEXT,
        0,
        (304, 49, 353, None, None, 23),
        reasoning=(92, "30d4b14ce07615fa"),
        tools=(("fc_bfb39741-3748-4def-9886-a93fc9c64a90", "get_something_by_name", '{"name":"example"}'),),
        finish="tool_calls",
    ),
    # Usage only under x_groq.
    "sse-groq-web-search.txt": Recording(
        "5490fde476d45615ee50c04a73e65b700d9dfe097bec6443e44a5f4b239f1001",
        200,
        (5003, 359, 5362, None, None, None),
        reasoning=(6255, "f24f84843b889aa0"),
    ),
    "sse-hf-novita-text.txt": Recording(
        "5dd272b4f316b776a7b8e3d0894b37e1e42be3d5d3b204b8a5836cc50597a6b1", 5, (40, 2, 42, None, None, None)
    ),
    "sse-openai-moderation-chunk.txt": Recording(
        "bdff8c417ab50e95e95cce16035a3799c7e00104de4a7b3453f06728c620faf7", 6, (13, 11, 24, 0, None, 0)
    ),
    "sse-openai-parallel-tool-calls.txt": Recording(
        NO_TEXT,
        0,
        (364, 40, 404, 0, None, 0),
        tools=(
            ("call_q2UyBRP7eXNTzAoR8lEhjc9Z", "get_country", "{}"),
            ("call_b51ijcpFkDiTQG1bQzsrmtW5", "get_product_name", "{}"),
        ),
        finish="tool_calls",
    ),
    "sse-openai-text.txt": Recording(
        "181c6ab041aee08ea16d5889cdc166298a48d0674144517bbf3a709bfe825201", 37, (14, 8, 22, 0, None, 0)
    ),
    "sse-openai-tool-call-2.txt": Recording(
        NO_TEXT,
        0,
        (423, 15, 438, 0, None, 0),
        tools=(("call_LwxJUB9KppVyogRRLQsamRJv", "get_weather", '{"city":"Mexico City"}'),),
        finish="tool_calls",
    ),
    "sse-openrouter-advisor-tool.txt": Recording(
        "62dd65ef46e2efb7b7af9968182771167726abd3d8e5e4bdbcf06f2a37dda4e6",
        109,
        (888, 74, 962, 0, 0, 0),
        cost="0.0145476",
    ),
    # The reasoning is there twice, under two names: once counts.
    "sse-openrouter-claude-reasoning.txt": Recording(
        "e93dff0d1076b537cd1bd659d14bb77d5fd47db13204a227cb3cd66e81dd454c",
        9,
        (43, 36, 79, 0, None, 13),
        reasoning=(51, "b66dc085e37f7bac"),
        cost="0.000669",
    ),
    "sse-openrouter-grok4-cached-tokens.txt": Recording(
        "0c4f64036387f98533e92116d4a920dab2fbc018875af0a11dceecd661a14abf",
        284,
        (687, 187, 874, 679, None, 118),
        cost="0.00333825",
    ),
    "sse-openrouter-o3-encrypted-reasoning.txt": Recording(
        "863c7d8a882d2101876c75dfd26b35334e37bf1d00d9bb6c7f8551d86ffb83ca",
        446,
        (9, 104, 113, 0, None, 0),
        cost="0.00085",
    ),
    "sse-openrouter-usage-empty-choices.txt": Recording(
        "334d016f755cd6dc58c53a86e183882f8ec14f52fb05345887c8a5edd42c87b7",
        6,
        (254, 5, 259, 0, 0, 0),
        cost="0.000837",
    ),
    # 19 digits: a float would already be another number.
    "sse-openrouter-web-annotations.txt": Recording(
        "11ddbdd385e1dc4e5318bede392733cccba5102264d20cb6a0723257fcee53b6",
        90,
        (2317, 53, 2370, 0, 0, 0),
        cost="0.0076509169000000005",
        annotations=5,
    ),
    "sse-openrouter-web-search-cost.txt": Recording(
        "574034ab5888a83271fc0c1fd0689944e7935c944ecec31b1db43c59c993f228",
        40,
        (8174, 30, 8204, 0, 0, 0),
        cost="0.0133176",
    ),
    "sse-snowflake-cortex-text.txt": Recording(
        "4b227777d4dd1fc61c6f884f48641d02b4d121d3fd328cb08b5531fcacdabf8a", 1, (22, 5, 27, 0, None, 0), finish=None
    ),
    # <think>…</think> inside the content: the text is what follows the closing tag.
    "sse-together-r1-think-tags.txt": Recording(
        "5c10a5cc7ea3938c7e6a4b76e4410aa70991a6e88427e2e0df5354d174282dd6",
        2557,
        (10, 955, 965, 0, None, None),
        reasoning=(1430, "c5cc0387998c4806"),
    ),
    "sse-zai-glm47-reasoning.txt": Recording(
        "4b227777d4dd1fc61c6f884f48641d02b4d121d3fd328cb08b5531fcacdabf8a",
        1,
        (13, 564, 577, 0, None, 561),
        reasoning=(2173, "960317a214d06504"),
    ),
}

OTHER_DIALECTS = ("anthropic", "gemini-", "gemini3", "openai-responses")
"""Parts of the names of recordings that are not of the OpenAI dialect. (sse-aihubmix-gemini-… is.)"""

REFUSALS: tuple[Refusal, ...] = (
    # line by line of error-bodies.jsonl; the reasons are in upstreams.md §1.6, §2.6, §3.1, §3.2
    Refusal("key_rejected", True, "no key provided (tid:"),
    Refusal("no_balance", True, "Your account balance is insufficient."),
    Refusal("no_balance", True, "Your account balance is insufficient."),
    Refusal("model_not_found", True, "Incorrect model ID."),
    Refusal("model_not_found", True, "No available channel for this model"),
    Refusal("rate_limited", False, "[429]: Model coding-glm-5.2-free rate limited"),
    Refusal("bad_request", True, "Unsupported parameter: 'max_tokens'"),
    Refusal("bad_request", True, "Thinking level MINIMAL is not supported"),
    Refusal("upstream_error", False, "get_adaptor_failed (tid:"),
    Refusal("unexpected_content", True, "…"),  # a wrong path: the address of the endpoint is at fault
    Refusal("no_balance", True, "user quota is not enough"),
    Refusal("model_not_found", True, "当前分组 default 下对于模型 gpt-9 无可用渠道"),
    Refusal("key_rejected", True, "无效的令牌"),
    Refusal("upstream_error", False, "record not found"),  # 200
    Refusal("model_not_found", True, "… (request id:"),
    Refusal("rate_limited", False, "Provider returned error: google/gemini-2.0-flash-exp:free is temporarily"),
    Refusal("content_filtered", True, "Request blocked: prompt injection"),
    Refusal("model_not_found", True, "No endpoints found for anthropic/claude-3.5-sonnet."),
    Refusal("model_not_found", True, "The model `gpt-5.2-proo` does not exist"),
    Refusal("bad_request", True, "Unsupported value: 'messages[0].role'"),
    Refusal("bad_request", True, "Web search options not supported with this model."),
    Refusal("model_not_found", True, "The model `non-existent` does not exist"),
    Refusal("upstream_error", False, "Tool choice is required, but model did not call a tool"),
    Refusal("bad_request", True, "No tool output found for tool call call-a."),
    Refusal("model_not_found", True, "models/nonexistent-model is not found for API version v1beta"),
)

MODEL_LISTS: dict[str, tuple[int, int, int]] = {
    # file: rows, distinct ids, rows that name a price whose unit is known (counted in the raw files by hand)
    "models-aihubmix-api-v1.json": (
        805,
        805,
        669,
    ),  # 672 llm or without a type, less `auto` and two placeholders {2, 0}
    "models-aihubmix-v1.docs-sample.json": (1, 1, 0),
    "models-chutes-raw.json": (62, 62, 0),
    "models-cerebras.json": (3, 3, 0),
    "models-deepinfra.json": (151, 151, 111),  # 40 without metadata
    "models-deepseek.json": (2, 2, 0),
    "models-gemini-openai-compat.json": (62, 62, 0),
    "models-github.json": (37, 37, 0),  # a bare array
    "models-mistral-2025-09.json": (67, 65, 0),  # two ids twice
    "models-omniroute.json": (231, 229, 0),
    "models-openai.json": (83, 83, 0),
    "models-openrouter.json": (344, 344, 339),  # five routers say -1
    "models-openrouter-2025-09.json": (326, 326, 325),
    "models-poe.json": (287, 287, 0),
    "models-requesty-5.json": (5, 5, 5),
    "models-together.json": (90, 90, 75),  # a bare array; 15 image, audio and rerank rows have no token price
    "models-venice.json": (13, 13, 13),
    "models-vercel-ai-gateway.json": (78, 78, 78),
    "models-xai-v1.json": (8, 8, 0),
}
