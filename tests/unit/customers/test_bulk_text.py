"""Customer files as text: encodings, line endings, and the headings of columns."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.customers.bulk.columns import columns_of, parse_mapping
from ecomcharge.customers.bulk.encodings import likely_encoding
from ecomcharge.customers.bulk.formats import open_customers
from ecomcharge.customers.bulk.options import ReadingOptions, parse_allow_missing, parse_delimiter
from ecomcharge.customers.bulk.text_stream import open_text


class Pieces(io.BufferedReader):
    """A stream that is not seekable and gives a few bytes at a time, like a slow pipe."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(io.BytesIO(content))
        self._size = size

    def read1(self, size: int = -1, /) -> bytes:
        return super().read1(self._size)

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("\ufeffé,b\r\nc\r\n".encode(), "é,b\r\nc\r\n"),
        ("\ufeffé,b\nc€😀".encode("utf-16-le"), "é,b\nc€😀"),
        ("\ufeffé,b\nc€😀".encode("utf-32-be"), "é,b\nc€😀"),
        (b"a,b\rc\rd\n1\r", "a,b\nc\nd\n1\n"),
        (b"a,b\r\r\nc\r", "a,b\r\r\nc\r"),
        (b"\xef\xbb\xbf", ""),
        (b"", ""),
    ],
)
def test_a_mark_and_the_line_endings_are_recognised_in_any_pieces(content: bytes, text: str, size: int) -> None:
    assert open_text(Pieces(content, size)).stream.read().decode() == text


def test_a_character_that_a_pipe_cuts_is_no_other_encoding() -> None:
    content = ("a" * 9 + "é\n").encode()
    assert open_text(Pieces(b"x\n" + content, 12)).stream.read() == b"x\n" + content


def test_a_mark_precedes_the_option() -> None:
    assert open_text(io.BytesIO(b"\xef\xbb\xbf\xc3\xa9\n"), "cp1252").stream.read().decode() == "é\n"


@pytest.mark.parametrize("name", ["nonsense", "base64", "undefined", "", "\0"])
def test_an_unknown_encoding_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a known encoding"):
        open_text(io.BytesIO(b"a\n"), name)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("José Müller, São Paulo", "cp1252"),
        ("Zoë", "cp1252"),
        ("Анна Иванова, Смоленск", "cp1251"),
        ("АННА", "cp1251"),
        ("Łódź, Zażółć gęślą", "cp1250"),
        ("Γιώργος, Αθήνα", "cp1253"),
        ("Анна, Пётр", "koi8-r"),
        ("Анна Иванова", "cp866"),
        ("José Müller", "mac-roman"),
    ],
)
def test_the_likely_encoding_makes_plausible_words(text: str, encoding: str) -> None:
    row = f"zoe@shop.test,198.51.100.7,{text}\n".encode(encoding)
    assert likely_encoding([row]) == encoding


@pytest.mark.parametrize(
    ("headings", "targets"),
    [
        (["E-Mail", "IP address", "First Name", "Surname"], ("email", "ip", "first_name", "last_name")),
        (["email", "E-mail", "ip"], ("email", "", "ip")),
        (["E-mail", "Email", "ip"], ("", "email", "ip")),
        (["name", "first_name"], ("", "first_name")),
        (["Full name", "Phone"], ("name", "phone")),
        (["Country", "Country Code", "Province", "Province Code"], ("", "country", "", "state")),
        (["country", "country_code"], ("country", "")),
        (["Address2", "Address1"], ("address_2", "address")),
        (["billing_address_2", "address"], ("", "address")),
        (["\ufeffemail", " ", "Имя"], ("email", "", "")),
    ],
)
def test_headings_name_fields(headings: list[str], targets: tuple[str, ...]) -> None:
    assert columns_of(headings, {}).targets == targets


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["Name"], "'Name' is not COLUMN=FIELD"),
        (["=email"], "'=email' is not COLUMN=FIELD"),
        (["a=mail"], "there is no field 'mail'; fields: id, first_name"),
        (["First Name=email", "first-name=ip"], "the column 'first-name' is given twice"),
        (["a=email", "b=email"], "two columns are given for email"),
    ],
)
def test_a_wrong_mapping_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_mapping(texts)


