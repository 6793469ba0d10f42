from django.apps import AppConfig


class ConfigConfig(AppConfig):
    """The project's own commands and the first-run link."""

    name = "config"
    label = "config"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # `shared_task` binds to the app that exists when a task is first called: without this, a page would queue its
        # tasks for Celery's default broker.
        from config import celery  # noqa: F401
