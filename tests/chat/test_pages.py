"""The conversation page through its URLs: what is stored, what is refused, what another user gets."""

from __future__ import annotations

import re
import uuid

import pytest
from django.urls import reverse
from django.utils import timezone

from chat import generation
from chat.models import Conversation, Generation, Message
from chat.writing import title_from
from providers.models import Provider, ProviderAccount
from tests.chat.conftest import make_model
from usage.models import UsageLog

pytestmark = pytest.mark.slow

HTMX = {"HTTP_HX_REQUEST": "true"}


@pytest.fixture
def started(monkeypatch):
    """Which replies were started; nothing runs."""
    ids = []
    monkeypatch.setattr(generation, "start", ids.append)
    return ids


@pytest.fixture
def send(alice_client, model, django_capture_on_commit_callbacks):
    """send(text, conversation=None, **fields) posts as the page does, and lets the commit happen."""

    def post(text="Hi", conversation=None, client=alice_client, **fields):
        url = reverse("chat:message-send", args=[conversation.pk] if conversation else [])
        extra = HTMX if fields.pop("htmx", True) else {}
        with django_capture_on_commit_callbacks(execute=True):
            return client.post(url, {"text": text, "model": model.pk, **fields}, **extra)

    return post


def finish(generation_pk, content="An answer", **columns):
    reply = Generation.objects.get(pk=generation_pk)
    Message.objects.filter(pk=reply.message_id).update(content=content)
    Generation.objects.filter(pk=generation_pk).update(
        **{"state": "complete", "finished_at": timezone.now(), **columns}
    )
    return reply.message


def test_the_first_message_makes_a_conversation_and_a_pending_reply(send, started, alice, model):
    response = send("# Why is the sky blue?\nIn short.")

    conversation = Conversation.objects.get()
    assert (conversation.owner, conversation.title, conversation.model) == (alice, "Why is the sky blue?", model)
    question, reply = conversation.messages.order_by("pk")
    assert (question.content, reply.parent, reply.content) == ("# Why is the sky blue?\nIn short.", question, "")
    assert started == [reply.generation.pk] and reply.generation.state == "pending"
    assert response.headers["HX-Push-Url"] == f"/c/{conversation.pk}/"
    page = response.content.decode()
    assert "Why is the sky blue?" in page
    assert f'data-url="/chat/generations/{reply.generation.pk}/events" data-after="0"' in page


def test_a_further_message_continues_the_branch(send, started, alice_client):
    send("One")
    conversation = Conversation.objects.get()
    first = finish(started[0])

    response = send("Two", conversation, parent=first.pk)

    two = conversation.messages.get(content="Two")
    assert two.parent == first and len(started) == 2
    page = response.content.decode()
    assert page.count("<section") == 2, "only the new turns are sent"
    assert 'id="composer"' in page and 'hx-swap-oob="true"' in page


def test_the_composer_offers_the_model_that_was_sent_to(send, started, provider, account):
    """Per conversation: the next message goes to the same model, unless another is picked."""
    send("One")
    conversation = Conversation.objects.get()
    first = finish(started[0])
    other = make_model(provider, account, model_id="z/other", display_name="Other model")
    page = send("Two", conversation, parent=first.pk, model=other.pk, account=account.pk).content.decode()
    composer = page[page.index('id="composer"') :]
    assert f'name="model" value="{other.pk}"' in composer and f'name="account" value="{account.pk}"' in composer


def test_without_scripts_sending_leads_to_the_conversation(send, started):
    response = send("Hi", htmx=False)
    assert (response.status_code, response.headers["Location"]) == (302, f"/c/{Conversation.objects.get().pk}/")


