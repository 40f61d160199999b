"""The vault's money: deposits, batches, what is owed, withdrawals, and who may do what."""

from collections.abc import Iterator

import pytest
from eth_account.signers.local import LocalAccount

from settlement.abi import interface
from settlement.typed_data import Authorization, Permit
from settlement.vault import (
    ADMIN_ROLE,
    FRESH_CHUNK,
    GUARDIAN_ROLE,
    LOCKER_ROLE,
    MAX_UNITS,
    ROOT_SETTER_ROLE,
    SETTLER_ROLE,
    Chunk,
    VaultError,
    authorization_nonce,
    chunks,
    in_order,
)
from tests.settlement.evm import START_S, Reverted, person, sign, signature
from tests.settlement.vaults import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    DAILY_LIMIT,
    DISPUTE_S,
    DOLLAR,
    EXIT_S,
    GUARDIAN,
    LOCKER,
    REF,
    ROLES,
    ROOT_SETTER,
    SETTLER,
    SIGNERS,
    STRANGER,
    Stage,
    batch_id,
)

NOBODY = "0x" + "00" * 20
SALT = b"\x51" * 32


@pytest.fixture(scope="module")
def one_stage() -> Stage:
    return Stage()


@pytest.fixture
def stage(one_stage: Stage) -> Iterator[Stage]:
    with one_stage.chain.undone():
        yield one_stage


def refused(reason: str):
    return pytest.raises(Reverted, match=f"^{reason}$")


# Deployment


def deploy(stage: Stage, **changed: object) -> None:
    values = {
        "token": stage.token.address,
        "admin": ADMIN.address,
        "dispute": DISPUTE_S,
        "exit": EXIT_S,
        "signers": [key.address for key in SIGNERS],
        "threshold": 2,
        "limit": DAILY_LIMIT,
    }
    stage.chain.deploy(interface("Vault"), *(values | changed).values(), sender=STRANGER)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"token": NOBODY}, "vault: no token there"),
        ({"token": ALICE.address}, "vault: no token there"),
        ({"admin": NOBODY}, "vault: no admin"),
        ({"dispute": 0}, "vault: windows out of order"),
        ({"exit": DISPUTE_S}, "vault: windows out of order"),
        ({"exit": 367 * 86_400}, "vault: exit window too long"),
        ({"threshold": 0}, "vault: threshold out of range"),
        ({"threshold": 4}, "vault: threshold out of range"),
        ({"signers": [SIGNERS[1].address, SIGNERS[0].address]}, "vault: signers not in order"),
        ({"signers": [SIGNERS[0].address] * 2}, "vault: signers not in order"),
        ({"signers": [NOBODY, SIGNERS[0].address]}, "vault: signers not in order"),
        ({"limit": MAX_UNITS + 1}, "vault: amount out of range"),
    ],
)
def test_a_vault_that_could_not_work_is_not_deployed(stage: Stage, changed: dict[str, object], reason: str) -> None:
    with refused(reason):
        deploy(stage, **changed)


def test_a_vault_says_what_it_was_deployed_with(stage: Stage) -> None:
    vault = stage.vault
    assert vault.read("token") == stage.token.address
    assert (vault.read("dispute_window_s"), vault.read("exit_window_s")) == (DISPUTE_S, EXIT_S)
    assert vault.read("get_signers") == tuple(key.address for key in SIGNERS)
    assert [vault.read("is_signer", key.address) for key in (*SIGNERS, ALICE)] == [True, True, True, False]
    assert (vault.read("threshold"), vault.read("daily_limit_units")) == (2, DAILY_LIMIT)
    assert vault.read("finalized_at") == START_S
    assert vault.read("DOMAIN_SEPARATOR") == stage.domain.separator
    fields, name, version, chain, contract, _, _ = vault.read("eip712Domain")
    assert (fields, name, version, chain) == (b"\x0f", "Wellhead Vault", "1", stage.chain.chain_id)
    assert contract == vault.address


