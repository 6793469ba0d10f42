"""Rows belong to users (design.md §4, A1, I2): every owned model has `for_user`, and look-ups start there.

The models come from the app registry and the look-ups from the source, so a new one of either cannot be forgotten.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from django.apps import apps
from django.contrib.auth.models import AnonymousUser
from django.db import models

from tests.source_tree import APPS, chain, dotted, files, function_around, parents, parsed, python
from tests.world import Things, things_of

# -- Every owned model -----------------------------------------------------------------------------------------------

UNOWNED = {"SetupToken": "the one link that makes the first account: it is there before any user is"}
SHARED = {
    "Provider",
    "CatalogVersion",
    "ModelAlias",
    "ModelAliasVersion",
    "ModelGroupRule",
    "OwnPrice",
}
"""Models whose rows may also belong to nobody, and are then everybody's: built-in providers, global aliases."""
BY_LIST = {"AggregatorModel", "ModelChange", "ChangeSet"}
"""Models whose rows may also belong to nobody, and are then those users' whose accounts list the model."""


def our_models() -> list[type[models.Model]]:
    return [model for model in apps.get_models() if model._meta.app_label in APPS]


def owner_path(model: type[models.Model], seen: tuple = ()) -> str:
    """How a row leads to its owner, such as "account__owner"; "" if it does not."""
    users = apps.get_model("auth", "User")
    fields = [field for field in model._meta.concrete_fields if field.model not in seen]
    for field in fields:
        if field.related_model is users or (field.name in {"user_id", "owner_id"} and not field.is_relation):
            return field.name
    for field in sorted(fields, key=lambda field: field.null):  # a relation that may be empty says less
        above = field.related_model if field.is_relation else None
        if above in our_models() and above not in (model, *seen) and (path := owner_path(above, (*seen, model))):
            return f"{field.name}__{path}"
    return ""


OWNED = {model.__name__: model for model in our_models() if owner_path(model)}


@pytest.mark.once
def test_every_model_has_an_owner_or_a_reason_for_having_none():
    assert {model.__name__ for model in our_models()} - set(OWNED) == set(UNOWNED)
    assert len(OWNED) >= 13


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("ProviderAccount", "owner"),
        ("Provider", "owner"),
        ("SyncRun", "account__owner"),
        ("AccountModel", "account__owner"),
        ("Message", "conversation__owner"),
        ("Generation", "message__conversation__owner"),
        ("ModelChange", "model__provider__owner"),
        ("UsageLog", "user_id"),
    ],
)
def test_the_way_to_the_owner_is_found(name, path):
    assert owner_path(OWNED[name]) == path


def lacks_for_user(model: type[models.Model]) -> bool:
    return bool(owner_path(model)) and not callable(getattr(getattr(model, "objects", None), "for_user", None))


@pytest.mark.once
@pytest.mark.parametrize("name", OWNED)
def test_every_owned_model_has_for_user(name):
    assert not lacks_for_user(OWNED[name])


@pytest.mark.once
def test_a_planted_model_without_for_user_is_found():
    from django.test.utils import isolate_apps

    with isolate_apps("chat"):

        class Note(models.Model):  # noqa: DJ008
            account = models.ForeignKey("providers.ProviderAccount", models.CASCADE)

            class Meta:
                app_label = "chat"

        class Colour(models.Model):  # noqa: DJ008
            name = models.TextField()

            class Meta:
                app_label = "chat"

        Note._meta.get_field("account").remote_field.model = apps.get_model("providers", "ProviderAccount")
        assert lacks_for_user(Note)
        assert not lacks_for_user(Colour)


@pytest.fixture
def worlds(alice, bob) -> tuple[Things, Things]:
    return things_of(alice), things_of(bob)


def test_for_user_gives_a_user_their_own_rows_and_no_others_i2(worlds):
    alices, _ = worlds
    assert {model.__name__ for model in alices.rows} == set(OWNED), "tests/world.py has no row of a new model"
    for model in alices.rows:
        rows = {things.owner: things.rows[model] for things in worlds}
        for owner, row in rows.items():
            [other] = [one for one in rows if one != owner]
            assert model.objects.for_user(owner).filter(pk=row.pk).exists(), model
            assert not model.objects.for_user(other).filter(pk=row.pk).exists(), model
            path = owner_path(model)
            theirs = {path: other.pk}
            if path == "user_id" or model.__name__ not in SHARED:
                assert set(model.objects.for_user(owner)) == set(model.objects.filter(**{path: owner.pk})), model
            assert not model.objects.for_user(owner).filter(**theirs).exists(), model


