from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.apps import apps as installed
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models.signals import post_migrate


class ProvidersConfig(AppConfig):
    name = "providers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Tell the outbound door what the operator allows besides the internet (S5); read the vault's keys."""
        from providers import net, vault

        try:
            net.configure(net.policy_from(settings.OUTBOUND_PRIVATE_TARGETS, settings.OUTBOUND_HOSTS))
        except ValueError as exc:
            raise ImproperlyConfigured(f"{exc} Correct it in the environment or in .env.") from None
        vault.ring()
        post_migrate.connect(_offer_presets_of_packages, sender=self, dispatch_uid="presets of packages")


def _offer_presets_of_packages(sender: ProvidersConfig, using: str, apps: Any = installed, **kwargs: Any) -> None:
    """After `migrate`: what installed packages declare stands in the gallery. Staff switch off what they do not want.

    `apps` is the state after the last migration that ran, which may lie before ours has been made; `flush` gives none.
    """
    from providers import presets

    try:
        manager: Any = apps.get_model("providers", "Provider").objects
    except LookupError:
        return
    if found := presets.from_packages():
        presets.add_missing(manager.using(using), found)
