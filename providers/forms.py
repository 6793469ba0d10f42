"""What people may type about an account. A key goes in and never comes out again: no form renders one.

Plain forms with written-out fields, not ModelForms: what is not named here cannot be posted (A2).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from copy import copy
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.forms.utils import flatatt
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import slugify
from django.views.decorators.debug import sensitive_variables

from providers import net, vault
from providers.clients.base import Probe
from providers.clients.errors import CODES
from providers.models import Provider, ProviderAccount

Status = ProviderAccount.Status

DUPLICATE = "You have already added this key. It is in your list of accounts."
DUPLICATE_KEYLESS = "You have already added this provider. It is in your list of accounts."

CHANGED = (
    "The key or address of this account was changed in another window meanwhile, so nothing of what you sent was "
    "stored. This is how it is now; enter the key again if yours should replace it."
)


class Outdated(Exception):
    """The account is no longer as it was when the form read it."""


def version_of(account: ProviderAccount) -> str:
    """A short mark of what is sealed in the account and for where. Says nothing of it: it is made of ciphertexts."""
    parts = (account.api_key_encrypted, account.extra_headers_encrypted, account.endpoint_override)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


FORBIDDEN_HEADERS = net.OURS | {"accept", "authorization", "content-type"}  # set by us or by the transport (S10)
MAX_HEADERS = 20
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,1998}[\x21-\x7e])?")
_ENDPOINT = re.compile(
    r"/(?:chat/completions|completions|messages|responses|embeddings|models|images/generations|audio/\w+"
    r"|api/(?:chat|generate|tags|show))/*$",  # the last are Ollama's own, beside its /v1
    re.IGNORECASE,
)
_SCHEME = re.compile(r"(https?)(?::/?|//)(?=[a-z0-9[])|https?:?/?$|[a-z][a-z0-9+.-]*:/(?!/)", re.IGNORECASE)
"""What looks like the start of an address without its `://`. The group is set where it is plain what was meant."""
_METHOD = re.compile(r"(?:curl|get|post)\s+", re.IGNORECASE)
_NEAR = re.compile(
    r"(?:localhost|127\.|10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|\[)"
    r"|[^/:]+\.(?:local|localhost|lan|internal|home\.arpa)(?=[/:]|$)|[a-z0-9_-]+(?=[/:]|$)",
    re.IGNORECASE,
)
"""Hosts that hardly ever have a certificate: loopback, private networks, names that are no domain."""


def tidy_address(text: str) -> str:
    """The base URL that was meant: `host`, `host/v1` and a whole `…/chat/completions` become scheme://host/path.

    Raises net.BadURL with a sentence. Only guesses what is missing; the judge is net.parse_base_url.
    """
    text = text.strip()
    if method := _METHOD.match(text):  # copied along
        text = text[method.end() :]
    text = text.strip(" \t\"'`<>,;")
    if "://" not in text and (start := _SCHEME.match(text)):
        if not start[1]:
            raise net.BadURL("An address begins with https:// and a host name, such as https://api.example.org/v1.")
        text = f"{start[1]}://{text[start.end() :]}"
    if text and "://" not in text:
        text = ("http://" if _NEAR.match(text) else "https://") + text.removeprefix("//")
    address = net.parse_base_url(_ENDPOINT.sub("", text))
    return address if address.count("/") > 2 else f"{address}/v1"


@sensitive_variables()
def parse_headers(text: str) -> dict[str, str]:
    """`Name: value` lines as a dict. Raises ValidationError that names the line, never its value."""
    headers: dict[str, str] = {}
    lines = [(number, line.strip()) for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1) if line.strip()]
    for number, line in lines:
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or not _HEADER_NAME.fullmatch(name):
            raise ValidationError(f"Line {number}: write a name, a colon and a value, such as APP-Code: ABCD1234.")
        if name.lower() in FORBIDDEN_HEADERS:
            raise ValidationError(f"Line {number}: this header is set for you and cannot be changed.")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValidationError(
                f"Line {number}: the value must be 1 to 2,000 plain letters, digits, signs and single spaces."
            )
        if name.lower() in {known.lower() for known in headers}:
            raise ValidationError(f"Line {number}: this header is there twice.")
        headers[name] = value
    if len(headers) > MAX_HEADERS:
        raise ValidationError(f"At most {MAX_HEADERS} extra headers are sent.")
    return headers


class LabelField(forms.CharField):
    """A short name: one line, without characters that hide or turn around what follows (X5)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": 80, "label": "Label", **kwargs})

    def clean(self, value: Any) -> str:
        text = super().clean(value)
        joiners = "\u200c\u200d"  # parts of real words and of emoji
        if any(unicodedata.category(mark) in {"Cc", "Cf", "Zl", "Zp"} and mark not in joiners for mark in text):
            raise ValidationError("The label contains invisible characters. Type it again.")
        return text