def test_the_deployer_keeps_nothing_when_the_admin_is_another(stage: Stage) -> None:
    signers = [key.address for key in SIGNERS]
    arguments = (stage.token.address, ALICE.address, DISPUTE_S, EXIT_S, signers, 1, 0)
    vault = stage.chain.deploy(interface("Vault"), *arguments, sender=STRANGER)
    assert vault.read("hasRole", ADMIN_ROLE, ALICE.address)
    assert not vault.read("hasRole", ADMIN_ROLE, STRANGER.address)


# Deposits


def test_a_deposit_is_credited_with_its_index(stage: Stage) -> None:
    assert stage.deposit(ALICE, 5 * DOLLAR) == 0
    assert stage.deposit(BOB, 7 * DOLLAR) == 1
    assert stage.vault.read("deposits", 0) == (ALICE.address, 5 * DOLLAR)
    assert stage.vault.read("deposits", 1) == (BOB.address, 7 * DOLLAR)
    assert stage.vault.read("deposit_count") == 2
    assert stage.vault.read("held_units") == stage.balance(stage.vault) == 12 * DOLLAR
    with refused("vault: no such deposit"):
        stage.vault.read("deposits", 2)


def test_the_event_of_a_deposit_has_who_for_whom_and_how_much(stage: Stage) -> None:
    stage.fund(ALICE, 5)
    event = stage.vault.send(ALICE, "deposit", 5, REF).event("Deposited")
    assert event == {"index": 0, "depositor": ALICE.address, "ref": REF, "units": 5}


def test_a_deposit_that_is_not_there_is_none(stage: Stage) -> None:
    with refused("vault: transfer failed"):
        stage.vault.send(ALICE, "deposit", 1, REF)
    stage.fund(ALICE, 1)
    with refused("vault: nothing arrived"):
        stage.vault.send(ALICE, "deposit", 0, REF)


def test_more_than_a_word_of_ninety_six_bits_is_no_deposit(stage: Stage) -> None:
    stage.deposit(ALICE, MAX_UNITS)
    stage.fund(BOB, 1)
    with refused("vault: amount out of range"):
        stage.vault.send(BOB, "deposit", 1, REF)


def permit(stage: Stage, key: LocalAccount, units: int, nonce: int = 0, late_s: int = 0) -> tuple[object, ...]:
    deadline_s = stage.chain.now_s - late_s
    wanted = Permit(key.address, stage.vault.address, units, nonce, deadline_s)
    return (units, deadline_s, *sign(key, wanted.digest(stage.token_domain)))


def test_a_deposit_by_permit(stage: Stage) -> None:
    stage.token.send(ADMIN, "mint", ALICE.address, 9)
    event = stage.vault.send(ALICE, "deposit_with_permit", 8, REF, *permit(stage, ALICE, 8)).event("Deposited")
    assert (event["depositor"], event["units"]) == (ALICE.address, 8)
    assert stage.balance(ALICE) == 1


def test_a_permit_that_somebody_handed_in_before_is_no_obstacle(stage: Stage) -> None:
    stage.token.send(ADMIN, "mint", ALICE.address, 8)
    units, *rest = permit(stage, ALICE, 8)
    stage.token.send(STRANGER, "permit", ALICE.address, stage.vault.address, units, *rest)
    assert stage.vault.send(ALICE, "deposit_with_permit", 8, REF, units, *rest).value == 0


def test_nobody_uses_the_permit_of_another(stage: Stage) -> None:
    stage.token.send(ADMIN, "mint", ALICE.address, 8)
    with refused("vault: transfer failed"):
        stage.vault.send(STRANGER, "deposit_with_permit", 8, REF, *permit(stage, ALICE, 8))


def test_a_late_permit_gives_nothing(stage: Stage) -> None:
    stage.token.send(ADMIN, "mint", ALICE.address, 8)
    with refused("vault: transfer failed"):
        stage.vault.send(ALICE, "deposit_with_permit", 8, REF, *permit(stage, ALICE, 8, late_s=1))


def authorized(stage: Stage, key: LocalAccount, units: int, ref: bytes = REF) -> tuple[object, ...]:
    """The arguments of deposit_with_authorization."""
    after, before = stage.chain.now_s - 1, stage.chain.now_s + 1
    wanted = Authorization(key.address, stage.vault.address, units, after, before, authorization_nonce(ref, SALT))
    return (key.address, units, ref, after, before, SALT, *sign(key, wanted.digest(stage.token_domain)))


