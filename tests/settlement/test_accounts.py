import pytest

from settlement.accounts import (
    CUSTODY,
    FEES,
    HouseRole,
    Role,
    account_text,
    money_text,
    owner_of,
    parse_account,
    user_account,
)


def test_every_account_has_its_own_number_and_text() -> None:
    accounts = [int(role) for role in HouseRole] + [user_account(n, role) for n in (1, 2, 70_000) for role in Role]
    texts = [account_text(account) for account in accounts]
    assert len(set(accounts)) == len(set(texts)) == len(accounts)
    assert [parse_account(text) for text in texts] == accounts


def test_texts_are_readable_and_owners_known() -> None:
    assert account_text(user_account(7, Role.HELD)) == "7.held"
    assert account_text(FEES) == "house.fees"
    assert (owner_of(user_account(7, Role.BOND)), owner_of(CUSTODY)) == (7, 0)


@pytest.mark.parametrize("text", ["", "7", "7.purse", "house.held", "0.held", "-1.held", "x.held"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a ledger account"):
        parse_account(text)


@pytest.mark.parametrize("account", [-1, 7 << 4 | 15, 5])
def test_other_numbers_are_refused(account: int) -> None:
    with pytest.raises(ValueError, match=r"account|valid"):
        account_text(account)


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "0.000000"), (1, "0.000001"), (-1, "-0.000001"), (166_400_000, "166.400000"), (-1_500_000, "-1.500000")],
)
def test_money_has_six_decimals(micros: int, text: str) -> None:
    assert money_text(micros) == text
