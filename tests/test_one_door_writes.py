"""One door each for what must not be written twice (threats.md §0): sealed keys, the ledger, the catalog; and redirects.

Read from the source. What cannot be seen there (a row saved through a name this reader does not follow) is left to the
doors' own tests; what can be seen is found wherever it stands, on any path.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest
from django.apps import apps

from tests.source_tree import chain, dotted, files, function_around, imported, literal, nodes, parents, parsed, python

pytestmark = pytest.mark.once

WRITES = {"create", "bulk_create", "get_or_create", "update_or_create", "bulk_update", "update", "delete", "save"}
WRITES |= {f"a{name}" for name in WRITES} | {
    "save_base",
    "_raw_delete",
    "_update",
    "_insert",
    "add",
    "set",
    "remove",
    "clear",
}
SETS_COLUMNS = {"create", "get_or_create", "update_or_create", "update", "filter_or_create"}
SETS_COLUMNS |= {f"a{name}" for name in SETS_COLUMNS}
SQL_WRITES = re.compile(
    r"\b(?:INSERT\s+(?:OR\s+\w+\s+)?INTO|REPLACE\s+INTO|UPDATE(?:\s+ONLY)?|DELETE\s+FROM|MERGE\s+INTO|TRUNCATE(?:\s+TABLE)?"
    r"|COPY|ALTER\s+TABLE|DROP\s+TABLE)\s+[\"'`]?(\w+|\{\})",
    re.IGNORECASE,
)

# -- The ledger and the catalog: who writes their rows ---------------------------------------------------------------


def writes_rows(path: str, text: str, models: frozenset[str]) -> Iterator[str]:
    """Places that make, change or delete a row of `models`: through a manager, an instance, a relation, or SQL."""
    tables, relations = _tables(models), _relations(models)
    if not re.search("|".join([*models, *tables, *(rf"\.{name}\." for name in relations), *_SQL_WORDS]), text):
        return
    tree = parsed(path, text)
    names = set(models) | {  # `from usage.models import UsageLog as Row`
        alias.asname
        for node in nodes(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in models and alias.asname
    }
    carriers = _carriers(tree, names)
    for node in nodes(tree):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            root, steps = chain(node.func)
            start = root.id if isinstance(root, ast.Name) else ""
            whole = [start, *steps]
            writes = bool(steps) and steps[-1] in WRITES
            if whole[-1] in names and not _is_only_named(node):
                yield f"{where} makes a {whole[-1]}"
            elif (writes and names & set(whole[:-1])) or (
                writes and (start, function_around(node).rpartition(".")[2]) in carriers
            ):
                yield f"{where} {'.'.join(whole)}"
            elif writes and relations & set(steps[:-1]):
                yield f"{where} {'.'.join(whole)} writes along a relation"
        elif isinstance(node, ast.Attribute) and node.attr == "db_table" and names & set(dotted(node).split(".")):
            yield f"{where} asks for the table's name, as raw SQL would"
        elif isinstance(node, ast.Constant | ast.JoinedStr):
            for found in SQL_WRITES.finditer(literal(node)):
                if found[1] in tables or (found[1] == "{}" and path not in DOORS):
                    yield f"{where} {found[0]}"


_SQL_WORDS = ("(?i:insert|replace) +into ", "(?i:update|delete from) +[\"'`]?{")


def _is_only_named(call: ast.Call) -> bool:
    """`QuerySet["UsageLog"]()` and annotations do not make a row."""
    return not isinstance(call.func, ast.Name | ast.Attribute)


@cache
def _tables(models: frozenset[str]) -> frozenset[str]:
    return frozenset(model._meta.db_table for model in apps.get_models() if model.__name__ in models)


@cache
def _relations(models: frozenset[str]) -> frozenset[str]:
    """Names under which other rows lead to these: `account.offers`. "models" is left out: it is django.db's module."""
    return frozenset(
        relation.get_accessor_name()
        for model in apps.get_models()
        if model.__name__ in models
        for relation in (
            field.remote_field for field in model._meta.get_fields() if field.many_to_one or field.one_to_one
        )
        if relation is not None and relation.get_accessor_name()
    ) - {"models"}


_BINDS = (
    ast.Assign, ast.NamedExpr, ast.AnnAssign, ast.For, ast.AsyncFor, ast.comprehension, ast.With, ast.AsyncWith,
    ast.FunctionDef, ast.AsyncFunctionDef,
)  # fmt: skip