def test_a_deposit_by_authorization_that_a_stranger_hands_in(stage: Stage) -> None:
    stage.token.send(ADMIN, "mint", ALICE.address, 9)
    event = stage.vault.send(STRANGER, "deposit_with_authorization", *authorized(stage, ALICE, 8)).event("Deposited")
    assert event == {"index": 0, "depositor": ALICE.address, "ref": REF, "units": 8}
    assert stage.token.read("authorizationState", ALICE.address, authorization_nonce(REF, SALT))


def test_an_authorization_is_used_once_and_for_its_ref_only(stage: Stage) -> None:
    stage.token.send(ADMIN, "mint", ALICE.address, 16)
    values = authorized(stage, ALICE, 8)
    thief = (*values[:2], b"thief".ljust(32, b"\0"), *values[3:])
    with refused("vault: authorization refused"):
        stage.vault.send(STRANGER, "deposit_with_authorization", *thief)
    stage.vault.send(STRANGER, "deposit_with_authorization", *values)
    with refused("vault: authorization refused"):
        stage.vault.send(STRANGER, "deposit_with_authorization", *values)


def test_an_authorization_cannot_be_used_around_the_vault(stage: Stage) -> None:
    """EIP-3009 warns of transferWithAuthorization: whoever sees it in the pool can move the money and skip the deposit."""
    stage.token.send(ADMIN, "mint", ALICE.address, 8)
    depositor, units, ref, after, before, salt, *signed = authorized(stage, ALICE, 8)
    direct = (depositor, stage.vault.address, units, after, before, authorization_nonce(ref, salt), *signed)
    with refused("FiatTokenV2: caller must be the payee"):
        stage.token.send(STRANGER, "receiveWithAuthorization", *direct)
    with refused("FiatTokenV2: invalid signature"):
        stage.token.send(STRANGER, "transferWithAuthorization", *direct)


@pytest.mark.parametrize("late_s", [-1, 1])
def test_an_authorization_outside_its_time_is_refused(stage: Stage, late_s: int) -> None:
    stage.token.send(ADMIN, "mint", ALICE.address, 8)
    values = authorized(stage, ALICE, 8)
    stage.chain.pass_s(late_s)
    with refused("vault: authorization refused"):
        stage.vault.send(STRANGER, "deposit_with_authorization", *values)


def test_no_way_in_is_open_while_the_vault_is_paused_or_winding_down(stage: Stage) -> None:
    stage.deposit(BOB, 5)
    stage.fund(ALICE, 8)

    def each_is(reason: str) -> None:
        for sender, function, values in (
            (ALICE, "deposit", (8, REF)),
            (ALICE, "deposit_with_permit", (8, REF, *permit(stage, ALICE, 8))),
            (STRANGER, "deposit_with_authorization", authorized(stage, ALICE, 8)),
        ):
            with refused(reason):
                stage.vault.send(sender, function, *values)

    stage.vault.send(GUARDIAN, "pause")
    each_is("pausable: contract is paused")
    stage.vault.send(ADMIN, "unpause")
    stage.open_exit()
    stage.exit(None, BOB, [0])
    each_is("vault: winding down")


def test_a_plain_transfer_becomes_a_deposit_once(stage: Stage) -> None:
    stage.deposit(BOB, 100)
    stage.token.send(ADMIN, "mint", stage.vault.address, 30)
    assert stage.vault.read("held_units") == 100
    with refused("vault: more than the surplus"):
        stage.vault.send(SETTLER, "credit_transfer", b"\1" * 32, ALICE.address, 31, REF)
    event = stage.vault.send(SETTLER, "credit_transfer", b"\1" * 32, ALICE.address, 20, REF).event("Deposited")
    assert event == {"index": 1, "depositor": ALICE.address, "ref": REF, "units": 20}
    assert stage.vault.read("transfer_credited", b"\1" * 32)
    with refused("vault: transfer already credited"):
        stage.vault.send(SETTLER, "credit_transfer", b"\1" * 32, ALICE.address, 10, REF)
    with refused("vault: no depositor"):
        stage.vault.send(SETTLER, "credit_transfer", b"\2" * 32, NOBODY, 10, REF)
    with refused("vault: nothing arrived"):
        stage.vault.send(SETTLER, "credit_transfer", b"\2" * 32, ALICE.address, 0, REF)


