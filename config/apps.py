from django.apps import AppConfig


class ConfigConfig(AppConfig):
    """The project's own commands and the first-run link."""

    name = "config"
    label = "config"
    default_auto_field = "django.db.models.BigAutoField"
