"""Delivery tickets: the exchange's signed word on who delivers which lots to whom.

A ticket is JSON with its keys in the order of `Ticket` and no spaces; the signature is Ed25519 over
"wellhead ticket 1\\n" and those bytes. The receiver shows it to the provider, who checks it against the exchange's
public key, and that it speaks with the receiver it names. Ed25519 gives one signature for one content, so a ticket
that is asked for twice is the same ticket.
"""

from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from settlement.disk import write_whole

TAG = b"wellhead ticket 1\n"
KEY_NAME = "exchange.key"


class Ticket(msgspec.Struct, frozen=True):
    """What is signed. Times are seconds since the epoch."""

    venue: str
    listing: int
    symbol: str
    start_s: int
    end_s: int
    provider: int
    receiver: int
    first_lot: int
    """Of the provider's lots in this contract, as its meter counts them."""
    lots: int


class SignedTicket(msgspec.Struct, frozen=True):
    """A ticket as it travels: the exact bytes that were signed, as text, and the signature, hex."""

    ticket: str
    signature: str


class TicketError(ValueError):
    """This is not a ticket that the exchange signed."""


class Signer:
    """The exchange's own key."""

    def __init__(self, path: Path) -> None:
        """Read the key, or make one where there is none, readable by its owner only. Raises ValueError for what is no key."""
        if not path.exists():
            write_whole(path, Ed25519PrivateKey.generate().private_bytes_raw().hex().encode() + b"\n", mode=0o600)
        try:
            self._key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip()))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @property
    def public_key(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    def sign(self, ticket: Ticket) -> SignedTicket:
        data = msgspec.json.encode(ticket)
        return SignedTicket(data.decode(), self._key.sign(TAG + data).hex())


def check_ticket(signed: SignedTicket, public_key: bytes) -> Ticket:
    """The ticket, if the holder of the key signed it. Raises TicketError."""
    data = signed.ticket.encode()
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(bytes.fromhex(signed.signature), TAG + data)
        return msgspec.json.decode(data, type=Ticket)
    except (InvalidSignature, ValueError, msgspec.DecodeError) as error:
        raise TicketError("not a ticket of this exchange") from error
