"""What a delivery pays, by how much of it was delivered: docs/engine.md takes the two sums that come out of here.

Credit is counted in millionths of a lot-minute, so that a lot at 90 % for a minute is 900,000. Whole numbers
throughout; what goes from one member to another rounds down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

PPM = 1_000_000
FULL_FROM_PPM = 950_000
NOTHING_BELOW_PPM = 800_000
AVAILABILITY_PPM = 995_000
"""Delivered share below which damages are due."""
PENALTY_PPM = 100_000
"""Of the notional, on the shortfall below AVAILABILITY_PPM."""
DEFAULT_PENALTY_PPM = 150_000
"""Of the notional, when nothing was delivered."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The sums of one delivery. Base and refund share the notional; damages and penalty go to the receiver."""

    base_micros: int
    refund_micros: int
    damages_micros: int
    penalty_micros: int

    @property
    def provider_micros(self) -> int:
        """What the provider gets in all, before its fees; below zero when its bond has to pay."""
        return self.base_micros - self.damages_micros - self.penalty_micros

    @property
    def receiver_micros(self) -> int:
        """What the receiver gets back."""
        return self.refund_micros + self.damages_micros + self.penalty_micros


def credit_ppm(performance_ppm: int) -> int:
    """The credit of a lot-minute at a share of the reference performance: whole from 95 %, none below 80 %."""
    if performance_ppm >= FULL_FROM_PPM:
        return PPM
    return performance_ppm if performance_ppm >= NOTHING_BELOW_PPM else 0


def performance(
    notional_micros: int, lots: int, minutes: int, credited_ppm: int, index_notional_micros: int
) -> Outcome:
    """The outcome of a delivery of `lots` over `minutes` that was credited `credited_ppm` millionths of a lot-minute.

    `index_notional_micros` is what the same lots cost at the hour's index. Raises ValueError where the credit is more
    than there is.
    """
    whole = lots * minutes * PPM
    if lots < 1 or minutes < 1 or not 0 <= credited_ppm <= whole or notional_micros < 0:
        raise ValueError(f"{credited_ppm} of {whole} millionths of a lot-minute credited, notional {notional_micros}")
    base = notional_micros * credited_ppm // whole
    delivered = Fraction(credited_ppm, whole)
    shortfall = Fraction(AVAILABILITY_PPM, PPM) - delivered
    damages = penalty = 0
    if shortfall > 0:
        damages = int((1 - delivered) * max(0, index_notional_micros - notional_micros))
        penalty = int(shortfall * notional_micros * PENALTY_PPM / PPM)
    return Outcome(base, notional_micros - base, damages, penalty)


def default_charge(notional_micros: int, cover_notional_micros: int) -> tuple[int, int]:
    """(difference to the cover's cost, penalty): what a provider pays that delivered nothing. Charges round up."""
    penalty = -(-notional_micros * DEFAULT_PENALTY_PPM // PPM)
    return max(0, cover_notional_micros - notional_micros), penalty


def largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` in proportion to `weights`: whole parts, then one each to the largest remainders, the first first.

    The parts sum to `total`, and each is its exact share rounded down or up. Raises ValueError without a positive
    weight.
    """
    whole = sum(weights)
    if whole <= 0 or min(weights) < 0 or total < 0:
        raise ValueError(f"cannot split {total} by {list(weights)}")
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda at: (-(total * weights[at] % whole), at))
    for at in by_remainder[: total - sum(parts)]:
        parts[at] += 1
    return parts


def assign(shorts: Sequence[int], longs: Sequence[int]) -> list[tuple[int, int, int]]:
    """Who delivers to whom: (index in `shorts`, index in `longs`, lots), in the order to be delivered.

    Each provider in turn spreads its lots over what the receivers still miss, by largest remainder. Everybody's
    total is met exactly. Raises ValueError when the two sides do not sum to the same.
    """
    if sum(shorts) != sum(longs) or min(shorts, default=1) < 1 or min(longs, default=1) < 1:
        raise ValueError(f"{sum(shorts)} lots to deliver and {sum(longs)} to receive")
    missing = list(longs)
    pairs = []
    for provider, lots in enumerate(shorts):
        parts = largest_remainder(lots, missing)
        pairs += [(provider, receiver, part) for receiver, part in enumerate(parts) if part]
        missing = [left - part for left, part in zip(missing, parts, strict=True)]
    return pairs


def shares(escrow_micros: int, lots: Sequence[int]) -> list[int]:
    """How the engine splits a provider's escrow over its deliveries, made in this order."""
    result = []
    short = sum(lots)
    for part in lots:
        share = escrow_micros * part // short
        result.append(share)
        escrow_micros -= share
        short -= part
    return result
