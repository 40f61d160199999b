"""The books of an exchange counted again, from who traded what: plain Python on the rules of docs/engine.md.

Only prices, quantities and names are taken from commands and events, never an amount of money that the engine worked
out; holds are left aside, because money on hold is still the account's.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from engine.catalogue import unpack_id
from engine.types import LISTING, TRANSFER, EventKind, Side


def ceil_div(a, b):
    return -(-a // b)


@dataclass
class Position:
    net: int = 0
    escrow: int = 0
    fees_due: int = 0
    bond: int = 0


@dataclass
class Closing:
    """Everybody's balances at a cycle's end, by account, 0 the house."""

    cash: dict
    escrow: dict
    bond: dict
    lots: dict  # (account, symbol) -> lots


@dataclass
class Recount:
    cash: dict = field(default_factory=lambda: defaultdict(int))
    external: dict = field(default_factory=lambda: defaultdict(int))  # in this cycle
    rebates: dict = field(default_factory=lambda: defaultdict(int))
    positions: dict = field(default_factory=lambda: defaultdict(Position))
    terms: dict = field(default_factory=dict)
    closings: list = field(default_factory=list)
    externals: list = field(default_factory=list)
    fills: int = 0

    def feed(self, commands, events):
        by_seq = dict(zip(commands["seq"].tolist(), range(len(commands)), strict=True))
        for event in events:
            at = by_seq[int(event["command_seq"])]
            handler = getattr(self, "on_" + EventKind(int(event["kind"])).name.lower(), None)
            if handler is not None:
                handler(event, commands[at : at + 1])

    def on_listed(self, event, command):
        self.terms[int(event["instrument"])] = {
            name: int(command.view(LISTING)[name][0])
            for name in ("lot_tick_micros", "taker_fee_ppm", "maker_rebate_ppm", "bond_ppm", "reference_price")
        } | {"symbol": unpack_id(command.view(LISTING)["symbol"][0])}

    def on_deposited(self, event, command):
        amount = int(command.view(TRANSFER)["amount_micros"][0])
        self.cash[int(event["account"])] += amount
        self.external[int(event["account"])] += amount

    def on_nominated(self, event, command):
        account, instrument = int(event["account"]), int(event["instrument"])
        terms, lots = self.terms[instrument], int(command.view(TRANSFER)["lots"][0])
        value = terms["reference_price"] * terms["lot_tick_micros"] * lots
        bond = ceil_div(value * terms["bond_ppm"], 1_000_000)
        self.cash[account] -= bond
        self.positions[account, instrument].bond += bond

    def on_trade(self, event, _command):
        self.fills += 1
        instrument, taker, maker = (int(event[name]) for name in ("instrument", "account", "contra_account"))
        price, qty = int(event["price"]), int(event["qty"])
        terms = self.terms[instrument]
        value = price * terms["lot_tick_micros"] * qty
        fee = ceil_div(value * terms["taker_fee_ppm"], 1_000_000)
        self.rebates[maker] += value * terms["maker_rebate_ppm"] // 1_000_000
        taker_buys = int(event["side"]) == Side.BUY
        self.buy(taker if taker_buys else maker, instrument, qty, value, fee if taker_buys else 0)
        self.sell(maker if taker_buys else taker, instrument, qty, value, 0 if taker_buys else fee)

    def buy(self, account, instrument, qty, value, fee):
        position = self.positions[account, instrument]
        self.cash[account] -= value + fee
        self.cash[0] += fee
        if position.net < 0:
            short, covered = -position.net, min(qty, -position.net)
            released, due = position.escrow * covered // short, position.fees_due * covered // short
            position.escrow -= released
            position.fees_due -= due
            self.cash[account] += released - due
            self.cash[0] += due
        position.net += qty

    def sell(self, account, instrument, qty, value, fee):
        position, terms = self.positions[account, instrument], self.terms[instrument]
        closed_value = value // qty * min(qty, max(position.net, 0))
        fee_now = ceil_div(closed_value * terms["taker_fee_ppm"], 1_000_000) if fee else 0
        position.escrow += value - closed_value
        self.cash[account] += closed_value - fee_now
        self.cash[0] += fee_now
        position.fees_due += fee - fee_now
        position.net -= qty

    def on_closed(self, event, _command):
        for (account, instrument), position in self.positions.items():
            if instrument == int(event["instrument"]) and position.net >= 0:
                self.cash[account] += position.bond
                position.bond = 0

    def on_delivered(self, event, command):
        transfer, instrument = command.view(TRANSFER)[0], int(event["instrument"])
        account, receiver, lots = (int(transfer[name]) for name in ("account", "contra_account", "lots"))
        assert int(transfer["refund_micros"]) == int(transfer["damages_micros"]) == 0  # all deliver in full
        position, short = self.positions[account, instrument], -self.positions[account, instrument].net
        pay, due = position.escrow * lots // short, position.fees_due * lots // short
        position.escrow -= pay
        position.fees_due -= due
        self.cash[account] += pay - due
        self.cash[0] += due
        position.net += lots
        self.positions[receiver, instrument].net -= lots
        if position.net == 0:
            self.cash[account] += position.bond
            position.bond = 0

    def on_delisted(self, event, _command):
        for key in [key for key in self.positions if key[1] == int(event["instrument"])]:
            gone = self.positions.pop(key)
            assert gone == Position(), (key, gone)

    def on_cycle_closed(self, _event, _command):
        for account in sorted(self.rebates):
            paid = min(self.rebates[account], self.cash[0])
            self.rebates[account] -= paid
            self.cash[0] -= paid
            self.cash[account] += paid
        escrow, bond, lots = defaultdict(int), defaultdict(int), {}
        for (account, instrument), position in self.positions.items():
            escrow[account] += position.escrow
            bond[account] += position.bond
            if position.net:
                lots[account, self.terms[instrument]["symbol"]] = position.net
        self.closings.append(Closing(dict(self.cash), dict(escrow), dict(bond), lots))
        self.externals.append(dict(self.external))
        self.external.clear()

    def wealth(self, cycle, account):
        """Cash, escrow and bond together at the end of a cycle (from 1); nothing before the first."""
        if cycle == 0:
            return 0
        closing = self.closings[cycle - 1]
        return closing.cash.get(account, 0) + closing.escrow.get(account, 0) + closing.bond.get(account, 0)
