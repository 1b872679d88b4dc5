"""The templates of the checkout pages and their files. A page loads nothing from another server."""

from __future__ import annotations

from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from ecomcharge.checkout import forms
from ecomcharge.checkout.translations import translation_for
from ecomcharge.web.docs_page import File

ASSETS: Final = {"checkout.css": "text/css", "checkout.js": "text/javascript"}
AUTOCOMPLETE: Final = {  # names of the customer's fields for browsers (HTML, section 4.10.18.7)
    "first_name": "given-name",
    "last_name": "family-name",
    "address": "address-line1",
    "country": "country",
    "city": "address-level2",
    "zip": "postal-code",
    "state": "address-level1",
    "phone": "tel",
    "email": "email",
}

Asset = File


class Renderer:
    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("ecomcharge.checkout"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            autocomplete=AUTOCOMPLETE, countries=forms.countries, labels=forms.LABELS, problem_texts=forms.PROBLEM_TEXTS
        )
        folder = resources.files("ecomcharge.checkout").joinpath("static")
        self.assets = {name: File(kind, folder.joinpath(name).read_bytes()) for name, kind in ASSETS.items()}

    def render(self, template: str, language: str, **context: Any) -> bytes:
        """The page in UTF-8. Templates mark their messages with ``_``, which translates them into the language."""
        translation = translation_for(language)
        context.update(_=translation.gettext, lang=translation.language)
        return self._environment.get_template(template).render(context).encode()
