from django.apps import AppConfig


class UsageConfig(AppConfig):
    name = "usage"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """What a sync changed becomes notices to the users of those models, and to whoever starred them."""
        from catalog import after_sync, choices
        from usage import notices
        from usage.models import Notice

        after_sync.listen(notices.write)
        notices.interested(Notice.Because.STARRED, choices.with_stars)
