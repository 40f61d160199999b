"""A chain with what is needed to work on it: its node, the tokens there, a sender for each key, the signers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from settlement.abi import interface
from settlement.chain import Chain
from settlement.database import Database
from settlement.outbox import Outbox, Sender
from settlement.signer import Guard
from settlement.stablecoins import Network, Token


@dataclass(frozen=True, slots=True)
class Keys:
    """Who signs on a chain: what is sent, what roots are proposed, and the M withdrawals' signers; and who may stop it."""

    settler: Guard
    root_setter: Guard
    signers: Sequence[Guard]
    guardian: Guard | None = None
    locker: Guard | None = None


@dataclass
class Site:
    """A chain as custody sees it; `final` is the block of this turn up to which it is believed."""

    network: Network
    chain: Chain
    tokens: list[Token]
    outbox: Outbox
    root_outbox: Outbox
    signers: Sequence[Guard]
    guardian: Outbox | None = None
    locker: Outbox | None = None
    started: bool = False
    final: int = 0
    final_s: int = 0
    differs: bool = False  # as the last reconciliation found
    paid: dict[int, bytes] = field(default_factory=dict)  # waiting withdrawals that are final on the chain

    @classmethod
    def of(  # noqa: PLR0913, PLR0917 - what it joins
        cls,
        network: Network,
        chain: Chain,
        tokens: list[Token],
        keys: Keys,
        database: Database,
        now_s: Callable[[], int],
    ) -> "Site":
        """With a sender for each key that sends; `database` is the outbox's."""
        vault = interface("Vault")

        def sender(guard: Guard) -> Outbox:
            return Outbox(database, Sender(chain, network, guard, vault), now_s)

        guardian, locker = (None if guard is None else sender(guard) for guard in (keys.guardian, keys.locker))
        return cls(
            network, chain, tokens, sender(keys.settler), sender(keys.root_setter), keys.signers, guardian, locker
        )

    @property
    def outboxes(self) -> list[Outbox]:
        """Of every key that sends."""
        known = (self.outbox, self.root_outbox, self.guardian, self.locker)
        return [outbox for outbox in known if outbox is not None]

    def look(self) -> None:
        """Ask up to where the chain is final now: what is read in a turn is read there. Raises ChainError."""
        final = self.chain.finalized()
        self.final, self.final_s = final.number, final.timestamp_s

    def ask(self, token: Token, function: str, *arguments: Any) -> Any:
        """What a view of a token's vault says, as it finally is. Raises ChainError, CallRefused."""
        vault = interface("Vault")
        return vault.result(function, self.chain.call(token.vault, vault.call(function, *arguments), self.final))