def _carriers(tree: ast.Module, names: set[str]) -> set[tuple[str, str]]:
    """(variable, function) that hold rows or querysets of the models: assigned or looped over from an expression that
    names one, or annotated with it."""
    found: set[tuple[str, str]] = set()
    binding = [node for node in nodes(tree) if isinstance(node, _BINDS)]
    for _ in range(3):  # a = Model.objects…; for b in a: …; c = b
        for node in binding:
            function = function_around(node).rpartition(".")[2]
            pairs: list[tuple[ast.AST, ast.AST | None]] = []
            if isinstance(node, ast.Assign):
                pairs = [(target, node.value) for target in node.targets]
            elif isinstance(node, ast.NamedExpr | ast.AnnAssign):
                pairs = [(node.target, node.value)]
                if isinstance(node, ast.AnnAssign) and _mentions(node.annotation, names):
                    pairs.append((node.target, node.annotation))
            elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
                pairs = [(node.target, node.iter)]
            elif isinstance(node, ast.With | ast.AsyncWith):
                pairs = [(item.optional_vars, item.context_expr) for item in node.items if item.optional_vars]
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                for argument in arguments:
                    if argument.annotation is not None and _mentions(argument.annotation, names):
                        found.add((argument.arg, node.name))
            for target, value in pairs:
                if value is None or not isinstance(target, ast.Name | ast.Tuple | ast.List):
                    continue
                root, _ = chain(value)
                carries = isinstance(root, ast.Name) and (
                    root.id in names or (root.id, function) in found or ((root.id, "") in found)
                )
                if carries or (isinstance(node, ast.AnnAssign) and _mentions(value, names)):
                    found |= {(name.id, function) for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def _mentions(annotation: ast.AST, names: set[str]) -> bool:
    words = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    for node in ast.walk(annotation):
        words |= set(re.findall(r"\w+", literal(node)))
    return bool(words & names)


LEDGER = frozenset({"UsageLog", "DailyUsage"})
CATALOG = frozenset(
    {"AggregatorModel", "AccountModel", "PastOffer", "ModelChange", "ChangeSet", "SyncRun", "CatalogVersion"}
)
NOTICES = frozenset({"Notice"})
ALIASES = frozenset({"ModelAlias", "ModelAliasVersion"})
CHOICES = frozenset({"FavouriteModel", "SavedFilter", "HideRule"})
DOORS = {
    "usage/ledger.py": LEDGER,
    "usage/notices.py": NOTICES,
    "catalog/sync.py": CATALOG,
    "catalog/aliases.py": ALIASES,
    "catalog/probes.py": frozenset({"CapabilityProbe"}),
    "catalog/choices.py": CHOICES,
    "catalog/own_prices.py": frozenset({"OwnPrice"}),
}
WRITERS_TOO = {
    ("catalog/admin.py", "AggregatorModelAdmin.save_model"): (
        "staff feature a model: that column is theirs, saved alone, and the version makes search lists reload"
    ),
    ("usage/notice_views.py", "notices_read"): "its reader has read them: that column is theirs",
}
"""(file, function) → why it may write though it is not the door. An entry that nothing needs fails."""


def writers(path: str, text: str) -> Iterator[str]:
    """Every place in `path` that writes what only the ledger or only the sync writes."""
    for door, models in DOORS.items():
        if path != door:
            yield from writes_rows(path, text, models)


def _allowed(path: str, text: str, line: str, allowed: dict) -> tuple[str, str] | None:
    """The allow-list's entry for the function that the complaint `line` stands in."""
    number = int(line.split(":")[1].split()[0])
    inside = {function_around(node) for node in nodes(parsed(path, text)) if getattr(node, "lineno", 0) == number}
    return next((key for key in allowed if key[0] == path and any(key[1] == one for one in inside)), None)


def unexplained(rule, allowed: dict) -> tuple[list[str], set]:
    """(complaints that no entry explains, entries that explained one) over all our code."""
    found, used = [], set()
    for file in python():
        for line in rule(file.path, file.text):
            key = _allowed(file.path, file.text, line, allowed)
            if key is None:
                found.append(line)
            else:
                used.add(key)
    return found, used


def test_the_ledger_and_the_catalog_are_written_by_one_module_each():
    found, used = unexplained(writers, WRITERS_TOO)
    assert found == []
    assert set(WRITERS_TOO) == used, "an exception that nothing needs any more"


@pytest.mark.parametrize("door", DOORS)
def test_the_doors_do_write_so_the_search_sees_something(door):
    [file] = [file for file in files() if file.path == door]
    assert len(list(writes_rows(door, file.text, DOORS[door]))) >= 2


@pytest.mark.parametrize(
    "text",
    [
        "UsageLog.objects.create(user_id=1)",
        "UsageLog(user_id=1).save()",
        "models.UsageLog(user_id=1)",
        "UsageLog.objects.filter(pk=1).update(cost=0)",
        "UsageLog.objects.for_user(user).exclude(pk=3).delete()",
        "UsageLog.objects.bulk_create(rows)",
        "async def f():\n    await UsageLog.objects.acreate(user_id=1)",
        "from usage.models import UsageLog as Row\nRow.objects.update_or_create(pk=1)",
        "def f():\n    rows = UsageLog.objects.filter(pk=1)\n    rows.update(cost=0)",
        "def f():\n    for row in UsageLog.objects.all():\n        row.cost = 0\n        row.save()",
        "def f():\n    rows = UsageLog.objects.all()\n    for row in rows:\n        row.delete()",
        "def f(row: UsageLog):\n    row.save(update_fields=['cost'])",
        "def f(row: 'UsageLog | None'):\n    row.save()",
        "def f():\n    if row := UsageLog.objects.first():\n        row.save()",
        "cursor.execute('UPDATE aggregator_usage_logs SET cost = 0')",
        "cursor.execute(f'DELETE FROM aggregator_usage_daily WHERE day < {day}')",
        'SQL = """\n  INSERT INTO aggregator_usage_daily (day)\n  VALUES (1)"""',
        "cursor.execute('UPDATE ' + UsageLog._meta.db_table + ' SET cost = 0')",
        "DailyUsage.objects.get_or_create(day=1)",
        "AggregatorModel.objects.filter(pk=1).update(price_input=0)",
        "SyncRun.objects.create(account=a)",
        "account.offers.all().delete()",
        "OwnPrice.objects.filter(pk=1).update(price_input=0)",
        "user.own_prices.all().delete()",
        "account.sync_runs.create()",
        "model.changes.bulk_create([])",
        "AccountModel(account=a, model=m).save()",
        "cursor.execute('delete from aggregator_models')",
        "cursor.execute(f'UPDATE {table} SET cost = 0')",
        "class SyncRun:\n    def mark(self):\n        SyncRun.objects.filter(pk=self.pk).update(state='done')",
    ],
)
def test_a_planted_write_is_found(text):
    assert list(writers("chat/turns.py", text)), text


@pytest.mark.parametrize(
    "text",
    [
        "UsageLog.objects.for_user(user).filter(pk=1).exists()",
        "x = UsageLog.Status.PENDING",
        "seen = {}\nseen.update(a=1)\nhashlib.sha256().update(b'x')",
        "Conversation.objects.filter(pk=1).update(title='x')",
        "cursor.execute('SELECT cost FROM aggregator_usage_logs')",
        "cursor.execute('UPDATE chat_messages SET content = 1')",
        "def f(rows: Iterable[UsageLog]) -> int:\n    return sum(1 for row in rows)",
        "class UsageLogQuerySet(models.QuerySet['UsageLog']):\n    pass",
        "admin.site.register(UsageLog)",
        "account.offers.filter(model=1).count()",
        "from django.db import models\nmodels.Model.save(self)",
        "raise ValidationError('UPDATE your account')",
    ],
)
def test_reading_and_other_writes_are_left_alone(text):
    assert list(writers("chat/turns.py", text)) == []


# -- The vault: who seals --------------------------------------------------------------------------------------------

SEALED = {"api_key_encrypted", "api_key_hash", "api_key_hint", "extra_headers_encrypted"}
VAULT = "providers/vault.py"
SEALING = "providers/sealing.py"  # opens what the browser sealed; sets no column


def seals(path: str, text: str) -> Iterator[str]:
    """Cryptography, or a sealed column that is set, outside the vault."""
    if path == VAULT:
        return
    tree = parsed(path, text)
    for node, name in imported(tree, path):
        if path != SEALING and name.partition(".")[0] in {
            "cryptography",
            "Crypto",
            "Cryptodome",
            "nacl",
            "fernet_fields",
            "jwcrypto",
            "jose",
        }:
            yield f"{path}:{node.lineno} imports {name}"
        elif name in {"django.core.signing", "django.core.signing.dumps"}:
            yield f"{path}:{node.lineno} imports {name}: signing is not sealing"
    for node in ast.walk(tree):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Attribute) and node.attr in SEALED and not isinstance(node.ctx, ast.Load):
            yield f"{where} sets {node.attr}"
        elif isinstance(node, ast.Call):
            _, steps = chain(node.func)
            called = steps[-1] if steps else dotted(node.func)
            if called in {"setattr", "delattr", "__setattr__"}:
                for argument in node.args:
                    if literal(argument) in SEALED:
                        yield f"{where} sets {literal(argument)}"
            if called in SETS_COLUMNS | {"ProviderAccount", "replace", "Account"}:
                for keyword in node.keywords:
                    if keyword.arg in SEALED:
                        yield f"{where} {called}({keyword.arg}=…)"
                    elif keyword.arg in {None, "defaults", "create_defaults"}:
                        for inner in ast.walk(keyword.value):
                            if literal(inner) in SEALED or getattr(inner, "arg", None) in SEALED:
                                yield f"{where} {called}(**{{{literal(inner) or inner.arg}: …}})"
            if called in {"bulk_update", "abulk_update"}:
                for inner in ast.walk(node):
                    if literal(inner) in SEALED:
                        yield f"{where} {called} of {literal(inner)}"
        elif isinstance(node, ast.Constant | ast.JoinedStr) and SQL_WRITES.search(literal(node)):
            for column in sorted(SEALED):
                if column in literal(node):
                    yield f"{where} SQL that writes {column}"


