from django.urls import path

from usage import notice_views

app_name = "notices"
urlpatterns = [
    path("", notice_views.notice_list, name="notice-list"),
    path("read/", notice_views.notices_read, name="notices-read"),
    path("<int:pk>/read/", notice_views.notice_read, name="notice-read"),
]
