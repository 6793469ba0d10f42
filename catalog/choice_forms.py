"""What a user enters to keep a filter, or to hide models."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from catalog.reading import clean_name

MAX_CAP = Decimal(1_000_000)


class SaveFilterForm(forms.Form):
    """A name for the present filter."""

    name = forms.CharField(
        max_length=60,
        help_text="A saved filter of this name is replaced.",
        error_messages={"required": "Give the filter a name."},
    )

    def clean_name(self) -> str:
        name = clean_name(self.cleaned_data["name"], 60)
        if not name:
            raise ValidationError("Give the filter a name.")
        return name


class HideRuleForm(forms.Form):
    """A glob on the model's id, a price cap, or both."""

    glob = forms.CharField(
        label="Model id",
        max_length=200,
        required=False,
        help_text="* stands for anything: openai/*, *:free, *-preview. Letter case does not matter.",
        widget=forms.TextInput(attrs={"autocapitalize": "off", "spellcheck": "false", "autocomplete": "off"}),
    )
    price_cap = forms.DecimalField(
        label="Only above, USD per 1M tokens out",
        required=False,
        min_value=Decimal(0),
        max_value=MAX_CAP,
        max_digits=20,
        decimal_places=12,
        help_text="Models whose price nobody knows stay.",
        error_messages={"invalid": "Enter a price in US dollars, such as 15 or 0.5."},
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )

    def clean_glob(self) -> str:
        glob = self.cleaned_data["glob"].strip()
        if not glob.isprintable():
            raise ValidationError("Use only characters that can be seen.")
        return glob

    def clean(self) -> dict[str, Any]:
        if not self.errors and not self.cleaned_data["glob"] and self.cleaned_data["price_cap"] is None:
            self.add_error("glob", "Say which models: by a part of their id, or by a price.")
        return self.cleaned_data