def test_only_the_vault_seals():
    assert [found for file in python() for found in seals(file.path, file.text)] == []


def test_the_vault_itself_would_be_found_so_the_search_sees_something():
    [file] = [file for file in files() if file.path == VAULT]
    assert len(list(seals("providers/elsewhere.py", file.text))) >= 6


@pytest.mark.parametrize(
    "text",
    [
        "from cryptography.fernet import Fernet",
        "def f():\n    import cryptography.hazmat",
        "from django.core import signing",
        "account.api_key_encrypted = other.api_key_encrypted",
        "account.api_key_hash += 'x'",
        "a, account.extra_headers_encrypted = 1, 2",
        "setattr(account, 'api_key_encrypted', '')",
        "ProviderAccount(owner=o, api_key_encrypted=x)",
        "ProviderAccount.objects.filter(pk=1).update(api_key_encrypted='')",
        "ProviderAccount.objects.create(api_key_hash=h)",
        "ProviderAccount.objects.update_or_create(pk=1, defaults={'api_key_encrypted': x})",
        "ProviderAccount.objects.update_or_create(pk=1, defaults=dict(api_key_encrypted=x))",
        "ProviderAccount.objects.filter(pk=1).update(**{'api_key_hint': x})",
        "ProviderAccount.objects.bulk_update(rows, ['api_key_encrypted'])",
        "cursor.execute('UPDATE user_api_providers SET api_key_encrypted = %s', [x])",
        "for account.api_key_encrypted in xs: pass",
    ],
)
def test_planted_sealing_is_found(text):
    assert list(seals("providers/forms.py", text)), text


