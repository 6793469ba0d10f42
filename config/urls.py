"""Where requests come in. The hot doors (`/v1`, the chat event stream) are in config/dispatcher.py's table."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("sign-in/", include("allauth.account.urls")),
    path("accounts/", include("providers.urls")),
    path("models/", include("catalog.urls")),
    path("usage/", include("usage.urls")),
    path("", include("chat.urls")),
]