class _Sealed:
    """A widget whose value is sealed in the browser (K3). It has no name, so that what is typed is in no request,
    unless the operator allows unsealed keys; then the script takes the name away where the browser can seal."""

    attrs: dict[str, Any]
    is_many_lines = False

    def render(self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: Any = None) -> SafeString:
        said = {**self.attrs, **(attrs or {}), "data-sealed": name}
        if settings.ALLOW_UNSEALED_KEYS:
            said["name"] = name
        if self.is_many_lines:
            return format_html("<textarea{}>\n</textarea>", flatatt(said))
        return format_html("<input{}>", flatatt({"type": "password", **said}))


class SealedInput(_Sealed, forms.PasswordInput):
    """A password box that is always empty when it is drawn."""


class SealedText(_Sealed, forms.Textarea):
    """The same with many lines: what was typed comes back in no page."""

    is_many_lines = True


class KeyField(forms.CharField):
    """A password box that is always empty when it is drawn."""

    def __init__(self, **kwargs: Any) -> None:
        widget = SealedInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none", "class": "input--mono"},
        )
        # Django's own length check would count surrounding white space; vault.clean_key has the sentence.
        super().__init__(**{"label": "API key", "widget": widget, "strip": False, **kwargs})

    def clean(self, value: Any) -> str:
        try:
            key = vault.clean_key(value or "")
        except vault.BadKey as exc:
            raise ValidationError(str(exc)) from None
        if not key and self.required:
            raise ValidationError("Enter the key.")
        return key


class HeadersField(forms.CharField):
    def __init__(self, **kwargs: Any) -> None:
        widget = SealedText(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false", "class": "input--mono"})
        super().__init__(**{"required": False, "widget": widget, "max_length": 20_000, **kwargs})

    def clean(self, value: Any) -> dict[str, str]:  # type: ignore[override]
        return parse_headers(super().clean(value))


class AddressField(forms.CharField):
    def __init__(self, **kwargs: Any) -> None:
        widget = forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "inputmode": "url"})
        super().__init__(**{"label": "Address", "widget": widget, "max_length": 450, **kwargs})

    def clean(self, value: Any) -> str:
        text = super().clean(value)
        try:
            return tidy_address(text) if text else ""
        except net.BadURL as exc:
            raise ValidationError(str(exc)) from None


def priority_field() -> forms.IntegerField:
    return forms.IntegerField(
        label="Priority", min_value=0, max_value=999, required=False, help_text="Lower is tried first."
    )