@pytest.mark.parametrize("begins", [True, False], ids=["new conversation", "known conversation"])
def test_sending_twice_makes_one_message_and_one_call(send, started, begins):
    """F18: a double click, a retried POST."""
    conversation = None
    if not begins:
        send("Before")
        conversation = Conversation.objects.get()
        finish(started.pop())
    key = str(uuid.uuid4())
    first = send("Hi", conversation, client_key=key)
    second = send("Hi", conversation, client_key=key)
    assert first.status_code == second.status_code == 200
    assert Conversation.objects.count() == 1
    assert Message.objects.filter(content="Hi").count() == 1
    assert len(started) == 1


def test_another_users_key_makes_another_conversation(send, started, bob, bob_client, provider, model):
    account = ProviderAccount.objects.create(owner=bob, provider=provider, label="Bob's", status="valid")
    model.offers.create(account=account)
    key = str(uuid.uuid4())
    send("Hi", client_key=key)
    send("Hi", client_key=key, client=bob_client)
    assert Conversation.objects.for_user(bob).count() == 1 and Conversation.objects.count() == 2


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"text": ""}, "Write a message first."),
        ({"text": " \n "}, "Write a message first."),
        ({"text": "x" * 1_000_000}, "That is too long"),
        ({"text": "a\0b"}, "cannot be stored"),
        ({"model": ""}, "Pick a model first."),
        ({"model": "999999"}, "That model does not exist."),
        ({"model": "9" * 30}, "That model does not exist."),
        ({"model": "drop table"}, "Pick a model first."),
        ({"account": str(uuid.uuid4())}, "That account does not exist."),
        ({"account": "x"}, "That account does not exist."),
        ({"parent": "999999"}, "This conversation has changed."),
    ],
)
def test_what_cannot_be_sent_is_refused_beside_the_field(send, started, fields, sentence):
    """Bad input: nothing is stored and nothing typed is lost."""
    response = send(**{"text": "My words", **fields})
    assert response.status_code == 422
    page = response.content.decode()
    assert sentence in page and 'id="composer"' in page
    assert response.headers["HX-Retarget"] == "#composer"
    assert fields.get("text", "My words").replace("\0", "") in page.replace("\0", "")
    assert (Message.objects.count(), Conversation.objects.count(), started) == (0, 0, [])


def test_a_refused_composer_can_be_corrected_and_sent(send, started):
    page = send("").content.decode()
    assert 'action="/send/"' in page and 'hx-post="/send/"' in page
    assert re.search(r'name="client_key" value="[0-9a-f-]{36}"', page)
    send("Hi")
    finish(started.pop())
    conversation = Conversation.objects.get()
    parent = conversation.messages.last().pk
    page = send("", conversation, parent=parent).content.decode()
    assert f'hx-post="/c/{conversation.pk}/send/"' in page
    assert f'name="parent" value="{parent}"' in page


def test_a_model_of_another_users_private_provider_does_not_exist(send, started, bob):
    """I2: the same sentence as for a model that is not there."""
    private = Provider.objects.create(name="bobs", display_name="Bob's", base_url="http://bob.test/v1", owner=bob)
    account = ProviderAccount.objects.create(owner=bob, provider=private, label="Bob's", status="valid")
    theirs = make_model(private, account, model_id="secret/model", display_name="Bob's secret model")
    response = send("My words", model=theirs.pk)
    assert response.status_code == 422
    page = response.content.decode()
    assert "That model does not exist." in page and "secret" not in page and "My words" in page


def test_another_users_account_does_not_exist(send, started, bob, provider, model):
    theirs = ProviderAccount.objects.create(owner=bob, provider=provider, label="Bob's", status="valid")
    model.offers.create(account=theirs)
    response = send("My words", account=theirs.pk)
    assert response.status_code == 422 and "That account does not exist." in response.content.decode()


def test_a_model_that_left_explains_itself_and_the_conversation_opens(send, started, alice_client, model):
    """F14."""
    send("One")
    conversation = Conversation.objects.get()
    first = finish(started[0])
    model.is_available, model.missing_since = False, timezone.now()
    model.save()
    assert alice_client.get(conversation.get_absolute_url()).status_code == 200
    response = send("Two", conversation, parent=first.pk)
    assert response.status_code == 422
    assert "no longer lists" in response.content.decode() and "Two" in response.content.decode()


