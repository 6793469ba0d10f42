"""How fast a search over many models is in the server, whole: the list checked, searched and one page of rows chosen.

    python bench/catalog_search.py                                              SQLite in a temporary folder
    python -m tests.services postgres -- python bench/catalog_search.py         PostgreSQL

MODELS models (10,000) at four providers, so that a part of the rows has several sellers. Searches are typed letter by
letter, in turn with others, with and without filters, and each asks the database for what is never kept (accounts and
their health, stars, rules). "No answer kept" goes through all models for every letter; the list itself is there, since
it is made once after a start or a sync, which is timed apart. Prints p50, p99 and the worst of SEARCHES (2,000), by the
clock and by this thread's processor time, then the time of whole requests for the pages.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = int(os.environ.get("MODELS", "10000"))
SEARCHES = int(os.environ.get("SEARCHES", "2000"))

MAKERS = ("openai", "anthropic", "google", "qwen", "deepseek", "mistralai", "meta-llama", "x-ai", "cohere")
KINDS = ("mini", "large", "sonnet", "flash preview", "2025-09-01", "instruct", "coder")
TYPED = (
    "claude sonnet", "gpt4o mini", "openai/sonnet 97", "no such thing", "model 9", "flash preview google", "qwen coder",
    "deepseek v3.2", "m-12-mini", "o",
)  # fmt: skip


def percentiles(seconds: list[float]) -> str:
    ordered = sorted(value * 1000 for value in seconds)
    middle, late, last = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1]
    return f"p50 {middle:6.2f} ms  p99 {late:6.2f} ms  worst {last:6.2f} ms"


def fill(user) -> list:
    from catalog.models import AccountModel, AggregatorModel, CatalogVersion
    from providers.models import Provider, ProviderAccount

    accounts = []
    for seller in range(4):
        provider = Provider.objects.create(
            name=f"bench-{seller}",
            display_name=f"Seller {seller}",
            base_url="http://x.test/v1",
            features={"keyless": True},
        )
        CatalogVersion.objects.create(provider=provider, version=1)
        accounts.append(
            ProviderAccount.objects.create(owner=user, provider=provider, label=f"Key {seller}", status="valid")
        )
    rows = []
    for n in range(MODELS):
        maker, kind = MAKERS[n % len(MAKERS)], KINDS[n % len(KINDS)]
        rows.append(
            AggregatorModel(
                provider=accounts[n % 4].provider,
                model_id=f"{maker}/model-{n % 97}.{n // 3}-{kind.replace(' ', '-')}",
                display_name=f"{maker.title()}: Model {n % 97}.{n // 3} {kind}",
                description="d" * 170,
                model_type="chat" if n % 9 else "image",
                capabilities=["tools", "reasoning"][: n % 3],
                input_modalities=["text", "image"][: 1 + n % 2],
                context_window=(8_000, 128_000, 1_000_000)[n % 3],
                max_output_tokens=8_192,
                price_kind="free" if n % 50 == 0 else "known",
                price_input=Decimal(n % 700) / 100,
                price_output=Decimal(n % 1_900) / 100,
                released_at=datetime(2024 + n % 3, 1 + n % 12, 1, tzinfo=UTC),
            )
        )
    made = AggregatorModel.objects.bulk_create(rows, batch_size=1_000)
    AccountModel.objects.bulk_create(
        [AccountModel(account=accounts[n % 4], model=model) for n, model in enumerate(made)], batch_size=1_000
    )
    return made


def main() -> None:
    sys.path.insert(0, str(ROOT))
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    import django

    django.setup()
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import connection
    from django.db.models import F
    from django.test import Client

    from catalog import choices, listing
    from catalog.models import AggregatorModel, CatalogVersion, FavouriteModel
    from catalog.question import Question
    from catalog.row_context import Shelf

    settings.ALLOWED_HOSTS = ["*"]
    settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    call_command("migrate", verbosity=0)
    user = get_user_model().objects.create_user(f"bench-{os.getpid()}")
    made = fill(user)
    FavouriteModel.objects.bulk_create([FavouriteModel(owner=user, model=model) for model in made[:50]])
    choices.add_rule(user, "*2025-09-01", None)
    choices.add_rule(user, "", Decimal(18))
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{connection.vendor}, {machine}")

    def timed(work) -> tuple[float, float]:
        started, busy = time.perf_counter(), time.thread_time()
        work()
        return time.perf_counter() - started, time.thread_time() - busy

    clock, busy = timed(lambda: listing.of(user))
    print(f"first list of {MODELS:,}: {clock:.2f} s, CPU {busy:.2f} s")
    pks = [model.pk for model in made[:10]]
    again = []
    for turn in range(5):
        AggregatorModel.objects.filter(pk__in=pks).update(price_input=Decimal(turn))
        CatalogVersion.objects.update(version=F("version") + 1)
        again.append(timed(lambda: listing.of(user)))
    clock, busy = sorted(again)[2]
    print(f"list after a sync that changed {len(pks)}: {clock:.2f} s, CPU {busy:.2f} s")

    filters = (
        {"type": "chat"},
        {},
        {"type": "chat", "vision": "on", "price": "5"},
        {"sort": "-out"},
        {"context": "128000"},
    )
    asked = [
        {"q": words[:end], **filters[turn % len(filters)]}
        for turn, words in enumerate(TYPED * 3)
        for end in range(1, len(words) + 1)
    ]

    def search(question: dict) -> None:
        shelf = Shelf(user)
        read = Question.read(question, shelf.opened.accounts, page_size=50)
        shelf.find(read, limit=50, first=shelf.favourites)

    for question in asked:
        search(question)
    clocks, cpu = zip(*(timed(lambda: search(asked[n * 7 % len(asked)])) for n in range(SEARCHES)), strict=True)  # noqa: B023
    print(f"{SEARCHES:,} searches, out of turn     clock {percentiles(list(clocks))}   CPU {percentiles(list(cpu))}")
    typed = [timed(lambda: search(asked[n % len(asked)])) for n in range(SEARCHES)]  # noqa: B023
    clocks, cpu = zip(*typed, strict=True)
    print(f"{SEARCHES:,} searches, letter by letter  clock {percentiles(list(clocks))}   CPU {percentiles(list(cpu))}")

    def cold(question: dict) -> tuple[float, float]:
        listing.of(user).listing.forget_answers()
        return timed(lambda: search(question))

    clocks, cpu = zip(*(cold(asked[n * 7 % len(asked)]) for n in range(SEARCHES)), strict=True)
    print(f"{SEARCHES:,} searches, no answer kept  clock {percentiles(list(clocks))}   CPU {percentiles(list(cpu))}")

    client = Client()
    client.force_login(user)
    for name, url in (
        ("selector opens", "/models/select/?now=1&tokens=400"),
        ("selector, a letter typed", "/models/select/?q=s&type=chat&tokens=400"),
        ("explorer", "/models/"),
        ("explorer, sorted", "/models/?sort=-out&type=chat"),
        ("export of all", "/models/export.csv"),
    ):
        client.get(url)
        clocks, cpu = zip(*(timed(lambda: client.get(url)) for _ in range(30)), strict=True)  # noqa: B023
        print(f"{name:26} clock {percentiles(list(clocks))}   CPU {percentiles(list(cpu))}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="switchboard-bench-") as folder:
        os.environ["VAR_DIR"] = folder
        main()
