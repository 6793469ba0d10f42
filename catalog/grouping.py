"""Which rows of the catalog are the same model, sold by several providers or under several ids.

    group_key("openai/gpt-4o")                      "gpt-4o"
    group_key("gpt-4o")                             "gpt-4o"
    group_key("claude-3-5-sonnet-20241022")         "claude-sonnet-3.5"
    group_key("anthropic/claude-3.5-sonnet")        "claude-sonnet-3.5"
    group_key("openai/gpt-oss-20b:free")            "gpt-oss-20b:free"
    group_key("openrouter/auto")                    ""              (a router: in no group)

The key is stored in `AggregatorModel.group_key` when a sync writes the row (`catalog.sync` asks `Keys`); rows with the
same key that is not "" are one group. Two rows wrongly together mislead about a price, two wrongly apart only hide an
offer: whatever is not surely the same stays apart. Staff correct single rows (ModelGroupRule); a rule wins over this
table, survives syncs, and is applied at once by `sync.regroup`.

For pages:

    found = offers(user, model)          # this user's ways to this very model, over all accounts; one query
    found.cheapest, found.healthiest     # an Offer, or None where the offers do not differ or nothing is known
    for offer in found.rows: offer.model, offer.account, offer.price, offer.attempts, offer.failed

For lists that already hold models and accounts in memory: gather rows by `group_key` (leave "" alone), then
`price_of(model)` (None: not comparable) and `health_of(account)` (smaller is better) are what the marks are made from.

How a key is made (docs/catalog.md says it for people):

1. Letter case and compatibility forms are folded. `models/` and `accounts/…/models/` (Google, Fireworks) are dropped.
2. The folder before the name is dropped where it names the maker (MAKERS), or where somebody else's files lie under
   the maker's own name (MIRRORS); then also a reseller's before it (`deepinfra/meta-llama/…`). Any other folder stays:
   `my-lab/llama-3-8b` may be anything. So do the names of channels that AiHubMix puts before a name (CHANNELS), and a
   maker's name before its own family (`nvidia-nemotron-…`, `meta-llama-3.1-…`).
3. `-`, `_`, `.` and spaces separate words alike; a version has a point between its numbers however it was written
   (`4-6`, `4_6`, `4.6`; Fireworks also `4p6`). A number after a word of three letters begins a new word (`qwen3` is
   `qwen-3`). Sizes such as `1.7b` are one word.
4. Dates. A date tells releases apart (`gpt-4o-2024-05-13` costs twice what `gpt-4o` does; `deepseek-v3-0324` is
   another model than `deepseek-v3`), so it stays, in one spelling. It goes only where the maker released that name
   once: Claude's eight digits, and the names in RELEASED_ONCE.
5. `-free` and `:free` are one spelling of the same: a free offer, kept apart from the paid one. Everything else that
   follows a name (`:thinking`, `-think`, `-mini`, `-turbo`, `-fast`, `-it`, `-fp8`, `-awq`, `@q8_0`, `:8b`, sizes …) is
   part of it.
6. A handful of names that makers and sellers write differently (SAME_NAMES), word order of Claude and Gemini included.
7. In no group are: routers (`auto`, `openrouter/free`), names that move from release to release and do so at each
   seller in its own time (`~openai/gpt-latest`, `mistral-small`, `deepseek-chat`), names that one seller means as the
   raw model and another as the one that chats (`llama-3.1-405b`), and single words (`evil`, `openai`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import Count

from catalog import own_prices
from catalog.models import AccountModel, AggregatorModel, ModelGroupRule
from providers.models import ProviderAccount

if TYPE_CHECKING:
    from providers.models import AnyUser

MAX_KEY = 300


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MAKERS = _words(
    """
    01-ai adept agentica-org ai21 ai21labs aion-labs alfredpros alibaba alibaba-nlp all-hands allenai alpindale
    amazon anthracite-org anthropic arcee-ai arcee_ai arliai baai baichuan baichuan-inc baidu bigcode
    black-forest-labs bytedance bytedance-seed cartesia cognitivecomputations cohere coherelabs databricks
    deepcogito deepseek deepseek-ai eleutherai eva-unit-01 google gryphe ibm ibm-granite inception inclusionai
    infermatic inflection intfloat jondurbin kwaipilot lgai lgai-exaone liquid lizpreciatior lmsys mancer
    mattshumer meituan meituan-longcat meta meta-llama microsoft minimax minimaxai mistral mistral-ai mistralai
    moonshotai morph neversleep nex-agi nothingiisreal nousresearch nvidia openai openbmb openchat perplexity
    phind poolside pygmalionai qwen raifle rekaai relace runwayml sakana salesforce sao10k sarvamai
    sentence-transformers sentientagi shisa-ai snowflake sophosympatheia stability-ai stabilityai stepfun
    stepfun-ai teknium tencent thedrummer thenlper thinkingmachines thudm tiiuae tngtech tokyotech-llm undi95
    upstage wizardlm writer x-ai xai xiaomi xwin-lm z-ai zai zai-org zyphra
    """
)
"""Folders that name who made the model: the name after them is the maker's own."""

