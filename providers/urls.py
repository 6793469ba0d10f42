from django.urls import path

from providers import views

app_name = "providers"
urlpatterns = [
    path("", views.account_list, name="account-list"),
    path("add/", views.account_add, name="account-add"),
    path("create/", views.account_create, name="account-create"),
    path("address/", views.account_address, name="account-address"),
    path("pulse/", views.account_pulse, name="account-pulse"),
    path("sealing/", views.sealing_offer, name="sealing"),
    path("<uuid:pk>/row/", views.account_row, name="account-row"),
    path("<uuid:pk>/test/", views.account_test, name="account-test"),
    path("<uuid:pk>/prove/", views.account_prove, name="account-prove"),
    path("<uuid:pk>/move/", views.account_move, name="account-move"),
    path("<uuid:pk>/sync/", views.account_sync, name="account-sync"),
    path("<uuid:pk>/edit/", views.account_edit, name="account-edit"),
    path("<uuid:pk>/remove/", views.account_remove, name="account-remove"),
]