class _CheckedForm(forms.Form):
    """A form whose account is checked with the provider before it is saved."""

    account: ProviderAccount
    accept_unverified = forms.BooleanField(required=False)
    """Set by a button of its own, which the form shows once a check could not tell."""

    def refuse(self, problem: str) -> None:
        """Say what is wrong with how the key came, and nothing of what is missing because of that."""
        if not problem:
            return
        self.errors.pop("api_key", None)
        self.add_error("api_key" if "api_key" in self.fields else None, problem)

    def accept(self, probe: Probe) -> bool:
        """Whether the verdict lets the account be saved at all; what it says otherwise stands beside its field."""
        if probe.code == "blocked_address":
            self.add_error("base_url" if "base_url" in self.fields else None, probe.reason)
        elif probe.verdict == "invalid":
            name = self.account.provider.display_name
            asked = f" Asked {probe.request}." if probe.request else ""
            detail = probe.reason.removeprefix(CODES["key_rejected"]).strip()
            field = "api_key" if "api_key" in self.fields else None
            self.add_error(field, f"{name} rejected this key.{asked} {detail}".strip())
        return self.is_valid()

    def point_at_error(self) -> None:
        """Where the form is drawn again: the cursor goes to the first field that has to be mended, if any."""
        for name in self.fields if self.is_bound else ():
            if name in self.errors:
                self.fields[name].widget.attrs["autofocus"] = True
                return

    def already_known(self, account: ProviderAccount, key: str) -> bool:
        """Whether the same user holds the same key at the same provider. Looks at nobody else's rows."""
        if account.provider._state.adding:
            return False
        hashes = vault.key_hashes(account.owner_id, account.provider.pk, key)
        mine = ProviderAccount.objects.for_user(account.owner).filter(provider=account.provider)
        return mine.exclude(pk=account.pk).filter(api_key_hash__in=hashes).exists()


