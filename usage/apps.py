from django.apps import AppConfig


class UsageConfig(AppConfig):
    name = "usage"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """What a sync changed becomes notices to the users of those models."""
        from catalog import after_sync
        from usage import notices

        after_sync.listen(notices.write)
