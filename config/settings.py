"""Django settings: one file, read once, top to bottom. Every value comes from the environment or `.env`.

`.env.example` documents each setting; tests/config/test_settings.py keeps the two in step. A value that cannot be read
stops the start with one sentence that says what to write (config/environment.py).
"""

from pathlib import Path

from csp.constants import NONCE, NONE, SELF

from config import environment
from config.environment import env

BASE_DIR = Path(__file__).resolve().parent.parent
environment.read_dotenv(BASE_DIR / ".env")

# -- Where things are kept -------------------------------------------------------------------------------------------

VAR_DIR = env.path("VAR_DIR", default=BASE_DIR / "var", make_private=True)

# -- Secrets: made at first start, mode 0600 (P5) --------------------------------------------------------------------

SECRET_KEY = env.secret("SECRET_KEY", file=VAR_DIR / "secret_key", make=environment.new_secret_key)
VAULT_KEYS = env.secret("VAULT_KEYS", file=VAR_DIR / "vault_keys", make=environment.new_vault_keys)

# -- Who may reach us, under which name ------------------------------------------------------------------------------

DEBUG = env.switch("DEBUG", default=False)
PORT = env.number("PORT", default=8000, low=1, high=65535)
BIND = env.address("BIND", default="127.0.0.1")
PUBLIC_ORIGIN = env.origin("PUBLIC_ORIGIN", default=f"http://127.0.0.1:{PORT}")
ALLOWED_HOSTS = env.items("ALLOWED_HOSTS", default=environment.hosts_for(PUBLIC_ORIGIN))
IS_HTTPS = PUBLIC_ORIGIN.startswith("https://")
CSRF_TRUSTED_ORIGINS = [PUBLIC_ORIGIN]
# Forwarded headers count only when they come from these addresses (A9); none by default.
TRUSTED_PROXIES = env.items("TRUSTED_PROXIES", default=[])

# -- What one request may bring, and how long a stop may take --------------------------------------------------------

DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * 1024 * 1024  # bytes: a message of 1 MB must be refused beside its field, not here
REQUEST_BODY_LIMIT = DATA_UPLOAD_MAX_MEMORY_SIZE + 64 * 1024  # bytes, before Django sees them (config/dispatcher.py)
DRAIN_SECONDS = env.number("DRAIN_SECONDS", default=5, low=0, high=600)
API_CALLS_AT_ONCE = env.number("API_CALLS_AT_ONCE", default=1_000, low=1, high=100_000)

# -- Applications ----------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "config.apps.ConfigConfig",
    "chat",
    "usage",
    "catalog",
    "providers",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "csp",
    "django_htmx",
    "template_partials",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "config.middleware.Unavailable",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
APPEND_SLASH = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
                "config.context.mail",
                "chat.context.navigation",
            ],
        },
    },
]

# -- Database --------------------------------------------------------------------------------------------------------

DATABASES = {"default": env.database("DATABASE_URL", default=f"sqlite:///{VAR_DIR / 'switchboard.sqlite3'}")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# -- Redis: only where there is more than one web process ------------------------------------------------------------

REDIS_URL = env.text("REDIS_URL", default="")
CACHES = {
    "default": (
        {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}
        if REDIS_URL
        else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}  # throttles count per process
    )
}

# -- Accounts --------------------------------------------------------------------------------------------------------

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
SIGNUP_OPEN = env.switch("SIGNUP_OPEN", default=False)
ACCOUNT_ADAPTER = "config.accounts.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_ON_GET = False
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_EMAIL_NOTIFICATIONS = False
ACCOUNT_FORMS = {
    "login": "config.forms.SignInForm",
    "change_password": "config.forms.NewPasswordForm",
    "set_password": "config.forms.FirstPasswordForm",
    "reset_password_from_key": "config.forms.ForgottenPasswordForm",
    "reauthenticate": "config.forms.SamePersonForm",
}
# Guessing (A11). "key" of login_failed is an account seen from one address, of login_account an account as a whole
# (config/accounts.py).
ACCOUNT_RATE_LIMITS = {
    "login": "30/m/ip",
    "login_failed": "10/m/ip,5/5m/key",
    "login_account": "50/h/key",
    "reset_password": "20/m/ip,5/m/key",
    "reset_password_from_key": "20/m/ip",
    "change_password": "5/m/user",
    "reauthenticate": "10/m/user",
    "signup": "20/m/ip",
}

# Without a mail server there is no password reset by mail, and the page says whom to ask instead.
EMAIL_URL = env.text("EMAIL_URL", default="")
vars().update(env.mail("EMAIL_URL"))
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.text("EMAIL_FROM", default="Switchboard <switchboard@localhost>")

