"""The languages of the checkout pages, and the look-up of a translation.

The messages in the source are English. Every other language has a gettext catalogue,
``locale/<language>/LC_MESSAGES/checkout.po``. A plan may name a language without a catalogue; its pages are in English [D].

A catalogue is read from its ``.po`` file when a page first needs its language. There is no compiled ``.mo`` file: an
editable install and ``make serve`` need no build step for it, and no compiled file can be older than its source. The start
of the server reads no catalogue. In each server process the first one takes 8 ms, most of it for imports of Babel, and each
further one 2 ms. The locale data of Babel for the same page takes 3 to 6 ms.
``tools/check_messages.py`` compares the catalogues with the source. It is part of ``make lint``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from gettext import GNUTranslations, NullTranslations
from importlib import resources
from io import BytesIO
from typing import Final

from babel import Locale

SOURCE_LANGUAGE: Final = "en"
_CATALOGUES: Final = resources.files("ecomcharge.checkout").joinpath("locale")
LANGUAGES: Final = (SOURCE_LANGUAGE, *sorted(folder.name for folder in _CATALOGUES.iterdir() if folder.is_dir()))
_ACCEPTED_MAXIMUM: Final = 20  # entries of Accept-Language that are read


@dataclass(frozen=True, slots=True)
class Translation:
    """One language: its messages, and the locale that formats its numbers, dates and names of countries."""

    language: str  # ISO 639-1
    locale: Locale
    messages: NullTranslations

    def gettext(self, message: str) -> str:
        return self.messages.gettext(message)

    def ngettext(self, singular: str, plural: str, count: int) -> str:
        """The form for ``count`` in this language, with ``count`` filled in."""
        return self.messages.ngettext(singular, plural, count) % {"count": count}


def gettext_noop(message: str) -> str:
    """Marks a message for extraction. It is translated where it is used."""
    return message


def ngettext_noop(singular: str, plural: str) -> tuple[str, str]:
    """Marks a message with a plural for extraction. It is translated where it is used."""
    return singular, plural


@lru_cache(maxsize=64)
def translation_for(language: str) -> Translation:
    """The translation for a language of plans; English for a language without a catalogue."""
    known = language if language in LANGUAGES else SOURCE_LANGUAGE
    return Translation(known, Locale.parse(known), _read_catalogue(known))


def preferred_language(accept_language: str) -> str:
    """The first language of ``Accept-Language`` that has a translation. Browsers sort the list, so weights are ignored."""
    accepted = [entry.strip().lower()[:2] for entry in accept_language.split(",")[:_ACCEPTED_MAXIMUM]]
    return next((language for language in accepted if language in LANGUAGES), SOURCE_LANGUAGE)


def _read_catalogue(language: str) -> NullTranslations:
    if language == SOURCE_LANGUAGE:
        return NullTranslations()
    # Imported here because only the first page needs them, not the start of the server.
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    compiled = BytesIO()
    with _CATALOGUES.joinpath(language, "LC_MESSAGES", "checkout.po").open("rb") as file:
        write_mo(compiled, read_po(file, language))
    compiled.seek(0)
    return GNUTranslations(compiled)
