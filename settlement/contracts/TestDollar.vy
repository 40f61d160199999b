# pragma version 0.4.3
# pragma evm-version cancun
"""
@title Test Dollar
@license GNU Affero General Public License, version 3 only: it contains modules of snekmate
@notice A stablecoin worth nothing, for tests and demonstrations, that behaves as USDC does: 6 decimals, EIP-2612,
        EIP-3009, a list of blocked addresses, a pause. Its owner mints.
"""

from ethereum.ercs import IERC20

from snekmate.utils import ecdsa
from snekmate.utils import eip712_domain_separator as domain

implements: IERC20
initializes: domain
exports: domain.eip712Domain


event AuthorizationUsed:
    authorizer: indexed(address)
    nonce: indexed(bytes32)


event AuthorizationCanceled:
    authorizer: indexed(address)
    nonce: indexed(bytes32)


event Blacklisted:
    account: indexed(address)


event UnBlacklisted:
    account: indexed(address)


event Pause: pass


event Unpause: pass


PERMIT_TYPEHASH: public(constant(bytes32)) = keccak256(
    "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
TRANSFER_WITH_AUTHORIZATION_TYPEHASH: public(constant(bytes32)) = keccak256(
    "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
RECEIVE_WITH_AUTHORIZATION_TYPEHASH: public(constant(bytes32)) = keccak256(
    "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
CANCEL_AUTHORIZATION_TYPEHASH: public(constant(bytes32)) = keccak256(
    "CancelAuthorization(address authorizer,bytes32 nonce)"
)

name: public(immutable(String[32]))
symbol: public(immutable(String[8]))
decimals: public(constant(uint8)) = 6
version: public(constant(String[1])) = "2"

owner: public(immutable(address))
paused: public(bool)
isBlacklisted: public(HashMap[address, bool])
totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
nonces: public(HashMap[address, uint256])
authorizationState: public(HashMap[address, HashMap[bytes32, bool]])


@deploy
def __init__(name_: String[32], symbol_: String[8]):
    name = name_
    symbol = symbol_
    owner = msg.sender
    domain.__init__(name_, version)


@external
def transfer(to: address, amount: uint256) -> bool:
    self._require_open(msg.sender)
    self._move(msg.sender, to, amount)
    return True


@external
def transferFrom(sender: address, to: address, amount: uint256) -> bool:
    self._require_open(msg.sender)
    allowed: uint256 = self.allowance[sender][msg.sender]
    assert amount <= allowed, "ERC20: transfer amount exceeds allowance"
    if allowed != max_value(uint256):
        self.allowance[sender][msg.sender] = allowed - amount
    self._move(sender, to, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    self._require_open(msg.sender)
    self._approve(msg.sender, spender, amount)
    return True


@external
def mint(to: address, amount: uint256) -> bool:
    self._require_owner()
    self._require_open(to)
    self.totalSupply += amount
    self.balanceOf[to] += amount
    log IERC20.Transfer(sender=empty(address), receiver=to, value=amount)
    return True


@external
def permit(holder: address, spender: address, amount: uint256, deadline: uint256, v: uint8, r: bytes32, s: bytes32):
    """
    @notice EIP-2612.
    """
    assert block.timestamp <= deadline, "FiatTokenV2: permit is expired"
    nonce: uint256 = self.nonces[holder]
    self.nonces[holder] = nonce + 1
    self._require_signed(
        holder, keccak256(abi_encode(PERMIT_TYPEHASH, holder, spender, amount, nonce, deadline)), v, r, s
    )
    self._require_open(holder)
    self._approve(holder, spender, amount)


@external
def transferWithAuthorization(
    sender: address,
    to: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    """
    @notice EIP-3009: anyone may hand it in.
    """
    self._use(TRANSFER_WITH_AUTHORIZATION_TYPEHASH, sender, to, amount, valid_after, valid_before, nonce, v, r, s)


@external
def receiveWithAuthorization(
    sender: address,
    to: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    """
    @notice EIP-3009: only the payee may hand it in.
    """
    assert to == msg.sender, "FiatTokenV2: caller must be the payee"
    self._use(RECEIVE_WITH_AUTHORIZATION_TYPEHASH, sender, to, amount, valid_after, valid_before, nonce, v, r, s)


@external
def cancelAuthorization(authorizer: address, nonce: bytes32, v: uint8, r: bytes32, s: bytes32):
    self._require_open(authorizer)
    assert not self.authorizationState[authorizer][nonce], "FiatTokenV2: authorization is used or canceled"
    self._require_signed(authorizer, keccak256(abi_encode(CANCEL_AUTHORIZATION_TYPEHASH, authorizer, nonce)), v, r, s)
    self.authorizationState[authorizer][nonce] = True
    log AuthorizationCanceled(authorizer=authorizer, nonce=nonce)


@external
def blacklist(account: address):
    self._require_owner()
    self.isBlacklisted[account] = True
    log Blacklisted(account=account)


@external
def unBlacklist(account: address):
    self._require_owner()
    self.isBlacklisted[account] = False
    log UnBlacklisted(account=account)


@external
def pause():
    self._require_owner()
    self.paused = True
    log Pause()


@external
def unpause():
    self._require_owner()
    self.paused = False
    log Unpause()


@external
@view
def DOMAIN_SEPARATOR() -> bytes32:
    return domain._domain_separator_v4()


@internal
def _use(
    kind: bytes32,
    sender: address,
    to: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    self._require_open(sender)
    assert block.timestamp > valid_after, "FiatTokenV2: authorization is not yet valid"
    assert block.timestamp < valid_before, "FiatTokenV2: authorization is expired"
    assert not self.authorizationState[sender][nonce], "FiatTokenV2: authorization is used or canceled"
    self._require_signed(
        sender, keccak256(abi_encode(kind, sender, to, amount, valid_after, valid_before, nonce)), v, r, s
    )
    self.authorizationState[sender][nonce] = True
    log AuthorizationUsed(authorizer=sender, nonce=nonce)
    self._move(sender, to, amount)


@internal
def _move(sender: address, to: address, amount: uint256):
    self._require_open(sender)
    self._require_open(to)
    assert to != empty(address), "ERC20: transfer to the zero address"
    assert self.balanceOf[sender] >= amount, "ERC20: transfer amount exceeds balance"
    self.balanceOf[sender] -= amount
    self.balanceOf[to] += amount
    log IERC20.Transfer(sender=sender, receiver=to, value=amount)


@internal
def _approve(holder: address, spender: address, amount: uint256):
    self._require_open(spender)
    self.allowance[holder][spender] = amount
    log IERC20.Approval(owner=holder, spender=spender, value=amount)


@internal
@view
def _require_signed(signer: address, content: bytes32, v: uint8, r: bytes32, s: bytes32):
    digest: bytes32 = domain._hash_typed_data_v4(content)
    found: address = ecdsa._recover_vrs(
        digest, convert(v, uint256), convert(r, uint256), convert(s, uint256)
    )
    assert found == signer, "FiatTokenV2: invalid signature"


@internal
@view
def _require_open(account: address):
    assert not self.paused, "Pausable: paused"
    assert not self.isBlacklisted[account], "Blacklistable: account is blacklisted"


@internal
@view
def _require_owner():
    assert msg.sender == owner, "Ownable: caller is not the owner"
