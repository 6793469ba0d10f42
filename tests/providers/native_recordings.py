"""What every recording of a native protocol in shared/data says, noted from the raw files before a client read them.

Made with throw-away scripts that only split lines and joined strings, and then normalised by hand by upstreams.md §3.4.
Never regenerate it from the clients: it is what they are measured against.

The fields are those of recordings.py; `sealed` counts the signatures and hidden thoughts that must be handed out.
"""

from __future__ import annotations

from typing import NamedTuple

from .recordings import NO_TEXT, Count, Refusal


class Native(NamedTuple):
    text: str
    length: int
    usage: tuple[Count, Count, Count, Count, Count, Count] | None
    reasoning: tuple[int, str] = (0, "")
    tools: tuple[tuple[str, str, str], ...] = ()
    finish: str | None = "stop"
    end: str = "complete"
    annotations: int = 0
    sealed: int = 0


STREAMS: dict[str, Native] = {
    # 6 + 3337 written + 6289 read = 9632: the counts of the delta replace those of the start (2, 3068, 0, 69).
    "chunks-anthropic-cache-cumulative.jsonl": Native(
        "963c1dfa0c8992ceff03252817362242f53002da2ecc5eee501aa65eee05f63a", 62, (9632, 198, 9830, 6289, 3337, 0)
    ),
    # Two iterations, both billed: 408 + 412 = 820, 0 + 264.
    "chunks-anthropic-fallback-iterations.jsonl": Native(
        "2a5065da5cff3fea0730e678342d45e1d410744cce59d491c91a32034da73729", 66, (820, 264, 1084, 0, 0, None)
    ),
    "chunks-anthropic-message-delta-input-tokens.jsonl": Native(
        "9795c5ff8937f23526ccb207a5684c1fc94a7854e19c021b39d944e51f5baef2", 4, (61, 2, 63, None, None, None)
    ),
    # No block at all: what is read is the explanation beside the stop reason.
    "chunks-anthropic-refusal.jsonl": Native(
        "cbe0f2977fa0cd982cb878672303b6223130c04e2a96596dffdded70af43d699",
        110,
        (18, 5, 23, 0, 0, None),
        finish="content_filter",
    ),
    # A relay began again in the middle of a call: what was said stays said, and the second call is whole.
    "chunks-anthropic-spliced-message-start.jsonl": Native(
        NO_TEXT,
        0,
        (17, 65, 82, None, None, None),
        reasoning=(42, "2a7b38120e605b34"),
        tools=(
            ("toolu_first", "test-tool", '{"value":"Spark'),
            ("toolu_second", "test-tool", '{"value":"Sparkle Day"}'),
        ),
        finish="tool_calls",
        sealed=2,
    ),
    "chunks-anthropic-tool-no-args.jsonl": Native(
        "54fc8410f77caa6bbac5f45648ccadbedaeb2b12325f55308b5b972da5227b00",
        35,
        (565, 48, 613, 0, 0, None),
        tools=(("toolu_01QE1WLsSVp5hy5Q3GmGTmjP", "updateIssueList", "{}"),),
        finish="tool_calls",
    ),
    # Iterations: 100 + 55096 read + 181 = 55377 in, 83 + 8 = 91 out; the counts beside them leave the first step out.
    "sse-anthropic-compaction-cache-usage.txt": Native(
        "dec664452ed4c70cf8d69f39c7bd0e293ab26e9b07861f87cfac86b6b29f0050", 8, (55377, 91, 55468, 55096, 0, None)
    ),
    # The start's prompt is all that is known.
    "sse-anthropic-error-midstream.excerpt.txt": Native(
        NO_TEXT,
        0,
        (43, None, None, 0, 0, None),
        reasoning=(134, "6c5b51c78ae085b8"),
        finish=None,
        end="error:overloaded",
    ),
    "sse-anthropic-redacted-thinking.txt": Native(
        "33e0d169251b911c3efe246fc3ae7eefee5090f9a6017f540195e89ab94da4a1", 359, (92, 189, 281, 0, 0, None), sealed=2
    ),
    # Block 4 is the answer's first client tool: number 0.
    "sse-anthropic-server-and-client-tools.txt": Native(
        "e73ac65d75e50e3d79afede47a75df819260c871459c9c45b00c0c602edf516c",
        158,
        (1591, 175, 1766, 0, 0, None),
        tools=(
            (
                "toolu_01EFn5wTNBYA8Reni8rbmnHT",
                "get_exchange_rate",
                '{"from_currency": "USD", "to_currency": "EUR"}',
            ),
        ),
        finish="tool_calls",
    ),
    "sse-anthropic-text.txt": Native(
        "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35", 1, (20, 5, 25, 0, 0, None)
    ),
    "sse-anthropic-thinking.txt": Native(
        "1b0c432c3a48cc2829d6ff2b6e2c0f62881416d4583337d6f8a8a9a48ad73dfc",
        1021,
        (43, 282, 325, 0, 0, None),
        reasoning=(202, "18c2c6e0236da2b1"),
        sealed=1,
    ),
    "sse-anthropic-tool-use.txt": Native(
        NO_TEXT,
        0,
        (543, 40, 583, 0, 0, None),
        tools=(("toolu_01CzN6riCPqw4pVSuTd9Dwn7", "pelican_name_generator", "{}"),),
        finish="tool_calls",
    ),
    # 23 + 132 thoughts = 155. The calls have no ids of their own; ours are made from the answer's.
    "chunks-gemini-vertex-partial-args.jsonl": Native(
        NO_TEXT,
        0,
        (26, 155, 181, 0, None, 132),
        tools=(
            ("call_dqHOab6xGLzWodAPkPuViA4_0", "getWeather", '{"location":"Boston"}'),
            ("call_dqHOab6xGLzWodAPkPuViA4_1", "getWeather", '{"location":"San Francisco"}'),
        ),
        finish="tool_calls",
        sealed=1,
    ),
    # 16 + 32 thoughts = 48.
    "gemini-stream-json-array-no-alt-sse.json": Native(
        NO_TEXT,
        0,
        (60, 48, 108, 0, None, 32),
        tools=(("call_6XJFadi3PJOx-sAPgJ3S6Qs_0", "multiply", '{"y":3,"x":5}'),),
        finish="tool_calls",
        sealed=1,
    ),
    # 66 characters, and a note of 24 where a picture of 69 bytes is.
    "sse-gemini-empty-parts-image.txt": Native(
        "7622a32fdf244b2a8eb80f1eb33e44507d0cd46984d9c5b850d5833e0ef5e375", 90, (16, 1307, 1323, 0, None, 0)
    ),
    # STOP on both frames, and then an error that is no event.
    "sse-gemini-error-mid-stream.txt": Native(
        "28863ffed7e35a7b09baa6b415a54c3340c79738e164ffcf793cf36f9516f467",
        13,
        None,
        finish=None,
        end="error:upstream_error",
    ),
    "sse-gemini-finish-safety.txt": Native(
        "3a2d1afa44d101200100d332f52384e523e7e881b7db0008da228cd94cebdfe1",
        10,
        (10, 66, 76, 0, None, 0),
        finish="content_filter",
    ),
    # 80 + 35 thoughts = 115.
    "sse-gemini-live-usage.txt": Native(
        "d2e46e39a189a6fb9f650e3e537b6f37e315c35bafa2fb838b861f1667ea5cd5", 80, (18, 115, 133, 0, None, 35)
    ),
    "sse-gemini-no-parts-finish.txt": Native(
        "3e8506c8870999553c422d33a767adca78a39310c44e48a2b41a61bc1fdeaab7", 419, (34, 1370, 1404, 0, None, 0)
    ),
    "sse-gemini-prompt-blocked-safety.txt": Native(NO_TEXT, 0, None, finish="content_filter"),
    "sse-gemini-recitation-no-content.txt": Native(
        "6a447319052d270abffe455da1b6b933c703c4b7d524d3762691b624a16d5d43",
        40,
        (9, 261, 270, 0, None, 0),
        finish="content_filter",
        annotations=10,
    ),
    # The prompt shrinks from 15 to 13: the last one counts.
    "sse-gemini-text.txt": Native(
        "c9ba5557ea09feef90011604657255a11621c036b482e8c85fe966f2cf20d0b7", 32, (13, 8, 21, 0, None, 0)
    ),
    # 6 + 168 thoughts = 174.
    "sse-gemini-thinking-tool-call.txt": Native(
        NO_TEXT,
        0,
        (38, 174, 212, 0, None, 168),
        reasoning=(765, "07c91c4e18537a01"),
        tools=(("call_48SHaPHpHKbG-8YPtZCawAk_0", "now", "{}"),),
        finish="tool_calls",
        sealed=1,
    ),
    # 469 + 787 thoughts = 1256.
    "sse-gemini-thinking.txt": Native(
        "8c4308d5109d741f711e414af671ed9e2f61492c45fb0d3e99e5c81007336546",
        1938,
        (34, 1256, 1290, 0, None, 787),
        reasoning=(1575, "1bf501f690cde7d3"),
        sealed=1,
    ),
    # 147 + 360 of its own tool = 507, 108 + 168 thoughts = 276. The code's own signature goes with the code.
    "sse-gemini3-code-execution.txt": Native(
        "42674410e2d3905e9baa43b441b6ce2bf3bfdd2642b94cdb8827f8323ac66867",
        82,
        (507, 276, 783, 0, None, 168),
        sealed=1,
    ),
    # 10 + 202 thoughts = 212.
    "sse-gemini3-tool-call-signature.txt": Native(
        NO_TEXT,
        0,
        (29, 212, 241, 0, None, 202),
        tools=(("call_QUVVadTSNJ6_qtsPvN7J8Q0_0", "get_country", "{}"),),
        finish="tool_calls",
        sealed=1,
    ),
    "sse-gemini3-tool-followup.txt": Native(
        "181c6ab041aee08ea16d5889cdc166298a48d0674144517bbf3a709bfe825201", 37, (257, 8, 265, 0, None, 0)
    ),
}