MIRRORS = frozenset(("unsloth", "chutesai", "nv-mistralai"))
"""Folders under which the maker's files lie unchanged and under their own name."""

RESELLERS = _words(
    """
    openrouter deepinfra together togethercomputer netmind novita nebius parasail fireworks fireworks-ai groq
    cerebras sambanova hyperbolic chutes kilocode kc vercel aihubmix azure bedrock vertex
    """
)
"""Folders that name who resells it. They go only where a maker's folder follows: what they offer as their own stays."""

CHANNELS = re.compile(r"^(?:aihubmix|aihub|ahm|alicloud|azure|cerebras|cloudflare|deepinfra|groq)-(?=[a-z])")
"""AiHubMix names the cloud behind a model. Not here: `cc-` and `coding-`, which may only be used by coding tools."""

OWN_NAMES = re.compile(
    r"^(?:meta-(?=llama)|nvidia-(?=nemotron|llama)|google-(?=gemma|gemini)|zai-(?=glm)|xiaomi-(?=mimo)|moonshot-(?=kimi)"
    r"|cohere-(?=command|rerank)|openai-(?=gpt)|perplexity-(?=sonar)|inception-(?=mercury)|anthropic-(?=claude))"
)
"""A maker's name before a name that is its own already."""

ROUTERS = _words(
    """
    auto auto-beta free router default latest model models best fast cheap smart coding chat reasoning vision
    pro multimodal offline fusion bodybuilder pareto-code aihubmix-router moonshot-v1-auto tts search base large
    small mini
    """
)
"""Names that say nothing about a model, or name a thing that picks one."""

POINTERS = re.compile(
    r"(?:mistral-(?:large|medium|small|tiny)|codestral|devstral-(?:small|medium)|magistral-(?:small|medium)"
    r"|ministral-[38]b|pixtral-(?:12b|large)|command|command-light|command-r|command-r-plus|deepseek-(?:chat|reasoner)"
    r"|grok-2|grok-2-vision|grok-beta|kimi-latest|gemini-(?:exp|pro)|v?\d+(?:\.\d+)?|(?:text-)?embedding-v?\d+)"
)
"""Names that meant another release at another time, or at another seller; and names too short to be one's own."""

BASE_OR_CHAT = re.compile(
    r"(?:llama-(?:2|3|3\.[12])|gemma-\d|qwen-(?:1\.5|2|2\.5)(?:-(?:coder|math|vl))?|mistral|mixtral)-(?:\d+x)?\d+(?:\.\d+)?b"
    r"|qwen-3-235b|qwen-3-30b"
)
"""Names that one seller means as the raw model, another as the one that chats (or as an older release of it)."""

SUFFIXES_APART = re.compile(r"[:@]")

