"""OpenAI-shaped requests as Anthropic Messages and Gemini generateContent take them (upstreams.md §3.4), by table."""

from __future__ import annotations

import base64

import pytest

from providers.clients import registry
from providers.clients.errors import ProviderRefused

from .conftest import KEY

pytestmark = pytest.mark.slow

PNG = base64.b64encode(b"\x89PNG not really").decode()
PDF = base64.b64encode(b"%PDF not really").decode()
ASK = {"role": "user", "content": "hi"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells it",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": True,
    },
}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
        {"id": "call:2", "type": "function", "function": {"name": "now", "arguments": ""}},
    ],
}
ANSWERED = [
    {"role": "tool", "tool_call_id": "toolu_1", "content": "sunny"},
    {"role": "tool", "tool_call_id": "call:2", "content": '{"time": "noon"}'},
    {"role": "user", "content": "thanks"},
]


def client(kind: str, **more):
    made = registry.create(kind, base_url="https://upstream.test", api_key=KEY)
    made.max_output_tokens = more.pop("max_output_tokens", None)
    return made


def anthropic(body: dict, *, stream: bool = True, **more) -> dict:
    _, sent = client("anthropic", **more).chat_request(
        {"model": "claude-sonnet-4-5-20250929", "messages": [ASK], **body}, stream=stream
    )
    return sent


def google(body: dict, *, stream: bool = True) -> dict:
    _, sent = client("google").chat_request({"model": "gemini-2.5-flash", "messages": [ASK], **body}, stream=stream)
    return sent


# --- Anthropic: messages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "system", "turns"),
    [
        pytest.param([ASK], None, [("user", [{"type": "text", "text": "hi"}])], id="the least there is"),
        pytest.param(
            [{"role": "system", "content": "Be brief."}, ASK, {"role": "developer", "content": "And kind."}],
            ["Be brief.", "And kind."],
            [("user", [{"type": "text", "text": "hi"}])],
            id="system and developer are gathered outside the messages",
        ),
        pytest.param(
            [ASK, {"role": "user", "content": "there"}, {"role": "assistant", "content": "Yes? \n"}],
            None,
            [
                ("user", [{"type": "text", "text": "hi"}, {"type": "text", "text": "there"}]),
                ("assistant", [{"type": "text", "text": "Yes?"}]),
            ],
            id="neighbours are merged, a prefill ends in no blanks",
        ),
        pytest.param(
            [ASK, {"role": "assistant", "content": ""}, {"role": "user", "content": [{"type": "text", "text": " \n"}]}],
            None,
            [("user", [{"type": "text", "text": "hi"}])],
            id="empty texts are left out",
        ),
        pytest.param(
            [ASK, CALLED, *ANSWERED],
            None,
            [
                ("user", [{"type": "text", "text": "hi"}]),
                (
                    "assistant",
                    [
                        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
                        {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
                    ],
                ),
                (
                    "user",
                    [
                        {
                            "type": "tool_result",
                            "tool_use_id": "toolu_1",
                            "content": [{"type": "text", "text": "sunny"}],
                        },
                        {
                            "type": "tool_result",
                            "tool_use_id": "call_2",
                            "content": [{"type": "text", "text": '{"time": "noon"}'}],
                        },
                        {"type": "text", "text": "thanks"},
                    ],
                ),
            ],
            id="all results of one turn in one message, before any text, with ids that Anthropic takes",
        ),
        pytest.param(
            [
                ASK,
                {"role": "assistant", "function_call": {"name": "now", "arguments": "not json"}},
                {"role": "function", "name": "now", "content": "noon"},
            ],
            None,
            [
                ("user", [{"type": "text", "text": "hi"}]),
                (
                    "assistant",
                    [{"type": "tool_use", "id": "call_old_1", "name": "now", "input": {"arguments": "not json"}}],
                ),
                (
                    "user",
                    [
                        {
                            "type": "tool_result",
                            "tool_use_id": "call_old_1",
                            "content": [{"type": "text", "text": "noon"}],
                        }
                    ],
                ),
            ],
            id="the functions of old",
        ),
        pytest.param(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "look", "cache_control": {"type": "ephemeral"}},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "high"}},
                        {"type": "image_url", "image_url": "https://pictures.test/a.png"},
                        {
                            "type": "file",
                            "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"},
                        },
                        {
                            "type": "file",
                            "file": {"filename": "a.txt", "file_data": base64.b64encode(b"words").decode()},
                        },
                    ],
                }
            ],
            None,
            [
                (
                    "user",
                    [
                        {"type": "text", "text": "look", "cache_control": {"type": "ephemeral"}},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                        {"type": "image", "source": {"type": "url", "url": "https://pictures.test/a.png"}},
                        {
                            "type": "document",
                            "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                            "title": "a.pdf",
                        },
                        {
                            "type": "document",
                            "source": {"type": "text", "media_type": "text/plain", "data": "words"},
                            "title": "a.txt",
                        },
                    ],
                )
            ],
            id="pictures and files",
        ),
    ],
)
def test_messages_as_anthropic_takes_them(messages, system, turns):
    sent = anthropic({"messages": messages})
    assert [(turn["role"], turn["content"]) for turn in sent["messages"]] == turns
    assert [part["text"] for part in sent.get("system", [])] == (system or [])


