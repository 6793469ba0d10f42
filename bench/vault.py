"""What sealing and opening a key cost in CPU time: `python -m bench.vault`. The aim is under 50 µs each (issue 4)."""

from __future__ import annotations

import os
import time
import timeit

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
ROUNDS = 5_000


def main() -> None:
    django.setup()
    from providers import vault
    from providers.models import Provider, ProviderAccount

    account = ProviderAccount(owner_id=1, provider=Provider(pk=1, base_url="https://openrouter.ai/api/v1"))
    key = "sk-or-v1-" + "a" * 64
    vault.seal_key(account, key)
    for name, call in {
        "seal, with the keyed hash": lambda: vault.seal_key(account, key),
        "seal alone": lambda: vault._seal(account, vault.KEY, key),
        "open": lambda: vault.open_key(account),
        "keyed hash": lambda: vault.key_hash(1, 1, key),
    }.items():
        best = min(timeit.repeat(call, timer=time.process_time, number=ROUNDS, repeat=9)) / ROUNDS
        print(f"{name:28} {best * 1e6:6.1f} µs")


if __name__ == "__main__":
    main()
