"""The twin's cash between accounts, liens, frozen accounts, and pools."""

from types import SimpleNamespace

from engine.types import MAX_HOLDERS, MAX_SHARES, EventKind, Reason
from tests.oracle.core import Core
from tests.oracle.parts import need


class Cash(Core):
    """Beside the market."""

    def transfer(self, c: SimpleNamespace) -> None:
        payer, payee, amount = self.account(c.account), self.account(c.contra_account), c.amount_micros
        need(c.account != c.contra_account, Reason.BAD_FIELD)
        need(not payer.is_frozen, Reason.ACCOUNT_FROZEN)
        need(amount >= 1, Reason.BAD_AMOUNT)
        need(amount <= payer.cash, Reason.INSUFFICIENT_FUNDS)
        payer.cash -= amount
        payee.cash += amount
        self.emit(EventKind.TRANSFERRED, **pair(c), amount_micros=-amount, contra_amount_micros=amount)

    def take_lien(self, c: SimpleNamespace) -> None:
        account, amount = self.account(c.account), c.amount_micros
        need(amount >= 1, Reason.BAD_AMOUNT)
        need(amount <= account.cash, Reason.INSUFFICIENT_FUNDS)
        account.cash -= amount
        account.frozen += amount
        self.emit(EventKind.LIEN_TAKEN, account=c.account, amount_micros=-amount, frozen_micros=amount)

    def lift_lien(self, c: SimpleNamespace) -> None:
        account, amount = self.account(c.account), c.amount_micros
        need(c.contra_account == 0 or c.contra_account in self.accounts, Reason.UNKNOWN_ACCOUNT)
        need(c.account != c.contra_account, Reason.BAD_FIELD)
        need(amount >= 1, Reason.BAD_AMOUNT)
        need(amount <= account.frozen, Reason.INSUFFICIENT_FUNDS)
        account.frozen -= amount
        self.accounts[c.contra_account or c.account].cash += amount
        paid = {"contra_amount_micros": amount} if c.contra_account else {"amount_micros": amount}
        self.emit(EventKind.LIEN_LIFTED, **pair(c), frozen_micros=-amount, **paid)

    def freeze(self, c: SimpleNamespace) -> None:
        account = self.account(c.account)
        need(c.flags in (0, 1), Reason.BAD_FIELD)
        account.is_frozen = c.flags
        self.emit(EventKind.FROZEN, account=c.account, lots=c.flags)

    # Pools

    def issue_shares(self, c: SimpleNamespace) -> None:
        self.account(c.account), self.account(c.contra_account)
        need(c.lots != 0 and abs(c.lots) <= MAX_SHARES, Reason.BAD_QTY)
        held = self.shares.get(c.account, {})
        need(held.get(c.contra_account, 0) + c.lots >= 0, Reason.INSUFFICIENT_SHARES)
        need(sum(held.values()) + c.lots <= MAX_SHARES, Reason.BAD_QTY)
        is_new = c.contra_account not in held
        need(not is_new or len(held) < MAX_HOLDERS, Reason.TOO_MANY_HOLDERS)
        need(not is_new or self.room, Reason.OVERLOADED)
        self.change_shares(c.account, c.contra_account, c.lots)

    def move_shares(self, c: SimpleNamespace) -> None:
        self.account(c.account), self.account(c.contra_account), self.account(c.asset)
        need(c.account != c.contra_account, Reason.BAD_FIELD)
        need(1 <= c.lots <= MAX_SHARES, Reason.BAD_QTY)
        held = self.shares.get(c.asset, {})
        need(held.get(c.account, 0) >= c.lots, Reason.INSUFFICIENT_SHARES)
        one_more = c.contra_account not in held and held[c.account] > c.lots
        need(not one_more or len(held) < MAX_HOLDERS, Reason.TOO_MANY_HOLDERS)
        need(not one_more or self.room, Reason.OVERLOADED)
        self.change_shares(c.asset, c.account, -c.lots)
        self.change_shares(c.asset, c.contra_account, c.lots)

    def change_shares(self, pool: int, holder: int, lots: int) -> None:
        held = self.shares.setdefault(pool, {})
        held[holder] = held.get(holder, 0) + lots
        self.shares[pool] = {number: held[number] for number in sorted(held) if held[number]}
        if not self.shares[pool]:
            del self.shares[pool]
        self.emit(EventKind.SHARES_CHANGED, account=holder, contra_account=pool, lots=lots)

    def split(self, pool: int, amount: int) -> None:
        """By largest remainder, the lower number first; what falls to the pool itself stays."""
        held = self.shares[pool]
        total = sum(held.values())
        parts = {number: amount * lots // total for number, lots in held.items()}
        by_remainder = sorted(held, key=lambda number: (-(amount * held[number] % total), number))
        for number in by_remainder[: amount - sum(parts.values())]:
            parts[number] += 1
        for number, part in parts.items():
            if part and number != pool:
                self.accounts[pool].cash -= part
                self.accounts[number].cash += part
                who = {"account": pool, "contra_account": number, "lots": held[number]}
                self.emit(EventKind.SPLIT_PAID, **who, amount_micros=-part, contra_amount_micros=part)


def pair(c: SimpleNamespace) -> dict[str, int]:
    return {"account": c.account, "contra_account": c.contra_account}
