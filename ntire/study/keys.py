"""Names that tell nothing: invitations, sessions and pictures are called by keyed hashes of the study's secret."""

import base64
import hashlib
import hmac
import secrets
from pathlib import Path

from ntire import UserError
from ntire.study.making import SECRET


class Keys:
    """Everything that is derived from the secret of a study."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError where the secret is not there."""
        try:
            self._secret = bytes.fromhex((folder / SECRET).read_text().strip())
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / SECRET}: expected the study's secret, found none ({error}).") from None
        self.admin = self.of("admin")

    def of(self, *what: object) -> str:
        """22 letters, digits, `-` or `_`: 128 bits that nobody can compute without the secret."""
        said = "\0".join(map(str, what)).encode()
        return base64.urlsafe_b64encode(hmac.digest(self._secret, said, "sha256")[:16]).rstrip(b"=").decode()

    def invitation(self, number: int) -> str:
        """The token in an invitation's link."""
        return self.of("invitation", number)

    def picture(self, observer: int, position: int, place: object) -> str:
        """What a picture is called for one observer in one trial: never the same twice, so no cache tells them apart."""
        return self.of("picture", observer, position, place)

    def form(self, visit: str) -> str:
        """What a form must send back to be this visitor's."""
        return self.of("form", visit)


def new_token() -> str:
    """A token by chance, of the same kind."""
    return secrets.token_urlsafe(16)


def hashed(token: str) -> str:
    """What the database keeps of a token: who reads it cannot log in."""
    return hashlib.sha256(token.encode()).hexdigest()


def same(one: str, other: str) -> bool:
    """Compare without telling by time how far they agree."""
    return hmac.compare_digest(one.encode(), other.encode())
