"""What an account once listed. Of the past only what an account's own syncs wrote history of can be told."""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Exists, OuterRef


def remember(apps, schema_editor):
    AccountModel = apps.get_model("catalog", "AccountModel")
    ModelChange = apps.get_model("catalog", "ModelChange")
    PastOffer = apps.get_model("catalog", "PastOffer")
    offers = AccountModel.objects.filter(account=OuterRef("run__account"), model=OuterRef("model"))
    listed = ModelChange.objects.filter(run__isnull=False).exclude(kind="gone").exclude(Exists(offers)).order_by()
    pairs = listed.values_list("run__account_id", "model_id").distinct().iterator(chunk_size=2_000)
    PastOffer.objects.bulk_create(
        (PastOffer(account_id=account, model_id=model) for account, model in pairs), batch_size=1_000
    )


class Migration(migrations.Migration):
    dependencies = [
        ("catalog", "0009_longer_filters_and_price_checks"),
        ("providers", "0005_sync_interval"),
    ]

    operations = [
        migrations.AlterField(
            model_name="changeset",
            name="counts",
            field=models.JSONField(
                default=dict, help_text="Kind of change → how many models, whoever may know of them."
            ),
        ),
        migrations.CreateModel(
            name="PastOffer",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="past_offers",
                        to="providers.provideraccount",
                    ),
                ),
                (
                    "model",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="past_offers",
                        to="catalog.aggregatormodel",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("account", "model"), name="one_past_offer_per_account_and_model"
                    )
                ],
            },
        ),
        migrations.RunPython(remember, migrations.RunPython.noop, elidable=True),
    ]
