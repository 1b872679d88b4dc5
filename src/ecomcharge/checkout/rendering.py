"""The templates of the checkout pages and their files. A page loads nothing from another server."""

from __future__ import annotations

from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from ecomcharge.checkout import forms
from ecomcharge.checkout.translations import translation_for
from ecomcharge.web.docs_page import File

if TYPE_CHECKING:
    from jinja2 import Environment

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
        folder = resources.files("ecomcharge.checkout").joinpath("static")
        self.assets = {name: File(kind, folder.joinpath(name).read_bytes()) for name, kind in ASSETS.items()}

    def render(self, template: str, language: str, **context: Any) -> bytes:
        """The page in UTF-8. Templates mark their messages with ``_``, which translates them into the language."""
        translation = translation_for(language)
        context.update(_=translation.gettext, lang=translation.language)
        return self._environment.get_template(template).render(context).encode()

    @cached_property
    def _environment(self) -> Environment:
        """Made for the first page: the import of Jinja takes 20 ms and 1.8 MB, and many processes never render a page."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("ecomcharge.checkout"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals.update(
            autocomplete=AUTOCOMPLETE, countries=forms.countries, labels=forms.LABELS, problem_texts=forms.PROBLEM_TEXTS
        )
        return environment
