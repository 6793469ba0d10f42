"""The chat's tables in the admin: to look at, and what people wrote only with the permission for it (A6)."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from chat.models import Conversation, Generation, Message

pytestmark = pytest.mark.slow

SECRET = "what only Alice may know"


@pytest.fixture
def conversation(alice):
    conversation = Conversation.objects.create(owner=alice, title=f"title: {SECRET}")
    question = Message.objects.create(conversation=conversation, role="user", content=SECRET)
    reply = Message.objects.create(
        conversation=conversation, parent=question, role="assistant", content=SECRET, reasoning=SECRET
    )
    Generation.objects.create(message=reply, state="complete", model_name="GPT")
    return conversation


@pytest.fixture
def viewer(db, django_user_model):
    """Staff who may view the chat's tables, without the permission to read."""
    user = django_user_model.objects.create_user("vera", "vera@example.org", "vera's password", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="chat", codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    client.user = user
    return client


def pages(conversation):
    reply = conversation.messages.last()
    yield reverse("admin:chat_conversation_changelist")
    yield reverse("admin:chat_conversation_change", args=[conversation.pk])
    yield reverse("admin:chat_message_changelist")
    yield reverse("admin:chat_message_change", args=[reply.pk])
    yield reverse("admin:chat_generation_changelist")
    yield reverse("admin:chat_generation_change", args=[reply.generation.pk])


def test_staff_without_the_permission_see_that_there_are_chats_and_no_word_of_them(viewer, conversation):
    for url in pages(conversation):
        response = viewer.get(url)
        assert response.status_code == 200, url
        assert SECRET not in response.content.decode(), url


def test_staff_with_the_permission_read_and_leave_a_trace(viewer, conversation):
    viewer.user.user_permissions.add(Permission.objects.get(codename="read_conversations"))
    url = reverse("admin:chat_message_change", args=[conversation.messages.last().pk])
    assert SECRET in viewer.get(url).content.decode()
    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id, entry.change_message) == (
        viewer.user, str(conversation.messages.last().pk), "Read.",
    )  # fmt: skip


@pytest.mark.parametrize(
    "query",
    ["q=only", "content__contains=only", "reasoning__startswith=w", "o=3", "conversation__title__contains=only"],
)
def test_no_search_filter_or_order_answers_questions_about_hidden_words(viewer, conversation, query):
    """The answer does not depend on the words."""
    answers = []
    for words in (SECRET, "something else"):
        Message.objects.update(content=words, reasoning=words)
        Conversation.objects.update(title=words)
        response = viewer.get(reverse("admin:chat_message_changelist") + f"?{query}", follow=True)
        found = response.context["cl"].result_count if "cl" in (response.context or {}) else None
        answers.append((response.status_code, found))
    assert answers[0] == answers[1]
    assert viewer.get(reverse("admin:chat_conversation_changelist") + "?q=only").context["cl"].result_count == 0


def test_nobody_writes_there(sam_client, conversation):
    reply = conversation.messages.last()
    for name, pk in (("conversation", conversation.pk), ("message", reply.pk), ("generation", reply.generation.pk)):
        assert sam_client.get(reverse(f"admin:chat_{name}_add")).status_code == 403
        assert sam_client.post(reverse(f"admin:chat_{name}_change", args=[pk]), {"title": "x"}).status_code == 403
        assert sam_client.post(reverse(f"admin:chat_{name}_delete", args=[pk]), {"post": "yes"}).status_code == 403