# Batches


def test_a_chunk_is_paid_and_its_event_says_what_was_paid(stage: Stage) -> None:
    stage.deposit(ALICE, 100)
    event = stage.settle([(BOB, 30), (CAROL, 20)], cycle=4, chunk=2).event("ChunkSettled")
    content = Chunk((BOB.address, CAROL.address), (30, 20)).content
    assert event == {
        "batch_id": batch_id(4),
        "cycle": 4,
        "chunk": 2,
        "count": 2,
        "paid_units": 50,
        "owed_units": 0,
        "content": content,
    }
    assert (stage.balance(BOB), stage.balance(CAROL), stage.balance(stage.vault)) == (30, 20, 50)
    assert (stage.vault.read("paid", BOB.address), stage.vault.read("released_units")) == (30, 50)
    assert stage.vault.read("batch_of", 4) == batch_id(4)
    assert [stage.vault.read("is_settled", 4, chunk) for chunk in range(4)] == [False, False, True, False]


def test_a_chunk_is_settled_once_and_a_cycle_has_one_batch(stage: Stage) -> None:
    stage.deposit(ALICE, 100)
    stage.settle([(BOB, 30)])
    with refused("vault: chunk settled"):
        stage.settle([(BOB, 30)])
    with refused("vault: another batch in this cycle"):
        stage.vault.send(SETTLER, "settle_batch", b"\7" * 32, 1, 1, [BOB.address], [1])
    with refused("vault: no batch id"):
        stage.vault.send(SETTLER, "settle_batch", bytes(32), 2, 0, [BOB.address], [1])
    stage.settle([(BOB, 30)], chunk=1)
    assert stage.balance(BOB) == 60


@pytest.mark.parametrize(
    ("recipients", "amounts", "reason"),
    [
        ([], [], "vault: recipients and amounts differ"),
        ([BOB.address], [], "vault: recipients and amounts differ"),
        ([BOB.address], [1, 2], "vault: recipients and amounts differ"),
        ([NOBODY], [1], "vault: no recipient"),
        ([BOB.address], [0], "vault: amount out of range"),
        ([BOB.address], [MAX_UNITS + 1], "vault: amount out of range"),
        ([BOB.address, CAROL.address], [60, 41], "vault: not covered"),
    ],
)
def test_a_chunk_that_is_wrong_pays_nobody(
    stage: Stage, recipients: list[str], amounts: list[int], reason: str
) -> None:
    stage.deposit(ALICE, 100)
    with refused(reason):
        stage.vault.send(SETTLER, "settle_batch", batch_id(1), 1, 0, recipients, amounts)
    assert stage.balance(stage.vault) == 100


def test_the_vault_never_pays_itself(stage: Stage) -> None:
    stage.deposit(ALICE, 100)
    with refused("vault: no recipient"):
        stage.vault.send(SETTLER, "settle_batch", batch_id(1), 1, 0, [stage.vault.address], [1])


def test_surplus_pays_nobody(stage: Stage) -> None:
    stage.deposit(ALICE, 100)
    stage.token.send(ADMIN, "mint", stage.vault.address, 100)
    with refused("vault: not covered"):
        stage.settle([(BOB, 101)])


def test_four_hundred_fit_into_a_chunk_and_no_more(stage: Stage) -> None:
    stage.deposit(ALICE, 1000)
    crowd = [person(1000 + number) for number in range(400)]
    assert stage.settle([(key, 1) for key in crowd]).event("ChunkSettled")["paid_units"] == 400
    assert all(stage.balance(key) == 1 for key in crowd)
    with pytest.raises(Reverted):
        stage.settle([(key, 1) for key in [*crowd, BOB]], chunk=1)


def test_a_chunk_of_nobody_known_fits_into_a_transaction(stage: Stage) -> None:
    """EIP-7825 caps a transaction's gas; each recipient here is new to the token and to the vault."""
    stage.deposit(ALICE, 1000)
    crowd = [person(3000 + number).address for number in range(FRESH_CHUNK)]
    arguments = (batch_id(1), 1, 0, crowd, [1] * FRESH_CHUNK)
    settled = stage.vault.send(SETTLER, "settle_batch", *arguments, gas=16_777_216).event("ChunkSettled")
    assert settled["paid_units"] == FRESH_CHUNK