# --- Anthropic: fields -----------------------------------------------------------------------------------------------

SONNET, OPUS, HAIKU = "claude-sonnet-4-6", "claude-opus-4-7", "claude-3-haiku-20240307"
TOOL = {
    "name": "weather",
    "description": "Tells it",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {"max_tokens": 4096, "stream": True}),
        ({"max_tokens": 7}, {"max_tokens": 7}),
        ({"max_tokens": 7, "max_completion_tokens": 9}, {"max_tokens": 9}),
        ({"max_tokens": None}, {"max_tokens": 4096}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["a", " \n", "b"]}, {"stop_sequences": ["a", "b"]}),
        ({"stop": "\n"}, {"stop_sequences": None}),
        ({"temperature": 1.7}, {"temperature": 1.0}),
        ({"temperature": 0.2, "top_p": 0.5}, {"temperature": 0.2, "top_p": None}),
        ({"top_p": 0.5, "top_k": 3}, {"top_p": 0.5, "top_k": 3}),
        (
            {"model": OPUS, "temperature": 0.2, "top_p": 0.5, "top_k": 3},
            {"temperature": None, "top_p": None, "top_k": None},
        ),
        ({"user": "u-1"}, {"metadata": {"user_id": "u-1"}}),
        ({"tools": [WEATHER]}, {"tools": [TOOL], "tool_choice": None}),
        (
            {"functions": [{"name": "now"}]},
            {"tools": [{"name": "now", "input_schema": {"type": "object", "properties": {}}}]},
        ),
        ({"tools": [WEATHER], "tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
        ({"tools": [WEATHER], "tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
        ({"tools": [WEATHER], "tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
            {"tool_choice": {"type": "tool", "name": "weather"}},
        ),
        (
            {"tools": [WEATHER], "parallel_tool_calls": False},
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        ({"tool_choice": "required"}, {"tools": None, "tool_choice": None}),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        ),
        ({"response_format": {"type": "text"}}, {"output_config": None, "system": None}),
        (
            {"response_format": {"type": "json_object"}},
            {"system": [{"type": "text", "text": "Answer with one JSON object and nothing else."}]},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        ),
        # thinking: an effort from 4.6 on, a number of tokens from 3.7 on, nothing before
        (
            {"model": SONNET, "reasoning_effort": "high", "temperature": 0.2},
            {
                "thinking": {"type": "adaptive", "display": "summarized"},
                "output_config": {"effort": "high"},
                "temperature": None,
            },
        ),
        ({"model": SONNET, "reasoning_effort": "minimal"}, {"output_config": {"effort": "low"}}),
        ({"model": SONNET, "reasoning_effort": "xhigh"}, {"output_config": {"effort": "max"}}),
        ({"model": SONNET, "reasoning_effort": "none"}, {"thinking": None, "output_config": None}),
        ({"reasoning_effort": "low"}, {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 6144}),
        ({"reasoning": {"max_tokens": 3000}}, {"thinking": {"type": "enabled", "budget_tokens": 3000}}),
        (
            {"reasoning_effort": "high", "max_tokens": 2000},
            {"thinking": {"type": "enabled", "budget_tokens": 1600}, "max_tokens": 2000},
        ),
        ({"reasoning_effort": "high", "max_tokens": 1200}, {"thinking": None, "max_tokens": 1200}),
        ({"model": HAIKU, "reasoning_effort": "high", "temperature": 0.5}, {"thinking": None, "temperature": 0.5}),
        (
            {"model": SONNET, "reasoning_effort": "high", "tools": [WEATHER], "tool_choice": "required"},
            {"thinking": None},
        ),
        # a tool loop whose thinking was lost: the older form would be refused, the newer one would not
        ({"reasoning_effort": "low", "messages": [ASK, CALLED, *ANSWERED]}, {"thinking": None}),
        (
            {"model": SONNET, "reasoning_effort": "low", "messages": [ASK, CALLED, *ANSWERED]},
            {"thinking": {"type": "adaptive", "display": "summarized"}},
        ),
        ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
        (
            {
                **dict.fromkeys(("n", "seed", "frequency_penalty", "presence_penalty", "top_logprobs"), 1),
                "logprobs": True,
                "logit_bias": {"1": 2},
                "service_tier": "flex",
                "metadata": {"a": "b"},
                "store": True,
                "stream_options": {"include_usage": True},
            },
            {
                **dict.fromkeys(("n", "seed", "frequency_penalty", "presence_penalty", "top_logprobs")),
                **dict.fromkeys(("logprobs", "logit_bias", "service_tier", "metadata", "store", "stream_options")),
            },
        ),
    ],
)
def test_fields_as_anthropic_takes_them(body, expected):
    sent = anthropic(body)
    assert {name: sent.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("most", "stream", "expected"),
    [(64_000, True, 64_000), (64_000, False, 21_333), (None, False, 4096), (8192, False, 8192)],
)
def test_max_tokens_is_what_the_catalog_knows_but_bounded_without_a_stream(most, stream, expected):
    assert anthropic({}, stream=stream, max_output_tokens=most)["max_tokens"] == expected


def test_a_budget_stays_below_what_the_model_can_answer():
    sent = anthropic({"reasoning_effort": "high"}, max_output_tokens=8192)
    assert sent["max_tokens"] == 8192
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 6553}


# --- Gemini: contents ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "system", "contents"),
    [
        pytest.param([ASK], None, [("user", [{"text": "hi"}])], id="the least there is"),
        pytest.param(
            [{"role": "system", "content": "Be brief."}, ASK, {"role": "user", "content": "there"}],
            ["Be brief."],
            [("user", [{"text": "hi"}, {"text": "there"}])],
            id="system apart, neighbours merged",
        ),
        pytest.param(
            [ASK, CALLED, *ANSWERED],
            None,
            [
                ("user", [{"text": "hi"}]),
                (
                    "model",
                    [
                        {"functionCall": {"name": "weather", "args": {"city": "Rome"}}},
                        {"functionCall": {"name": "now", "args": {}, "id": "call:2"}},
                    ],
                ),
                (
                    "user",
                    [
                        {"functionResponse": {"name": "weather", "response": {"result": "sunny"}}},
                        {"functionResponse": {"name": "now", "response": {"time": "noon"}, "id": "call:2"}},
                        {"text": "thanks"},
                    ],
                ),
            ],
            id="results name their function; objects as they are, anything else wrapped; others' ids stay here",
        ),
        pytest.param(
            [ASK, CALLED, {"role": "tool", "tool_call_id": "toolu_1", "content": "down", "is_error": True}],
            None,
            [
                ("user", [{"text": "hi"}]),
                (
                    "model",
                    [
                        {"functionCall": {"name": "weather", "args": {"city": "Rome"}}},
                        {"functionCall": {"name": "now", "args": {}, "id": "call:2"}},
                    ],
                ),
                ("user", [{"functionResponse": {"name": "weather", "response": {"error": "down"}}}]),
            ],
            id="a tool that failed",
        ),
        pytest.param(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "look"},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                        {"type": "input_audio", "input_audio": {"data": PNG, "format": "mp3"}},
                        {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
                        {"type": "image_url", "image_url": {"url": "https://youtu.be/abc"}},
                    ],
                }
            ],
            None,
            [
                (
                    "user",
                    [
                        {"text": "look"},
                        {"inlineData": {"mimeType": "image/png", "data": PNG}},
                        {"inlineData": {"mimeType": "audio/mp3", "data": PNG}},
                        {"inlineData": {"mimeType": "application/pdf", "data": PDF}},
                        {"fileData": {"fileUri": "https://youtu.be/abc"}},
                    ],
                )
            ],
            id="pictures, sounds, files",
        ),
    ],
)
def test_contents_as_gemini_takes_them(messages, system, contents):
    sent = google({"messages": messages})
    assert [(content["role"], content["parts"]) for content in sent["contents"]] == contents
    assert sent.get("systemInstruction") == (system and {"parts": [{"text": text} for text in system]})