def test_a_message_while_a_reply_is_written_is_refused(send, started):
    send("One")
    conversation = Conversation.objects.get()
    response = send("Two", conversation)
    assert response.status_code == 422
    assert "A reply is being written." in response.content.decode() and "Two" in response.content.decode()
    assert len(started) == 1


def test_only_so_many_replies_are_written_at_once(send, started):
    """M6."""
    for number in range(8):
        assert send(f"Number {number}").status_code == 200
    response = send("One too many")
    assert response.status_code == 422 and "8 replies are being written" in response.content.decode()


def test_retry_makes_a_sibling_and_keeps_both(send, started, alice_client, model, django_capture_on_commit_callbacks):
    """I17."""
    send("One")
    first = finish(started[0], "First answer")
    with django_capture_on_commit_callbacks(execute=True):
        response = alice_client.post(
            reverse("chat:message-retry", args=[first.pk]), {"model": model.pk, "text": "a draft"}, **HTMX
        )
    assert response.status_code == 200
    second = Message.objects.order_by("pk").last()
    assert second.parent == first.parent and second.generation.pk == started[1]
    assert "a draft" in response.content.decode(), "what was being typed stays"
    finish(started[1], "Second answer")
    page = alice_client.get(f"/c/{first.conversation_id}/").content.decode()
    assert "Second answer" in page and "First answer" not in page and "2 / 2" in re.sub(r"\s+", " ", page)
    page = alice_client.get(f"/c/{first.conversation_id}/?at={first.pk}").content.decode()
    assert "First answer" in page and "Second answer" not in page


def test_retry_is_refused_while_another_reply_is_written(send, started, alice_client, model):
    send("One")
    reply = Message.objects.order_by("pk").last()
    response = alice_client.post(reverse("chat:message-retry", args=[reply.pk]), {"model": model.pk}, **HTMX)
    assert response.status_code == 422 and len(started) == 1


def test_stop_marks_the_wish(send, started, alice_client):
    send("One")
    response = alice_client.post(reverse("chat:generation-stop", args=[started[0]]), **HTMX)
    assert response.status_code == 204
    assert Generation.objects.get().stop_requested_at is not None


def test_a_reply_of_a_dead_process_is_shown_as_interrupted_with_retry(send, started, alice_client):
    """I8, F20: the page does not wait for the sweep."""
    from tests.chat.test_generation import dead_process

    send("One")
    Generation.objects.update(process=dead_process(), state="streaming")
    Message.objects.filter(role="assistant").update(content="Half an ans")
    page = alice_client.get(Conversation.objects.get().get_absolute_url()).content.decode()
    assert "Half an ans" in page and "The server stopped while this was being written." in page and "Retry" in page
    assert "generation-stream" not in page
    assert Generation.objects.get().state == "interrupted"


def test_rename_and_delete(send, started, alice_client):
    send("One")
    conversation = Conversation.objects.get()
    rename = reverse("chat:conversation-rename", args=[conversation.pk])
    assert alice_client.get(rename, **HTMX).status_code == 200
    assert alice_client.post(rename, {"title": " "}, **HTMX).status_code == 422
    assert alice_client.post(rename, {"title": "Blue"}, **HTMX).headers["HX-Redirect"] == f"/c/{conversation.pk}/"
    conversation.refresh_from_db()
    assert conversation.title == "Blue"
    UsageLog.objects.create(
        user_id=conversation.owner_id, provider_name="x", model_id="m", conversation_id=conversation.pk
    )
    delete = reverse("chat:conversation-delete", args=[conversation.pk])
    assert "2 messages" in alice_client.get(delete, **HTMX).content.decode()
    assert alice_client.post(delete, **HTMX).headers["HX-Redirect"] == "/"
    assert (Conversation.objects.count(), UsageLog.objects.count()) == (0, 1)