RELEASED_ONCE: Mapping[str, str] = {
    # name: the one date the maker released it under
    "gpt-3.5-turbo-instruct": "0914",
    "gpt-4-turbo": "20240409",
    "gpt-4.1": "20250414",
    "gpt-4.1-mini": "20250414",
    "gpt-4.1-nano": "20250414",
    "gpt-4o-mini": "20240718",
    "gpt-4o-search-preview": "20250311",
    "gpt-4o-mini-search-preview": "20250311",
    "gpt-5": "20250807",
    "gpt-5-mini": "20250807",
    "gpt-5-nano": "20250807",
    "gpt-5.1": "20251113",
    "gpt-5.2": "20251211",
    "gpt-5.2-pro": "20251211",
    "gpt-image-1.5": "20251216",
    "gpt-image-2": "20260421",
    "o1": "20241217",
    "o1-mini": "20240912",
    "o1-preview": "20240912",
    "o1-pro": "20250319",
    "o3": "20250416",
    "o3-mini": "20250131",
    "o4-mini": "20250416",
    "gemini-2.0-flash": "001",
    "gemini-2.0-flash-lite": "001",
    "grok-4": "0709",
    "grok-code-fast-1": "0825",
    "claude-sonnet-3.5": "20241022",
}
"""Read from makers' model pages. Claude's other names need no entry: none was released twice."""

SAME_NAMES: Mapping[str, str] = {
    # a seller's name: the maker's
    "deepseek-chat-v3.1": "deepseek-v3.1",
    "deepseek-chat-v3.1-terminus": "deepseek-v3.1-terminus",
    "deepseek-chat-v3-0324": "deepseek-v3-0324",
    "kimi-k2": "kimi-k2-instruct",
    "kimi-k2-0711": "kimi-k2-instruct",
    "kimi-k2-0905": "kimi-k2-instruct-0905",
    "llama-3.3-70b": "llama-3.3-70b-instruct",
    "llama-4-maverick": "llama-4-maverick-17b-128e-instruct",
    "llama-4-scout": "llama-4-scout-17b-16e-instruct",
    "qwen-3-235b-a22b-2507": "qwen-3-235b-a22b-instruct-2507",
    "qwen-3-coder": "qwen-3-coder-480b-a35b-instruct",
    "mistral-small-3.1-24b-instruct": "mistral-small-3.1-24b-instruct-2503",
    "mistral-small-3.2-24b-instruct": "mistral-small-3.2-24b-instruct-2506",
    "gpt-5-chat-latest": "gpt-5-chat",
    "gpt-5.1-chat-latest": "gpt-5.1-chat",
    "gpt-5.2-chat-latest": "gpt-5.2-chat",
    "gpt-5.3-chat-latest": "gpt-5.3-chat",
}

_MODEL_FOLDERS = re.compile(r"^(?:accounts/[^/]+/models|models)/")
_P_FOR_POINT = re.compile(r"(?<=\d)p(?=\d)")
_DATE = re.compile(r"(?<!\d)(20[12]\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")
_SIZE = re.compile(r"(?<![a-z\d.])(\d+)\.(\d+)([bkmt])(?![a-z\d])")
_WORD_THEN_NUMBER = re.compile(r"(?<![a-z])([a-z]{3,})(?=\d)")
_SEPARATORS = re.compile(r"[-_.\s/]+")
_VERSION = re.compile(r"[a-z]{0,2}\d{1,2}")
_NUMBER = re.compile(r"\d{1,2}")
_CLAUDE = re.compile(r"^claude-(\d+(?:\.\d+)?)-(opus|sonnet|haiku|fable)(?=-|$)")
_GEMINI = re.compile(r"^gemini-(flash|pro)-(1\.\d)(?=-|$)")
_LLAMA_V = re.compile(r"^llama-?v(?=\d)")
_CLAUDE_DATE = re.compile(r"^(claude-.+?)-20\d{6}(?=-|$)")


