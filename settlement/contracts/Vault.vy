# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Wellhead Vault
@license GNU Affero General Public License, version 3 only: it contains modules of snekmate
@notice Holds one stablecoin for one exchange: deposits, pushed batches, claims, withdrawals signed by M of N, and exits
        that need nobody's consent. docs/vault.md says what each function promises.
@dev Amounts are in the token's smallest units. The vault trusts its own sums, never the token's word: a deposit is
     what arrived, and what leaves by the exchange's keys is refused when the balance no longer covers what is held.
"""

from ethereum.ercs import IERC20

from snekmate.auth import access_control
from snekmate.utils import ecdsa
from snekmate.utils import eip712_domain_separator
from snekmate.utils import merkle_proof_verification as merkle
from snekmate.utils import pausable

initializes: access_control
initializes: eip712_domain_separator
initializes: pausable

exports: (
    access_control.DEFAULT_ADMIN_ROLE,
    access_control.hasRole,
    access_control.revokeRole,
    access_control.renounceRole,
    eip712_domain_separator.eip712Domain,
    pausable.paused,
)


event Deposited:
    index: indexed(uint256)
    depositor: indexed(address)
    ref: indexed(bytes32)
    units: uint256


event ChunkSettled:
    batch_id: indexed(bytes32)
    cycle: indexed(uint256)
    chunk: indexed(uint256)
    count: uint256
    paid_units: uint256
    owed_units: uint256
    content: bytes32


event Owed:
    recipient: indexed(address)
    cycle: indexed(uint256)
    units: uint256


event Collected:
    recipient: indexed(address)
    units: uint256


event Withdrawn:
    id: indexed(bytes32)
    account: indexed(address)
    recipient: indexed(address)
    units: uint256


event RootProposed:
    epoch: indexed(uint256)
    cycle: indexed(uint256)
    root: bytes32
    payable_units: uint256
    liability_units: uint256
    covered_deposits: uint256


event RootDisputed:
    epoch: indexed(uint256)
    root: bytes32


event RootFinalized:
    epoch: indexed(uint256)
    cycle: indexed(uint256)
    root: bytes32


event Claimed:
    account: indexed(address)
    epoch: indexed(uint256)
    units: uint256


event Exited:
    account: indexed(address)
    epoch: indexed(uint256)
    units: uint256


event WindingDown:
    epoch: uint256


event Locked:
    account: address


event Unlocked:
    account: address


event SignersChanged:
    signers: DynArray[address, MAX_SIGNERS]
    threshold: uint256


event DailyLimitChanged:
    units: uint256


# A root and what it was proposed with.
struct Root:
    epoch: uint256
    cycle: uint256
    root: bytes32
    payable_units: uint256
    liability_units: uint256
    covered_deposits: uint256
    since: uint256  # seconds: when it was proposed or, of the last finalized one, finalized


MAX_CHUNK: constant(uint256) = 400  # recipients; how many fit below a transaction's gas depends on how many are new
MAX_SIGNERS: constant(uint256) = 16
MAX_PROOF: constant(uint256) = 64
MAX_INDEXES: constant(uint256) = 64
MAX_UNITS: constant(uint256) = 2**96 - 1  # any amount and any sum; leaves room for an address in the same word
TRANSFER_GAS: constant(uint256) = 200_000  # for one call of the token, so that none can starve the rest of a chunk
DAY_S: constant(uint256) = 86_400

SETTLER_ROLE: public(constant(bytes32)) = keccak256("SETTLER_ROLE")
ROOT_SETTER_ROLE: public(constant(bytes32)) = keccak256("ROOT_SETTER_ROLE")
LOCKER_ROLE: public(constant(bytes32)) = keccak256("LOCKER_ROLE")
GUARDIAN_ROLE: public(constant(bytes32)) = keccak256("GUARDIAN_ROLE")
_ROLES: constant(bytes32[5]) = [
    access_control.DEFAULT_ADMIN_ROLE,
    SETTLER_ROLE,
    ROOT_SETTER_ROLE,
    LOCKER_ROLE,
    GUARDIAN_ROLE,
]
_WITHDRAWAL_TYPE: constant(bytes32) = keccak256(
    "Withdrawal(bytes32 id,address account,address recipient,uint256 units,uint256 deadline)"
)

token: public(immutable(address))
dispute_window_s: public(immutable(uint256))
exit_window_s: public(immutable(uint256))

deposited_units: public(uint256)
released_units: public(uint256)
owed_units: public(uint256)
owed: public(HashMap[address, uint256])
paid: public(HashMap[address, uint256])

deposit_count: public(uint256)
_deposits: HashMap[uint256, uint256]  # deposited_units after it, shifted left by 160, and the depositor's address
deposit_recovered: public(HashMap[uint256, bool])  # already added to its depositor's exit
recovered_units: public(HashMap[address, uint256])
transfer_credited: public(HashMap[bytes32, bool])

batch_of: public(HashMap[uint256, bytes32])
is_settled: public(HashMap[uint256, HashMap[uint256, bool]])
spent_on: public(HashMap[uint256, uint256])
daily_limit_units: public(uint256)

withdrawal_done: public(HashMap[bytes32, bool])
is_signer: public(HashMap[address, bool])
threshold: public(uint256)
_signers: DynArray[address, MAX_SIGNERS]

_last: Root
_pending: Root
_resumed_at: uint256
locked: public(bool)
winding_down: public(bool)


@deploy
def __init__(
    token_: address,
    admin: address,
    dispute_window: uint256,
    exit_window: uint256,
    signers: DynArray[address, MAX_SIGNERS],
    threshold_: uint256,
    daily_limit: uint256,
):
    """
    @param dispute_window Seconds between the proposal of a root and its use.
    @param exit_window Seconds without a finalized root after which anyone may exit.
    """
    assert token_.is_contract, "vault: no token there"
    assert 0 < dispute_window and dispute_window < exit_window, "vault: windows out of order"
    assert exit_window <= 366 * DAY_S, "vault: exit window too long"
    assert admin != empty(address), "vault: no admin"
    token = token_
    dispute_window_s = dispute_window
    exit_window_s = exit_window
    access_control.__init__()
    if admin != msg.sender:
        access_control._grant_role(access_control.DEFAULT_ADMIN_ROLE, admin)
        access_control._revoke_role(access_control.DEFAULT_ADMIN_ROLE, msg.sender)
    eip712_domain_separator.__init__("Wellhead Vault", "1")
    pausable.__init__()
    self._set_signers(signers, threshold_)
    self._set_daily_limit(daily_limit)
    self._last.since = block.timestamp


# Deposits


@external
def deposit(units: uint256, ref: bytes32) -> uint256:
    """
    @notice Takes `units` that the caller has approved and credits what arrived.
    @param ref Whose account at the exchange it is for.
    @return The index of the deposit.
    """
    return self._pull(msg.sender, units, ref)


@external
def deposit_with_permit(
    units: uint256, ref: bytes32, permitted_units: uint256, deadline: uint256, v: uint8, r: bytes32, s: bytes32
) -> uint256:
    """
    @notice The same with an approval by signature (EIP-2612) of the caller itself: the signature does not cover the
            ref, so nobody else may choose one.
    @dev Anyone who sees the signature can hand it to the token first. Then this call of permit fails, and the
         allowance is there all the same.
    """
    permitted: bool = raw_call(
        token,
        abi_encode(
            msg.sender,
            self,
            permitted_units,
            deadline,
            v,
            r,
            s,
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )
    return self._pull(msg.sender, units, ref)


@external
def deposit_with_authorization(
    depositor: address,
    units: uint256,
    ref: bytes32,
    valid_after: uint256,
    valid_before: uint256,
    salt: bytes32,
    v: uint8,
    r: bytes32,
    s: bytes32,
) -> uint256:
    """
    @notice The same by an authorization (EIP-3009) that anyone may hand in: its nonce commits to the ref, and only the
            vault can use it.
    """
    self._require_deposits()
    before: uint256 = self._balance()
    self._require_token()
    moved: bool = raw_call(
        token,
        abi_encode(
            depositor,
            self,
            units,
            valid_after,
            valid_before,
            keccak256(abi_encode(ref, salt)),
            v,
            r,
            s,
            method_id=method_id(
                "receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"
            ),
        ),
        revert_on_failure=False,
    )
    assert moved, "vault: authorization refused"
    return self._credit(depositor, self._balance() - before, ref)


@external
def credit_transfer(transfer_id: bytes32, depositor: address, units: uint256, ref: bytes32) -> uint256:
    """
    @notice Makes a deposit of tokens that came by a plain transfer and are in no deposit yet.
    @param transfer_id Names the transfer; each is credited once.
    """
    access_control._check_role(SETTLER_ROLE, msg.sender)
    self._require_deposits()
    assert depositor != empty(address), "vault: no depositor"
    assert not self.transfer_credited[transfer_id], "vault: transfer already credited"
    assert self._held() + units <= self._balance(), "vault: more than the surplus"
    self.transfer_credited[transfer_id] = True
    return self._credit(depositor, units, ref)


# What leaves by the exchange's keys


@external
def settle_batch(
    batch_id: bytes32,
    cycle: uint256,
    chunk: uint256,
    recipients: DynArray[address, MAX_CHUNK],
    amounts: DynArray[uint256, MAX_CHUNK],
):
    """
    @notice Pays one chunk of a cycle's batch. A recipient who cannot be paid is owed, and blocks nobody.
    """
    access_control._check_role(SETTLER_ROLE, msg.sender)
    self._require_outgoing()
    self._start_chunk(batch_id, cycle, chunk)
    count: uint256 = len(recipients)
    assert count != 0 and count == len(amounts), "vault: recipients and amounts differ"
    total: uint256 = 0
    failed: uint256 = 0
    for at: uint256 in range(count, bound=MAX_CHUNK):
        recipient: address = recipients[at]
        units: uint256 = amounts[at]
        self._require_payment(recipient, units)
        total += units
        self.paid[recipient] += units
        if not self._send(recipient, units):
            self.owed[recipient] += units
            failed += units
            log Owed(recipient=recipient, cycle=cycle, units=units)
    self._spend(total, failed)
    log ChunkSettled(
        batch_id=batch_id,
        cycle=cycle,
        chunk=chunk,
        count=count,
        paid_units=total - failed,
        owed_units=failed,
        content=keccak256(abi_encode(recipients, amounts)),
    )


@external
def withdraw(
    id: bytes32,
    account: address,
    recipient: address,
    units: uint256,
    deadline: uint256,
    signatures: DynArray[Bytes[65], MAX_SIGNERS],
):
    """
    @notice Pays what M of the N signers have signed; anyone may hand it in.
    @param account Whose money it is.
    """
    self._require_outgoing()
    assert block.timestamp <= deadline, "vault: withdrawal expired"
    assert not self.withdrawal_done[id], "vault: withdrawal done"
    self._require_payment(recipient, units)
    assert account != empty(address), "vault: no account"
    self._require_signatures(
        eip712_domain_separator._hash_typed_data_v4(
            keccak256(abi_encode(_WITHDRAWAL_TYPE, id, account, recipient, units, deadline))
        ),
        signatures,
    )
    self.withdrawal_done[id] = True
    self._release(account, recipient, units)
    self._require_covered()
    log Withdrawn(id=id, account=account, recipient=recipient, units=units)


@external
def collect_owed(recipient: address):
    """
    @notice Pays what could not be paid before, to whom it is owed. Nothing stops this: it is no longer the exchange's.
    """
    units: uint256 = self.owed[recipient]
    assert units != 0, "vault: nothing owed"
    self.owed[recipient] = 0
    self.owed_units -= units
    self.released_units += units
    assert self._send(recipient, units), "vault: transfer failed"
    log Collected(recipient=recipient, units=units)


# Roots


@external
def propose_root(
    epoch_: uint256,
    cycle: uint256,
    root_: bytes32,
    payable_sum: uint256,
    liability_sum: uint256,
    covered: uint256,
):
    """
    @param payable_sum Sum of the leaves' payable_units.
    @param liability_sum Sum of the leaves' exit_units.
    @param covered How many deposits are in the leaves.
    """
    access_control._check_role(ROOT_SETTER_ROLE, msg.sender)
    pausable._require_not_paused()
    self._require_operating()
    last: Root = self._last
    assert self._pending.epoch == 0, "vault: a root is pending"
    assert epoch_ == last.epoch + 1, "vault: epoch out of order"
    assert last.epoch == 0 or cycle > last.cycle, "vault: cycle out of order"
    assert root_ != empty(bytes32), "vault: root of zeros"
    assert payable_sum >= last.payable_units, "vault: total fell"
    assert payable_sum <= liability_sum, "vault: more payable than owned"
    assert covered >= last.covered_deposits and covered <= self.deposit_count, "vault: deposits out of order"
    assert liability_sum <= self._deposited_before(covered), "vault: more owned than deposited"
    self._pending = Root(
        epoch=epoch_,
        cycle=cycle,
        root=root_,
        payable_units=payable_sum,
        liability_units=liability_sum,
        covered_deposits=covered,
        since=block.timestamp,
    )
    log RootProposed(
        epoch=epoch_,
        cycle=cycle,
        root=root_,
        payable_units=payable_sum,
        liability_units=liability_sum,
        covered_deposits=covered,
    )


@external
def dispute(epoch_: uint256):
    """
    @notice Voids the pending root, on the guardian's word.
    """
    access_control._check_role(GUARDIAN_ROLE, msg.sender)
    assert epoch_ != 0 and self._pending.epoch == epoch_, "vault: not pending"
    self._void()


@external
def dispute_leaf(
    account: address,
    payable_before: uint256,
    exit_before: uint256,
    proof_before: DynArray[bytes32, MAX_PROOF],
    payable_now: uint256,
    exit_now: uint256,
    proof_now: DynArray[bytes32, MAX_PROOF],
):
    """
    @notice Voids the pending root on anyone's proof that it is wrong: an account's total that fell since the last
            root, or one above all that the account owns.
    """
    pending: Root = self._pending
    assert pending.epoch != 0, "vault: not pending"
    assert self._is_leaf(
        pending.epoch, pending.root, account, payable_now, exit_now, proof_now
    ), "vault: not in the pending root"
    if payable_now <= exit_now:
        assert payable_now < payable_before, "vault: nothing fell"
        assert self._is_leaf(
            self._last.epoch, self._last.root, account, payable_before, exit_before, proof_before
        ), "vault: not in the last root"
    self._void()


@external
def finalize_root(epoch_: uint256, root_: bytes32):
    """
    @notice Puts the pending root into force after its window.
    @param root_ Says which one is meant, should another have taken its place.
    """
    pausable._require_not_paused()
    self._require_not_locked()
    self._require_operating()
    pending: Root = self._pending
    assert epoch_ != 0 and pending.epoch == epoch_ and pending.root == root_, "vault: not pending"
    assert block.timestamp >= self._finalizable_at(), "vault: still in dispute"
    pending.since = block.timestamp
    self._last = pending
    self._pending = empty(Root)
    log RootFinalized(epoch=epoch_, cycle=pending.cycle, root=root_)


# What members can do with a leaf


@external
def claim(
    account: address, payable_: uint256, exit_: uint256, proof: DynArray[bytes32, MAX_PROOF]
) -> uint256:
    """
    @notice Pays an account what it may claim; anyone may hand it in.
    @return The units paid.
    """
    if not self.winding_down:
        pausable._require_not_paused()
        self._require_not_locked()
    self._require_leaf(account, payable_, exit_, proof)
    before: uint256 = self.paid[account]
    assert payable_ > before, "vault: nothing to claim"
    units: uint256 = payable_ - before
    self._release(account, account, units)
    log Claimed(account=account, epoch=self._last.epoch, units=units)
    return units


@external
def force_exit(
    account: address,
    payable_: uint256,
    exit_: uint256,
    proof: DynArray[bytes32, MAX_PROOF],
    deposit_indexes: DynArray[uint256, MAX_INDEXES],
) -> uint256:
    """
    @notice Pays an account all it owns by the last root, and its deposits which that root does not cover. Winds the
            vault down: whoever comes after exits by the same root.
    @dev Without a leaf an account states zeros, which needs no proof: nothing pays less. A vault that holds too little
         pays what it has, and the rest when there is more.
    @return The units paid.
    """
    assert self._exit_open(), "vault: exit not open"
    if payable_ != 0 or exit_ != 0:
        self._require_leaf(account, payable_, exit_, proof)
    self._wind_down()
    self._recover(account, deposit_indexes)
    mine: uint256 = exit_ + self.recovered_units[account]
    before: uint256 = self.paid[account]
    assert mine > before, "vault: nothing to exit with"
    units: uint256 = min(mine - before, self._free())
    assert units != 0, "vault: nothing left"
    self._release(account, account, units)
    log Exited(account=account, epoch=self._last.epoch, units=units)
    return units


# Stops


@external
def pause():
    """
    @notice The guardian's stop of everything but exits and collect_owed.
    """
    access_control._check_role(GUARDIAN_ROLE, msg.sender)
    pausable._pause()


@external
def unpause():
    access_control._check_role(access_control.DEFAULT_ADMIN_ROLE, msg.sender)
    pausable._unpause()
    self._resumed_at = block.timestamp


@external
def lock():
    """
    @notice The exchange's own stop of what leaves, at the first difference in its books.
    """
    access_control._check_role(LOCKER_ROLE, msg.sender)
    self._require_not_locked()
    self.locked = True
    log Locked(account=msg.sender)


@external
def unlock():
    access_control._check_role(access_control.DEFAULT_ADMIN_ROLE, msg.sender)
    assert self.locked, "vault: not locked"
    self.locked = False
    self._resumed_at = block.timestamp
    log Unlocked(account=msg.sender)


# Administration


@external
def grantRole(role: bytes32, account: address):
    """
    @notice As in access_control, but an address has one role at most, and only the vault's roles exist.
    """
    access_control._check_role(access_control.DEFAULT_ADMIN_ROLE, msg.sender)
    assert account != empty(address), "vault: no account"
    assert role in _ROLES, "vault: no such role"
    for other: bytes32 in _ROLES:
        assert other == role or not access_control.hasRole[other][account], "vault: has another role"
    access_control._grant_role(role, account)


@external
def set_signers(signers: DynArray[address, MAX_SIGNERS], threshold_: uint256):
    """
    @notice Replaces the signers of withdrawals.
    """
    access_control._check_role(access_control.DEFAULT_ADMIN_ROLE, msg.sender)
    self._set_signers(signers, threshold_)


@external
def set_daily_limit(units: uint256):
    """
    @notice Sets how much settle_batch may pay in a UTC day.
    """
    access_control._check_role(access_control.DEFAULT_ADMIN_ROLE, msg.sender)
    self._set_daily_limit(units)


# Views


@external
@view
def held_units() -> uint256:
    return self._held()


@external
@view
def free_units() -> uint256:
    return self._free()


@external
@view
def deposits(index: uint256) -> (address, uint256):
    """
    @return Depositor and units of a deposit.
    """
    assert index < self.deposit_count, "vault: no such deposit"
    return self._depositor(index), self._deposited_before(index + 1) - self._deposited_before(index)


@external
@view
def epoch() -> uint256:
    return self._last.epoch


@external
@view
def root() -> bytes32:
    return self._last.root


@external
@view
def root_cycle() -> uint256:
    return self._last.cycle


@external
@view
def payable_units() -> uint256:
    return self._last.payable_units


@external
@view
def liability_units() -> uint256:
    return self._last.liability_units


@external
@view
def covered_deposits() -> uint256:
    return self._last.covered_deposits


@external
@view
def finalized_at() -> uint256:
    """
    @return When the last root was finalized or, before the first, the vault deployed; in seconds.
    """
    return self._last.since


@external
@view
def pending() -> Root:
    return self._pending


@external
@view
def pending_epoch() -> uint256:
    return self._pending.epoch


@external
@view
def pending_root() -> bytes32:
    return self._pending.root


@external
@view
def finalizable_at() -> uint256:
    assert self._pending.epoch != 0, "vault: not pending"
    return self._finalizable_at()


@external
@view
def exit_opens_at() -> uint256:
    return self._last.since + exit_window_s


@external
@view
def exit_open() -> bool:
    return self._exit_open()


@external
@view
def get_signers() -> DynArray[address, MAX_SIGNERS]:
    return self._signers


@external
@view
def DOMAIN_SEPARATOR() -> bytes32:
    return eip712_domain_separator._domain_separator_v4()


# The token


@internal
@view
def _balance() -> uint256:
    return staticcall IERC20(token).balanceOf(self)


@internal
@view
def _require_token():
    """
    @dev A call of an address without code succeeds and does nothing.
    """
    assert token.is_contract, "vault: no token there"


@internal
def _send(recipient: address, units: uint256) -> bool:
    """
    @return Whether the token says it moved the units; saying nothing means yes (USDT).
    @dev With less gas than the call may use, a transfer could be made to fail by whoever sends the transaction.
    """
    self._require_token()
    assert msg.gas > TRANSFER_GAS * 64 // 63 + 5_000, "vault: not enough gas"
    success: bool = False
    response: Bytes[32] = b""
    success, response = raw_call(
        token,
        abi_encode(recipient, units, method_id=method_id("transfer(address,uint256)")),
        max_outsize=32,
        gas=TRANSFER_GAS,
        revert_on_failure=False,
    )
    return success and self._is_true(response)


@internal
@pure
def _is_true(response: Bytes[32]) -> bool:
    return len(response) == 0 or (len(response) == 32 and convert(response, uint256) == 1)


@internal
def _pull(depositor: address, units: uint256, ref: bytes32) -> uint256:
    self._require_deposits()
    self._require_token()
    before: uint256 = self._balance()
    success: bool = False
    response: Bytes[32] = b""
    success, response = raw_call(
        token,
        abi_encode(depositor, self, units, method_id=method_id("transferFrom(address,address,uint256)")),
        max_outsize=32,
        revert_on_failure=False,
    )
    assert success and self._is_true(response), "vault: transfer failed"
    return self._credit(depositor, self._balance() - before, ref)


# The sums


@internal
@view
def _held() -> uint256:
    return self.deposited_units - self.released_units


@internal
@view
def _free() -> uint256:
    return self._held() - self.owed_units


@internal
@view
def _deposited_before(index: uint256) -> uint256:
    """
    @return The sum of the deposits below this index.
    """
    return 0 if index == 0 else self._deposits[index - 1] >> 160


@internal
@view
def _depositor(index: uint256) -> address:
    return convert(self._deposits[index] & (2**160 - 1), address)


@internal
def _credit(depositor: address, units: uint256, ref: bytes32) -> uint256:
    assert units != 0, "vault: nothing arrived"
    total: uint256 = self.deposited_units + units
    assert total <= MAX_UNITS, "vault: amount out of range"
    index: uint256 = self.deposit_count
    self.deposited_units = total
    self.deposit_count = index + 1
    self._deposits[index] = (total << 160) | convert(depositor, uint256)
    log Deposited(index=index, depositor=depositor, ref=ref, units=units)
    return index


@internal
def _release(account: address, recipient: address, units: uint256):
    """
    @dev Sums first, then the token: should it call back, it finds the books as they will be.
    """
    assert units <= self._free(), "vault: not covered"
    self.paid[account] += units
    self.released_units += units
    assert self._send(recipient, units), "vault: transfer failed"


@internal
def _start_chunk(batch_id: bytes32, cycle: uint256, chunk: uint256):
    assert batch_id != empty(bytes32), "vault: no batch id"
    known: bytes32 = self.batch_of[cycle]
    if known == empty(bytes32):
        self.batch_of[cycle] = batch_id
    else:
        assert known == batch_id, "vault: another batch in this cycle"
    assert not self.is_settled[cycle][chunk], "vault: chunk settled"
    self.is_settled[cycle][chunk] = True


@internal
def _spend(total: uint256, failed: uint256):
    """
    @dev Books a chunk: its payments left, what failed is owed.
    """
    assert total <= self._free(), "vault: not covered"
    day: uint256 = block.timestamp // DAY_S
    spent: uint256 = self.spent_on[day] + total
    assert spent <= self.daily_limit_units, "vault: daily limit"
    self.spent_on[day] = spent
    self.released_units += total - failed
    self.owed_units += failed
    self._require_covered()


@internal
def _recover(account: address, indexes: DynArray[uint256, MAX_INDEXES]):
    """
    @dev Adds deposits that are in no root to what their depositor may take along, each once.
    """
    for index: uint256 in indexes:
        assert index >= self._last.covered_deposits and index < self.deposit_count, "vault: deposit not open"
        assert self._depositor(index) == account, "vault: another's deposit"
        assert not self.deposit_recovered[index], "vault: deposit recovered"
        self.deposit_recovered[index] = True
        self.recovered_units[account] += self._deposited_before(index + 1) - self._deposited_before(index)


# Roots and leaves


@internal
@view
def _is_leaf(
    epoch_: uint256,
    root_: bytes32,
    account: address,
    payable_: uint256,
    exit_: uint256,
    proof: DynArray[bytes32, MAX_PROOF],
) -> bool:
    assert account != empty(address), "vault: no account"
    assert payable_ <= MAX_UNITS and exit_ <= MAX_UNITS, "vault: amount out of range"
    if root_ == empty(bytes32):
        return False
    data: bytes32 = keccak256(
        abi_encode(eip712_domain_separator._domain_separator_v4(), epoch_, account, payable_, exit_)
    )
    return merkle._verify(proof, root_, keccak256(data))


@internal
@view
def _require_leaf(account: address, payable_: uint256, exit_: uint256, proof: DynArray[bytes32, MAX_PROOF]):
    assert self._is_leaf(
        self._last.epoch, self._last.root, account, payable_, exit_, proof
    ), "vault: not in the last root"
    assert payable_ <= exit_, "vault: more payable than owned"


@internal
def _void():
    log RootDisputed(epoch=self._pending.epoch, root=self._pending.root)
    self._pending = empty(Root)


@internal
@view
def _finalizable_at() -> uint256:
    """
    @dev A stop begins the wait anew: a root is only put into force after a whole window in which all worked.
    """
    return max(self._pending.since, self._resumed_at) + dispute_window_s


@internal
@view
def _exit_open() -> bool:
    return self.winding_down or block.timestamp >= self._last.since + exit_window_s


@internal
def _wind_down():
    if not self.winding_down:
        self.winding_down = True
        log WindingDown(epoch=self._last.epoch)


# Who and when


@internal
@view
def _require_operating():
    assert not self.winding_down, "vault: winding down"


@internal
@view
def _require_not_locked():
    assert not self.locked, "vault: locked"


@internal
def _require_deposits():
    pausable._require_not_paused()
    self._require_operating()


@internal
def _require_outgoing():
    pausable._require_not_paused()
    self._require_not_locked()
    self._require_operating()


@internal
@view
def _require_payment(recipient: address, units: uint256):
    """
    @dev The vault itself is no recipient: what it pays itself would have left its books and not its balance.
    """
    assert recipient != empty(address) and recipient != self, "vault: no recipient"
    assert 0 < units and units <= MAX_UNITS, "vault: amount out of range"


@internal
@view
def _require_covered():
    assert self._balance() >= self._held(), "vault: balance below what is held"


@internal
@view
def _require_signatures(digest: bytes32, signatures: DynArray[Bytes[65], MAX_SIGNERS]):
    """
    @dev Rising order of signers means that nobody counts twice.
    """
    assert len(signatures) >= self.threshold, "vault: too few signatures"
    last: uint256 = 0
    for signature: Bytes[65] in signatures:
        signer: address = ecdsa._recover_sig(digest, signature)
        number: uint256 = convert(signer, uint256)
        assert number > last, "vault: signatures not in order"
        assert self.is_signer[signer], "vault: not a signer"
        last = number


@internal
def _set_signers(signers: DynArray[address, MAX_SIGNERS], threshold_: uint256):
    assert threshold_ != 0 and threshold_ <= len(signers), "vault: threshold out of range"
    for signer: address in self._signers:
        self.is_signer[signer] = False
    last: uint256 = 0
    for signer: address in signers:
        number: uint256 = convert(signer, uint256)
        assert number > last, "vault: signers not in order"
        self.is_signer[signer] = True
        last = number
    self._signers = signers
    self.threshold = threshold_
    log SignersChanged(signers=signers, threshold=threshold_)


@internal
def _set_daily_limit(units: uint256):
    assert units <= MAX_UNITS, "vault: amount out of range"
    self.daily_limit_units = units
    log DailyLimitChanged(units=units)