@pytest.mark.parametrize(
    "text",
    [
        "import hashlib, secrets, hmac",
        "if account.api_key_encrypted: pass",
        "mine.filter(api_key_hash__in=hashes).exists()",
        "ProviderAccount.objects.filter(api_key_encrypted=old).update(status='locked')",
        "SEALED = ('api_key_encrypted', 'api_key_hash')\naccount.save(update_fields=SEALED)",
        "api_key_encrypted = models.TextField(blank=True)",
        "from providers import vault\nvault.seal_key(account, key)",
    ],
)
def test_reading_what_is_sealed_is_left_alone(text):
    assert list(seals("providers/forms.py", text)) == []


# -- Redirects: only to our own paths (A10) --------------------------------------------------------------------------

TO = re.compile(r"^(?:hx-redirect|hx-location|hx-push-url|hx-replace-url|location|refresh)$", re.IGNORECASE)
FROM_OUTSIDE = {"GET", "POST", "META", "headers", "COOKIES", "cleaned_data", "data", "body", "path_info", "get_full_path",
                "build_absolute_uri", "current_url", "referer", "next"}  # fmt: skip
ONE_PLACE = {
    ("catalog/alias_views.py", "_go"): "the same for aliases",
    ("catalog/explorer_views.py", "_go"): "the same, with addresses of the explorer",
    ("chat/views.py", "_go"): "the one place that sends htmx elsewhere; what it is given is checked where it is called",
}
TAKES_A_TARGET = {"redirect": 0, "_go": 1, "resolve_url": 0, "secure_redirect": 0}
"""Function → which of its arguments says where to."""