def group_key(model_id: str) -> str:
    """The group `model_id` belongs to by its spelling alone; "" for none. Pure: the same id always gives the same."""
    text = unicodedata.normalize("NFKC", model_id).casefold().strip()
    if text.startswith("~"):
        return ""
    fireworks = text.startswith("accounts/")
    text = _MODEL_FOLDERS.sub("", text)
    folder, name = _without_maker(text)
    is_makers = len(folder) + len(name) < len(text)
    if fireworks:
        name = _LLAMA_V.sub("llama-", _P_FOR_POINT.sub(".", name))
    name, mark, rest = _cut(name)
    name = OWN_NAMES.sub("", CHANNELS.sub("", name)) if not folder else name
    if name in ROUTERS or (not folder and not any(char.isalnum() for char in name)):
        return ""
    name = _spelled(name)
    if name.endswith("-free"):
        name, rest, mark = name.removesuffix("-free"), f"free{mark}{rest}", ":"
    name = _named(name)
    if not name or name in ROUTERS or POINTERS.fullmatch(name) or BASE_OR_CHAT.fullmatch(name):
        return ""
    if not folder and not is_makers and name.isalpha():
        return ""
    key = f"{folder}{name}{mark}{rest}"
    return key if len(key) <= MAX_KEY else ""


def _without_maker(text: str) -> tuple[str, str]:
    """(the folders that stay, with their slash; the name)."""
    *folders, name = text.split("/")
    if folders and (folders[-1] in MAKERS or folders[-1] in MIRRORS):
        folders.pop()
        if folders and folders[-1] in RESELLERS:
            folders.pop()
    return "".join(f"{folder}/" for folder in folders), name


def _cut(name: str) -> tuple[str, str, str]:
    """(name, ":" or "@", what follows it). Vertex writes a release as `@20240229`: that is a date like any other."""
    if (at := re.fullmatch(r"(.+)@(20\d{6})", name)) is not None:
        return f"{at[1]}-{at[2]}", "", ""
    found = SUFFIXES_APART.search(name)
    if found is None or not found.start():
        return name, "", ""
    return name[: found.start()], found[0], name[found.end() :]


def _spelled(name: str) -> str:
    """One spelling of separators, versions, sizes and dates."""
    name = _DATE.sub(r"\1\2\3", name)
    name = _SIZE.sub("\\1\0\\2\\3", name)
    name = _WORD_THEN_NUMBER.sub(r"\1-", name)
    words: list[str] = []
    for word in _SEPARATORS.split(name):
        if not word:
            continue
        if words and _NUMBER.fullmatch(word) and _VERSION.fullmatch(words[-1]):
            words[-1] += f".{word}"
        else:
            words.append(word)
    return "-".join(words).replace("\0", ".")


def _named(name: str) -> str:
    """The name without the date of its only release, by the words its maker uses."""
    name = _CLAUDE.sub(r"claude-\2-\1", name)
    name = _GEMINI.sub(r"gemini-\2-\1", name)
    bare, _, last = name.rpartition("-")
    if RELEASED_ONCE.get(bare) == last:
        name = bare
    elif not name.startswith("claude-sonnet-3.5-"):
        name = _CLAUDE_DATE.sub(r"\1", name)
    return SAME_NAMES.get(name, name)


# -- What staff say instead ------------------------------------------------------------------------------------------


class Keys:
    """The groups of one provider's ids: what staff said, else the spelling. One query when made."""

    def __init__(self, provider_id: int) -> None:
        rules = ModelGroupRule.objects.filter(provider_id=provider_id)
        self._said: dict[str, str] = dict(rules.values_list("model_id", "group_key"))

    def of(self, model_id: str) -> str:
        said = self._said.get(model_id)
        return group_key(model_id) if said is None else said


# -- Who offers the same ---------------------------------------------------------------------------------------------

INPUT_PER_OUTPUT = 3
"""A conversation reads about three tokens for each it writes: the weights by which two prices become one."""

MOST_OFFERS = 200