FLASH3, PRO3, PRO25 = "gemini-3-flash-preview", "gemini-3-pro-preview", "gemini-2.5-pro"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {"thinkingConfig": {"includeThoughts": True}, "maxOutputTokens": None}),
        ({"max_tokens": 7}, {"maxOutputTokens": 7}),
        ({"max_completion_tokens": 9, "max_tokens": 7}, {"maxOutputTokens": 9}),
        ({"temperature": 3, "top_p": 0.5, "top_k": 4}, {"temperature": 2.0, "topP": 0.5, "topK": 4}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"stop": ["a", "", "b", "c", "d", "e", "f"]}, {"stopSequences": ["a", "b", "c", "d", "e"]}),
        ({"n": 2, "seed": 5}, {"candidateCount": 2, "seed": 5}),
        ({"n": 1, "seed": 2**40}, {"candidateCount": None, "seed": None}),
        (
            {"response_format": {"type": "json_object"}},
            {"responseMimeType": "application/json", "responseJsonSchema": None},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}},
            {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}},
        ),
        ({"modalities": ["text", "image"]}, {"responseModalities": ["TEXT", "IMAGE"]}),
        # thinking: tokens before 3, a level from 3 on, never both
        ({"reasoning_effort": "none"}, {"thinkingConfig": {"includeThoughts": False, "thinkingBudget": 0}}),
        ({"reasoning_effort": "high"}, {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 24_576}}),
        ({"reasoning": {"max_tokens": 99}}, {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 99}}),
        (
            {"model": PRO25, "reasoning_effort": "none"},
            {"thinkingConfig": {"includeThoughts": False, "thinkingBudget": 128}},
        ),
        (
            {"model": FLASH3, "reasoning_effort": "medium"},
            {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": "medium"}},
        ),
        (
            {"model": PRO3, "reasoning_effort": "medium"},
            {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": "high"}},
        ),
        (
            {"model": "gemini-3.1-pro-preview", "reasoning_effort": "minimal"},
            {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": "low"}},
        ),
        ({"model": "gemini-2.0-flash", "reasoning_effort": "high"}, {"thinkingConfig": None}),
        ({"model": "gemma-4-31b-it", "reasoning_effort": "high"}, {"thinkingConfig": None}),
        ({"model": "gemini-2.5-flash-image"}, {"thinkingConfig": None}),
        ({"reasoning": {"exclude": True}}, {"thinkingConfig": None}),
    ],
)
def test_generation_config_as_gemini_takes_it(body, expected):
    config = google(body).get("generationConfig", {})
    assert {name: config.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"tools": [WEATHER]},
            {
                "tools": [
                    {
                        "functionDeclarations": [
                            {
                                "name": "weather",
                                "description": "Tells it",
                                "parametersJsonSchema": WEATHER["function"]["parameters"],
                            }
                        ]
                    }
                ],
                "toolConfig": None,
            },
        ),
        ({"functions": [{"name": "now"}]}, {"tools": [{"functionDeclarations": [{"name": "now"}]}]}),
        ({"tools": [{"googleSearch": {}}]}, {"tools": [{"googleSearch": {}}]}),
        ({"tools": [WEATHER], "tool_choice": "auto"}, {"toolConfig": {"functionCallingConfig": {"mode": "AUTO"}}}),
        ({"tools": [WEATHER], "tool_choice": "none"}, {"toolConfig": {"functionCallingConfig": {"mode": "NONE"}}}),
        ({"tools": [WEATHER], "tool_choice": "required"}, {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
            {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}}},
        ),
        (
            {"safety_settings": [{"category": "X", "threshold": "BLOCK_NONE"}], "cached_content": "cachedContents/1"},
            {"safetySettings": [{"category": "X", "threshold": "BLOCK_NONE"}], "cachedContent": "cachedContents/1"},
        ),
        (
            {"user": "u", "logprobs": True, "frequency_penalty": 1, "metadata": {"a": "b"}, "stream": True},
            dict.fromkeys(("user", "logprobs", "frequency_penalty", "metadata", "stream", "model", "messages")),
        ),
    ],
)
def test_fields_as_gemini_takes_them(body, expected):
    sent = google(body)
    assert {name: sent.get(name) for name in expected} == expected


