"""How a kernel reaches the state: `s` is one pointer, `s.orders` the rows that lie where its table says, `s.orders[i]` a row.

Passing a NamedTuple of arrays instead would pass seven words for each array at each call that LLVM does not inline, which
cost 200 ns a call with the twenty arrays of the state. Here `s` is the address of a table with a pair (address, count of
rows) for each field of `State`, and an attribute loads what it needs of its pair.

Other parts may have a state of their own: `StateType` takes the names and shapes of any table's rows, and `at_address` makes
what turns an address into it.

An index is used as it is: no wrapping of negative ones, which costs numba's arrays four instructions and a load at each access.
With NUMBA_BOUNDSCHECK=1 every index is checked, and one that is out of bounds raises IndexError.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import config, from_dtype, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_global, signature
from numba.extending import infer_getattr, intrinsic, lower_builtin, lower_getattr_generic

from engine.kernel import JIT
from engine.state import SHAPES, State

WORD = ir.IntType(64)
PER_CALL = {"heads", "commands", "transfers", "listings"}
"""Fields whose pair the door itself writes; all others are fixed for the whole call, and LLVM may keep them in registers."""


class RowsType(types.Type):
    """The type of `s.field`: where its rows lie, and how many there are."""

    def __init__(self, name: str, dtype: Any, tail: tuple[int, ...]) -> None:
        self.item = from_dtype(dtype)
        self.per_row = tail[0] if tail else 1
        super().__init__(name=name)


class StateType(types.Type):
    """The type of `s`: a pointer to the table. `shapes`: the item type and what follows the first dimension, by field."""

    def __init__(self, name: str, shapes: dict[str, tuple[Any, tuple[int, ...]]], per_call: set[str]) -> None:
        self.fields = list(shapes)
        self.per_call = per_call
        self.rows = {field: RowsType(f"{name}.{field}", *shape) for field, shape in shapes.items()}
        super().__init__(name=name)


@register_default(StateType)
class StateModel(models.OpaqueModel):
    """An untyped pointer."""


@register_default(RowsType)
class RowsModel(models.StructModel):
    """The pair as it stands in the table."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, [("address", types.intp), ("rows", types.intp)])


@infer_getattr
class StateAttributes(AttributeTemplate):
    key = StateType

    def generic_resolve(self, state: Any, field: str) -> Any:
        return state.rows.get(field)


@lower_getattr_generic(StateType)
def lower_field(context: Any, builder: Any, state: Any, table: Any, field: str) -> Any:
    row = state.fields.index(field)
    words = builder.bitcast(table, WORD.as_pointer())
    pair = cgutils.create_struct_proxy(state.rows[field])(context, builder)
    for column, name in enumerate(("address", "rows")):
        word = builder.load(builder.gep(words, [WORD(2 * row + column)]))
        if field not in state.per_call:
            word.set_metadata("invariant.load", builder.module.add_metadata([]))
        setattr(pair, name, word)
    return pair._getvalue()


def _index_type(rows: RowsType, index: Any) -> Any:
    """The index that the rows take, or None: a number, or where a row has several items a pair of numbers."""
    if rows.per_row == 1:
        return types.intp if isinstance(index, types.Integer) else None
    is_pair = isinstance(index, types.BaseTuple) and len(index) == 2
    return types.UniTuple(types.intp, 2) if is_pair else None


@infer_global(operator.getitem)
class GetItem(AbstractTemplate):
    def generic(self, args: Any, _: Any) -> Any:
        rows, index = args
        index = isinstance(rows, RowsType) and _index_type(rows, index)
        return signature(rows.item, rows, index) if index else None


@infer_global(operator.setitem)
class SetItem(AbstractTemplate):
    def generic(self, args: Any, _: Any) -> Any:
        rows, index, _value = args
        index = isinstance(rows, RowsType) and _index_type(rows, index)
        return signature(types.void, rows, index, rows.item) if index else None


@infer_global(len)
class Length(AbstractTemplate):
    def generic(self, args: Any, _: Any) -> Any:
        return signature(types.intp, *args) if isinstance(args[0], RowsType) else None