def test_a_foreign_id_is_a_missing_one(send, started, bob_client, alice_client, client):
    """A1, I2: each route, for another user, as for a row that does not exist; a visitor is asked to sign in."""
    send("One")
    conversation, reply = Conversation.objects.get(), Message.objects.get(role="assistant")
    nothing = {"pk": uuid.uuid4()}
    routes = [
        ("get", "conversation-detail", conversation.pk, nothing["pk"]),
        ("get", "conversation-earlier", conversation.pk, nothing["pk"]),
        ("post", "message-send", conversation.pk, nothing["pk"]),
        ("get", "conversation-rename", conversation.pk, nothing["pk"]),
        ("post", "conversation-rename", conversation.pk, nothing["pk"]),
        ("get", "conversation-delete", conversation.pk, nothing["pk"]),
        ("post", "conversation-delete", conversation.pk, nothing["pk"]),
        ("post", "generation-stop", reply.generation.pk, nothing["pk"]),
        ("post", "message-retry", reply.pk, 999_999),
    ]
    for method, name, pk, missing in routes:
        foreign = getattr(bob_client, method)(reverse(f"chat:{name}", args=[pk]))
        absent = getattr(bob_client, method)(reverse(f"chat:{name}", args=[missing]))
        assert (foreign.status_code, absent.status_code) == (404, 404), name
        visitor = getattr(client, method)(reverse(f"chat:{name}", args=[pk]))
        assert visitor.status_code == 302 and "/sign-in/" in visitor.headers["Location"], name
    reply.generation.refresh_from_db()
    assert reply.generation.stop_requested_at is None and Conversation.objects.count() == 1


def test_bob_cannot_write_into_alices_tree(send, started, bob, bob_client, provider, model):
    """A1: references inside bodies, too."""
    account = ProviderAccount.objects.create(owner=bob, provider=provider, label="Bob's", status="valid")
    model.offers.create(account=account)
    send("One")
    question = Message.objects.get(role="user")
    response = send("Two", client=bob_client, parent=question.pk)
    assert response.status_code == 422 and question.replies.count() == 1


@pytest.mark.parametrize("name", ["generation-stop", "message-retry", "message-send"])
def test_a_get_starts_and_stops_nothing(send, started, alice_client, name):
    """A7."""
    send("One")
    pks = {"generation-stop": started[0], "message-retry": Message.objects.last().pk}
    response = alice_client.get(reverse(f"chat:{name}", args=[pks[name]] if name in pks else []))
    assert response.status_code == 405 and len(started) == 1


def test_a_long_conversation_shows_its_end_and_brings_the_rest(alice, alice_client, model):
    conversation = Conversation.objects.create(owner=alice, model=model, title="Long")
    parent = None
    for number in range(75):
        question = Message.objects.create(conversation=conversation, parent=parent, role="user", content=f"Q{number}.")
        parent = Message.objects.create(
            conversation=conversation, parent=question, role="assistant", content=f"A{number}."
        )
        Generation.objects.create(message=parent, state="complete", model=model)
    page = alice_client.get(conversation.get_absolute_url()).content.decode()
    assert page.count("<section") == 60 and "Q45." in page and "Q44." not in page
    [before] = re.findall(r"earlier/\?before=(\d+)", page)
    earlier = alice_client.get(f"/c/{conversation.pk}/earlier/?before={before}", **HTMX).content.decode()
    assert earlier.count("<section") == 60 and "A44." in earlier and "Q15." in earlier and "Q14." not in earlier


def test_a_page_costs_the_same_number_of_queries_for_one_turn_and_for_many(
    alice, alice_client, model, django_assert_max_num_queries
):
    conversation = Conversation.objects.create(owner=alice, model=model, title="Long")
    parent = None
    for number in range(20):
        question = Message.objects.create(conversation=conversation, parent=parent, role="user", content=f"Q{number}.")
        parent = Message.objects.create(conversation=conversation, parent=question, role="assistant", content="A.")
        Generation.objects.create(message=parent, state="complete", model=model)
    with django_assert_max_num_queries(19):
        alice_client.get(conversation.get_absolute_url())


