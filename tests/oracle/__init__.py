"""The slow, obvious twin of the engine: `docs/engine.md` in plain Python.

Everything is an ordinary int, dict or list, and a book is a SortedDict of price to queue, so that each rule can be read
beside the page it comes from. Nothing here is fast and nothing is shared with the compiled kernels but the record layouts.

`Exchange.apply` answers with the same EVENT array as `Engine.apply`, so the two are compared as bytes; `dump` has the
same form as `Engine.dump`; `check` asserts everything that must hold after every command.

    parts.py        accounts, positions, orders, books
    core.py         the state, commands in, events out
    trading.py      an order's life: reserving, resting, matching, clearing, stops, auctions
    orders.py       NEW_ORDER, CANCEL, EXPIRE, AMEND, MASS_CANCEL, QUOTE
    accounts.py     money, locks, limits, protections, timers
    cash.py         transfers, liens, frozen accounts, pools
    instruments.py  listing, status, bands, gate, delivery
    looking.py      what can be seen of it, and what must hold
"""

from typing import Any

from engine.types import Kind
from tests.oracle.core import LISTINGS, MONEY_KINDS, TRANSFERS
from tests.oracle.instruments import Instruments
from tests.oracle.looking import Looking

__all__ = ["LISTINGS", "MONEY_KINDS", "TRANSFERS", "Exchange"]


class Exchange(Instruments, Looking):
    """The whole exchange."""

    def __init__(self, *limits: int, **named_limits: int) -> None:
        super().__init__(*limits, **named_limits)
        self.rules: dict[int, Any] = {
            Kind.NEW_ORDER: self.new_order,
            Kind.CANCEL: self.cancel,
            Kind.AMEND: self.amend,
            Kind.MASS_CANCEL: self.mass_cancel,
            Kind.EXPIRE: self.expire,
            Kind.QUOTE: self.quote,
            Kind.CANCEL_AFTER: self.cancel_after,
            Kind.DEAD_MAN: self.dead_man,
            Kind.SET_MMP: self.set_mmp,
            Kind.RESET_MMP: self.reset_mmp,
            Kind.OPEN_ACCOUNT: self.open_account,
            Kind.DEPOSIT: self.deposit,
            Kind.WITHDRAW: self.withdraw,
            Kind.NOMINATE: self.nominate,
            Kind.PAYOUT: self.payout,
            Kind.LOCK: self.lock,
            Kind.UNLOCK: self.unlock,
            Kind.SET_LIMITS: self.set_limits,
            Kind.LIST: self.list_instrument,
            Kind.CLOSE: self.close,
            Kind.DELIVER: self.deliver,
            Kind.DELIST: self.delist,
            Kind.CLOSE_CYCLE: self.close_cycle,
            Kind.TICK: lambda _: None,
            Kind.TRANSFER: self.transfer,
            Kind.LIEN: self.take_lien,
            Kind.LIFT_LIEN: self.lift_lien,
            Kind.FREEZE: self.freeze,
            Kind.ISSUE_SHARES: self.issue_shares,
            Kind.MOVE_SHARES: self.move_shares,
            Kind.SET_STATUS: self.set_status,
            Kind.SET_BAND: self.set_band,
            Kind.INDICATE: self.indicate,
            Kind.HALT_ALL: self.halt_all,
            Kind.RESUME_ALL: self.resume_all,
        }
