"""Shop keys, and the master key under which they are kept.

A shop's secret key is stored twice, and neither lets a thief of the database use it: as a keyed hash, to
compare with what a client sends, and sealed with AES-256-GCM, because the platform signs webhooks with the
shop's own key. Both are keyed from the master key, which never lies in the database. The keyed hash makes a
short key of a sandbox as safe at rest as a made one of 256 bits, at the price of a hash and not of a slow one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.settings import Settings
from ecomcharge.storage.opening import make_folder_of, refuse_file_of_database, sqlite_path

PREFIX: Final = "eck_"
OWN_KEY_MINIMUM: Final = 8
OWN_KEY_MAXIMUM: Final = 255
MASTER_KEY_BYTES: Final = 32

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_DIGITS: Final = 43  # 62**43 > 2**256
_CHECK_DIGITS: Final = 6  # 62**6 > 2**32
_NONCE_BYTES: Final = 12


def make_secret_key() -> str:
    """A new secret key: a prefix to recognise it by, 256 random bits and a CRC-32 of them, in base 62."""
    digits = _base62(secrets.randbits(256), _RANDOM_DIGITS)
    return PREFIX + digits + _checksum(digits)


def is_made_key(key: str) -> bool:
    """Whether a key has the prefix, length and checksum of one that ``make_secret_key`` made."""
    digits, checksum = key[len(PREFIX) : -_CHECK_DIGITS], key[-_CHECK_DIGITS:]
    return key.startswith(PREFIX) and len(digits) == _RANDOM_DIGITS and _checksum(digits) == checksum


def own_key_fault(key: str) -> str | None:
    """Why a key that somebody chose cannot be used, or ``None``. HTTP Basic carries printable ASCII safely."""
    if len(key) < OWN_KEY_MINIMUM:
        return f"is too short (minimum is {OWN_KEY_MINIMUM} characters)"
    if len(key) > OWN_KEY_MAXIMUM:
        return f"is too long (maximum is {OWN_KEY_MAXIMUM} characters)"
    if not (key.isascii() and key.isprintable()):
        return "must be printable ASCII"
    return None


def _checksum(digits: str) -> str:
    return _base62(binascii.crc32(digits.encode("ascii", "replace")), _CHECK_DIGITS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


class MasterKey:
    """Hashes and seals shop keys. 32 bytes; two keys are derived from it, one for each use."""

    def __init__(self, key: bytes) -> None:
        if len(key) != MASTER_KEY_BYTES:
            raise ConfigurationError(f"the master key must be {MASTER_KEY_BYTES} bytes; make one with: ecomcharge master-key new")
        self._hash_key = _derived(key, b"ecomcharge shop key hash")
        self._seal = AESGCM(_derived(key, b"ecomcharge shop key seal"))
        self._stamp_key = _derived(key, b"ecomcharge card stamp")
        self._fingerprint_key = _derived(key, b"ecomcharge request fingerprint")

    def hash(self, shop_id: int, secret_key: str) -> str:
        """64 hex digits: HMAC-SHA-256 of the shop and its key."""
        return hmac.digest(self._hash_key, f"{shop_id}:{secret_key}".encode(), "sha256").hex()

    def stamp(self, card_number: str) -> str:
        """64 hex digits that are the same for the same card, and tell nothing of its number without this key."""
        return hmac.digest(self._stamp_key, card_number.encode(), "sha256").hex()

    def fingerprint(self, body: bytes) -> bytes:
        """In place of a body that may hold a card number, wherever something of it is kept."""
        return hmac.digest(self._fingerprint_key, body, "sha256")

    def seal(self, shop_id: int, secret: str, purpose: str = "") -> str:
        """Base64 of nonce and ciphertext; opens for this shop and this purpose only."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._seal.encrypt(nonce, secret.encode(), _bound_to(shop_id, purpose))
        return base64.b64encode(nonce + sealed).decode()

    def unseal(self, shop_id: int, sealed: str, purpose: str = "") -> str:
        """Raises ``ConfigurationError`` if it was sealed under another master key, for another shop or purpose, or altered."""
        raw = base64.b64decode(sealed)
        try:
            return self._seal.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound_to(shop_id, purpose)).decode()
        except InvalidTag as error:
            raise ConfigurationError(f"the key of shop {shop_id} was sealed under another master key") from error


def same_hash(left: str, right: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(left, right)


def make_master_key() -> str:
    """A new master key, as ``ECOMCHARGE_MASTER_KEY`` wants it: base64 of 32 random bytes."""
    return base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode()


def master_key_of(settings: Settings) -> MasterKey:
    """Raises ``ConfigurationError`` when there is none and none can be made."""
    database_file = sqlite_path(settings.database)
    if database_file is not None:
        make_folder_of(database_file)
    return load_master_key(settings.master_key, settings.master_key_file, database_file=database_file)


def load_master_key(given: str | None, file: str | None, *, database_file: str | None) -> MasterKey:
    """The master key that was given, or of the given file, or of the file beside the SQLite database.

    Only the last is made at first need (mode 0600). Raises ``ConfigurationError`` with a way out when there is none.
    """
    if given:
        return MasterKey(_decoded(given, "ECOMCHARGE_MASTER_KEY"))
    if file:
        refuse_file_of_database(file, database_file)
        try:
            return MasterKey(_decoded(Path(file).read_text("ascii"), file))
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(f"cannot read the master key file {file}: {error}") from error
    if database_file is None:
        raise ConfigurationError(
            "with PostgreSQL the master key must be given: make one with `ecomcharge master-key new`, keep it"
            " where the database is not, and set ECOMCHARGE_MASTER_KEY or ECOMCHARGE_MASTER_KEY_FILE"
        )
    path = Path(f"{os.path.realpath(database_file)}.master-key")  # one key, by whatever name the database is opened
    try:
        if not path.exists():
            _write_once(path, make_master_key())
        return MasterKey(_decoded(path.read_text("ascii"), str(path)))
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"cannot use the master key file {path}: {error}") from error


def _write_once(path: Path, text: str) -> None:
    """Write the file whole or not at all; of several processes that try at once, one succeeds and all go on."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _decoded(text: str, origin: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except ValueError as error:
        raise ConfigurationError(f"{origin} is not base64; make a master key with: ecomcharge master-key new") from error


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(key)


def _bound_to(shop_id: int, purpose: str) -> bytes:
    return f"shop:{shop_id}:{purpose}".encode() if purpose else f"shop:{shop_id}".encode()