def test_without_an_account_the_page_says_what_to_do(alice_client, alice):
    keyless = Provider.objects.create(
        name="no-key", display_name="No key", base_url="http://no-key.test/v1", features={"keyless": True}
    )
    page = alice_client.get("/").content.decode()
    assert "Add an account to begin" in page and reverse("providers:account-add") in page
    assert f"Try it without a key: {keyless.display_name}" in page
    assert 'id="composer"' not in page


def test_with_an_account_whose_list_is_being_read_the_page_waits(alice_client, account):
    from catalog.models import SyncRun

    SyncRun.objects.create(account=account)
    assert "Reading the list of models" in alice_client.get("/").content.decode()


def test_with_an_account_without_models_the_page_says_why(alice_client, account):
    from catalog.models import SyncRun

    SyncRun.objects.create(account=account, state="failed", error_message="The provider could not be reached.")
    page = alice_client.get("/").content.decode()
    assert "No models yet" in page and "The provider could not be reached." in page


def test_a_new_conversation_offers_the_model_used_last(send, started, alice_client, provider, account, model):
    other = make_model(provider, account, model_id="z/other", display_name="Other model")
    send("One", model=other.pk)
    page = alice_client.get("/").content.decode()
    assert "Other model" in page and f'name="model" value="{other.pk}"' in page


def test_the_picker_shows_what_was_chosen_and_nothing_foreign(alice_client, account, model, bob):
    private = Provider.objects.create(name="bobs", display_name="Bob's", base_url="http://bob.test/v1", owner=bob)
    theirs = make_model(private, ProviderAccount.objects.create(owner=bob, provider=private, label="B", status="valid"))
    url = reverse("chat:model-picker")
    mine = alice_client.get(url, {"model": model.pk, "account": account.pk}).content.decode()
    assert "GPT" in mine and "work key" in mine and "$1.00 / $2.00" in mine
    assert "Pick a model" in alice_client.get(url, {"model": theirs.pk}).content.decode()
    assert "Pick a model" in alice_client.get(url, {"model": "x", "account": "y"}).content.decode()


def test_the_sidebar_groups_by_day_with_costs_and_a_dot(send, started, alice, alice_client):
    send("Being written")
    old = Conversation.objects.create(owner=alice, title="Old one", updated_at=timezone.now() - timezone.timedelta(9))
    UsageLog.objects.create(
        user_id=alice.pk, provider_name="x", model_id="m", conversation_id=old.pk, status="success",
        cost="0.0124", cost_source="computed",
    )  # fmt: skip
    page = alice_client.get(reverse("chat:sidebar"), **HTMX).content.decode()
    flat = re.sub(r"\s+", " ", page)
    assert flat.index("Today") < flat.index("Being written") < flat.index("Earlier") < flat.index("Old one")
    assert "$0.0124" in flat and "still being written" in flat


def test_what_a_user_wrote_is_text_and_nothing_else(send, started, alice_client):
    """X1."""
    send("<img src=x onerror=alert(1)><script>alert(2)</script> {{ settings.SECRET_KEY }} {% now 'Y' %}")
    page = alice_client.get(Conversation.objects.get().get_absolute_url()).content.decode()
    assert "<img src=x" not in page and "<script>alert" not in page
    assert "{{ settings.SECRET_KEY }} {% now &#x27;Y&#x27; %}" in page


def test_a_title_is_the_first_line_shortened_between_words():
    assert title_from("\n\n  Why?  \nMore") == "Why?"
    assert title_from("word " * 30) == "word word word word word word word word word word word word…"
    assert title_from("evil \u202e title") == "evil [U+202E] title"