def test_who_cannot_be_paid_is_owed_and_blocks_nobody(stage: Stage) -> None:
    stage.deposit(ALICE, 100)
    stage.token.send(ADMIN, "blacklist", BOB.address)
    receipt = stage.settle([(BOB, 30), (CAROL, 20)])
    assert receipt.event("Owed") == {"recipient": BOB.address, "cycle": 1, "units": 30}
    settled = receipt.event("ChunkSettled")
    assert (settled["paid_units"], settled["owed_units"]) == (20, 30)
    assert (stage.balance(BOB), stage.balance(CAROL)) == (0, 20)
    assert stage.vault.read("owed", BOB.address) == stage.vault.read("owed_units") == 30
    assert (stage.vault.read("held_units"), stage.vault.read("free_units")) == (80, 50)
    with refused("vault: not covered"):
        stage.settle([(CAROL, 51)], cycle=2)


def test_what_is_owed_is_collected_once_and_by_its_recipient(stage: Stage) -> None:
    stage.deposit(ALICE, 100)
    stage.token.send(ADMIN, "blacklist", BOB.address)
    stage.settle([(BOB, 30)])
    with refused("vault: transfer failed"):
        stage.vault.send(STRANGER, "collect_owed", BOB.address)
    assert stage.vault.read("owed", BOB.address) == 30
    stage.token.send(ADMIN, "unBlacklist", BOB.address)
    event = stage.vault.send(STRANGER, "collect_owed", BOB.address).event("Collected")
    assert event == {"recipient": BOB.address, "units": 30}
    assert (stage.balance(BOB), stage.vault.read("owed_units"), stage.vault.read("released_units")) == (30, 0, 30)
    with refused("vault: nothing owed"):
        stage.vault.send(STRANGER, "collect_owed", BOB.address)


def test_a_paused_token_makes_everyone_owed_and_loses_nothing(stage: Stage) -> None:
    stage.deposit(ALICE, 100)
    stage.token.send(ADMIN, "pause")
    stage.settle([(BOB, 30), (CAROL, 20)])
    stage.token.send(ADMIN, "unpause")
    for key in (BOB, CAROL):
        stage.vault.send(STRANGER, "collect_owed", key.address)
    assert (stage.balance(BOB), stage.balance(CAROL)) == (30, 20)


def test_a_settler_cannot_pay_more_than_the_day_allows(stage: Stage) -> None:
    stage.deposit(ALICE, 1000)
    stage.vault.send(ADMIN, "set_daily_limit", 100)
    stage.settle([(BOB, 60)], cycle=1)
    with refused("vault: daily limit"):
        stage.settle([(BOB, 41)], cycle=2)
    stage.settle([(BOB, 40)], cycle=2)
    day = stage.chain.now_s // 86_400
    assert stage.vault.read("spent_on", day) == 100
    stage.chain.now_s = (day + 1) * 86_400 - 1
    with refused("vault: daily limit"):
        stage.settle([(BOB, 1)], cycle=3)
    stage.chain.pass_s(1)
    stage.settle([(BOB, 100)], cycle=3)


def test_a_transaction_with_little_gas_is_refused_and_nobody_owed(stage: Stage) -> None:
    """Else whoever sends it could make the token fail, and with it the payment."""
    stage.deposit(ALICE, 100)
    arguments = (batch_id(1), 1, 0, [BOB.address], [1])
    with pytest.raises(Reverted, match="not enough gas"):
        stage.vault.send(SETTLER, "settle_batch", *arguments, gas=250_000)
    assert stage.vault.send(SETTLER, "settle_batch", *arguments, gas=500_000).event("ChunkSettled")["paid_units"] == 1


# Withdrawals


