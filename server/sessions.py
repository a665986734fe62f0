"""Session tokens: what Join gives and, with --sessions required, History and Chat ask for.

A token is a session's number, the user and the room, in base64, after a keyed digest (HMAC-SHA-256) that only this
server, or one that shares its store, can make. So the server remembers none of them, and no number of calls to Join
fills its memory. The session's number is what makes two Joins differ: who shows the same token again is the same.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from typing import NamedTuple

KEY_LENGTH = 32
"""Octets; as long as the digest (RFC 2104 §3)."""
_DIGEST_LENGTH = 32
_NUMBER_LENGTH = 8
"""Octets of a session's number."""
_SCHEME = "bearer "


def new_key() -> bytes:
    return secrets.token_bytes(KEY_LENGTH)


def new_session() -> str:
    """A session that no token has: of a caller who came without one."""
    return secrets.token_hex(_NUMBER_LENGTH)


class Holder(NamedTuple):
    """Whom a token was given to."""

    user: str
    room: str
    session: str
    """The session's number, in hexadecimal."""


class Sessions:
    """A token is valid wherever the key is the same."""

    def __init__(self, key: bytes | None = None) -> None:
        """`key` has KEY_LENGTH octets; without it a new one is made."""
        self._key = key or new_key()

    def token(self, user: str, room: str, session: str) -> str:
        """Names have no control characters, so that a zero octet parts them. `session` is a `new_session`."""
        content = bytes.fromhex(session) + f"{user}\0{room}".encode()
        return base64.urlsafe_b64encode(self._digest(content) + content).decode("ascii")

    def holder(self, token: str) -> Holder | None:
        """None for what this server never gave."""
        try:
            octets = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            return None
        digest, content = octets[:_DIGEST_LENGTH], octets[_DIGEST_LENGTH:]
        if not hmac.compare_digest(digest, self._digest(content)):
            return None
        user, _zero, room = content[_NUMBER_LENGTH:].decode().partition("\0")
        return Holder(user, room, content[:_NUMBER_LENGTH].hex())

    def _digest(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")


def bearer(authorization: str | None) -> str | None:
    """The token in an `authorization` header's value (RFC 6750 §2.1; the scheme's case does not matter, RFC 9110
    §11.1)."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return authorization[len(_SCHEME) :].strip() or None
