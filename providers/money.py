"""Money without floats: Decimal in Python, integers of 10⁻¹² USD in the database.

Django's DecimalField is a float on SQLite (10,000 × 0.000000833333 does not add up there), so this field
stores a BIGINT and sums stay integer sums on both databases. Amounts (USD) and prices (USD per 1M tokens)
both use it. `None` is "unknown", which is not zero.

It lives in `providers`, the lowest app, because account balances are money too (docs/adr/0002).
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Any

from django.core import checks, exceptions
from django.db import models
from django.utils.translation import gettext_lazy as _

PICO = 1_000_000_000_000
"""Stored units in one US dollar."""

MAX_USD = Decimal(9_000_000)
"""Largest magnitude the field takes; 9.22 million USD is where a signed 64-bit integer ends."""

_CONTEXT = Context(prec=60, rounding=ROUND_HALF_EVEN)


def to_pico(amount: Decimal | int | str) -> int:
    """USD as an integer of 10⁻¹² USD, halves to even.

    Raises ValueError for a float (it is already wrong), for NaN and infinities, and beyond ±MAX_USD.
    """
    if isinstance(amount, bool | float):
        raise ValueError("money is never a float or a boolean")
    try:
        value = Decimal(amount)
    except (InvalidOperation, TypeError) as exc:
        raise ValueError(f"not an amount: {amount!r:.40}") from exc
    if not value.is_finite() or abs(value) > MAX_USD:
        raise ValueError("amount out of range")
    return int(_CONTEXT.multiply(value, Decimal(PICO)).to_integral_value(ROUND_HALF_EVEN, _CONTEXT))


def from_pico(units: int) -> Decimal:
    """The Decimal of `units` × 10⁻¹² USD, exact and without trailing zeros beyond the point."""
    value = _CONTEXT.divide(Decimal(units), Decimal(PICO)).normalize(_CONTEXT)
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value


class MoneyField(models.BigIntegerField):
    """USD (or USD per 1M tokens) as Decimal, stored as BIGINT of 10⁻¹² USD.

    `Sum`, `Min`, `Max` over the column come back as Decimal; comparisons take Decimal, int or str.
    """

    description = _("US dollars, exact to 10⁻¹²")

    # What django-stubs reads: attributes hold Decimal, whatever was assigned.
    _pyi_private_set_type: Decimal | int | str  # type: ignore[assignment]
    _pyi_private_get_type: Decimal  # type: ignore[assignment]

    def from_db_value(self, value: int | Decimal | None, expression: Any, connection: Any) -> Decimal | None:
        return None if value is None else from_pico(int(value))

    def get_prep_value(self, value: Any) -> int | None:
        if value is None or hasattr(value, "resolve_expression"):
            return value
        return to_pico(value)

    def to_python(self, value: Any) -> Decimal | None:
        if value is None or value == "":
            return None
        try:
            return from_pico(to_pico(value if not isinstance(value, float) else str(value)))
        except ValueError as exc:
            raise exceptions.ValidationError(_("Enter an amount in US dollars, such as 0.27.")) from exc

    def value_to_string(self, obj: models.Model) -> str:
        value = self.value_from_object(obj)
        return "" if value is None else format(value, "f")

    def formfield(self, **kwargs: Any) -> Any:
        from django import forms

        return models.Field.formfield(
            self, **{"form_class": forms.DecimalField, "max_digits": 19, "decimal_places": 12, **kwargs}
        )

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        return models.Field.check(self, **kwargs)

    @property
    def validators(self) -> list:  # type: ignore[override]
        # BigIntegerField's range validators compare with the stored integer; to_pico checks the range.
        return list(self._validators)  # type: ignore[attr-defined]
