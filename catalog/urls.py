from django.urls import path

from catalog import alias_views, explorer_views, history_views, price_views, probe_views, seller_views, views

app_name = "catalog"
urlpatterns = [
    path("", explorer_views.model_list, name="model-list"),
    path("compare/", explorer_views.model_compare, name="model-compare"),
    path("export.csv", explorer_views.model_export, name="model-export"),
    path("filters/save/", explorer_views.filter_save, name="filter-save"),
    path("filters/<int:pk>/delete/", explorer_views.filter_delete, name="filter-delete"),
    path("hidden/", explorer_views.hide_rules, name="hide-rules"),
    path("hidden/<int:pk>/delete/", explorer_views.hide_rule_delete, name="hide-rule-delete"),
    path("select/", views.model_select, name="model-select"),
    path("changes/", history_views.change_list, name="change-list"),
    path("changes/<int:pk>/", history_views.change_set, name="change-set"),
    path("<int:pk>/", history_views.model_detail, name="model-detail"),
    path("aliases/", alias_views.alias_list, name="alias-list"),
    path("aliases/new/", alias_views.alias_new, name="alias-new"),
    path("aliases/suggest/", alias_views.alias_suggest, name="alias-suggest"),
    path("aliases/<int:pk>/", alias_views.alias_detail, name="alias-detail"),
    path("aliases/<int:pk>/delete/", alias_views.alias_delete, name="alias-delete"),
    path("aliases/<int:pk>/restore/", alias_views.alias_restore, name="alias-restore"),
    path("<int:pk>/probe/", probe_views.model_probe, name="model-probe"),
    path("probes/<uuid:pk>/", probe_views.probe_status, name="probe-status"),
    path("probes/<uuid:pk>/stop/", probe_views.probe_stop, name="probe-stop"),
    path("<int:pk>/sellers/", seller_views.model_sellers, name="model-sellers"),
    path("<int:pk>/details/", views.model_details, name="model-details"),
    path("<int:pk>/favourite/", views.favourite, name="favourite"),
    path("<int:pk>/price/", price_views.own_price, name="own-price"),
    path("syncs/<uuid:pk>/", views.sync_status, name="sync-status"),
]
