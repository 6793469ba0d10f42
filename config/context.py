"""What templates know about this installation."""

from django.conf import settings
from django.http import HttpRequest


def mail(request: HttpRequest) -> dict[str, bool]:
    """Whether a mail server is set up: without one a forgotten password needs an administrator."""
    return {"sends_mail": bool(settings.EMAIL_URL)}
