from django.urls import path

from catalog import history_views, views

app_name = "catalog"
urlpatterns = [
    path("", views.model_list, name="model-list"),
    path("select/", views.model_select, name="model-select"),
    path("changes/", history_views.change_list, name="change-list"),
    path("changes/<int:pk>/", history_views.change_set, name="change-set"),
    path("<int:pk>/", history_views.model_detail, name="model-detail"),
    path("syncs/<uuid:pk>/", views.sync_status, name="sync-status"),
]
