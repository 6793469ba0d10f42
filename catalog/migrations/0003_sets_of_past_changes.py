"""Give the history that is already there its headings: what one sync changed carries one moment."""

from django.db import migrations
from django.db.models import Count


def group(apps, schema_editor):
    ChangeSet = apps.get_model("catalog", "ChangeSet")
    ModelChange = apps.get_model("catalog", "ModelChange")
    ungrouped = ModelChange.objects.filter(change_set__isnull=True).order_by()
    for provider_id, at in list(ungrouped.values_list("model__provider_id", "at").distinct().order_by("at")):
        rows = ungrouped.filter(model__provider_id=provider_id, at=at)
        counts = dict(rows.values_list("kind").annotate(Count("model_id", distinct=True)))
        change_set = ChangeSet.objects.create(provider_id=provider_id, at=at, counts=counts)
        ModelChange.objects.filter(pk__in=rows.values("pk")).update(change_set=change_set)


class Migration(migrations.Migration):
    dependencies = [("catalog", "0002_change_sets")]
    operations = [migrations.RunPython(group, migrations.RunPython.noop)]