def test_for_user_gives_nobody_nothing_of_anybody_i2(worlds):
    for model in worlds[0].rows:
        rows = model.objects.for_user(AnonymousUser())
        assert not rows.exclude(**{f"{owner_path(model)}__isnull": True}).exists(), model
        if model.__name__ not in SHARED:
            assert not rows.exists(), model


def test_what_belongs_to_nobody_is_everybodys(worlds, alice, bob):
    from catalog.models import (
        AggregatorModel,
        CatalogVersion,
        ModelAlias,
        ModelAliasVersion,
        ModelGroupRule,
        OwnPrice,
    )
    from providers.models import Provider

    provider = Provider.objects.create(name="shared", display_name="Shared", base_url="https://shared.example/v1")
    model = AggregatorModel.objects.create(provider=provider, model_id="m", display_name="M")
    alias = ModelAlias.objects.create(alias="fast", targets=["m"])
    rows = [
        provider,
        alias,
        ModelAliasVersion.objects.create(alias=alias, kind="created", by="sam", after={}),
        ModelGroupRule.objects.create(provider=provider, model_id="m", group_key="n"),
        CatalogVersion.objects.create(provider=provider),
        OwnPrice.objects.create(model=model, price_input=1),
    ]
    assert {type(row).__name__ for row in rows} == SHARED
    for row in rows:
        for user in (alice, bob):
            assert type(row).objects.for_user(user).filter(pk=row.pk).exists(), row


def test_what_a_shared_provider_sells_is_seen_by_whose_accounts_list_it_or_once_did_i2(worlds, alice, bob):
    from catalog.models import AccountModel, AggregatorModel, ChangeSet, ModelChange, PastOffer
    from providers.models import Provider, ProviderAccount

    shared = Provider.objects.create(name="shared", display_name="Shared", base_url="https://shared.example/v1")
    account = {user: ProviderAccount.objects.create(owner=user, provider=shared, label="Work") for user in (alice, bob)}
    common, only, gone = (
        AggregatorModel.objects.create(provider=shared, model_id=name, display_name=name)
        for name in ("common", "ft:only", "ft:gone")
    )
    for user, model in ((alice, common), (alice, only), (bob, common)):
        AccountModel.objects.create(account=account[user], model=model)
    PastOffer.objects.create(account=account[alice], model=gone)
    under = {model: ChangeSet.objects.create(provider=shared) for model in (common, only, gone)}
    for model, change_set in under.items():
        ModelChange.objects.create(model=model, change_set=change_set, kind="added")

    for user, seen in ((alice, {common, only, gone}), (bob, {common}), (AnonymousUser(), set())):
        assert set(AggregatorModel.objects.for_user(user).filter(provider=shared)) == seen
        assert {row.model for row in ModelChange.objects.for_user(user).filter(model__provider=shared)} == seen
        assert set(ChangeSet.objects.for_user(user).filter(provider=shared)) == {under[model] for model in seen}


def test_what_may_be_called_is_only_what_an_own_account_lists(worlds):
    from catalog.models import AggregatorModel

    for mine, other in (worlds, worlds[::-1]):
        callable_now = set(AggregatorModel.objects.available_to(mine.owner))
        assert mine.model in callable_now
        assert other.model not in callable_now


# -- Every look-up ---------------------------------------------------------------------------------------------------

SCOPES = {"for_user", "available_to"}
MAKES = {"create", "acreate", "bulk_create", "abulk_create", "none", "model", "create_user"}
MANAGERS = {"objects", "_default_manager", "_base_manager"}
STEPS_TO_OTHERS = {"accounts", "offers", "past_offers", "private_providers"}
"""Relations that lead from a row everybody shares to rows of everybody."""