class AddAccountForm(_CheckedForm):
    """A new account at `provider`, or (None) at a custom endpoint."""

    label = LabelField()
    base_url = AddressField(
        help_text="Any OpenAI-compatible API: a host, a base address, or a whole …/chat/completions address."
    )
    api_key = KeyField(help_text="Stored encrypted; never shown again.")
    extra_headers = HeadersField(label="Extra headers", help_text="One per line, such as APP-Code: ABCD1234.")
    priority = priority_field()
    checked = forms.CharField(required=False)
    """What a check found that was shown already: checking.note_of."""

    def __init__(self, *args: Any, user: Any, provider: Provider | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user, self.provider = user, provider
        self.asks_address = provider is None or provider.asks_address
        self.fields["label"].required = False
        if provider is None:
            self.fields["api_key"].required = False
            self.fields["base_url"].widget.attrs["placeholder"] = "https://api.example.org/v1"
        else:
            self._shape_for(provider)
        first = "base_url" if self.asks_address else "api_key" if "api_key" in self.fields else "label"
        if not self.is_bound:
            self.fields[first].widget.attrs["autofocus"] = True

    def _shape_for(self, provider: Provider) -> None:
        self.fields["label"].initial = provider.display_name
        if not provider.asks_address:
            del self.fields["base_url"]
        else:
            self.fields["base_url"].help_text = "A host, a base address, or a whole …/chat/completions address."
            self.fields["base_url"].widget.attrs["placeholder"] = provider.base_url
            if ".example/" not in provider.base_url:  # an address to correct, not one that nobody has
                self.fields["base_url"].initial = provider.base_url
        if provider.is_keyless:
            del self.fields["api_key"]
        elif provider.owner_id is not None or provider.features.get("key_optional"):
            self.fields["api_key"].required = False
        if names := provider.features.get("headers"):
            known = ", ".join(names)
            self.fields["extra_headers"].help_text = f"One per line. {provider.display_name} knows {known}."

    @property
    def shows_first(self) -> bool:
        """Whether something was typed that a check can find wanting, so that its verdict is shown before saving."""
        return self.asks_address or "api_key" in self.fields

    @sensitive_variables()
    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if self.errors:
            return data
        self.account = self._build(data)
        if self.already_known(self.account, data.get("api_key", "")):
            self._refuse_duplicate()
        return data

    def _refuse_duplicate(self) -> None:
        if self.cleaned_data.get("api_key"):
            self.add_error("api_key", DUPLICATE)
        else:
            self.add_error(None, DUPLICATE_KEYLESS)

    @sensitive_variables()
    def _build(self, data: dict[str, Any]) -> ProviderAccount:
        provider = self.provider
        if provider is None or self.asks_address:
            provider = self._private_provider(data["base_url"], data["label"])
        account = ProviderAccount(
            owner=self.user,
            provider=provider,
            label=data["label"] or provider.display_name,
            priority=data["priority"] or 0,
        )
        vault.seal_key(account, data.get("api_key", ""))
        vault.seal_headers(account, data["extra_headers"])
        return account

    def _private_provider(self, base_url: str, label: str) -> Provider:
        """The user's own provider for this address: the one they have, else a new one that is not saved yet.

        A provider that asks for its address is the pattern: its dialect goes along.
        """
        pattern = self.provider
        mine = Provider.objects.filter(owner_id=self.user.pk)
        known = mine.filter(base_url=base_url, client=pattern.client if pattern else "openai_compatible").first()
        if known is not None:
            return known
        host = base_url.split("/")[2]
        stem = slugify(host.replace(".", "-").replace(":", "-"))[:50] or "endpoint"
        taken = set(mine.filter(name__startswith=stem).values_list("name", flat=True))
        name = next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, len(taken) + 3))) if name not in taken)
        own = Provider(
            owner=self.user,
            name=name,
            display_name=(label or host)[:100],
            tagline=host[:160],
            monogram="+",
            provider_type=Provider.ProviderType.DIRECT,
            base_url=base_url,
            client="openai_compatible",
        )
        if pattern is not None:
            own.display_name, own.monogram = pattern.display_name, pattern.monogram
            for column in ("provider_type", "api_standard", "client", "documentation_url", "keys_url"):
                setattr(own, column, getattr(pattern, column))
            own.features = {key: value for key, value in pattern.features.items() if key != "asks_address"}
        return own

    @sensitive_variables()
    def save(self, probe: Probe) -> ProviderAccount:
        """Store the account with what the check found. Raises IntegrityError for a key stored a moment ago."""
        account = self.account
        account.record(probe)
        with transaction.atomic():
            if account.provider._state.adding:
                account.provider.save()
                account.provider = account.provider  # takes over the new id
                vault.seal_key(account, self.cleaned_data["api_key"])  # the keyed hash names the provider
            account.save(force_insert=True)
        return account