Record = Mapping[tuple[UUID, str], tuple[int, int]]
"""(account, model id) → (attempts, failed ones) of late: what `usage.reports.records` gives."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One account's way to one row of the group. `price` is USD per 1M tokens of a usual mix, None where unknown."""

    model: AggregatorModel
    account: ProviderAccount
    price: Decimal | None
    attempts: int = 0
    failed: int = 0

    @property
    def is_resting(self) -> bool:
        return self.account.is_resting

    @property
    def health(self) -> tuple[int, int, float]:
        """For comparing: smaller is better."""
        return (*health_of(self.account), self.failed / self.attempts if self.attempts else 0.0)


@dataclass(frozen=True, slots=True)
class Offers:
    """All offers of a group to one user, in the order of their price, unknown ones last."""

    key: str
    rows: tuple[Offer, ...]
    cheapest: Offer | None = None
    healthiest: Offer | None = None

    @property
    def has_others(self) -> bool:
        """Whether there is more than one model to compare, and not only several accounts that offer the same one."""
        return len({offer.model.pk for offer in self.rows}) > 1


def price_of(model: Any) -> Decimal | None:
    """USD per 1M tokens of a usual mix, from anything with the price columns of AggregatorModel. None: unknown, varies.

    A price per call is left out where it is not named; where it is, the two cannot be compared.
    """
    if model.price_kind == AggregatorModel.PriceKind.FREE:
        return Decimal(0)
    if (
        model.price_kind in (AggregatorModel.PriceKind.VARIABLE, AggregatorModel.PriceKind.LIST)  # not this seller's
        or model.price_input is None
        or model.price_output is None
    ):
        return None
    if getattr(model, "price_request", None):
        return None
    return (INPUT_PER_OUTPUT * model.price_input + model.price_output) / (INPUT_PER_OUTPUT + 1)


def health_of(account: ProviderAccount) -> tuple[int, int]:
    """For comparing: rests now · what is known of the key and of the last calls. Smaller is better."""
    known = {ProviderAccount.Status.VALID: 0, ProviderAccount.Status.UNVERIFIED: 1}.get(
        ProviderAccount.Status(account.status), 3
    )
    return int(account.is_resting), known + bool(account.trouble)


def offers(user: AnyUser, model: AggregatorModel, *, record: Record | None = None) -> Offers:
    """Every offer of `model`'s group that `user` may call, with the cheapest and the healthiest. Two queries."""
    usable = ProviderAccount.objects.for_user(user).usable()
    rows = AccountModel.objects.filter(account__in=usable, model__is_available=True)
    rows = rows.filter(model__group_key=model.group_key) if model.group_key else rows.filter(model=model)
    rows = rows.select_related("model__provider", "account__provider")
    rows = rows.order_by("account__priority", "account__created_at", "account_id", "model_id")[:MOST_OFFERS]
    listed = list(rows)
    own_prices.lay_over(user, [row.model for row in listed])
    found = []
    for row in listed:
        attempts, failed = (record or {}).get((row.account_id, row.model.model_id), (0, 0))
        found.append(Offer(row.model, row.account, price_of(row.model), attempts, failed))
    found.sort(key=lambda offer: (offer.price is None, offer.price or 0))  # stable: else as requests try them
    return Offers(model.group_key, tuple(found), _cheapest(found), _healthiest(found))


def _cheapest(found: list[Offer]) -> Offer | None:
    """The offer with the lowest price, where there are two known prices that differ."""
    priced = [offer for offer in found if offer.price is not None]
    return priced[0] if len({offer.price for offer in priced}) > 1 else None


def _healthiest(found: list[Offer]) -> Offer | None:
    """The offer that is best off, the cheapest of several, where they are not all equally well."""
    return min(found, key=lambda offer: offer.health) if len({offer.health for offer in found}) > 1 else None


def others_by_key(user: AnyUser, keys: Iterable[str]) -> dict[str, int]:
    """Group → how many of the user's offers it holds, for the groups in `keys`. One query."""
    wanted = {key for key in keys if key}
    if not wanted:
        return {}
    usable = ProviderAccount.objects.for_user(user).usable()
    rows = AccountModel.objects.filter(account__in=usable, model__is_available=True, model__group_key__in=wanted)
    return dict(rows.values_list("model__group_key").annotate(count=Count("pk")))
