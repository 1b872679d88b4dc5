"""Shop keys, and the master key that protects them.

A shop's secret key is stored in two forms, and the database alone reveals neither: as a keyed hash, to compare with the key of
a request, and encrypted with AES-256-GCM, because webhooks are signed with the shop's own key. The keys of both come from the
master key, which is never in the database. With a keyed hash the short key of a sandbox is as safe at rest as a generated one
of 256 bits, and no slow hash is needed.
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
from ecomcharge.storage.ownership import explain, keep_owner

PREFIX: Final = "eck_"
OWN_KEY_MINIMUM: Final = 32
SANDBOX_KEY_MINIMUM: Final = 8
OWN_KEY_MAXIMUM: Final = 255
MASTER_KEY_BYTES: Final = 32
MASTER_KEYS_MAXIMUM: Final = 3

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_DIGITS: Final = 43  # 62**43 > 2**256
_CHECK_DIGITS: Final = 6  # 62**6 > 2**32
_NONCE_BYTES: Final = 12


def make_secret_key() -> str:
    """A new secret key: a recognizable prefix, 256 random bits and their CRC-32, in base 62."""
    digits = _base62(secrets.randbits(256), _RANDOM_DIGITS)
    return PREFIX + digits + _checksum(digits)


def is_made_key(key: str) -> bool:
    """Whether a key has the prefix, length and checksum of a key of ``make_secret_key``."""
    digits, checksum = key[len(PREFIX) : -_CHECK_DIGITS], key[-_CHECK_DIGITS:]
    return key.startswith(PREFIX) and len(digits) == _RANDOM_DIGITS and _checksum(digits) == checksum


def own_key_fault(key: str, *, sandbox: bool) -> str | None:
    """Why a key that a person chose is invalid; ``None`` for a valid one. HTTP Basic carries printable ASCII safely."""
    if sandbox and len(key) < SANDBOX_KEY_MINIMUM:
        return f"is too short (minimum is {SANDBOX_KEY_MINIMUM} characters)"
    if not sandbox and len(key) < OWN_KEY_MINIMUM:
        return f"is too short (minimum is {OWN_KEY_MINIMUM} characters, or {SANDBOX_KEY_MINIMUM} with --sandbox)"
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
    """Hashes and encrypts shop keys. It has 32 bytes; one key for each use is derived from it.

    During a rotation there are ``others``: what they hashed and encrypted is still accepted, and nothing new is made with them.
    """

    def __init__(self, key: bytes, *others: bytes) -> None:
        self._first = _DerivedKeys(key)
        self._all = (self._first, *map(_DerivedKeys, others))

    def __len__(self) -> int:
        return len(self._all)

    def hash(self, shop_id: int, secret_key: str) -> str:
        """64 hex digits: HMAC-SHA-256 of the shop and its key."""
        return self._first.hash(shop_id, secret_key)

    def hashes(self, shop_id: int, secret_key: str) -> list[str]:
        """The hash under each key, the first one first."""
        return [keys.hash(shop_id, secret_key) for keys in self._all]

    def stamp(self, card_number: str) -> str:
        """64 hex digits that are equal for equal cards and reveal nothing of the number without this key."""
        return hmac.digest(self._first.stamp, card_number.encode(), "sha256").hex()

    def fingerprint(self, body: bytes) -> bytes:
        """A keyed hash, stored in place of a body that may contain a card number."""
        return hmac.digest(self._first.fingerprint, body, "sha256")

    def fingerprints(self, body: bytes) -> list[bytes]:
        """The fingerprint under each key, the first one first."""
        return [hmac.digest(keys.fingerprint, body, "sha256") for keys in self._all]

    def seal(self, shop_id: int, secret: str, purpose: str = "") -> str:
        """Encrypt a text for one shop and one purpose. Returns base64 of nonce and ciphertext."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._first.seal.encrypt(nonce, secret.encode(), _bound_to(shop_id, purpose))
        return base64.b64encode(nonce + sealed).decode()

    def unseal(self, shop_id: int, sealed: str, purpose: str = "") -> str:
        """Decrypt. Raises ``ConfigurationError`` for another master key, shop or purpose, and for changed data."""
        for keys in self._all:
            secret = keys.unseal(shop_id, sealed, purpose)
            if secret is not None:
                return secret
        raise ConfigurationError(f"the key of shop {shop_id} was sealed under another master key")

    def sealed_with_first(self, shop_id: int, sealed: str, purpose: str = "") -> bool:
        """Whether a text is encrypted under the first key, for this shop and purpose."""
        return self._first.unseal(shop_id, sealed, purpose) is not None