def leads_away(path: str, text: str) -> Iterator[str]:
    """Redirects whose target is not visibly a name, a path or a row of ours."""
    tree = parsed(path, text)
    for node in ast.walk(tree):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Name | ast.Attribute):
            name = dotted(node).rpartition(".")[2]
            if re.search(
                r"HttpResponse(Permanent)?Redirect|RedirectView|HttpResponseClientRedirect|HttpResponseLocation", name
            ):
                yield f"{where} uses {name}; use redirect()"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if re.search(r"Redirect|HttpResponseLocation|push_url|replace_url", alias.name):
                    yield f"{where} imports {alias.name}; use redirect()"
        if isinstance(node, ast.Call):
            called = dotted(node.func).rpartition(".")[2]
            if called in TAKES_A_TARGET and isinstance(node.func, ast.Name):
                position = TAKES_A_TARGET[called]
                target = node.args[position] if len(node.args) > position else None
                if target is None or not _is_ours(target):
                    yield f"{where} {called}({ast.unparse(target) if target else '*'})"
        elif isinstance(node, ast.Subscript) and TO.match(literal(node.slice)) and isinstance(node.ctx, ast.Store):
            value = _assigned_to(node)
            if value is None or not _is_ours(value):
                yield f"{where} {literal(node.slice)}: {ast.unparse(value) if value else '?'}"
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if TO.match(literal(key)) and literal(key) != "LOCATION" and not _is_ours(value):  # that is a cache's
                    yield f"{where} {literal(key)}: {ast.unparse(value)}"


def _assigned_to(target: ast.AST) -> ast.AST | None:
    """What `target = …` or its place in `a, target = …, …` is given."""
    around = next(iter(parents(target)))
    if isinstance(around, ast.Assign | ast.AnnAssign):
        return around.value
    assign = next(iter(parents(around)), None)
    if isinstance(around, ast.Tuple) and isinstance(assign, ast.Assign) and isinstance(assign.value, ast.Tuple):
        return dict(zip(map(id, around.elts), assign.value.elts, strict=False)).get(id(target))
    return None


def _is_ours(target: ast.AST) -> bool:
    if text := literal(target):
        if isinstance(target, ast.Constant):
            return bool(re.match(r"[a-z]+:[a-z-]+$|[a-z_]+$|/(?![/\\])|\./|\?", text))
        first = target.values[0]  # type: ignore[attr-defined]
        return isinstance(first, ast.FormattedValue) and _is_ours(first.value)
    if isinstance(target, ast.Call):
        called = dotted(target.func).rpartition(".")[2]
        return called == "get_absolute_url" or (called == "reverse" and bool(target.args and literal(target.args[0])))
    if isinstance(target, ast.BinOp) and isinstance(target.op, ast.Add):
        return _is_ours(target.left) and not literal(target.left)  # "/" + "/evil.example" is another host
    if isinstance(target, ast.IfExp):
        return _is_ours(target.body) and _is_ours(target.orelse)
    if isinstance(target, ast.Attribute):  # a row: redirect() asks it for its address
        return not FROM_OUTSIDE & set(dotted(target).split("."))
    return False


def test_every_redirect_leads_to_a_place_of_ours():
    found, used = unexplained(leads_away, ONE_PLACE)
    assert found == []
    assert set(ONE_PLACE) == used, "an exception that nothing needs any more"


