"""Compiling kernels once: their code is linked and optimised where a door uses it, not again at every level of calls.

numba links into each function the code of all that it calls, optimises the whole and makes machine code of it, also where
nothing but another compiled function will ever call it. In a call graph as deep as the engine's that is the same work ten
times over: 84 s where 20 do. Here the library of a kernel keeps only its own code, as it was lowered; a door's library takes
that of every kernel below it, each once, and is optimised as one.

This stands on the inside of numba's code generator. Where that looks different from what is expected here, nothing is
changed and compiling takes its time.
"""

from typing import Any

from numba.core import codegen

Library: Any = getattr(codegen, "JITCodeLibrary", None)
Codegen: Any = getattr(codegen, "JITCPUCodegen", None)
OF_LIBRARY = ("finalize", "_finalized", "_raise_if_finalized", "add_linking_library")
_kernels: set[str] = set()


def link_late(name: str) -> None:
    """Compile the functions of this qualified name only into what calls them."""
    _kernels.add(name)


def _below(library: Any) -> list[Any]:
    """The libraries that a library needs, each once, what it calls itself first."""
    found: list[Any] = []
    seen = {id(library)}
    waiting = list(library._linking_libraries)
    while waiting:
        one = waiting.pop(0)
        if id(one) not in seen:
            seen.add(id(one))
            found.append(one)
            if one.name in _kernels:
                waiting.extend(one._linking_libraries)
    return found


def _install() -> None:
    finalize, set_env = Library.finalize, Codegen.set_env

    def finalize_late(self: Any) -> None:
        if self.name in _kernels:
            self._raise_if_finalized()
            self._finalized = True
        else:
            self._linking_libraries[:] = _below(self)
            finalize(self)

    def set_env_if_there(self: Any, name: str, env: Any) -> None:
        # A kernel by itself is nowhere in memory, and has no place for what only tracebacks would read.
        if self._engine.is_symbol_defined(name):
            set_env(self, name, env)

    Library.finalize, Codegen.set_env = finalize_late, set_env_if_there


if Library is not None and all(hasattr(Library, name) for name in OF_LIBRARY) and hasattr(Codegen, "set_env"):
    _install()
