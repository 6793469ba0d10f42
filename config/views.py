"""Pages that belong to no app: health, first run, errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from config.forms import SetupForm
from config.models import SetupIsOver, SetupToken

P = ParamSpec("P")


@login_not_required
@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """Whether this process answers and reaches its database. Says nothing else."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return HttpResponse("database unreachable\n", content_type="text/plain", status=503)
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required
@sensitive_post_parameters("password")
@never_cache
@require_http_methods(["GET", "POST"])
def setup(request: HttpRequest, token: str) -> HttpResponse:
    """Create the first administrator by the link that `manage.py run` printed; dead once there is one."""
    if not SetupToken.is_open(token):
        return render(request, "setup/over.html", status=404)
    form = SetupForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            user = SetupToken.redeem(
                token,
                username=form.cleaned_data["username"],
                email=form.cleaned_data["email"],
                password=form.cleaned_data["password"],
            )
        except SetupIsOver:
            return render(request, "setup/over.html", status=404)
        login(request, user, backend="django.contrib.auth.backends.ModelBackend")
        return redirect("/")
    return render(request, "setup/setup.html", {"form": form}, status=422 if form.errors else 200)


def _gives_back(view: Callable[P, HttpResponse]) -> Callable[P, HttpResponse]:
    """Close the database connection that an error page opened.

    Under ASGI Django makes these pages in threads that belong to no request, so the end of the request closes nothing
    there: a few missing pages at once would hold as many connections of the pool for good (I19, I20).
    """

    @wraps(view)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        is_ours = connection.connection is None
        try:
            return view(*args, **kwargs)
        finally:
            if is_ours:
                connection.close()

    return wrapped


def _request_id(request: HttpRequest) -> str:
    return getattr(request, "scope", {}).get("request_id", "")


@login_not_required
@_gives_back
def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    # No request in the context: what is wrong with it may be what a context processor would read (its host).
    return HttpResponse(render_to_string("400.html", {"request_id": _request_id(request)}), status=400)


@login_not_required
@_gives_back
def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "403.html", {"request_id": _request_id(request)}, status=403)


@login_not_required
@_gives_back
def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return render(request, "403.html", {"request_id": _request_id(request), "is_stale_form": True}, status=403)


@login_not_required
@_gives_back
def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "404.html", {"request_id": _request_id(request)}, status=404)


@login_not_required
@_gives_back
def server_error(request: HttpRequest) -> HttpResponse:
    """The last resort: no database, no context processors, and no template either if that is what broke."""
    request_id = _request_id(request)
    body: str
    try:
        body = render_to_string("500.html", {"request_id": request_id})
    except Exception:
        body = f"Something went wrong here. Tell your administrator this number: {request_id}"
    return HttpResponse(body, status=500)
