"""A query that asks for every user the same, compiled once for all of them.

    _standing = PerUser(lambda user: ProviderAccount.objects.for_user(user).values_list("pk", "label"))
    rows = _standing.rows(user)          # tuples, as the queryset would give them

What Django needs to turn such a queryset into SQL is many times what the database needs to answer it. `for_user` stays
the one place that knows whose rows are whose: the queryset is compiled for two users that do not exist, and what
differs between the two results is what stands for the user. Should anything else differ, or nothing, it is refused.

The queryset must depend on the user's primary key alone, and on nothing that changes: no moment, no setting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connection

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from providers.models import AnyUser


class _Nobody(NamedTuple):
    """Stands for a user while a query is compiled: knows a primary key that no user has, and nothing else."""

    pk: int


_SOMEONE, _SOMEONE_ELSE = _Nobody(-7_310_001), _Nobody(-7_310_002)


class _Compiled(NamedTuple):
    sql: str
    params: tuple[Any, ...]
    places: tuple[int, ...]
    """Which of `params` are the user's primary key."""
    converters: list[tuple[int, list[Any], Any]]
    """(column, what makes a value of the field out of the database's, the expression)."""


class PerUser:
    """`make` gives the queryset (a values_list) for a user."""

    def __init__(self, make: Callable[[Any], QuerySet[Any, Any]]) -> None:
        self._make = make
        self._compiled: dict[str, _Compiled] = {}
        self._lock = threading.Lock()

    def rows(self, user: AnyUser) -> Iterator[tuple[Any, ...]]:
        """The rows for `user`, read when the first is asked for."""
        pk = user.pk
        if not isinstance(pk, int) or pk <= 0:
            raise ValueError("only a user who is stored owns rows")
        sql, params, places, converters = self._compiled.get(connection.vendor) or self._compile()
        given = list(params)
        for place in places:
            given[place] = pk
        with connection.cursor() as cursor:
            cursor.execute(sql, given)
            found = cursor.fetchall()
        for row in found:
            values = list(row)
            for column, functions, expression in converters:
                value = values[column]
                for function in functions:
                    value = function(value, expression, connection)
                values[column] = value
            yield tuple(values)

    def _compile(self) -> _Compiled:
        with self._lock:
            if connection.vendor not in self._compiled:
                self._compiled[connection.vendor] = self._compiled_now()
            return self._compiled[connection.vendor]

    def _compiled_now(self) -> _Compiled:
        compiler = self._make(_SOMEONE).query.get_compiler(connection=connection)
        sql, params = compiler.as_sql()
        other_sql, other_params = self._make(_SOMEONE_ELSE).query.get_compiler(connection=connection).as_sql()
        places = tuple(place for place, value in enumerate(params) if value == _SOMEONE.pk)
        theirs = [_SOMEONE_ELSE.pk if place in places else value for place, value in enumerate(params)]
        if not places or sql != other_sql or theirs != list(other_params):
            raise TypeError("this query is not the same for every user, but for whose rows it reads")
        converters = compiler.get_converters([column for column, _, _ in compiler.select])
        found = [(column, functions, expression) for column, (functions, expression) in converters.items()]
        return _Compiled(sql, tuple(params), places, found)