@pytest.mark.parametrize(
    "text",
    [
        "def f(request):\n    return redirect(request.GET['next'])",
        "def f(request):\n    return redirect(request.META.get('HTTP_REFERER', '/'))",
        "def f(request, to):\n    return redirect(to)",
        "def f(request):\n    return redirect(request.POST.get('next') or '/')",
        "def f(form):\n    return redirect(form.cleaned_data['url'])",
        "def f(request):\n    return redirect(request.headers.next)",
        "return_to = redirect('//evil.example/')",
        "redirect('https://evil.example/')",
        "redirect('/\\\\evil.example')",
        "redirect(f'{base}/x/')",
        "redirect('/' + rest)",
        "HttpResponseRedirect('/x/')",
        "from django.http import HttpResponseRedirect",
        "from django.views.generic import RedirectView",
        "from django_htmx.http import HttpResponseClientRedirect",
        "response['HX-Redirect'] = url",
        "response['Location'] = request.GET['next']",
        "response['HX-Push-Url'], response['x'] = url, 1",
        "HttpResponse(headers={'HX-Location': url})",
        "HotResponse(302, {'location': url})",
        "_go(request, request.GET.get('back'))",
        "redirect(*where)",
    ],
)
def test_a_planted_redirect_is_found(text):
    assert list(leads_away("usage/views.py", text)), text


@pytest.mark.parametrize(
    "text",
    [
        "redirect('usage:usage-list')",
        "redirect('/')",
        "redirect(reverse('usage:usage-list'))",
        "redirect(f\"{reverse('providers:account-list')}?add\")",
        "redirect(sent.conversation)",
        "redirect(conversation.get_absolute_url())",
        "_go(request, reverse('chat:conversation-list'))",
        "response['HX-Push-Url'] = conversation.get_absolute_url()",
        "response['HX-Trigger'] = 'dialog-close'",
        "where = {'located': url}",
        "CACHES = {'default': {'LOCATION': REDIS_URL}}",
        "log.info('redirect(%s)', url)",
        "response['HX-Retarget'], response['HX-Reswap'] = '#composer', 'outerHTML'",
    ],
)
def test_redirects_to_our_own_places_are_left_alone(text):
    assert list(leads_away("usage/views.py", text)) == []


# -- Formatting markup -----------------------------------------------------------------------------------------------
# mark_safe, |safe and the libraries are in test_one_door_rendering.py. format_html makes a safe string too: of a text
# of ours, with everything else escaped. A text that is put together before is the hole.


def formats_markup(path: str, text: str) -> Iterator[str]:
    """`format_html` of anything but a constant, or of a constant with nothing to fill in (which hides a mark_safe)."""
    for node in ast.walk(parsed(path, text)):
        if isinstance(node, ast.Call):
            called = dotted(node.func).rpartition(".")[2]
            where = f"{path}:{node.lineno}"
            if called == "format_html":
                first = node.args[0] if node.args else None
                if not isinstance(first, ast.Constant):
                    yield f"{where} format_html of a text that is put together"
                elif len(node.args) + len(node.keywords) < 2:
                    yield f"{where} format_html with nothing to fill in"
            elif called == "format_html_join":
                if not all(isinstance(argument, ast.Constant) for argument in node.args[:2]) or len(node.args) < 3:
                    yield f"{where} format_html_join of a text that is put together"
            elif called in {"SimpleLazyObject", "mark_for_escaping"} and "safe" in ast.unparse(node):
                yield f"{where} {called} of something safe"


def test_markup_is_formatted_from_constant_texts():
    assert [found for file in python() for found in formats_markup(file.path, file.text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "format_html(f'<b>{name}</b>')",
        "format_html('<b>' + name + '</b>')",
        "format_html(template, name)",
        "format_html('<b>%s</b>' % name, 1)",
        "html.format_html('<b>{}</b>'.format(name))",
        "format_html('<b>bold</b>')",
        "format_html_join(sep, '{}', rows)",
        "format_html_join('', f'<i>{x}</i>', rows)",
    ],
)
def test_planted_formatting_is_found(text):
    assert list(formats_markup("usage/admin.py", text)), text


@pytest.mark.parametrize(
    "text", ["format_html('<b>{}</b>', name)", "format_html_join('', '{}', rows)", "format(1, 'f')"]
)
def test_formatting_of_constant_texts_is_left_alone(text):
    assert list(formats_markup("usage/admin.py", text)) == []
