"""How a kernel reaches the state: `s` is one pointer, and `s.orders` the array that lies where its table says.

Passing a NamedTuple of arrays instead would pass seven words for each array at each call that LLVM does not inline, which
cost 200 ns a call with the twenty arrays of the state. Here `s` is the address of a table with a pair (address, rows) for each
field of `State`, and an attribute loads what it needs of its pair.
"""

from typing import Any

from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, lower_getattr_generic
from numba.np.arrayobj import make_array, populate_array

from engine.state import SHAPES, State

WORD = ir.IntType(64)
PER_CALL = {"commands", "transfers", "listings"}
"""Fields whose pair the door itself writes; all others are fixed for the whole call, and LLVM may keep them in registers."""


class StateType(types.Type):
    """The type of `s`: a pointer to the table."""

    def __init__(self) -> None:
        super().__init__(name="State")


STATE = StateType()


@register_default(StateType)
class StateModel(models.OpaqueModel):
    """An untyped pointer."""


def array_type(field: str) -> types.Array:
    dtype, tail = SHAPES[field]
    return types.Array(from_dtype(dtype), 1 + len(tail), "C")


@infer_getattr
class StateAttributes(AttributeTemplate):
    key = StateType

    def generic_resolve(self, _: Any, field: str) -> Any:
        return array_type(field) if field in SHAPES else None


@lower_getattr_generic(StateType)
def lower_field(context: Any, builder: Any, _: Any, table: Any, field: str) -> Any:
    kind = array_type(field)
    row = State._fields.index(field)
    words = builder.bitcast(table, WORD.as_pointer())
    pair = [builder.load(builder.gep(words, [WORD(2 * row + column)])) for column in (0, 1)]
    if field not in PER_CALL:
        for load in pair:
            load.set_metadata("invariant.load", builder.module.add_metadata([]))
    array = make_array(kind)(context, builder)
    item_bytes = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    shape = [pair[1], *(WORD(n) for n in SHAPES[field][1])]
    strides = [WORD(item_bytes)]
    for n in reversed(SHAPES[field][1]):
        strides.insert(0, WORD(strides[0].constant * n))
    populate_array(
        array,
        data=builder.inttoptr(pair[0], array.data.type),
        shape=shape,
        strides=strides,
        itemsize=WORD(item_bytes),
        meminfo=None,
    )
    return array._getvalue()


@intrinsic
def state_at(typingctx: Any, address: Any) -> Any:
    """The state whose table lies at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return STATE(types.intp), generate