class _DerivedKeys:
    """The keys that are derived from one master key."""

    __slots__ = ("_hash", "fingerprint", "seal", "stamp")

    def __init__(self, key: bytes) -> None:
        if len(key) != MASTER_KEY_BYTES:
            raise ConfigurationError(f"the master key must be {MASTER_KEY_BYTES} bytes; make one with: ecomcharge master-key new")
        self._hash = _derived(key, b"ecomcharge shop key hash")
        self.seal = AESGCM(_derived(key, b"ecomcharge shop key seal"))
        self.stamp = _derived(key, b"ecomcharge card stamp")
        self.fingerprint = _derived(key, b"ecomcharge request fingerprint")

    def hash(self, shop_id: int, secret_key: str) -> str:
        return hmac.digest(self._hash, f"{shop_id}:{secret_key}".encode(), "sha256").hex()

    def unseal(self, shop_id: int, sealed: str, purpose: str) -> str | None:
        """``None`` for another master key, shop or purpose, and for changed data."""
        try:
            raw = base64.b64decode(sealed)
            return self.seal.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound_to(shop_id, purpose)).decode()
        except (InvalidTag, ValueError):
            return None


def same_hash(left: str, right: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(left, right)


def make_master_key() -> str:
    """A new master key in the form of ``ECOMCHARGE_MASTER_KEY``: base64 of 32 random bytes."""
    return base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode()


def master_key_of(settings: Settings) -> MasterKey:
    """The master key of these settings. Raises ``ConfigurationError`` if there is none and none can be created."""
    database_file = sqlite_path(settings.database)
    if database_file is not None:
        make_folder_of(database_file)
    return load_master_key(settings.master_key, settings.master_key_file, database_file=database_file)


def load_master_key(given: str | None, file: str | None, *, database_file: str | None) -> MasterKey:
    """The given master key, or the one in the given file, or the one in the file beside the SQLite database.

    Blanks, line ends or commas separate several keys, of which all but the first are being replaced.
    Only the last file is created if it does not exist (mode 0600). Raises ``ConfigurationError`` with a solution if there is
    no key.
    """
    if given:
        return _master_key(given, "ECOMCHARGE_MASTER_KEY")
    if file:
        refuse_file_of_database(file, database_file)
        try:
            return _master_key(Path(file).read_text("ascii"), file)
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(f"cannot read the master key file {file}: {explain(error)}") from error
    if database_file is None:
        raise ConfigurationError(
            "with PostgreSQL the master key must be given: make one with `ecomcharge master-key new`, keep it"
            " where the database is not, and set ECOMCHARGE_MASTER_KEY or ECOMCHARGE_MASTER_KEY_FILE"
        )
    path = Path(f"{os.path.realpath(database_file)}.master-key")  # the same key for every path of the database
    try:
        if not path.exists():
            _write_once(path, make_master_key(), database_file)
        return _master_key(path.read_text("ascii"), str(path))
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"cannot use the master key file {path}: {explain(error)}") from error


def _write_once(path: Path, text: str, database_file: str) -> None:
    """Write the whole file or nothing. Of several processes that try at once one succeeds, and all continue."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            keep_owner(descriptor, os.path.realpath(database_file))
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _master_key(text: str, origin: str) -> MasterKey:
    keys = [_decoded(key, origin) for key in text.replace(",", " ").split()]
    if not keys:
        raise ConfigurationError(f"{origin} contains no master key; make one with: ecomcharge master-key new")
    if len(keys) > MASTER_KEYS_MAXIMUM:
        raise ConfigurationError(f"{origin} contains {len(keys)} master keys; at most {MASTER_KEYS_MAXIMUM} are accepted")
    return MasterKey(*keys)


def _decoded(text: str, origin: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ConfigurationError(f"{origin} is not base64; make a master key with: ecomcharge master-key new") from error


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(key)


def _bound_to(shop_id: int, purpose: str) -> bytes:
    return f"shop:{shop_id}:{purpose}".encode() if purpose else f"shop:{shop_id}".encode()