WHOLE: tuple[Native, ...] = (
    # line by line of native-nonstream-cache-usage.jsonl: 3 + 1111 read = 1114; 3 + 418 written + 1111 read = 1532;
    # Gemini's cached tokens lie inside the prompt, its thoughts (42, 51) beside the 2 of the answer.
    Native("9b9c16fb2b0d33b994d776740e6bfdd3621f3936cd889362b607ff386094d394", 1561, (1114, 406, 1520, 1111, 0, None)),
    Native("1749af1a90f4ff6ac6dfb918f1bb54c7260e247217c30ea12fb4d1e39ca90c88", 164, (1532, 33, 1565, 1111, 418, None)),
    Native("bdff8c417ab50e95e95cce16035a3799c7e00104de4a7b3453f06728c620faf7", 6, (3520, 44, 3564, 3512, None, 42)),
    Native("bdff8c417ab50e95e95cce16035a3799c7e00104de4a7b3453f06728c620faf7", 6, (3520, 53, 3573, 3512, None, 51)),
)

REFUSALS: tuple[Refusal | Native, ...] = (
    # line by line of error-bodies-native.jsonl; two of them are answers, though no happy ones
    Refusal("model_not_found", True, "models/nonexistent-model is not found for API version v1beta"),
    Refusal("model_not_found", True, "models/nonexistent-model is not found for API version v1beta"),
    Refusal("model_not_found", True, "The requested model 'gpt-5.2-proo' does not exist."),
    Refusal("model_not_found", True, "model: claude-sonet-4-5"),
    Refusal("model_not_found", True, "models/gemini-3.6-flahs is not found"),
    Refusal("model_not_found", True, "model: claude-does-not-exist"),
    Refusal("bad_request", True, "This model does not support effort level 'xhigh'."),
    Refusal("bad_request", True, "Invalid 'temperature': decimal below minimum value."),
    Refusal("bad_request", True, "Item 'rs_68c42de022c881948db7ed1cc2529f2e0202c9ad459e0d23' of type 'reasoning'"),
    Refusal("model_not_found", True, "models/gemini-5.0-flash is not found for API version v1,"),
    Refusal("forbidden", True, "Generative Language API has not been used in project 12345678"),
    Refusal("forbidden", True, "$grpcMessage"),
    Native(
        "edcc6834dc8af10c6a9786d36930c115de06a9b2582ea890846455729d207933",
        38,
        (7, 20, 27, 0, None, 0),
        finish="content_filter",
    ),
    Native("2f77668a9dfbf8d5848b9eeb4a7145ca94c6ed9236e4a773f6dcafa5132b2f91", 7, None, finish="content_filter"),
    Refusal("key_rejected", True, "API key not valid."),
    Refusal("rate_limited", False, "You exceeded your current quota"),
    Refusal("key_rejected", True, "API key not valid."),  # inside an array
    Refusal("key_rejected", True, "invalid x-api-key"),
    Refusal("overloaded", False, "Overloaded"),
    Refusal("rate_limited", False, "This request would exceed your organization's rate limit"),
    Refusal("no_balance", True, "monthly spend cap reached"),
    Refusal("no_balance", True, "billing problem"),
    Refusal("too_large", True, "Request exceeds the maximum size"),
)

RETRY_AFTER: dict[int, float] = {15: 34.4}
"""Lines (from 0) of the refusals that name a time, in seconds."""


class Listed(NamedTuple):
    rows: int
    models: int
    contexts: int
    reasoning: int
    vision: int
    types: dict[str, int]


MODEL_LISTS: dict[str, Listed] = {
    # The older shape says nothing but names and dates.
    "models-anthropic.json": Listed(9, 9, 0, 0, 0, {"chat": 9}),
    "models-anthropic-capabilities.json": Listed(9, 9, 9, 9, 9, {"chat": 9}),
    # 8 of 50 rows do not answer generateContent. Seven "-image" and "banana" rows; two lyria and three "-tts" rows;
    # antigravity and three deep-research rows are agents, not chats. 32 of the 42 have "thinking": true.
    "models-gemini-native.json": Listed(50, 42, 42, 32, 0, {"chat": 26, "image": 7, "audio": 5, "other": 4}),
}