def test_options_are_parsed() -> None:
    assert parse_mapping(["a=b=Email", "Имя=first_name", "x="]) == {"a=b": "email", "Имя": "first_name", "x": ""}
    assert columns_of(["имя"], {"Имя": "first_name"}).targets == ("first_name",)
    assert [parse_delimiter(text) for text in (None, "tab", "\t", "\\t", ";", "Pipe", "^")] == [
        None,
        "\t",
        "\t",
        "\t",
        ";",
        "|",
        "^",
    ]
    assert parse_allow_missing(["ip,email", "State"]) == {"ip", "email", "state"}
    for text in ('"', "a", "", "ab", "\n", "é"):
        with pytest.raises(ConfigurationError, match="--delimiter"):
            parse_delimiter(text)
    with pytest.raises(ConfigurationError, match="--allow-missing: city is not one of email, ip, state"):
        parse_allow_missing(["ip,city"])


@pytest.mark.parametrize("delimiter", ["^", "]", "\\", "-", "."])
def test_any_delimiter_separates_quoted_and_unquoted_cells(delimiter: str) -> None:
    rows = [["email", "ip"], [f'"a{delimiter}b"', "c"], ["d", '"e\nf"'], ["", '""']]
    text = "".join(delimiter.join(row) + "\n" for row in rows)
    found = open_customers(io.BytesIO(text.encode()), "csv", ReadingOptions(delimiter=delimiter))
    bodies = [found.read(record) for _, record in found.records()]
    assert [(body.email, body.ip) for body in bodies] == [(f"a{delimiter}b", "c"), ("d", "e f")]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(st.sampled_from('"\\{}[],:\n é'), max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("ab}", max_size=2), inner, max_size=3)),
    max_leaves=8,
)


@settings(deadline=None)
@given(objects=st.lists(st.dictionaries(st.text("ab]", max_size=2), JSON, max_size=4), max_size=6), indent=st.integers(-1, 3))
def test_an_array_has_the_objects_that_were_written(objects: list[dict[str, object]], indent: int) -> None:
    text = msgspec.json.format(msgspec.json.encode(objects), indent=indent)
    records = list(open_customers(io.BytesIO(text), "jsonl").records())
    assert [number for number, _ in records] == list(range(1, len(objects) + 1))
    assert [msgspec.json.decode(record) for _, record in records] == objects


STRAY = st.sampled_from(['5" W', '"5', '"', '","', '"}', '{"', "\\", '\\"', '"],['])


@settings(deadline=None)
@given(strays=st.lists(st.one_of(st.none(), STRAY), min_size=1, max_size=8), separator=st.sampled_from([",", ",\n", ", "]))
def test_whole_objects_beside_broken_ones_are_read(strays: list[str | None], separator: str) -> None:
    texts = [f'{{"n":{number},"a":"{"5 West" if stray is None else stray}"}}' for number, stray in enumerate(strays)]
    content = ("[" + separator.join(texts) + "]").encode()
    records = [record for _, record in open_customers(io.BytesIO(content), "jsonl").records()]
    whole = [text for text, stray in zip(texts, strays, strict=True) if stray is None]
    assert [text for text in whole if (text + "\n").encode() in records] == whole


def test_a_long_array_takes_constant_memory() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"["
        for number in range(20_000):
            yield b'{"email":"c%d@shop.test","ip":"::1","address":"%b"},' % (number, b"x" * 2_000)
        yield b"{}]"

    class Source(io.RawIOBase):
        _chunks = chunks()
        _rest = b""

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            while len(self._rest) < len(buffer) and (chunk := next(self._chunks, b"")):
                self._rest += chunk
            piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
            buffer[: len(piece)] = piece
            return len(piece)

    tracemalloc.start()
    file = open_customers(io.BufferedReader(Source()), "jsonl")  # type: ignore[type-var]
    assert sum(1 for _ in file.records()) == 20_001
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 1024 * 1024  # bytes; the file has 40 MB
