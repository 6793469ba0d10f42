"""What the selector and the explorer show of each row: who sells it, how those accounts are, what a draft would cost.

It composes: the list and its rules come from the catalog, what was used lately and what a call costs from usage.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import UUID

from catalog import choices, listing, own_prices, search
from catalog.listing import Entry, Health, Opened, Row
from catalog.models import AggregatorModel
from catalog.question import Question
from providers.clients.base import Usage
from usage import pricing, reports

if TYPE_CHECKING:
    from providers.models import AnyUser

ASSUMED_ANSWER = 500
"""Tokens of the answer that an estimate assumes; pages that show one say so."""

RECENT = 5
NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a draft would cost at one model: USD to send it, and more for an answer of ASSUMED_ANSWER tokens.

    `state` is "known", "free", "variable" or NOT_KNOWN; there are amounts only for the first.
    """

    state: str
    to_send: Decimal | None = None
    to_answer: Decimal | None = None


@dataclass(frozen=True, slots=True)
class ShownOffer:
    """An account that takes the model, at its provider's price, and how it is."""

    account: listing.Account
    model: Entry
    health: Health
    is_current: bool = False


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as templates draw it. `heading` is set on the first row of a part of the list."""

    model: Entry
    sellers: Sequence[ShownOffer]
    is_favourite: bool = False
    is_current: bool = False
    is_hidden: bool = False
    heading: str = ""
    estimate: Estimate | None = None
    differs: frozenset[str] = field(default=frozenset())

    @property
    def first(self) -> ShownOffer:
        return self.sellers[0]

    @property
    def providers(self) -> list[str]:
        """Names of those who sell it, each once, the cheapest first."""
        return list(dict.fromkeys(offer.model.provider_name for offer in self.sellers))

    @property
    def troubled(self) -> ShownOffer | None:
        """The offer whose account needs a word when every offer's account does: else one of them is well."""
        return self.sellers[0] if all(offer.health.word for offer in self.sellers) else None


class Shelf:
    """One user's models, favourites, rules and habits, for one request. Each part is read when it is asked for."""

    def __init__(self, user: AnyUser) -> None:
        self.user = user

    @cached_property
    def opened(self) -> Opened:
        return listing.of(self.user)

    @cached_property
    def kept(self) -> choices.Kept:
        return choices.kept_by(self.user)

    @property
    def favourites(self) -> list[int]:
        return self.kept.favourites

    @property
    def rules(self) -> listing.Rules:
        return self.kept.rules

    @cached_property
    def recent(self) -> list[int]:
        return reports.recent_models(self.user, limit=RECENT)

    def find(self, question: Question, *, limit: int | None, first: Sequence[int] = ()) -> search.Results:
        return search.within(
            self.opened,
            question.query,
            limit=limit,
            offset=question.offset,
            filters=question.filters,
            sort=question.sort,
            first=first,
            favourites=self.favourites,
            rules=self.rules,
            show_hidden=question.show_hidden,
        )

    def shown(
        self,
        results: search.Results,
        *,
        current: tuple[int, UUID | None] | None = None,
        draft_tokens: int | None = None,
        headings: bool = False,
    ) -> list[ShownRow]:
        """The rows of a page. `current` is the (model, account) chosen now; `draft_tokens` asks for estimates."""
        starred = {self.opened.listing.numbers.get(pk) for pk in self.favourites}
        estimates = self._estimates(results.rows, draft_tokens)
        marks = _headings(self, results, current) if headings else {}
        return [
            self._shown(row, place, results, current, starred, estimates, marks)
            for place, row in enumerate(results.rows)
        ]

    def _shown(
        self,
        row: Row,
        place: int,
        results: search.Results,
        current: tuple[int, UUID | None] | None,
        starred: Collection[int | None],
        estimates: Mapping[int, Estimate],
        marks: Mapping[int, str],
    ) -> ShownRow:
        health = self.opened.health
        offers = [
            ShownOffer(
                offer.account, offer.model, health[offer.account.pk], current == (offer.model.pk, offer.account.pk)
            )
            for offer in row.sellers
        ]
        return ShownRow(
            model=row.model,
            sellers=offers,
            is_favourite=self.opened.listing.numbers.get(row.model.pk) in starred,
            is_current=current is not None and any(offer.model.pk == current[0] for offer in offers),
            is_hidden=row.model.pk in results.hidden_models,
            heading=marks.get(place, ""),
            estimate=estimates.get(row.model.pk),
        )

    def row_of(self, pk: int) -> ShownRow | None:
        """The row in which a model stands, whatever the filters; None if the user may not call it."""
        number = self.opened.listing.numbers.get(pk)
        if number is None:
            return None
        return self.shown(search.Results([self.opened.listing.rows[number]], 1, 1))[0]

    def same_as(self, pk: int) -> set[int]:
        """Primary keys of the models that stand in one row with this one."""
        number = self.opened.listing.numbers.get(pk)
        return {pk} if number is None else {offer.model.pk for offer in self.opened.listing.rows[number].sellers}

    def _estimates(self, rows: Sequence[Row], tokens: int | None) -> dict[int, Estimate]:
        """Model → estimate, by the rule that the ledger settles by. Two queries for all rows of a page."""
        if tokens is None:
            return {}
        pks = [row.model.pk for row in rows]
        models = list(AggregatorModel.objects.for_user(self.user).filter(pk__in=pks).defer("description", "pricing"))
        own_prices.lay_over(self.user, models)
        return {model.pk: estimate(model, tokens) for model in models}


def estimate(model: AggregatorModel, tokens: int) -> Estimate:
    """What sending `tokens` to the model would cost, at the prices of now."""
    if model.price_kind == AggregatorModel.PriceKind.VARIABLE:
        return Estimate("variable")
    noted = pricing.snapshot(model)
    sent, answered = (
        pricing.cost_by_snapshot(Usage(prompt_tokens=tokens, completion_tokens=more), noted).amount
        for more in (0, ASSUMED_ANSWER)
    )
    if sent is None or answered is None:
        return Estimate(NOT_KNOWN)
    if not answered:
        return Estimate("free")
    return Estimate("known", sent, answered - sent)


def _headings(shelf: Shelf, results: search.Results, current: tuple[int, UUID | None] | None) -> dict[int, str]:
    """Place → heading, for a list that begins with what was used lately and what is starred."""
    if not results.pinned:
        return {}
    numbers = shelf.opened.listing.numbers
    recent = {numbers.get(pk) for pk in (*([current[0]] if current else []), *shelf.recent)}
    marks: dict[int, str] = {}
    for place, row in enumerate(results.rows[: results.pinned]):
        text = "Recent" if numbers.get(row.model.pk) in recent else "Favourites"
        if text not in marks.values():
            marks[place] = text
    if len(results.rows) > results.pinned:
        marks[results.pinned] = "All models"
    return marks