def unscoped(path: str, text: str) -> Iterator[str]:
    """Look-ups of owned models that do not start at a user."""
    if not any(name in text for name in (*OWNED, *STEPS_TO_OTHERS)):
        return
    tree = parsed(path, text)
    for node in ast.walk(tree):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Attribute) and node.attr in MANAGERS:
            model = dotted(node.value).rpartition(".")[2]
            whole = _whole_chain(node)
            _, steps = chain(whole)
            after = steps[steps.index(node.attr) + 1 :]
            is_scoped = SCOPES & set(after) or _names_the_user(whole)
            if model in OWNED and not is_scoped and not (after and after[0] in MAKES):
                yield f"{where} {model}.{'.'.join([node.attr, *after])}"
        elif isinstance(node, ast.Call):
            called = dotted(node.func).rpartition(".")[2]
            if called.endswith(("get_object_or_404", "get_list_or_404")) and node.args:
                model = dotted(node.args[0]).rpartition(".")[2]
                if model in OWNED:
                    yield f"{where} {called}({model})"
        elif isinstance(node, ast.Attribute) and node.attr in STEPS_TO_OTHERS:
            _, steps = chain(_whole_chain(node))
            owner = dotted(node.value).rpartition(".")[2]
            if steps[-1] != node.attr and owner not in {"account", "user", "owner", "self"}:
                yield f"{where} {owner}.{node.attr} leads to everybody's rows"


def _names_the_user(whole: ast.AST) -> bool:
    """`….filter(owner_id=user.pk)`, `….get_or_create(owner=user)`: the same question as for_user, asked by hand."""
    while not isinstance(whole, ast.Name):
        for keyword in whole.keywords if isinstance(whole, ast.Call) else []:
            names = set(dotted(keyword.value).split("."))
            if keyword.arg in {"owner", "owner_id", "user_id"} and {"user", "user_id"} & names:
                return True
        if not isinstance(whole, ast.Call | ast.Attribute | ast.Subscript):
            return False
        whole = whole.func if isinstance(whole, ast.Call) else whole.value
    return False


def _whole_chain(node: ast.AST) -> ast.AST:
    """The longest chain of attributes, calls and indexes that begins with `node`."""
    for parent in parents(node):
        if (
            isinstance(parent, ast.Attribute)
            or (isinstance(parent, ast.Call) and parent.func is node)
            or (isinstance(parent, ast.Subscript) and parent.value is node)
        ):
            node = parent
        else:
            break
    return node


