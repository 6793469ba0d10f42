"""What a person may make an alias of: a name, an ordered list of model ids, and what they may cost."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError

from catalog import aliases
from catalog.models import AggregatorModel, ModelAlias

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.utils.datastructures import MultiValueDict


class IdList(forms.Widget):
    """Reads every value of one name, in order. The page draws the rows itself."""

    def value_from_datadict(self, data: Any, files: MultiValueDict, name: str) -> list[str]:
        values = data.getlist(name) if hasattr(data, "getlist") else data.get(name, [])
        return [value.strip() for value in values if value.strip()]


class DollarField(forms.DecimalField):
    """USD per 1M tokens, in plain digits: no "1e9", "1_000" or "NaN"."""

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, min_value=0, max_value=aliases.MAX_CAP, **options)

    def to_python(self, value: Any) -> Any:
        text = str(value or "").strip().removeprefix("$").strip()
        if text and not re.fullmatch(r"\d{1,7}(\.\d{1,6})?", text, re.ASCII):
            raise ValidationError("Write an amount in USD, such as 2.50.")
        return super().to_python(text)


class AliasForm(forms.Form):
    """`alias` is the row that is edited, or None. Errors stand beside the field, and what was typed stays."""

    name = forms.CharField(
        label="Name",
        max_length=1_000,
        error_messages={"required": aliases.problem_with_name("")},
        widget=forms.TextInput(
            attrs={"placeholder": "fast", "autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}
        ),
        help_text="What you ask for in place of a model's id.",
    )
    targets = forms.Field(label="Models", required=False, widget=IdList())
    max_input = DollarField(
        label="At most, per 1M tokens read",
        widget=forms.TextInput(attrs={"inputmode": "decimal", "placeholder": "no limit", "autocomplete": "off"}),
    )
    max_output = DollarField(
        label="At most, per 1M tokens written",
        widget=forms.TextInput(attrs={"inputmode": "decimal", "placeholder": "no limit", "autocomplete": "off"}),
    )
    everybody = forms.BooleanField(label="For everybody here, not for me alone", required=False)

    def __init__(self, *args: Any, user: User, alias: ModelAlias | None = None, **kwargs: Any) -> None:
        if alias is not None:
            kwargs["initial"] = {
                "name": alias.alias,
                "targets": alias.targets,
                "max_input": _plain(alias.max_input),
                "max_output": _plain(alias.max_output),
            }
        super().__init__(*args, **kwargs)
        self.user, self.stored = user, alias
        if alias is not None or not (user.is_staff and user.has_perm("catalog.add_modelalias")):
            del self.fields["everybody"]

    @property
    def listed(self) -> list[str]:
        """The ids in the form as it stands, checked or not."""
        return list(self["targets"].value() or [])

    def clean_name(self) -> str:
        name = self.cleaned_data["name"].strip()
        if problem := aliases.problem_with_name(name):
            raise ValidationError(problem)
        return name

    def clean_targets(self) -> list[str]:
        targets = self.cleaned_data["targets"] or []
        problem = aliases.problem_with_targets(targets)
        if not problem:
            nested = ModelAlias.objects.for_user(self.user).filter(alias__in=targets).values_list("alias", flat=True)
            models = AggregatorModel.objects.for_user(self.user).filter(model_id__in=targets)
            problem = aliases.problem_with_nesting(nested, models.values_list("model_id", flat=True))
        if problem:
            raise ValidationError(problem)
        return targets

    def clean(self) -> dict[str, Any]:
        given = self.cleaned_data
        if "name" in given:
            taken = self.of_the_same_kind().filter(alias=given["name"])
            if self.stored is not None:
                taken = taken.exclude(pk=self.stored.pk)
            if taken.exists():
                self.add_error("name", self.taken)
        if "targets" in given and given.get("name") in given["targets"]:
            models = AggregatorModel.objects.for_user(self.user).filter(model_id=given["name"])
            if not models.exists():
                self.add_error("targets", "An alias cannot list itself.")
        if self.stored is None and not self.for_everybody and self.of_the_same_kind().count() >= aliases.MAX_OWN:
            self.add_error(None, f"You have {aliases.MAX_OWN} aliases. Delete one you no longer use.")
        return given

    @property
    def for_everybody(self) -> bool:
        return self.stored.is_global if self.stored is not None else bool(self.cleaned_data.get("everybody"))

    @property
    def taken(self) -> str:
        return "There is an alias of this name already. Pick another name, or change that one."

    def of_the_same_kind(self) -> Any:
        """The aliases among which a name must be the only one."""
        visible = ModelAlias.objects.for_user(self.user)
        if self.for_everybody:
            return visible.filter(owner__isnull=True)
        return visible.filter(owner_id=self.stored.owner_id if self.stored is not None else self.user.pk)

    def filled(self) -> ModelAlias:
        """The row as the form wants it, not stored yet."""
        alias = self.stored or aliases.blank(None if self.for_everybody else self.user)
        given = self.cleaned_data
        alias.alias, alias.targets = given["name"], given["targets"]
        alias.max_input, alias.max_output = given["max_input"], given["max_output"]
        return alias


def _plain(amount: Decimal | None) -> str:
    return "" if amount is None else format(amount.normalize(), "f")