def test_two_of_three_signatures_pay_once(stage: Stage) -> None:
    stage.deposit(ALICE, 100)
    wanted = stage.withdrawal(40)
    event = stage.withdraw(wanted).event("Withdrawn")
    assert event == {"id": wanted.id, "account": ALICE.address, "recipient": BOB.address, "units": 40}
    assert (stage.balance(BOB), stage.vault.read("paid", ALICE.address)) == (40, 40)
    assert stage.vault.read("withdrawal_done", wanted.id)
    with refused("vault: withdrawal done"):
        stage.withdraw(wanted)
    with refused("vault: withdrawal done"):
        stage.withdraw(wanted, SIGNERS[1:])
    stage.withdraw(stage.withdrawal(60, number=2), SIGNERS)


@pytest.mark.parametrize(
    ("signers", "reason"),
    [
        ([], "vault: too few signatures"),
        (SIGNERS[:1], "vault: too few signatures"),
        (SIGNERS[:1] * 2, "vault: signatures not in order"),
        (SIGNERS[1::-1], "vault: signatures not in order"),
        ([*SIGNERS[:1], max(SIGNERS[0], ALICE, CAROL, key=lambda key: key.address.lower())], "vault: not a signer"),
    ],
)
def test_signatures_that_do_not_count(stage: Stage, signers: list[LocalAccount], reason: str) -> None:
    stage.deposit(ALICE, 100)
    with refused(reason):
        stage.withdraw(stage.withdrawal(40), signers)


def test_a_changed_withdrawal_is_not_the_one_that_was_signed(stage: Stage) -> None:
    stage.deposit(ALICE, 100)
    wanted = stage.withdrawal(40)
    signatures = [signature(key, wanted.digest(stage.domain)) for key in SIGNERS[:2]]
    values = [wanted.id, wanted.account, wanted.recipient, wanted.units, wanted.deadline_s]
    for at, other in enumerate([b"\x09" * 32, CAROL.address, STRANGER.address, 41, wanted.deadline_s + 1]):
        changed = [*values[:at], other, *values[at + 1 :]]
        with pytest.raises(Reverted, match=r"not a signer|not in order"):
            stage.vault.send(STRANGER, "withdraw", *changed, signatures)


def test_a_withdrawal_has_a_last_second(stage: Stage) -> None:
    stage.deposit(ALICE, 100)
    wanted, other = stage.withdrawal(40), stage.withdrawal(40, number=2)
    stage.chain.now_s = wanted.deadline_s
    stage.withdraw(wanted)
    stage.chain.pass_s(1)
    with refused("vault: withdrawal expired"):
        stage.withdraw(other)


def test_a_withdrawal_that_cannot_be_paid_can_be_tried_again(stage: Stage) -> None:
    stage.deposit(ALICE, 100)
    with refused("vault: not covered"):
        stage.withdraw(stage.withdrawal(101))
    stage.token.send(ADMIN, "blacklist", BOB.address)
    with refused("vault: transfer failed"):
        stage.withdraw(stage.withdrawal(40))
    stage.token.send(ADMIN, "unBlacklist", BOB.address)
    stage.withdraw(stage.withdrawal(40))
    with refused("vault: amount out of range"):
        stage.withdraw(stage.withdrawal(0, number=3))


def test_a_malleable_or_broken_signature_is_refused(stage: Stage) -> None:
    stage.deposit(ALICE, 100)
    wanted = stage.withdrawal(40)
    v, r, s = sign(SIGNERS[0], wanted.digest(stage.domain))
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    mirrored = r + (order - int.from_bytes(s, "big")).to_bytes(32, "big") + bytes([55 - v])
    values = (wanted.id, wanted.account, wanted.recipient, wanted.units, wanted.deadline_s)
    other = signature(SIGNERS[1], wanted.digest(stage.domain))
    with refused("ecdsa: invalid signature `s` value"):
        stage.vault.send(STRANGER, "withdraw", *values, [mirrored, other])
    with refused("ecdsa: invalid signature"):
        stage.vault.send(STRANGER, "withdraw", *values, [bytes(64) + b"\x1b", other])
    with refused("vault: signatures not in order"):
        stage.vault.send(STRANGER, "withdraw", *values, [b"short", other])


def test_new_signers_replace_the_old_ones(stage: Stage) -> None:
    stage.deposit(ALICE, 100)
    vault = stage.vault
    event = vault.send(ADMIN, "set_signers", [CAROL.address], 1).event("SignersChanged")
    assert event == {"signers": (CAROL.address,), "threshold": 1}
    with refused("vault: not a signer"):
        stage.withdraw(stage.withdrawal(40))
    stage.withdraw(stage.withdrawal(40), [CAROL])


