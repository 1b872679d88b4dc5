"""The check of the message catalogues: it passes on this repository, and each kind of error makes it fail."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog

import check_messages


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the pages with the German, Russian and Turkish catalogues, which a test may change."""
    shutil.copytree(check_messages.CHECKOUT, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "static"))
    for path in check_messages.catalogues_of(tmp_path):
        if path.parts[-3] not in ("de", "ru", "tr"):
            shutil.rmtree(path.parents[1])
    return tmp_path


@pytest.fixture(scope="module")
def template() -> Catalog:
    return check_messages.extract(check_messages.CHECKOUT)


def errors(checkout: Path, template: Catalog, language: str = "de") -> list[str]:
    catalogue = check_messages.read_catalogue(checkout / "locale" / language / "LC_MESSAGES" / "checkout.po")
    return list(check_messages.errors_of(catalogue, template))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_catalogues_of_this_repository_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_messages.main([]) == 0
    assert re.search(r"^9 catalogues, \d\d messages, 0 errors$", capsys.readouterr().out)


def test_messages_of_every_kind_are_extracted(template: Catalog) -> None:
    for message in (
        "Renewal",  # in a template
        "Pay %(amount)s",  # in a template, with a placeholder
        "free",  # translated at its definition
        "Card number",  # marked at its definition, translated at its use
        "every month",
        ("every %(count)d month", "every %(count)d months"),
    ):
        assert message in template


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("templates/base.html", '{{ _("Payment") }}', '{{ _("Payment") }}{{ _("Added") }}'),
        ("results.py", "SUCCESS: Final", 'ADDED: Final = gettext_noop("Added")\nSUCCESS: Final'),
        ("summary.py", "_DURATIONS: Final", '_ADDED: Final = ngettext_noop("Added", "%(count)d added")\n_DURATIONS: Final'),
    ],
)
def test_a_message_that_is_added_to_the_source_fails(checkout: Path, file: str, old: str, new: str) -> None:
    replace(checkout / file, old, new)
    template = check_messages.extract(checkout)
    for language in ("de", "ru", "tr"):
        assert errors(checkout, template, language) == ['no translation of "Added"']
    assert check_messages.main([], checkout) == 1


def test_a_message_that_is_removed_from_the_source_fails(checkout: Path) -> None:
    replace(checkout / "templates/result.html", '{{ _("Update now") }}', "")
    assert errors(checkout, check_messages.extract(checkout)) == ['"Update now" is not used']
    assert check_messages.main([], checkout) == 1


EMPTY = "the translation is empty, or one of its plural forms"


@pytest.mark.parametrize(
    ("language", "old", "new", "expected"),
    [
        ("de", 'msgid "Month"\nmsgstr "Monat"\n', "", 'no translation of "Month"'),
        ("de", 'msgid "Month"\n', 'msgid "Added"\nmsgstr "Neu"\n\nmsgid "Month"\n', '"Added" is not used'),
        ("de", 'msgstr "Monat"\n', 'msgstr ""\n', f'"Month": {EMPTY}'),
        ("de", 'msgid "Month"\n', '#, fuzzy\nmsgid "Month"\n', '"Month": fuzzy'),
        ("de", '"%(amount)s bezahlen"', '"Bezahlen"', '"Pay %(amount)s": other placeholders than %(amount)s'),
        ("de", '"%(amount)s bezahlen"', '"%(sum)s bezahlen"', '"Pay %(amount)s": other placeholders than %(amount)s'),
        ("de", '"Monat"', '"Monat %(count)d"', '"Month": other placeholders than none'),
        ("ru", 'msgstr[1] "%(count)d часа"', 'msgstr[1] "часа"', '"%(count)d hour": other placeholders than %(count)d'),
        ("ru", 'msgstr[2] "%(count)d часов"\n', "", f'"%(count)d hour": {EMPTY}'),
        ("ru", 'msgstr[2] "%(count)d часов"\n', 'msgstr[2] ""\n', f'"%(count)d hour": {EMPTY}'),
        ("tr", "nplurals=2; plural=(n != 1)", "nplurals=2; plural=(n > 2)", "Plural-Forms is not the rule of CLDR for Turkish"),
    ],
)
def test_an_error_in_a_catalogue_fails(
    checkout: Path, template: Catalog, language: str, old: str, new: str, expected: str
) -> None:
    replace(checkout / "locale" / language / "LC_MESSAGES" / "checkout.po", old, new)
    assert errors(checkout, template, language) == [expected]


def test_a_file_with_more_plural_forms_than_its_header_allows_fails(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace(checkout / "locale/ru/LC_MESSAGES/checkout.po", "nplurals=3", "nplurals=2")
    assert check_messages.main([], checkout) == 1
    assert "locale/ru/LC_MESSAGES/checkout.po: " in capsys.readouterr().out


def test_an_obsolete_message_that_is_commented_out_fails(checkout: Path, template: Catalog) -> None:
    path = checkout / "locale/de/LC_MESSAGES/checkout.po"
    path.write_text(path.read_text() + '\n#~ msgid "Old"\n#~ msgstr "Alt"\n')
    assert errors(checkout, template) == ['"Old" is not used; remove its commented lines']


def test_update_adds_new_messages_and_keeps_the_others(checkout: Path) -> None:
    before = {path: path.read_text() for path in check_messages.catalogues_of(checkout)}
    assert check_messages.main(["--update"], checkout) == 0
    assert {path: path.read_text() for path in before} == before
    replace(checkout / "templates/result.html", '_("Update now")', '_("Refresh")')
    assert check_messages.main(["--update"], checkout) == 1
    assert errors(checkout, check_messages.extract(checkout)) == [f'"Refresh": {EMPTY}']