# --- thinking that comes back ----------------------------------------------------------------------------------------


def detail(client, **more) -> dict:
    sealed = {name: client.seal.close(value) for name, value in more.items() if name in ("signature", "data")}
    return {"type": "reasoning.text", "format": "x", **more, **sealed}


def test_anthropic_gets_its_thinking_back_unchanged_and_first():
    """Streamed pieces, as a client gathers them that joins nothing; and one joined. Hidden thinking keeps its place."""
    here = client("anthropic")
    details = [
        detail(here, index=0, text="I "),
        detail(here, index=0, text="think"),
        detail(here, index=0, signature="sig/1=="),
        {**detail(here, index=1, data="hidden"), "type": "reasoning.encrypted"},
        detail(here, index=2, text="therefore", signature="sig/2=="),
        detail(here, index=3, text="never signed"),
    ]
    sent = anthropic(
        {"messages": [ASK, {**CALLED, "reasoning_details": details}, *ANSWERED], "reasoning_effort": "low"}
    )
    assert sent["messages"][1]["content"][:4] == [
        {"type": "thinking", "thinking": "I think", "signature": "sig/1=="},
        {"type": "redacted_thinking", "data": "hidden"},
        {"type": "thinking", "thinking": "therefore", "signature": "sig/2=="},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
    ]
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 2048}


