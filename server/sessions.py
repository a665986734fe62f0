"""Session tokens: what Join gives and, with --sessions required, History and Chat ask for.

A token is the user and the room, in base64, followed by a keyed digest (HMAC-SHA-256) that only this server can make.
So the server remembers none of them, and no number of calls to Join fills its memory.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from typing import NamedTuple

_DIGEST_LENGTH = 32
_NONCE_LENGTH = 8
"""Makes the tokens of two Joins differ."""
_SCHEME = "bearer "


class Holder(NamedTuple):
    """Whom a token was given to."""

    user: str
    room: str


class Sessions:
    """Valid from one `Sessions` to its end: the key is its own."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def token(self, user: str, room: str) -> str:
        """Names have no control characters, so that a zero octet parts them."""
        content = secrets.token_bytes(_NONCE_LENGTH) + f"{user}\0{room}".encode()
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
        user, _zero, room = content[_NONCE_LENGTH:].decode().partition("\0")
        return Holder(user, room)

    def _digest(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")


def bearer(authorization: str | None) -> str | None:
    """The token in an `authorization` header's value (RFC 6750 §2.1; the scheme's case does not matter, RFC 9110
    §11.1)."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return authorization[len(_SCHEME) :].strip() or None
