"""Static files under hashed names, JavaScript imports included."""

from typing import Any

from whitenoise.storage import CompressedManifestStaticFilesStorage


class Storage(CompressedManifestStaticFilesStorage):
    support_js_module_import_aggregation = True
    manifest_strict = False

    def hashed_name(self, name: str, content: Any = None, filename: str | None = None) -> str:
        """The name with its hash. A missing file is an error in our own files; a package's may import what we never
        load (django-htmx ships extensions that import a bundler's `htmx`), and keeps the name it wrote."""
        try:
            return super().hashed_name(name, content, filename)
        except ValueError:
            if name.startswith(("css/", "js/")):
                raise
            return name