@pytest.mark.parametrize("signature", ["sig", "sb1.000000000000.sig", None, 5, "sb1.", ""])
@pytest.mark.parametrize("kind", ["anthropic", "google"])
def test_thinking_from_elsewhere_is_left_out(kind, signature):
    """A signature of another account's, vendor's or relay's is refused upstream."""
    details = [
        {"type": "reasoning.text", "text": "x", "signature": signature},
        {"type": "reasoning.encrypted", "data": signature, "id": "toolu_1"},
        "odd",
    ]
    make = anthropic if kind == "anthropic" else google
    plain = make({"messages": [ASK, CALLED, *ANSWERED]})
    assert make({"messages": [ASK, {**CALLED, "reasoning_details": details}, *ANSWERED]}) == plain


def test_a_seal_names_the_endpoint_not_the_key():
    one = registry.create("anthropic", base_url="https://one.test/v1", api_key=KEY)
    same = registry.create("anthropic", base_url="https://one.test", api_key="another")
    other = registry.create("anthropic", base_url="https://two.test/v1", api_key=KEY)
    sealed = one.seal.close("sig.with.dots")
    assert KEY not in sealed
    assert same.seal.open(sealed) == "sig.with.dots"
    assert other.seal.open(sealed) == ""


def test_gemini_gets_each_signature_back_in_the_part_it_came_with():
    here = client("google")
    details = [
        {"type": "reasoning.encrypted", "index": 1, "data": here.seal.close("sig-call"), "id": "call:2"},
        {"type": "reasoning.encrypted", "index": 3, "data": here.seal.close("sig-text")},
    ]
    message = {**CALLED, "content": "Let me see.", "reasoning_details": details}
    sent = google({"messages": [ASK, message, *ANSWERED]})
    assert sent["contents"][1]["parts"] == [
        {"text": "Let me see.", "thoughtSignature": "sig-text"},
        {"functionCall": {"name": "weather", "args": {"city": "Rome"}}},
        {"functionCall": {"name": "now", "args": {}, "id": "call:2"}, "thoughtSignature": "sig-call"},
    ]


