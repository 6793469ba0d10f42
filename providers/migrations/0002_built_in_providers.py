"""The providers a fresh installation offers: two aggregators, and one for trying things without a key."""

from django.db import migrations

BUILT_IN = [
    {
        "name": "aihubmix",
        "display_name": "AiHubMix",
        "tagline": "Hundreds of models, one bill",
        "monogram": "Ai",
        "base_url": "https://aihubmix.com/v1",
        "client": "aihubmix",
        "documentation_url": "https://docs.aihubmix.com",
        "keys_url": "https://aihubmix.com/token",
        "features": {"balance": True, "headers": ["APP-Code"]},
    },
    {
        "name": "openrouter",
        "display_name": "OpenRouter",
        "tagline": "Hundreds of models, cost per answer",
        "monogram": "Or",
        "base_url": "https://openrouter.ai/api/v1",
        "client": "openrouter",
        "documentation_url": "https://openrouter.ai/docs",
        "keys_url": "https://openrouter.ai/settings/keys",
        "features": {"balance": True, "reports_cost": True, "headers": ["HTTP-Referer", "X-OpenRouter-Title"]},
    },
    {
        "name": "sandbox",
        "display_name": "Sandbox",
        "tagline": "Try it without a key",
        "monogram": "Sb",
        # A logical name: the operator's host table says where it listens, so another port does not lock accounts.
        "base_url": "http://sandbox.internal/v1",
        "client": "openai_compatible",
        "features": {"keyless": True},
    },
]


def add(apps, schema_editor):
    """Add what is missing; what staff have changed since stays."""
    provider = apps.get_model("providers", "Provider")
    for row in BUILT_IN:
        provider.objects.get_or_create(
            name=row["name"],
            owner=None,
            defaults={"provider_type": "aggregator", "api_standard": "openai", **row},
        )


def remove(apps, schema_editor):
    """Take away the built-in providers nobody uses: deleting one with accounts would delete people's keys."""
    provider = apps.get_model("providers", "Provider")
    account = apps.get_model("providers", "ProviderAccount")
    names = [row["name"] for row in BUILT_IN]
    in_use = account.objects.values_list("provider_id", flat=True)
    provider.objects.filter(name__in=names, owner=None).exclude(pk__in=list(in_use)).delete()


class Migration(migrations.Migration):
    dependencies = [("providers", "0001_initial")]

    operations = [migrations.RunPython(add, remove)]
