"""The cast and the ground rules of every test: Alice owns things, Bob is another user, Sam is staff."""

from __future__ import annotations

import gc
import os
from collections import Counter

import hypothesis
import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.test import Client, TransactionTestCase

from config.celery import app as celery
from tests import network_guard, services
from tests.__main__ import WHOLE, files_with
from tests.browser import chromium, find_chromium, page, rows_beside_playwright, sign_in  # noqa: F401
from tests.ledger_fixtures import _ledger_writer  # noqa: F401
from tests.switchboard import Switchboard
from tests.upstream import _upstream, upstream, upstream_account  # noqa: F401

# How fast examples come is the machine's affair: a busy one is no failure.
hypothesis.settings.register_profile(
    "switchboard", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("switchboard")

# Tests see the sources of static files without collecting them, hash passwords fast, and run tasks where they are called.
settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
celery.conf.update(task_always_eager=True, task_eager_propagates=True)


# Thousands of collected tests are containers that stay: the collector would walk them all again and again, a tenth of
# the suite's time. It sleeps while they are made, and leaves them out from then on.
gc.disable()


def pytest_collection_finish():
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _loopback_only():
    """Fail the test that tried to reach another machine, whatever became of the attempt."""
    network_guard.take()
    network_guard.switch(on=True)
    yield
    network_guard.switch(on=False)
    if tried := network_guard.take():
        pytest.fail(f"This test tried to leave loopback: {', '.join(tried)}")


@pytest.fixture(autouse=True, scope="session")
def _emptied_after_commits():
    """What a test committed is deleted when it ends, as Django does it, but for the tables that describe our code. To
    empty those too and write every permission anew costs more than most of these tests."""

    def teardown(case: TransactionTestCase) -> None:
        tables = {model._meta.db_table for model in apps.get_models(include_auto_created=True) if model._meta.managed}
        tables -= {model._meta.db_table for model in (ContentType, Permission)}
        statements = [f"DELETE FROM {connection.ops.quote_name(table)}" for table in sorted(tables)]
        if connection.vendor == "postgresql":  # takes them all in one journey
            statements = ["; ".join(statements)]
        with transaction.atomic(), connection.cursor() as cursor:  # foreign keys are looked at when it ends
            for statement in statements:
                cursor.execute(statement)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", teardown)
        yield


# Where everything must be there (`.ci/run`), a skip for want of it is a failure.
_REQUIRED = {
    "browser": "REQUIRE_BROWSER",
    "postgres": "REQUIRE_POSTGRES",
    "redis_server": "REQUIRE_REDIS",
    "recordings": "REQUIRE_RECORDINGS",
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        for marker, variable in _REQUIRED.items():
            if item.get_closest_marker(marker) and os.environ.get(variable) == "1":
                why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
                report.outcome = "failed"
                report.longrepr = f"{variable}=1, but the test was skipped: {why}"
    return report


# What `make quick` leaves out, counted for its last words. With xdist the workers deselect, so they report it.
_LEFT_OUT: Counter[str] = Counter()
_WHY = {
    "browser": "drive a browser",
    "postgres": "need PostgreSQL",
    "redis_server": "need Redis",
    "slow": "take long: processes, clocks, long tables",
}


_COMMITTING = {"transactional_db", "live_server"}
_DATABASE = {*_COMMITTING, "db", "postgres_url"}


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items):
    """What touches no database runs once, and so do browser tests: their pages' views are tested on both databases.
    Marked before tests are chosen by mark, sorted after pytest-django sorted."""
    whole = set(files_with(WHOLE))
    for item in items:
        if any(map(item.get_closest_marker, WHOLE)) and str(item.path.resolve()) not in whole:
            raise pytest.UsageError(f"{item.nodeid}: name its marker in the file itself, or `make test` never finds it")
        touches_database = _DATABASE & set(item.fixturenames) or item.get_closest_marker("django_db")
        if not touches_database or item.get_closest_marker("browser"):
            item.add_marker("once")
    chosen = yield
    items.sort(key=_turn)
    return chosen


def _turn(item) -> int:
    """Those that commit stand behind those that roll back, as pytest-django puts them; the longest of them begin first,
    so that no process is left alone with one. Browser tests come last: Playwright's loop stays the running one of its
    thread, and no coroutine test can start then."""
    if item.get_closest_marker("browser"):
        return 3
    database = item.get_closest_marker("django_db")
    if not (database and database.kwargs.get("transaction")) and not _COMMITTING & set(item.fixturenames):
        return 0
    patience = item.get_closest_marker("timeout")
    return 1 if patience and patience.args[0] > float(item.config.getini("timeout")) else 2


def pytest_deselected(items):
    for item in items:
        _LEFT_OUT[next((name for name in _WHY if item.get_closest_marker(name)), "other")] += 1


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(_LEFT_OUT)


class _FromWorkers:
    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        _LEFT_OUT.update({} if _LEFT_OUT else getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_configure(config):
    config.pluginmanager.register(_FromWorkers())


def pytest_terminal_summary(terminalreporter):
    if left := sum(_LEFT_OUT.values()):
        why = ", ".join(f"{count} {_WHY.get(name, 'were not asked for')}" for name, count in _LEFT_OUT.most_common())
        terminalreporter.write_line(f"Left out {left} tests: {why}. `make test` runs them all.", yellow=True)
    if find_chromium() is None:
        terminalreporter.write_line(
            "!!! There is no Chromium here, so NO BROWSER TEST RAN. Install the package chromium.", red=True, bold=True
        )


@pytest.fixture(scope="session")
def postgres_url():
    """A real PostgreSQL, whatever DATABASE_URL says: from the wheel unless DATABASE_URL is one."""
    try:
        with services.postgres() as url:
            yield url
    except services.Unavailable as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def redis_url():
    """A real Redis: from the wheel unless REDIS_URL is given."""
    try:
        with services.redis() as url:
            yield url
    except services.Unavailable as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with collected static files and an empty database, for `Switchboard.like`."""
    return Switchboard(tmp_path_factory.mktemp("prepared") / "var").prepare().var


@pytest.fixture
def alice(db):
    """The owner."""
    return get_user_model().objects.create_user("alice", "alice@example.org", "alice's password")


@pytest.fixture
def bob(db):
    """Another signed-in user, who owns nothing of Alice's."""
    return get_user_model().objects.create_user("bob", "bob@example.org", "bob's password")


@pytest.fixture
def sam(db):
    """Staff with every permission."""
    return get_user_model().objects.create_superuser("sam", "sam@example.org", "sam's password")


@pytest.fixture
def alice_client(alice):
    client = Client()
    client.force_login(alice)
    return client


@pytest.fixture
def bob_client(bob):
    client = Client()
    client.force_login(bob)
    return client


@pytest.fixture
def sam_client(sam):
    client = Client()
    client.force_login(sam)
    return client