@pytest.mark.parametrize(
    ("model", "needed"), [("gemini-3-pro-preview", True), ("gemini-2.5-flash", False), ("gemma-4-31b-it", False)]
)
def test_gemini_3_takes_calls_of_other_models_with_the_word_for_that(model, needed):
    parts = google({"model": model, "messages": [ASK, CALLED, *ANSWERED]})["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [
        "skip_thought_signature_validator" if needed else None,
        None,
    ]


# --- what cannot be said ---------------------------------------------------------------------------------------------

AUDIO = {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}


@pytest.mark.parametrize("kind", ["anthropic", "google"])
@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (None, "must be a list"),
        ([], "There is no message"),
        ([{"role": "system", "content": "only this"}], "There is no message"),
        (["hi"], "messages[0] is not an object"),
        ([{"role": "oracle", "content": "x"}], "messages[0] has a role"),
        ([{"role": "user", "content": 5}], "messages[0].content must be text"),
        ([{"role": "user", "content": [{"type": "hologram"}]}], "messages[0].content[0] is of a type"),
        ([{"role": "user", "content": [5]}], "messages[0].content[0] is not an object"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "messages[0].content[0] has no address",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
            "must be a data: URL or a web address",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}}]}],
            "is not base64",
        ),
        ([{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}], "must hold the file itself"),
    ],
)
def test_what_cannot_be_translated_is_refused_by_name_and_never_sent(kind, messages, told):
    make = anthropic if kind == "anthropic" else google
    with pytest.raises(ProviderRefused) as caught:
        make({"messages": messages})
    assert caught.value.code == "bad_request"
    assert told in caught.value.detail


def test_anthropic_takes_no_sound_and_no_odd_pictures():
    for part in (AUDIO, {"type": "image_url", "image_url": {"url": f"data:image/tiff;base64,{PNG}"}}):
        with pytest.raises(ProviderRefused, match="bad_request"):
            anthropic({"messages": [{"role": "user", "content": [part]}]})


ODD = [5, "x", None, [], {}, [5], [None], {"a": 1}, True, -1, 1e400, [[]], [{"type": "function"}], [{"function": 5}]]
FIELDS = (
    *(
        "tools",
        "functions",
        "tool_choice",
        "stop",
        "temperature",
        "top_p",
        "max_tokens",
        "n",
        "seed",
        "user",
        "thinking",
    ),
    *("reasoning_effort", "reasoning", "response_format", "modalities", "cache_control", "safety_settings"),
    *("parallel_tool_calls", "cached_content", "function_call", "max_completion_tokens", "top_k"),
)


@pytest.mark.parametrize("kind", ["anthropic", "google"])
@pytest.mark.parametrize("field", FIELDS)
def test_odd_fields_are_left_out_or_refused_but_break_nothing(kind, field):
    """F11, from the caller's side."""
    make = anthropic if kind == "anthropic" else google
    for odd in ODD:
        try:
            sent = make({field: odd, "model": "claude-sonnet-4-6" if kind == "anthropic" else "gemini-3-flash-preview"})
        except ProviderRefused as refused:
            assert refused.code == "bad_request"
        else:
            assert sent["messages" if kind == "anthropic" else "contents"]


@pytest.mark.parametrize("kind", ["anthropic", "google"])
@pytest.mark.parametrize("field", ["tool_calls", "function_call", "reasoning_details", "refusal", "name"])
def test_odd_histories_break_nothing(kind, field):
    make = anthropic if kind == "anthropic" else google
    for odd in (*ODD, [{"id": 5, "function": {"arguments": "[1]"}}]):
        sent = make({"messages": [ASK, {"role": "assistant", "content": "x", field: odd}, ASK]})
        assert len(sent["messages" if kind == "anthropic" else "contents"]) == 3
