"""Templates and the files beside them, read once. Nothing on the pages comes from anywhere else."""

from __future__ import annotations

from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from ecomcharge.checkout import texts
from ecomcharge.web.docs_page import File

ASSETS: Final = {"checkout.css": "text/css", "checkout.js": "text/javascript"}
AUTOCOMPLETE: Final = {  # what browsers call the fields of a customer (HTML, section 4.10.18.7)
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
        self._environment.globals["autocomplete"] = AUTOCOMPLETE
        folder = resources.files("ecomcharge.checkout").joinpath("static")
        self.assets = {name: File(kind, folder.joinpath(name).read_bytes()) for name, kind in ASSETS.items()}

    def render(self, template: str, language: str, **context: Any) -> bytes:
        said = texts.in_language(language)
        return self._environment.get_template(template).render(t=said, lang=said.language, **context).encode()
