"""What a person may send: words, to a model they may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError

from catalog.models import AggregatorModel, ModelAlias
from catalog.routes import NoRoute, routes_for_alias, routes_for_model
from chat.models import Conversation
from providers.models import ProviderAccount

if TYPE_CHECKING:
    from providers.models import AnyUser

MAX_MESSAGE_CHARS = 200_000

PICK = "Pick a model first."


class RouteForm(forms.Form):
    """A model and, if one was chosen, an account; or an alias, which then finds both. What another user owns does not
    exist here (I2).
    """

    alias = forms.IntegerField(required=False, min_value=1, error_messages={"invalid": PICK, "min_value": PICK})
    model = forms.IntegerField(
        required=False, min_value=1, error_messages={"required": PICK, "invalid": PICK, "min_value": PICK}
    )
    account = forms.UUIDField(required=False, error_messages={"invalid": "That account does not exist. Pick another."})
    client_key = forms.UUIDField(required=False)

    def __init__(self, *args: Any, user: AnyUser, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user

    def clean_alias(self) -> ModelAlias | None:
        pk = self.cleaned_data["alias"]
        if pk is None:
            return None
        alias = ModelAlias.objects.for_user(self.user).filter(pk=pk).first() if pk < 1 << 62 else None
        if alias is None:
            raise ValidationError("That alias does not exist. Pick another, or a model.")
        return alias

    def clean_model(self) -> AggregatorModel | None:
        if self.cleaned_data.get("alias") or "alias" in self.errors:
            return None
        pk = self.cleaned_data["model"]
        if pk is None:
            raise ValidationError(PICK)
        model = AggregatorModel.objects.for_user(self.user).filter(pk=pk).first() if pk < 1 << 62 else None
        if model is None:
            raise ValidationError("That model does not exist. Pick another.")
        return model

    def clean_account(self) -> ProviderAccount | None:
        pk = self.cleaned_data["account"]
        if pk is None:
            return None
        account = ProviderAccount.objects.for_user(self.user).filter(pk=pk).first()
        if account is None:
            raise ValidationError("That account does not exist. Pick another.")
        return account

    def clean(self) -> dict[str, Any]:
        given = self.cleaned_data
        try:
            if given.get("alias"):
                first = routes_for_alias(self.user, given["alias"])[0]
                given["model"], given["account"] = first.model, first.account
            elif given.get("model") and "account" in given:
                routes_for_model(self.user, given["model"], account=given["account"])
        except NoRoute as exc:
            self.add_error("alias" if given.get("alias") else "model", exc.message)
        return given

    @property
    def sentences(self) -> list[str]:
        """Every complaint, in the order of the fields."""
        return [str(error) for errors in self.errors.values() for error in errors]


class MessageForm(RouteForm):
    """A message for a conversation. `parent` is the message it answers: the last one the writer's page shows."""

    text = forms.CharField(
        max_length=MAX_MESSAGE_CHARS,
        strip=False,
        error_messages={
            "required": "Write a message first.",
            "max_length": f"That is too long: {MAX_MESSAGE_CHARS:,} characters fit. Shorten it, or send it in parts.",
            "null_characters_not_allowed": "The message contains a character that cannot be stored (NUL). Remove it.",
        },
    )
    parent = forms.IntegerField(required=False, min_value=1, max_value=1 << 62)

    field_order = ["text", "alias", "model", "account", "parent", "client_key"]

    def clean_text(self) -> str:
        text = self.cleaned_data["text"].replace("\r\n", "\n").rstrip()
        if not text.strip():
            raise ValidationError("Write a message first.")
        return text.lstrip("\n")


class TitleForm(forms.ModelForm):
    """A conversation's name."""

    title = forms.CharField(label="Name", max_length=200)

    class Meta:
        model = Conversation
        fields = ["title"]
