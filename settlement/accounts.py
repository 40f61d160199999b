"""The chart of accounts: every ledger account as one integer, and as text.

`number * 16 + role`. Number 0 is the house and the world outside; members have the numbers the engine gave them, from
1. So `account >> 4` is the owner and the low four bits say which of the owner's pockets it is.

A pocket holds assets: 0 is the settlement stablecoin, a number above it the lots of one listing, known by the log
sequence of the LIST command that made it (instrument numbers are used again, sequences never). Below zero are the
stablecoins on chains, -1 for the first of the registry, in micro-units: what the vaults hold of each. And from
FIRST_SHARES down the shares of pools: the pool is short what its holders have.

Balances are what is owed to the owner: credits minus debits. A member's money is never below zero; lots may be (a
short position); custody is: minus its balance is what the vault holds. Each asset sums to zero over all accounts.
"""

from enum import IntEnum
from typing import Final

ROLE_BITS: Final = 4
STABLECOIN: Final = 0
MONEY_DECIMALS: Final = 6
HOUSE: Final = 0


class Role(IntEnum):
    """A member's pockets."""

    AVAILABLE = 0
    HELD = 1  # reserved by working orders
    ESCROW = 2  # proceeds of lots sold short
    BOND = 3
    WITHDRAWING = 4  # left available, not yet on the chain
    FROZEN = 5  # under a lien


class HouseRole(IntEnum):
    """The pockets of number 0."""

    FEES = 0
    RESIDUE = 1
    DEFAULT_FUND = 2
    CUSTODY = 8  # outside: what the vault holds, as a negative balance
    IN_TRANSIT = 9  # outside: sent, not yet final
    VAULT = 10  # outside: what a vault holds of a stablecoin, in an asset of that coin's own


def user_account(number: int, role: Role = Role.AVAILABLE) -> int:
    """The ledger account of a member's pocket. Raises ValueError for a number below 1."""
    if number < 1:
        raise ValueError(f"members have numbers from 1, not {number}")
    return number << ROLE_BITS | role


FEES: Final = int(HouseRole.FEES)
CUSTODY: Final = int(HouseRole.CUSTODY)
VAULT: Final = int(HouseRole.VAULT)
FIRST_OUTSIDE: Final = int(HouseRole.CUSTODY)
FIRST_USER: Final = 1 << ROLE_BITS
"""House accounts lie below; of those, the ones from FIRST_OUTSIDE up are the world's."""


def token_asset(token: int) -> int:
    """The asset of a stablecoin, by its number in the registry."""
    return -token


FIRST_SHARES: Final = -(1 << 32)


def shares_of(pool: int) -> int:
    """The asset number of a pool's shares, by its account number."""
    return FIRST_SHARES - pool


def owner_of(account: int) -> int:
    """The number of the member, 0 for the house and the world."""
    return account >> ROLE_BITS


def account_text(account: int) -> str:
    """`7.held`, `house.fees`. Raises ValueError for a number that is no account."""
    number, role = account >> ROLE_BITS, account & (FIRST_USER - 1)
    if account < 0:
        raise ValueError(f"no ledger account {account}")
    if number == HOUSE:
        return f"house.{HouseRole(role).name.lower()}"
    return f"{number}.{Role(role).name.lower()}"


def place_text(asset: int, account: int) -> str:
    """Where a balance lies, for messages; also when the number is no account at all."""
    try:
        name = account_text(account)
    except ValueError:
        name = f"(no account {account})"
    return f"account {name} asset {asset}"


def parse_account(text: str) -> int:
    """What `account_text` wrote. Raises ValueError for other text."""
    owner, _, role = text.partition(".")
    try:
        if owner == "house":
            return int(HouseRole[role.upper()])
        return user_account(int(owner), Role[role.upper()])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{text!r} is not a ledger account") from error


def money_text(micros: int) -> str:
    """Micro-dollars as a decimal with six places: -1500000 is `-1.500000`."""
    whole, part = divmod(abs(micros), 10**MONEY_DECIMALS)
    return f"{'-' if micros < 0 else ''}{whole}.{part:0{MONEY_DECIMALS}d}"
