"""The other providers we know, from providers/presets.py: the gallery's "more presets"."""

from django.db import migrations

from providers import presets


def add(apps, schema_editor):
    """Add what is missing; what staff have changed since stays."""
    presets.add_missing(apps.get_model("providers", "Provider").objects, presets.BUILT_IN)


def remove(apps, schema_editor):
    """Take away presets that nobody uses and nobody changed: the rest are people's keys and staff's work."""
    provider = apps.get_model("providers", "Provider")
    account = apps.get_model("providers", "ProviderAccount")
    in_use = list(account.objects.values_list("provider_id", flat=True))
    for preset in presets.BUILT_IN:
        rows = provider.objects.filter(owner=None, name=preset.name).exclude(pk__in=in_use)
        for row in rows:
            if row.is_active and all(getattr(row, column) == value for column, value in preset.row().items()):
                row.delete()


class Migration(migrations.Migration):
    dependencies = [("providers", "0002_built_in_providers")]

    operations = [migrations.RunPython(add, remove)]
