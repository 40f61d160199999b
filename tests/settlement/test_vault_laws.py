"""The vault under anything that anyone may do in any order, beside a model of what it should have done.

The exchange's keys are held by somebody who does not care: roots and payments are arbitrary, stops come at random. The
model says for each act whether the vault takes it; after each act the vault's books equal the model's, and the laws hold.
"""

from collections import Counter

from eth_account.signers.local import LocalAccount
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from settlement.vault import ClaimTree
from tests.settlement.evm import START_S, Reverted, person
from tests.settlement.vaults import (
    ADMIN,
    DISPUTE_S,
    EXIT_S,
    GUARDIAN,
    LOCKER,
    REF,
    SETTLER,
    STRANGER,
    Stage,
    batch_id,
)

MEMBERS = [person(50 + number) for number in range(4)]
STAGE = Stage()

members = st.sampled_from(MEMBERS)
amounts = st.integers(1, 120)
shares = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=4, max_size=4)
payments = st.lists(st.tuples(members, amounts), min_size=1, max_size=4)
leaf_units = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), min_size=4, max_size=4)


class VaultLaws(RuleBasedStateMachine):
    """Acts, and the model's opinion on each."""

    @initialize()
    def begin(self) -> None:
        self.undone = STAGE.chain.undone()
        self.undone.__enter__()
        self.deposits: list[tuple[LocalAccount, int]] = []
        self.paid: Counter[str] = Counter()
        self.owed: Counter[str] = Counter()
        self.recovered: Counter[str] = Counter()
        self.used: set[int] = set()
        self.received: Counter[str] = Counter()
        self.released = 0
        self.settled: set[tuple[int, int]] = set()
        self.withdrawn: set[int] = set()
        self.blocked: set[str] = set()
        self.paused = self.locked = self.winding_down = False
        self.trees: list[ClaimTree] = []
        self.pending: tuple[ClaimTree, int, int] | None = None
        self.last = (None, 0, START_S)  # tree, deposits it covers, when
        self.resumed_s = 0
        self.surplus = 0
        for key in MEMBERS:
            self.deposit(key, 300)

    def teardown(self) -> None:
        if hasattr(self, "undone"):
            self.undone.__exit__(None, None, None)

    # What the model knows

    @property
    def deposited(self) -> int:
        return sum(units for _, units in self.deposits)

    @property
    def free(self) -> int:
        return self.deposited - self.released - self.owed.total()

    @property
    def outgoing(self) -> bool:
        return not (self.paused or self.locked or self.winding_down)

    @property
    def exit_open(self) -> bool:
        return self.winding_down or STAGE.chain.now_s >= self.last[2] + EXIT_S

    def attempt(self, taken: bool, *call: object) -> bool:
        """Does something that the vault should take, or should not."""
        sender, function, *arguments = call
        try:
            STAGE.vault.send(sender, function, *arguments)
        except Reverted as error:
            assert not taken, f"{function} was refused: {error}"
            return False
        assert taken, f"{function} was not refused"
        return True

    def pay(self, account: LocalAccount, units: int, recipient: LocalAccount | None = None) -> None:
        self.paid[account.address] += units
        self.received[(recipient or account).address] += units
        self.released += units

    # Acts

    @rule(who=members, units=amounts)
    def deposit(self, who: LocalAccount, units: int) -> None:
        if who.address in self.blocked:
            return
        STAGE.token.send(ADMIN, "mint", who.address, units)
        self.received[who.address] += units
        STAGE.token.send(who, "approve", STAGE.vault.address, units)
        if self.attempt(not (self.paused or self.winding_down), who, "deposit", units, REF):
            self.deposits.append((who, units))
            self.received[who.address] -= units

    @rule(who=members, units=amounts, more=st.integers(0, 1))
    def transfer_and_credit(self, who: LocalAccount, units: int, more: int) -> None:
        STAGE.token.send(ADMIN, "mint", STAGE.vault.address, units)
        self.surplus += units
        number = len(self.deposits).to_bytes(32, "big")
        good = not (more or self.paused or self.winding_down)
        asked = self.surplus + more
        if self.attempt(good, SETTLER, "credit_transfer", number, who.address, asked, REF):
            self.deposits.append((who, asked))
            self.surplus = 0

    @rule(cycle=st.integers(1, 3), chunk=st.integers(0, 1), paid=payments)
    def settle(self, cycle: int, chunk: int, paid: list[tuple[LocalAccount, int]]) -> None:
        total = sum(units for _, units in paid)
        good = self.outgoing and (cycle, chunk) not in self.settled and total <= self.free
        recipients, units = [key.address for key, _ in paid], [units for _, units in paid]
        if self.attempt(good, SETTLER, "settle_batch", batch_id(cycle), cycle, chunk, recipients, units):
            self.settled.add((cycle, chunk))
            for key, one in paid:
                if key.address in self.blocked:
                    self.owed[key.address] += one
                    self.paid[key.address] += one
                else:
                    self.pay(key, one)

    @precondition(lambda self: self.owed)
    @rule(who=members)
    def collect(self, who: LocalAccount) -> None:
        units = self.owed[who.address]
        if self.attempt(units > 0 and who.address not in self.blocked, STRANGER, "collect_owed", who.address):
            del self.owed[who.address]
            self.received[who.address] += units
            self.released += units

    @rule(number=st.integers(0, 5), who=members, to=members, units=amounts)
    def withdraw(self, number: int, who: LocalAccount, to: LocalAccount, units: int) -> None:
        from dataclasses import replace

        wanted = replace(STAGE.withdrawal(units, number), account=who.address, recipient=to.address)
        good = self.outgoing and number not in self.withdrawn and units <= self.free and to.address not in self.blocked
        try:
            STAGE.withdraw(wanted)
        except Reverted as error:
            assert not good, str(error)
            return
        assert good
        self.withdrawn.add(number)
        self.pay(who, units, to)

    @rule(units=leaf_units)
    def propose(self, units: list[tuple[int, int]]) -> None:
        """Leaves of any amounts; what the vault cannot see it cannot refuse."""
        leaves = [(key, payable, payable + rest) for key, (payable, rest) in zip(MEMBERS, units, strict=True)]
        self.attempt_root(STAGE.tree(leaves, len(self.trees) + 1))

    @rule(parts=shares)
    def propose_what_is_true(self, parts: list[tuple[int, int]]) -> None:
        """All that is free is somebody's, and each may claim a part of what is its own."""
        whole = sum(share for share, _ in parts)
        leaves = []
        for key, (share, percent) in zip(MEMBERS, parts, strict=True):
            mine = max(0, self.free) * share // max(1, whole)
            paid = self.paid[key.address]
            before = self.trees[-1].leaf(key.address).payable_units if self.trees else 0
            leaves.append((key, max(before, paid + mine * percent // 100), max(before, paid + mine)))
        self.attempt_root(STAGE.tree(leaves, len(self.trees) + 1))

    @precondition(lambda self: not self.winding_down)
    @rule(parts=shares, who=members)
    def a_cycle_ends(self, parts: list[tuple[int, int]], who: LocalAccount) -> None:
        """What should happen every hour: stops are lifted, a true root comes into force, somebody claims."""
        if self.paused:
            self.stop_or_go("unpause")
        if self.locked:
            self.stop_or_go("unlock")
        if self.pending:
            self.dispute()
        self.propose_what_is_true(parts)
        if self.pending:
            self.wait_and_finalize()
            self.claim(0, who, who)

    def attempt_root(self, tree: ClaimTree) -> None:
        covered = len(self.deposits)
        good = not (self.paused or self.winding_down or self.pending) and tree.liability_units <= self.deposited
        good = good and tree.payable_units >= (self.trees[-1].payable_units if self.trees else 0)
        try:
            STAGE.propose(tree, len(self.trees) + 1)
        except Reverted as error:
            assert not good, str(error)
            return
        assert good
        self.pending = (tree, covered, STAGE.chain.now_s)

    @precondition(lambda self: self.pending and self.paused)
    @rule()
    def dispute(self) -> None:
        self.attempt(True, GUARDIAN, "dispute", len(self.trees) + 1)
        self.pending = None

    @precondition(lambda self: self.pending)
    @rule()
    def wait_and_finalize(self) -> None:
        STAGE.chain.pass_s(DISPUTE_S)
        self.finalize(0)

    @rule(ahead=st.integers(-1, 1))
    def finalize(self, ahead: int) -> None:
        tree, covered, since_s = self.pending or (None, 0, 0)
        now_s = STAGE.chain.now_s
        good = self.outgoing and tree is not None and now_s >= max(since_s, self.resumed_s) + DISPUTE_S and not ahead
        epoch = len(self.trees) + 1 + ahead
        if self.attempt(good, STRANGER, "finalize_root", epoch, tree.root if tree else bytes(32)) and tree:
            self.trees.append(tree)
            self.last = (tree, covered, now_s)
            self.pending = None

    @precondition(lambda self: self.trees)
    @rule(which=st.integers(0, 2), who=members, other=members)
    def claim(self, which: int, who: LocalAccount, other: LocalAccount) -> None:
        """With a leaf of the last root or one before, for its owner or for somebody else."""
        tree = self.trees[max(0, len(self.trees) - 1 - which)]
        leaf = tree.leaf(who.address)
        units = leaf.payable_units - self.paid[who.address]
        same = (leaf.payable_units, leaf.exit_units) if who is other else (-1, -1)
        good = tree is self.trees[-1] and same != (-1, -1) and 0 < units <= self.free
        good = good and (self.winding_down or self.outgoing) and other.address not in self.blocked
        values = (other.address, leaf.payable_units, leaf.exit_units, tree.proof(who.address))
        if self.attempt(good, STRANGER, "claim", *values):
            self.pay(who, units)

    @precondition(lambda self: self.trees)
    @rule(who=members)
    def claim_own(self, who: LocalAccount) -> None:
        self.claim(0, who, who)

    @precondition(lambda self: len(self.trees) > 1)
    @rule(who=members)
    def abandoned(self, who: LocalAccount) -> None:
        STAGE.chain.now_s = max(STAGE.chain.now_s, self.last[2] + EXIT_S)
        self.exit(who, True, True)

    @rule(who=members, use_leaf=st.booleans(), recover=st.booleans())
    def exit(self, who: LocalAccount, use_leaf: bool, recover: bool) -> None:
        tree, covered, _ = self.last
        leaf = tree.leaf(who.address) if tree and use_leaf else None
        open_ones = [at for at, (key, _) in enumerate(self.deposits) if key is who and at >= covered]
        indexes = [at for at in open_ones if at not in self.used] if recover else []
        indexes = indexes[:64]
        found = sum(self.deposits[at][1] for at in indexes)
        mine = (leaf.exit_units if leaf else 0) + self.recovered[who.address] + found - self.paid[who.address]
        units = min(mine, self.free)
        good = self.exit_open and units > 0 and who.address not in self.blocked
        values = (leaf.payable_units, leaf.exit_units, tree.proof(who.address)) if leaf and tree else (0, 0, [])
        if self.attempt(good, STRANGER, "force_exit", who.address, *values, indexes):
            self.winding_down = True
            self.used.update(indexes)
            self.recovered[who.address] += found
            self.pay(who, units)

    @rule(which=st.sampled_from(["unpause", "unlock", "pause", "lock"]))
    def stop_or_go(self, which: str) -> None:
        sender = {"pause": GUARDIAN, "lock": LOCKER}.get(which, ADMIN)
        name = "paused" if which.endswith("pause") else "locked"
        if self.attempt(getattr(self, name) == which.startswith("un"), sender, which):
            setattr(self, name, not which.startswith("un"))
            if which.startswith("un"):
                self.resumed_s = STAGE.chain.now_s

    @rule(who=members)
    def block_or_not(self, who: LocalAccount) -> None:
        blocked = who.address in self.blocked
        STAGE.token.send(ADMIN, "unBlacklist" if blocked else "blacklist", who.address)
        self.blocked ^= {who.address}

    @rule(seconds=st.sampled_from([1, DISPUTE_S - 1, DISPUTE_S, EXIT_S // 2, EXIT_S]))
    def time_passes(self, seconds: int) -> None:
        STAGE.chain.pass_s(seconds)

    # Laws

    @invariant()
    def nothing_leaves_that_did_not_come(self) -> None:
        read = STAGE.vault.read
        assert read("released_units") + read("owed_units") <= read("deposited_units")
        assert STAGE.balance(STAGE.vault) == read("held_units") + self.surplus

    @invariant()
    def the_books_are_the_models(self) -> None:
        read = STAGE.vault.read
        names = [
            "deposited_units",
            "released_units",
            "owed_units",
            "deposit_count",
            "epoch",
            "winding_down",
            "free_units",
        ]
        values = [self.deposited, self.released, self.owed.total(), len(self.deposits), len(self.trees)]
        assert [read(name) for name in names] == [*values, self.winding_down, self.free]
        for key in MEMBERS:
            assert read("paid", key.address) == self.paid[key.address]
            assert read("owed", key.address) == self.owed[key.address]
            assert STAGE.balance(key) == self.received[key.address]

    @invariant()
    def an_exit_opens_in_time_whatever_is_stopped(self) -> None:
        assert STAGE.vault.read("exit_open") == self.exit_open


VaultLaws.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestVaultLaws = VaultLaws.TestCase
