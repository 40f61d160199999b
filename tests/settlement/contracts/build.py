"""Compiles contracts. `python -m tests.settlement.contracts.build` writes the artefacts that ship with the settlement part."""

import hashlib
import json
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

from vyper import __long_version__
from vyper.compiler import compile_from_file_input
from vyper.compiler.input_bundle import FilesystemInputBundle

from settlement.abi import CONTRACTS, Interface

SHIPPED = ("Vault", "TestDollar")
HERE = Path(__file__).parent


@cache
def compile_source(source: Path) -> dict[str, Any]:
    """The compiler's outputs, made once a run."""
    places = FilesystemInputBundle([Path(sysconfig.get_paths()["purelib"]), source.parent])
    wanted = ["abi", "bytecode", "integrity", "settings_dict", "asm"]
    return dict(compile_from_file_input(places.load_file(source.resolve()), input_bundle=places, output_formats=wanted))


def artefact(source: Path) -> dict[str, Any]:
    """Everything about a compiled contract that somebody needs to use it, or to compile it again and compare."""
    out = compile_source(source)
    return {
        "contract": source.stem,
        "compiler": f"vyper {__long_version__}",
        "evm_version": out["settings_dict"]["evm_version"],
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "integrity": out["integrity"],
        "abi": out["abi"],
        "bytecode": out["bytecode"],
    }


def as_json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"


@cache
def compiled(name: str) -> Interface:
    """A contract of the tests, compiled once a run."""
    return Interface(artefact(HERE / f"{name}.vy"))


if __name__ == "__main__":
    for name in SHIPPED:
        (CONTRACTS / f"{name}.json").write_text(as_json(artefact(CONTRACTS / f"{name}.vy")), encoding="utf-8")
