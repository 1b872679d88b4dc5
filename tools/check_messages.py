"""Compare the message catalogues of the checkout pages with the messages in the source.

    python tools/check_messages.py            reports every difference; exits with 1 if there is one
    python tools/check_messages.py --update   adds new messages to every catalogue, without a translation, and removes unused ones

A catalogue passes if it has every message of the source and no other one, each translated and not fuzzy, with the same
placeholders, and with one form for each plural category of CLDR.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from gettext import c2py
from pathlib import Path
from typing import Final

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.pofile import PoFileError, read_po, write_po

CHECKOUT: Final = Path(__file__).parents[1] / "src" / "ecomcharge" / "checkout"
_METHODS: Final = [("**.py", "python"), ("templates/**.html", "jinja2")]
_OPTIONS: Final = {"templates/**.html": {"silent": "false", "trim_blocks": "true", "lstrip_blocks": "true"}}
_KEYWORDS: Final = {**DEFAULT_KEYWORDS, "gettext_noop": None, "ngettext_noop": (1, 2)}
_PLACEHOLDER: Final = re.compile(r"%(?:\(\w+\))?.?")
# Every rule of CLDR for whole numbers repeats within this range, except "many" of French, Italian and Spanish. It applies to
# whole millions; the longest interval has 87,600 hours.
_COUNTS: Final = range(1, 1001)


def catalogues_of(checkout: Path) -> list[Path]:
    return sorted(checkout.glob("locale/*/LC_MESSAGES/checkout.po"))


def extract(checkout: Path) -> Catalog:
    """The messages in the source, in the order of the files."""
    template = Catalog(domain="checkout", fuzzy=False)
    for name, line, message, comments, context in extract_from_dir(checkout, _METHODS, _OPTIONS, _KEYWORDS):
        template.add(message, locations=[(name, line)], auto_comments=comments, context=context)
    return template


def read_catalogue(path: Path) -> Catalog:
    """Raises ``PoFileError`` for a file that is no catalogue, or has more plural forms than its header allows."""
    with path.open("rb") as file:
        return read_po(file, locale=path.parts[-3], domain="checkout", abort_invalid=True)


def errors_of(catalogue: Catalog, template: Catalog) -> Iterator[str]:
    """Returns one sentence for each error of a catalogue."""
    messages, wanted = ({message.id: message for message in listed if message.id} for listed in (catalogue, template))
    yield from (f"no translation of {_quote(id)}" for id in wanted if id not in messages)
    yield from (f"{_quote(id)} is not used" for id in messages if id not in wanted)
    yield from (f"{_quote(message.id)} is not used; remove its commented lines" for message in catalogue.obsolete.values())
    yield from _plural_rule_errors(catalogue)
    for id, message in messages.items():
        yield from (f"{_quote(id)}: {error}" for error in _message_errors(message))


def _message_errors(message: Message) -> Iterator[str]:
    if message.fuzzy:
        yield "fuzzy"
    forms = _forms(message.string or "")
    if not all(form.strip() for form in forms):
        yield "the translation is empty, or one of its plural forms"
        return
    wanted = _placeholders(_forms(message.id)[0])
    if any(_placeholders(form) != wanted for form in forms):
        yield f"other placeholders than {', '.join(wanted) or 'none'}"


def _plural_rule_errors(catalogue: Catalog) -> Iterator[str]:
    """Check that ``Plural-Forms`` separates the same counts as CLDR. Its forms may be in another order."""
    assert catalogue.locale is not None
    category, form = catalogue.locale.plural_form, c2py(catalogue.plural_expr)
    pairs = {(category(count), form(count)) for count in _COUNTS}
    if not len(pairs) == len({category for category, _ in pairs}) == len({form for _, form in pairs}) == catalogue.num_plurals:
        yield f"Plural-Forms is not the rule of CLDR for {catalogue.locale.english_name}"


def _forms(text: str | Sequence[str]) -> Sequence[str]:
    return (text,) if isinstance(text, str) else text


def _placeholders(text: str) -> list[str]:
    return sorted(_PLACEHOLDER.findall(text))


def _quote(id: str | Sequence[str]) -> str:
    return f'"{_forms(id)[0]}"'


def update(path: Path, template: Catalog) -> None:
    catalogue = read_catalogue(path)
    catalogue.update(template, no_fuzzy_matching=True, update_creation_date=False)
    with path.open("wb") as file:
        write_po(file, catalogue, width=110, ignore_obsolete=True, include_lineno=False)


def _errors_of_file(path: Path, template: Catalog) -> Iterator[str]:
    try:
        yield from errors_of(read_catalogue(path), template)
    except PoFileError as error:
        yield str(error)


def main(arguments: Sequence[str], checkout: Path = CHECKOUT) -> int:
    template, paths, errors = extract(checkout), catalogues_of(checkout), 0
    if not paths:
        sys.exit(f"no catalogue under {checkout}")
    for path in paths:
        if "--update" in arguments:
            update(path, template)
        for error in _errors_of_file(path, template):
            print(f"{path.relative_to(checkout)}: {error}")
            errors += 1
    print(f"{len(paths)} catalogues, {len(template)} messages, {errors} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
