from django.urls import path

from usage import token_views, views

app_name = "usage"
urlpatterns = [
    path("", views.usage_list, name="usage-list"),
    path("tokens/", token_views.token_list, name="token-list"),
    path("tokens/new/", token_views.token_create, name="token-create"),
    path("tokens/<uuid:pk>/revoke/", token_views.token_revoke, name="token-revoke"),
]
