"""The ASGI application: `manage.py run` serves it through config/web.py, any ASGI server can."""

import os

from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured

from config import environment

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

try:
    django_application = get_asgi_application()
except ImproperlyConfigured as exc:
    environment.exit_with_sentence(exc)

from config.dispatcher import Dispatcher

application = Dispatcher(django_application)
