"""By which routes does a name reach an upstream? The one answer, for chat and for `/v1`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from django.utils import timezone

from catalog import aliases, own_prices
from catalog.models import AccountModel, AggregatorModel, ModelAlias
from providers.models import ProviderAccount

if TYPE_CHECKING:
    from providers.clients.base import ProviderClient
    from providers.models import AnyUser


@dataclass(frozen=True, slots=True)
class Route:
    """A request may take this account to this model. `model` carries the prices that count for the user."""

    account: ProviderAccount
    model: AggregatorModel
    alias: str = ""
    """The alias that led here, if the request named one."""
    skipped: str = ""
    """Which models of the alias's list were left out, and why."""

    def client(self) -> ProviderClient:
        """Who speaks to the provider about this model. Raises vault.Locked, as the account's own `client` does."""
        client = self.account.client()
        client.max_output_tokens = self.model.max_output_tokens
        return client


class NoRoute(Exception):
    """Nothing may be sent. `code` is model_not_found, no_account or locked; `message` says why and what to do."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(code)


def routes_for(user: AnyUser, name: str) -> list[Route]:
    """Every route `user` may take to `name`, in the order to try them; never empty. Raises NoRoute (F14).

    `name` is a model id, exactly as the provider spells it, or an alias. The user's own alias wins over a model id, a
    model id over a global alias: catalog.aliases says why, and where people are told.
    """
    own = ModelAlias.objects.filter(owner_id=user.pk, alias=name).first()
    if own:
        return routes_for_alias(user, own)
    models = AggregatorModel.objects.available_to(user).filter(model_id=name)
    if routes := _routes(user, models):
        return routes
    shared = ModelAlias.objects.filter(owner__isnull=True, alias=name).first()
    if shared:
        return routes_for_alias(user, shared)
    raise _why_not(user, AggregatorModel.objects.for_user(user).filter(model_id=name), name)


def routes_for_model(user: AnyUser, model: AggregatorModel, *, account: ProviderAccount | None = None) -> list[Route]:
    """Every route to one model, the chosen `account` first if it can still go there. Raises NoRoute (F14)."""
    routes = _routes(user, AggregatorModel.objects.available_to(user).filter(pk=model.pk))
    if not routes:
        raise _why_not(user, AggregatorModel.objects.for_user(user).filter(pk=model.pk), model.model_id)
    if account is not None:
        routes.sort(key=lambda route: route.account.pk != account.pk)
    return routes


def routes_for_alias(user: AnyUser, alias: ModelAlias) -> list[Route]:
    """Every route to an alias's models: target by target, as it lists them, and those of resting accounts after all
    others. Targets that are unknown or above its price cap are left out. Raises NoRoute (F14).
    """
    targets = aliases.targets_of(user, [alias])[alias.pk]
    skipped = [f"{target.model_id}: {target.skipped}" for target in targets if target.skipped]
    place = {model.pk: number for number, target in enumerate(targets) for model in target.models}
    routes = _routes(user, [model for target in targets for model in target.models])
    routes.sort(
        key=lambda route: (route.account.is_resting, place[route.model.pk])
    )  # stable: accounts keep their order
    if routes:
        return [replace(route, alias=alias.alias, skipped="; ".join(skipped)) for route in routes]
    names = [target.model_id for target in targets]
    error = _why_not(user, AggregatorModel.objects.for_user(user).filter(model_id__in=names), alias.alias)
    if error.code == "model_not_found":
        reasons = _first(skipped) or "it lists none"
        raise NoRoute(error.code, f"No model of the alias “{alias.alias}” can answer: {reasons}.")
    raise error


def _first(reasons: list[str]) -> str:
    shown = "; ".join(reasons[:3])
    return shown if len(reasons) <= 3 else f"{shown}; and {len(reasons) - 3} more"


def _routes(user: AnyUser, models: Iterable[AggregatorModel]) -> list[Route]:
    """One route per usable account of `user` that lists the model: resting accounts last, then by priority."""
    by_pk = {model.pk: model for model in models}
    if not by_pk:
        return []
    own_prices.lay_over(user, list(by_pk.values()))
    offers = AccountModel.objects.filter(
        account__in=ProviderAccount.objects.for_user(user).usable(), model_id__in=list(by_pk)
    ).select_related("account__provider")
    now = timezone.now()

    def order(offer: AccountModel) -> tuple:
        account = offer.account
        is_resting = account.cooldown_until is not None and account.cooldown_until > now
        return is_resting, account.priority, account.created_at, str(account.pk), offer.model_id

    return [Route(offer.account, by_pk[offer.model_id]) for offer in sorted(offers, key=order)]


def _why_not(user: AnyUser, models: Iterable[AggregatorModel], name: str) -> NoRoute:
    """The reason nothing reaches `name`, worded for its owner. `models` are the rows of that name they may see."""
    accounts = ProviderAccount.objects.for_user(user)
    usable = accounts.usable()
    known = list(models)
    providers = {model.provider_id for model in known}
    shown = name if len(name) <= 80 else f"{name[:80]}…"

    listing = accounts.filter(offers__model__in=known).distinct() if known else accounts.none()
    blocked = listing.exclude(pk__in=usable) or accounts.filter(provider__in=providers).exclude(pk__in=usable)
    for account in blocked:
        if usable.filter(provider_id=account.provider_id).exists():
            continue
        if account.status == ProviderAccount.Status.LOCKED:
            return NoRoute("locked", f"The key of “{account.label}” does not open. Enter it again under Accounts.")
        if account.status == ProviderAccount.Status.INVALID:
            return NoRoute("no_account", f"The key of “{account.label}” was rejected. Replace it under Accounts.")
        return NoRoute("no_account", f"The account “{account.label}” is switched off. Switch it on under Accounts.")
    if not usable.exists():
        return NoRoute("no_account", "You have no account that can be used. Add one under Accounts.")
    for model in known:
        if model.missing_since is not None:
            when = f"{model.missing_since:%-d %B %Y}"
            instead = f" It names {model.successor} as the successor." if model.successor else ""
            return NoRoute(
                "model_not_found", f"The provider no longer lists {shown} (since {when}).{instead} Pick another model."
            )
    return NoRoute("model_not_found", f"None of your accounts lists a model called {shown}. Pick another model.")
