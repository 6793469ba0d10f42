"""Where requests come in. The hot doors (`/v1`, the chat event stream) are in config/hot.py's table."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import include, path

from config import views

# One sign-in page, so one throttle: the admin's own login form would have none (A11).
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]
admin.site.site_header = admin.site.site_title = "Switchboard"
admin.site.index_title = "Administration"

urlpatterns = [
    path("healthz", views.healthz, name="healthz"),
    path("setup/<str:token>/", views.setup, name="setup"),
    path("admin/", admin.site.urls),
    path("sign-in/", include("allauth.account.urls")),
    path("accounts/", include("providers.urls")),
    path("models/", include("catalog.urls")),
    path("usage/", include("usage.urls")),
    path("notices/", include("usage.notice_urls")),
    path("", include("chat.urls")),
]

handler400 = views.bad_request
handler403 = views.permission_denied
handler404 = views.not_found
handler500 = views.server_error
