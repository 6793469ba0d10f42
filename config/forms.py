"""Forms of the pages before anything else works: sign-in and set-up."""

from __future__ import annotations

from typing import Any

from allauth.account.forms import (
    ChangePasswordForm,
    LoginForm,
    ReauthenticateForm,
    ResetPasswordKeyForm,
    SetPasswordForm,
)
from django import forms
from django.contrib.auth import get_user_model, password_validation


class SignInForm(LoginForm):
    """allauth's form in our words."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["login"].label = "Username or email"
        self.fields["login"].widget.attrs = {"autocomplete": "username", "autofocus": True}
        self.fields["password"].widget.attrs.pop("placeholder", None)
        self.fields["password"].help_text = ""  # the page has the link for those who forgot it
        self.fields["remember"].label = "Stay signed in on this device"


ADVICE = "At least 10 characters. A few random words are good."


class _Plainly:
    """A form of allauth's with labels in our words, and none of them repeated inside the boxes."""

    labels: dict[str, str]
    fields: dict[str, forms.Field]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, label in self.labels.items():
            field = self.fields[name]
            field.label, field.help_text = label, ""
            field.widget.attrs.pop("placeholder", None)
        if "password1" in self.fields:
            self.fields["password1"].help_text = ADVICE
        self.fields[next(iter(self.labels))].widget.attrs["autofocus"] = True


class NewPasswordForm(_Plainly, ChangePasswordForm):
    labels = {
        "oldpassword": "Your password now",
        "password1": "The new password",
        "password2": "The new password once more",
    }


class FirstPasswordForm(_Plainly, SetPasswordForm):
    labels = {"password1": "Password", "password2": "The password once more"}


class ForgottenPasswordForm(_Plainly, ResetPasswordKeyForm):
    labels = {"password1": "The new password", "password2": "The new password once more"}


class SamePersonForm(_Plainly, ReauthenticateForm):
    labels = {"password": "Your password"}


class SetupForm(forms.ModelForm):
    """The first administrator's account."""

    password = forms.CharField(
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        strip=False,
        help_text=ADVICE,
    )

    class Meta:
        model = get_user_model()
        fields = ["username", "email"]
        help_texts = {"username": "Letters, digits and @ . + - _"}
        widgets = {
            "username": forms.TextInput(attrs={"autocomplete": "username", "autofocus": True}),
            "email": forms.EmailInput(attrs={"autocomplete": "email"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].required = True

    def full_clean(self) -> None:
        """Also puts the cursor where the first problem is."""
        super().full_clean()
        if wrong := next((name for name in self.fields if name in self.errors), None):
            self.fields["username"].widget.attrs.pop("autofocus", None)
            self.fields[wrong].widget.attrs["autofocus"] = True

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if password := cleaned.get("password"):
            candidate = get_user_model()(username=cleaned.get("username", ""), email=cleaned.get("email", ""))
            try:
                password_validation.validate_password(password, candidate)
            except forms.ValidationError as exc:
                self.add_error("password", exc)
        return cleaned