SESSION_ENGINE = "config.session_store"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_HTTPS
SESSION_COOKIE_NAME = "__Host-session" if IS_HTTPS else "session"
CSRF_COOKIE_NAME = "__Host-csrf" if IS_HTTPS else "csrf"
SESSION_COOKIE_AGE = 14 * 24 * 3600

# -- What browsers are told (X8) -------------------------------------------------------------------------------------

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if IS_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = IS_HTTPS
SECURE_SSL_REDIRECT = IS_HTTPS and env.switch("SSL_REDIRECT", default=True)
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]  # asked by the supervisor on loopback
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "config.views.csrf_failure"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF, NONCE],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "object-src": [NONE],
        "frame-ancestors": [NONE],
    }
}

# -- Language, time, static files ------------------------------------------------------------------------------------

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_ALLOW_ALL_ORIGINS = False  # our pages alone use these files: no CORS header (X8)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "config.staticfiles.Storage"},
}

# -- Upstreams (providers/net.py) ------------------------------------------------------------------------------------

OUTBOUND_PRIVATE_TARGETS = env.items("OUTBOUND_PRIVATE_TARGETS", default=[])
OUTBOUND_HOSTS = env.items("OUTBOUND_HOSTS", default=[])
# Keys are encrypted in the browser (K3), which browsers only do over https or on this machine.
ALLOW_UNSEALED_KEYS = env.switch("ALLOW_UNSEALED_KEYS", default=False)
# How long an answer may take: until its first word, between two pieces, in all.
REPLY_FIRST_WORD_SECONDS = env.number("REPLY_FIRST_WORD_SECONDS", default=300, low=1, high=3600)
REPLY_IDLE_SECONDS = env.number("REPLY_IDLE_SECONDS", default=120, low=1, high=3600)
REPLY_TOTAL_SECONDS = env.number("REPLY_TOTAL_SECONDS", default=840, low=1, high=86400)
SYNC_INTERVAL = env.number(
    "SYNC_INTERVAL", default=6 * 3600, low=60, high=30 * 86400
)  # seconds a model list stays fresh

# -- The ledger ------------------------------------------------------------------------------------------------------

# Seconds until a call that is still open counts as abandoned; longer than the longest answer may take.
LEDGER_SWEEP_SECONDS = env.number("LEDGER_SWEEP_SECONDS", default=900, low=60, high=86400)

# -- Background work: a worker and beat, beside the web process ------------------------------------------------------

CELERY_BROKER_URL = REDIS_URL or "filesystem://localhost/"
if not REDIS_URL:
    CELERY_BROKER_TRANSPORT = "config.broker:Transport"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(VAR_DIR / "broker" / "tasks"),
        "data_folder_out": str(VAR_DIR / "broker" / "tasks"),
        "control_folder": str(VAR_DIR / "broker" / "control"),
        "polling_interval": 0.5,
    }
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False  # nothing depends on redelivery: work that must happen is a row that beat sweeps
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TIMEZONE = TIME_ZONE
# In memory: each entry asks the database what is due, so a restart of beat loses nothing and finds no stale file.
CELERY_BEAT_SCHEDULER = "celery.beat:Scheduler"
CELERY_BEAT_SCHEDULE = {
    "sync what is due": {"task": "catalog.tasks.sync_due", "schedule": 60.0, "options": {"expires": 60}},
    "start queued syncs": {"task": "catalog.tasks.sweep_queued", "schedule": 15.0, "options": {"expires": 15}},
    "keep list prices": {"task": "catalog.tasks.keep_list_prices", "schedule": 60.0, "options": {"expires": 60}},
    "ask about rejected keys": {"task": "providers.tasks.recheck", "schedule": 30.0, "options": {"expires": 30}},
    "close abandoned attempts": {"task": "usage.tasks.sweep", "schedule": 60.0, "options": {"expires": 60}},
    "remind of retirements": {"task": "usage.tasks.remind", "schedule": 3600.0, "options": {"expires": 3600}},
    "close abandoned replies": {"task": "chat.tasks.sweep", "schedule": 10.0, "options": {"expires": 10}},
}

# -- What is written to standard output ------------------------------------------------------------------------------

LOG_LEVEL = env.choice("LOG_LEVEL", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "config.logs.Formatter",
            "format": "{asctime} {levelname} {name} [{request_id}] {message}",
            "datefmt": "%H:%M:%S",
            "style": "{",
        },
    },
    "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "line"}},
    "root": {"handlers": ["out"], "level": "WARNING"},
    "loggers": {
        **{name: {"level": LOG_LEVEL} for name in ("config", "providers", "catalog", "usage", "chat")},
        "django": {"handlers": [], "level": "WARNING", "propagate": True},
        "django.request": {"level": "ERROR"},  # a 404 is the caller's affair
        "django.server": {"handlers": [], "propagate": True},
        "uvicorn": {"level": "WARNING"},
        "celery": {"level": "WARNING"},
        "kombu": {"level": "WARNING"},
    },
}