def _item_pointer(context: Any, builder: Any, rows: RowsType, pair_value: Any, index: Any) -> Any:
    pair = cgutils.create_struct_proxy(rows)(context, builder, value=pair_value)
    if rows.per_row > 1:
        row, column = cgutils.unpack_tuple(builder, index, 2)
        _check_bound(context, builder, column, WORD(rows.per_row))
        index = builder.add(builder.mul(row, WORD(rows.per_row)), column)
    else:
        row = index
    _check_bound(context, builder, row, pair.rows)
    data_type = context.get_data_type(rows.item)
    return builder.gep(builder.inttoptr(pair.address, data_type.as_pointer()), [index])


def _check_bound(context: Any, builder: Any, index: Any, count: Any) -> None:
    if config.BOUNDSCHECK:
        # Unsigned: a negative index is beyond every count.
        with builder.if_then(builder.icmp_unsigned(">=", index, count), likely=False):
            context.call_conv.return_user_exc(builder, IndexError, ("index out of the bounds of the state",))


@lower_builtin(operator.getitem, RowsType, types.Any)
def lower_getitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    rows = sig.args[0]
    place = _item_pointer(context, builder, rows, *args)
    return place if isinstance(rows.item, types.Record) else context.unpack_value(builder, rows.item, place)


@lower_builtin(operator.setitem, RowsType, types.Any, types.Any)
def lower_setitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    rows, (pair, index, value) = sig.args[0], args
    place = _item_pointer(context, builder, rows, pair, index)
    if isinstance(rows.item, types.Record):
        cgutils.raw_memcpy(builder, place, value, WORD(1), rows.item.size)
    else:
        context.pack_value(builder, rows.item, value, place)
    return context.get_dummy_value()


@lower_builtin(len, RowsType)
def lower_len(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).rows


def at_address(state: StateType) -> Any:
    """A function for kernels: the state whose table lies at an address."""

    @intrinsic
    def state_at(typingctx: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], cgutils.voidptr_t)

        return state(types.intp), generate

    return state_at


state_at = at_address(StateType("State", {field: SHAPES[field] for field in State._fields}, PER_CALL))


@intrinsic
def _prefetch_compiled(typingctx: Any, rows: Any, index: Any) -> Any:
    """Ask the processor to bring the first cache line of a row near, to be written soon. Any index is harmless."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pair = cgutils.create_struct_proxy(rows)(context, builder, value=args[0])
        row_bytes = context.get_abi_sizeof(context.get_data_type(rows.item)) * rows.per_row
        place = builder.inttoptr(builder.add(pair.address, builder.mul(args[1], WORD(row_bytes))), cgutils.voidptr_t)
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [place, flag(1), flag(3), flag(1)])  # for writing, into every cache level, as data
        return context.get_dummy_value()

    return types.void(rows, types.intp), generate


@intrinsic
def _clear_compiled(typingctx: Any, rows: Any, index: Any) -> Any:
    """Set all bytes of a row to zero: a few vector stores, where a store for each field would be one each."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _item_pointer(context, builder, rows, *args)
        cgutils.memset(builder, place, WORD(rows.item.size), 0)
        return context.get_dummy_value()

    return types.void(rows, types.intp), generate


@intrinsic
def _clear_second_line_compiled(typingctx: Any, rows: Any, index: Any) -> Any:
    """Set bytes 64 to 127 of a row to zero: its second cache line."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = builder.bitcast(_item_pointer(context, builder, rows, *args), cgutils.voidptr_t)
        cgutils.memset(builder, builder.gep(place, [WORD(64)]), WORD(64), 0)
        return context.get_dummy_value()

    return types.void(rows, types.intp), generate


def _clear_interpreted(rows: Any, index: int) -> None:
    rows.clear(index)


def _prefetch_interpreted(rows: Any, index: int) -> None:
    pass


clear_second_line: Any = _clear_second_line_compiled if JIT else _clear_interpreted
clear: Any = _clear_compiled if JIT else _clear_interpreted
prefetch: Any = _prefetch_compiled if JIT else _prefetch_interpreted
