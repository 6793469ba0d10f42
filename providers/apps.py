from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


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