GIVEN = "is given a row, or its id, that the caller has found at its owner; "
STAFF = "staff see all rows of a table; which columns, tests/test_admin.py says (A6)"
ALLOWED = {
    # Whole modules that never meet a request: they carry out what was found and checked before, for every user.
    ("catalog/sync.py", "*"): GIVEN + "a sync works on the account it is called with",
    ("catalog/tasks.py", "*"): "beat's work for all accounts; no user asks for it and no page shows it",
    (
        "catalog/schedule.py",
        "shortest_interval",
    ): "beat's work for all accounts; no user asks for it and no page shows it",
    (
        "catalog/own_prices.py",
        "enter",
    ): "writes the user's own row, or staff's for everybody, of a model found for them",
    ("chat/generation.py", "*"): GIVEN + "a reply runs on by its own id, whoever listens",
    ("usage/ledger.py", "*"): GIVEN + "an attempt is settled by its own request id",
    ("providers/health.py", "*"): GIVEN + "what a call taught us about the account it went through",
    # Staff and the operator.
    ("catalog/admin.py", "AggregatorModelAdmin.save_model"): STAFF,
    ("catalog/admin.py", "ModelAliasForm.clean"): STAFF,
    ("catalog/admin.py", "ModelAliasForm.clean_targets"): STAFF,
    ("catalog/admin.py", "ModelGroupRuleForm.clean"): STAFF,
    ("catalog/admin.py", "ModelGroupRuleAdmin.save_model"): STAFF,
    ("providers/admin.py", "ProviderAdmin.save_model"): STAFF,
    ("usage/admin.py", "_of_everything"): STAFF,
    ("catalog/management/commands/sync_models.py", "Command.chosen"): "a command of the operator's, over all accounts",
    # Inside the look-ups that give users their own.
    ("catalog/models.py", "AggregatorModelQuerySet.available_to"): "narrowed by account__in to the user's own accounts",
    ("catalog/choices.py", "with_stars"): "who hears of a change: asked by the sync, for every user",
    ("catalog/routes.py", "routes_for"): "the second one asks for aliases that belong to nobody and hold for everybody",
    ("catalog/routes.py", "_routes"): "narrowed by account__in to the user's own accounts",
    ("catalog/probes.py", "claim"): GIVEN + "a probe is carried out by its own id",
    ("catalog/probes.py", "note"): GIVEN + "a probe is carried out by its own id",
    ("catalog/probes.py", "is_wanted"): GIVEN + "a probe is carried out by its own id",
    ("catalog/probes.py", "finish"): GIVEN + "a probe is carried out by its own id",
    ("catalog/probes.py", "request_stop"): GIVEN + "it is the row itself",
    ("catalog/aliases.py", "save"): GIVEN + "locks that row",
    ("catalog/aliases.py", "delete"): GIVEN + "it is the row itself",
    ("catalog/grouping.py", "offers"): "narrowed by account__in to the user's own accounts",
    ("catalog/grouping.py", "others_by_key"): "narrowed by account__in to the user's own accounts",
    ("catalog/grouping.py", "Keys.__init__"): GIVEN + "what staff said about a provider's ids holds for all its users",
    ("catalog/listing.py", "_load"): "narrowed by account__in to the user's own accounts",
    ("catalog/listing.py", "_facts_of"): GIVEN + "facts are the provider's; which a user sees, their offers decide",
    ("providers/models.py", "ProviderAccount.refresh_lock"): GIVEN + "it is the row itself",
    ("providers/models.py", "ProviderAccount.save_found"): GIVEN + "it is the row itself",
    ("providers/vault.py", "rotate"): GIVEN + "it is the row itself",
    ("providers/rotation.py", "_batches"): "a command of the operator's, over all accounts",
    ("providers/tasks.py", "recheck"): "beat's work for all accounts; no user asks for it and no page shows it",
    # Pieces of a page.
    ("catalog/explorer_views.py", "_last_runs"): "a subquery of runs of the user's own accounts",
    ("providers/views.py", "_with_facts"): "subqueries of the accounts it is given",
    ("providers/views.py", "_dress"): "ids that come from the user's own accounts",
    ("providers/views.py", "account_remove"): "narrowed by account__in to the user's own accounts",
    ("chat/context.py", "figures_of"): GIVEN + "what this conversation cost",
    ("chat/events.py", "_stored"): GIVEN + "_may_listen has looked it up for the listener",
    ("chat/turns.py", "leaf_of"): GIVEN + "and the message is looked for in that conversation alone",
    ("chat/turns.py", "on_path"): GIVEN + "the way from it to the root stays in one conversation",
    ("chat/turns.py", "_dress"): GIVEN + "the messages of one conversation",
    ("chat/turns.py", "turn_of"): GIVEN + "one message",
    ("chat/views.py", "model_select"): "the size of a path whose end was found by for_user",
    ("chat/views.py", "message_retry"): "the generation of a reply that was found by for_user",
    ("chat/views.py", "conversation_rename"): "writes one column of the conversation that _mine found",
    ("chat/writing.py", "_locked"): GIVEN + "locks that row",
    ("chat/writing.py", "_reply_to"): GIVEN + "touches the question's conversation",
    ("usage/notices.py", "*"): "writes what a sync found for every user concerned; pages read by for_user",
    (
        "chat/apps.py",
        "_with_conversations",
    ): "tells usage.notices, which is no page, who has a conversation with a model",
    ("usage/reports.py", "receipts_for"): GIVEN + "the generations of one conversation",
    # The door of /v1, which finds out who is asking.
    ("chat/api/auth.py", "caller_behind"): "the token is what says who the user is; compared whole, in constant time",
}
"""(file, function or * for all of it) → why it may look further. An entry that nothing needs fails."""


