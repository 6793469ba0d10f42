from django.urls import path

from chat import views

app_name = "chat"
urlpatterns = [
    path("", views.conversation_list, name="conversation-list"),
    path("send/", views.message_send, name="message-send"),
    path("c/<uuid:pk>/", views.conversation_detail, name="conversation-detail"),
    path("c/<uuid:pk>/send/", views.message_send, name="message-send"),
    path("c/<uuid:pk>/earlier/", views.conversation_earlier, name="conversation-earlier"),
    path("c/<uuid:pk>/rename/", views.conversation_rename, name="conversation-rename"),
    path("c/<uuid:pk>/delete/", views.conversation_delete, name="conversation-delete"),
    path("chat/messages/<int:pk>/retry/", views.message_retry, name="message-retry"),
    path("chat/generations/<uuid:pk>/stop/", views.generation_stop, name="generation-stop"),
    path("chat/picker/", views.model_picker, name="model-picker"),
    path("chat/models/", views.model_select, name="model-select"),
    path("chat/sidebar/", views.sidebar, name="sidebar"),
    path("chat/try/<int:pk>/", views.provider_try, name="provider-try"),
]