# Roles


@pytest.mark.parametrize(
    ("allowed", "function", "arguments"),
    [
        (SETTLER, "settle_batch", (batch_id(1), 1, 0, [BOB.address], [1])),
        (SETTLER, "credit_transfer", (b"\1" * 32, ALICE.address, 1, REF)),
        (ROOT_SETTER, "propose_root", (1, 1, b"\1" * 32, 0, 0, 0)),
        (GUARDIAN, "dispute", (1,)),
        (GUARDIAN, "pause", ()),
        (LOCKER, "lock", ()),
        (ADMIN, "unpause", ()),
        (ADMIN, "unlock", ()),
        (ADMIN, "grantRole", (SETTLER_ROLE, CAROL.address)),
        (ADMIN, "revokeRole", (SETTLER_ROLE, SETTLER.address)),
        (ADMIN, "set_signers", ([CAROL.address], 1)),
        (ADMIN, "set_daily_limit", (5,)),
    ],
)
def test_each_power_has_one_role(
    stage: Stage, allowed: LocalAccount, function: str, arguments: tuple[object, ...]
) -> None:
    for key in (ADMIN, *ROLES.values(), STRANGER):
        if key is not allowed:
            with refused("access_control: account is missing role"):
                stage.vault.send(key, function, *arguments)
    stage.deposit(ALICE, 1)
    stage.token.send(ADMIN, "mint", stage.vault.address, 1)
    try:
        stage.vault.send(allowed, function, *arguments)
    except Reverted as error:
        assert "missing role" not in str(error)


def test_an_address_has_one_role(stage: Stage) -> None:
    for role in (ADMIN_ROLE, SETTLER_ROLE, ROOT_SETTER_ROLE, LOCKER_ROLE, GUARDIAN_ROLE):
        for held, key in {ADMIN_ROLE: ADMIN, **ROLES}.items():
            if held != role:
                with refused("vault: has another role"):
                    stage.vault.send(ADMIN, "grantRole", role, key.address)
    with refused("vault: no such role"):
        stage.vault.send(ADMIN, "grantRole", b"\1" * 32, CAROL.address)
    with refused("vault: no account"):
        stage.vault.send(ADMIN, "grantRole", SETTLER_ROLE, NOBODY)


def test_a_role_can_be_moved(stage: Stage) -> None:
    stage.vault.send(ADMIN, "revokeRole", SETTLER_ROLE, SETTLER.address)
    stage.vault.send(ADMIN, "grantRole", LOCKER_ROLE, SETTLER.address)
    stage.vault.send(SETTLER, "lock")
    stage.vault.send(SETTLER, "renounceRole", LOCKER_ROLE, SETTLER.address)
    with refused("access_control: can only renounce roles for itself"):
        stage.vault.send(STRANGER, "renounceRole", GUARDIAN_ROLE, GUARDIAN.address)


# Without a chain


def test_payments_go_in_chunks_in_their_order() -> None:
    payments = [(person(number).address, number + 1) for number in range(10)]
    made = list(chunks(payments, 4))
    assert [len(chunk.recipients) for chunk in made] == [4, 4, 2]
    assert [pair for chunk in made for pair in zip(chunk.recipients, chunk.amounts, strict=True)] == payments
    assert sum(chunk.units for chunk in made) == 55
    assert list(chunks([])) == []


@pytest.mark.parametrize(
    ("payment", "size"),
    [
        ((BOB.address, 0), 4),
        ((NOBODY, 1), 4),
        ((BOB.address, -1), 4),
        ((BOB.address, 2**96), 4),
        ((BOB.address, 1), 401),
    ],
)
def test_payments_that_the_vault_would_refuse_make_no_chunk(payment: tuple[str, int], size: int) -> None:
    with pytest.raises(VaultError):
        list(chunks([(ALICE.address, 1), payment], size))


def test_signatures_are_handed_in_by_address() -> None:
    given = {key.address: key.address.encode() for key in SIGNERS[::-1]}
    assert in_order(given) == [key.address.encode() for key in SIGNERS]