def test_every_look_up_of_owned_rows_starts_at_a_user_a1():
    found, used = [], set()
    for file in python():
        for line in unscoped(file.path, file.text):
            number = int(line.split(":")[1].split()[0])
            functions = {
                function_around(node)
                for node in ast.walk(parsed(file.path, file.text))
                if getattr(node, "lineno", 0) == number
            }
            keys = {(file.path, function) for function in functions} | {(file.path, "*")}
            if explained := keys & set(ALLOWED):
                used |= explained
            else:
                found.append(f"{line} in {'/'.join(sorted(functions))}")
    assert found == []
    assert set(ALLOWED) == used, "an exception that nothing needs any more"


@pytest.mark.once
@pytest.mark.parametrize(
    "text",
    [
        "def f(request, pk):\n    return Conversation.objects.get(pk=pk)",
        "def f(request, pk):\n    return get_object_or_404(Conversation, pk=pk)",
        "def f(request, pk):\n    return shortcuts.get_object_or_404(models.Message, pk=pk)",
        "async def f(pk):\n    return await aget_object_or_404(Generation, pk=pk)",
        "x = Message.objects.filter(pk=1).first()",
        "x = Message.objects.select_related('conversation').get(pk=1)",
        "x = Message._default_manager.get(pk=1)",
        "x = models.UsageLog.objects.all()[:3]",
        "x = ApiToken.objects.live()",
        "x = SyncRun.objects.in_bulk(ids)",
        "x = Conversation.objects.order_by('pk')",
        "x = ProviderAccount.objects.filter(owner_id=request.POST['owner'])",
        "x = Conversation.objects.filter(owner=owner)",
        "x = Message.objects.filter(pk=1, parent__in=Message.objects.for_user(user))",
        "x = provider.accounts.filter(is_active=True)",
        "x = model.offers.count()",
        "class V(ListView):\n    queryset = Conversation.objects.all()",
        "import chat.models\nx = chat.models.Conversation.objects.get(pk=1)",
    ],
)
def test_a_planted_unscoped_look_up_is_found(text):
    assert list(unscoped("chat/views.py", text)), text


@pytest.mark.once
@pytest.mark.parametrize(
    "text",
    [
        "x = get_object_or_404(Conversation.objects.for_user(request.user), pk=pk)",
        "x = Message.objects.select_related('x').for_user(user).filter(pk=1)",
        "x = AggregatorModel.objects.available_to(request.user).filter(pk=1)",
        "x = Conversation.objects.create(owner=user)",
        "x = Conversation.objects.get_or_create(pk=1, owner=user)",
        "x = Provider.objects.filter(owner_id=self.user.pk)",
        "x = Conversation.DoesNotExist",
        "x = get_object_or_404(conversation.messages.all(), pk=pk)",
        "x = account.offers.count()",
        "x = get_user_model().objects.get(pk=user_id)",
        "x = Count('accounts')",
        "# Conversation.objects.get(pk=1) would be wrong",
    ],
)
def test_scoped_look_ups_are_left_alone(text):
    assert list(unscoped("chat/views.py", text)) == []


# -- Templates ask too -----------------------------------------------------------------------------------------------


def template_steps_to_others(path: str, text: str) -> Iterator[str]:
    """A template that goes from a shared row along a relation to everybody's."""
    for number, line in enumerate(text.splitlines(), 1):
        for tag in re.findall(r"\{[{%].*?[%}]\}", line):
            for owner, step in re.findall(rf"([\w.]*)\.({'|'.join(STEPS_TO_OTHERS)})\b", tag):
                if owner.rpartition(".")[2] not in {"account", "user", ""}:
                    yield f"{path}:{number} {owner}.{step}"


@pytest.mark.once
def test_no_template_goes_from_shared_rows_to_everybodys_a1():
    templates = [file for file in files() if file.path.endswith(".html")]
    assert len(templates) > 30
    assert [found for file in templates for found in template_steps_to_others(file.path, file.text)] == []


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("{{ provider.accounts.count }}", 1),
        ("{% for offer in row.model.offers.all %}", 1),
        ("{{ account.offers.count }} {{ accounts|length }} {{ user.provider_accounts.count }}", 0),
        ("the provider.accounts of everybody", 0),
    ],
)
def test_planted_steps_in_templates_are_found(text, count):
    assert len(list(template_steps_to_others("templates/x.html", text))) == count