class EditAccountForm(_CheckedForm):
    """Rename, pause, reorder; replace the key; move to another address (which asks for the key again, S4)."""

    label = LabelField()
    base_url = AddressField(required=False)
    api_key = KeyField(required=False, label="New API key", help_text="Leave empty to keep the stored key.")
    extra_headers = HeadersField(label="Extra headers")
    forget_headers = forms.BooleanField(required=False, label="Remove the stored headers")
    priority = priority_field()
    is_active = forms.BooleanField(
        required=False, label="In use", help_text="A paused account is kept, and called only to check its key."
    )
    version = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, account: ProviderAccount, **kwargs: Any) -> None:
        initial = {
            "label": account.label,
            "base_url": account.endpoint_override if account.provider.owner_id is None else account.base_url,
            "priority": account.priority,
            "is_active": account.is_active,
            "version": version_of(account),
        }
        super().__init__(*args, **{"initial": initial, **kwargs})
        self.stored, self.account = account, account
        self.header_names, headers_open = self._stored_header_names()
        if account.provider.owner_id is None:
            self.fields["base_url"].label = "Other address"
            self.fields["base_url"].help_text = f"Only if you reach it elsewhere than at {account.provider.base_url}."
        else:
            self.fields["base_url"].required = True
        self.fields["extra_headers"].help_text = (
            f"Stored: {', '.join(self.header_names)}. What you type here replaces them all."
            if self.header_names
            else "One per line, such as APP-Code: ABCD1234."
        )
        if not self.header_names and headers_open:
            del self.fields["forget_headers"]
        if account.provider.is_keyless and account.provider.owner_id is None and not account.api_key_encrypted:
            del self.fields["api_key"], self.fields["base_url"]
        first = "label"
        if "api_key" in self.fields and account.status in (Status.INVALID, Status.LOCKED):
            first = "api_key"
            self.fields["api_key"].label = "API key"
            self.fields["api_key"].help_text = "Stored encrypted; never shown again."
        if not self.is_bound:
            self.fields[first].widget.attrs["autofocus"] = True

    @property
    def is_outdated(self) -> bool:
        """Whether key, headers or address are to change and did so, by another tab, since this form was drawn."""
        drawn = self.cleaned_data.get("version")
        return self.must_check and bool(drawn) and drawn != version_of(self.stored)

    @property
    def would_lose(self) -> bool:
        """Whether what is to be replaced may still work, so that only a checked one takes its place unasked."""
        return self.must_check and self.stored.status not in (Status.INVALID, Status.LOCKED)

    def _stored_header_names(self) -> tuple[list[str], bool]:
        try:
            return list(vault.open_headers(self.stored)), True
        except vault.Locked:
            return [], False

    @sensitive_variables()
    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if self.errors:
            return data
        stored, key, headers = self.stored, data.get("api_key", ""), data["extra_headers"]
        account = copy(stored)
        if "base_url" in data:
            account.endpoint_override = "" if data["base_url"] == account.provider.base_url else data["base_url"]
        self.moves = account.origin != stored.origin
        self.must_check = bool(key or headers or data.get("forget_headers")) or account.base_url != stored.base_url
        if self.moves and stored.api_key_encrypted and not key:
            self.add_error("api_key", "The key was entered for another address. Enter it again to use it at this one.")
            return data
        if key:
            vault.seal_key(account, key)
            if self.already_known(account, key):
                self.add_error("api_key", DUPLICATE)
                return data
        if headers or data.get("forget_headers") or self.moves or not self._stored_header_names()[1]:
            # Headers may be secrets too: they were stored for the old address and go no further (S4).
            vault.seal_headers(account, headers)
        account.label, account.is_active = data["label"], data["is_active"]
        account.priority = data["priority"] or 0
        if self.must_check and not vault.opens(account):
            self.add_error("api_key" if "api_key" in self.fields else None, CODES["locked"])
            return data
        self.account = account
        return data

    SETTINGS = ("label", "priority", "is_active", "updated_at")
    SEALED = ("endpoint_override", "api_key_encrypted", "api_key_hash", "api_key_hint", "extra_headers_encrypted")

    def save(self, probe: Probe | None) -> ProviderAccount:
        """Store the changes, and with `probe` the new key or address that it checked.

        Raises IntegrityError for a key that another account of the user got a moment ago, and Outdated where this
        account's own key or address was changed, or the account removed, since it was read.
        """
        columns: tuple[str, ...] = tuple(name for name in self.SETTINGS if name != "updated_at")
        row = ProviderAccount.objects.for_user(self.stored.owner).filter(pk=self.stored.pk)
        if probe is not None:
            if self.moves or self.cleaned_data.get("api_key"):
                self.account.status = Status.UNVERIFIED  # nothing is known about this key yet
            self.account.record(probe)
            columns += self.SEALED + ProviderAccount.FOUND
            # What is written was made from what was read: a key that another tab stored meanwhile is not put back.
            row = row.filter(
                api_key_encrypted=self.stored.api_key_encrypted,
                extra_headers_encrypted=self.stored.extra_headers_encrypted,
                endpoint_override=self.stored.endpoint_override,
            )
        with transaction.atomic():
            if not row.update(**{name: getattr(self.account, name) for name in columns}, updated_at=timezone.now()):
                raise Outdated
        return self.account
