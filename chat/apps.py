from __future__ import annotations

from collections.abc import Collection, Iterable

from django.apps import AppConfig


class ChatConfig(AppConfig):
    name = "chat"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Whoever has a conversation with a model hears what happens to it."""
        from usage import notices
        from usage.models import Notice

        notices.interested(Notice.Because.CONVERSATION, _with_conversations)


def _with_conversations(models: Collection[int]) -> Iterable[tuple[int, int]]:
    """(user, model) of the conversations that would go on with one of `models`."""
    from chat.models import Conversation
    from usage import notices

    kept = Conversation.objects.active().filter(model_id__in=models, updated_at__gte=notices.lately())
    return kept.order_by().values_list("owner_id", "model_id").distinct()
