from django.urls import path

from catalog import views

app_name = "catalog"
urlpatterns = [
    path("", views.model_list, name="model-list"),
    path("select/", views.model_select, name="model-select"),
    path("syncs/<uuid:pk>/", views.sync_status, name="sync-status"),
]
