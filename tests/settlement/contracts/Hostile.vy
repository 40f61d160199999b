# pragma version 0.4.3
# pragma evm-version cancun
"""
@title Hostile token
@notice Misbehaves as it is told. Anyone may mint and tell.
"""

flag Mood:
    FEE  # keeps a hundredth of every transfer
    REFUSE  # says false and moves nothing
    REVERT
    LIE  # says false, and has moved the units
    OVERCHARGE  # takes a unit more from the sender than was asked
    EAT_GAS
    CALL_BACK  # calls whom it was told to, with what it was told
    ODD  # says two


mood: public(Mood)
only_to: public(address)  # misbehaves only when it pays this address, if it is set
callee: address
message: Bytes[2048]
called_back: public(bool)
call_back_worked: public(bool)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])


@external
def be(mood: Mood, only_to: address):
    self.mood = mood
    self.only_to = only_to


@external
def remember(callee: address, message: Bytes[2048]):
    self.callee = callee
    self.message = message


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def approve(spender: address, amount: uint256) -> bool:
    self.allowance[msg.sender][spender] = amount
    return True


@external
def transfer(to: address, amount: uint256) -> uint256:
    return self._move(msg.sender, to, amount)


@external
def transferFrom(sender: address, to: address, amount: uint256) -> uint256:
    self.allowance[sender][msg.sender] -= amount
    return self._move(sender, to, amount)


@internal
def _move(sender: address, to: address, amount: uint256) -> uint256:
    mood: Mood = self.mood if self.only_to in [empty(address), to] else empty(Mood)
    assert mood != Mood.REVERT, "no"
    if mood == Mood.EAT_GAS:
        self._eat()
    if mood == Mood.REFUSE:
        return 0
    self.balanceOf[sender] -= amount + (1 if mood == Mood.OVERCHARGE else 0)
    self.balanceOf[to] += amount - (amount // 100 if mood == Mood.FEE else 0)
    if mood == Mood.CALL_BACK:
        self.called_back = True
        self.call_back_worked = raw_call(self.callee, self.message, revert_on_failure=False)
    if mood == Mood.LIE:
        return 0
    return 2 if mood == Mood.ODD else 1


@internal
def _eat():
    for i: uint256 in range(max_value(uint256)):
        self.called_back = not self.called_back
