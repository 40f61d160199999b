"""The house checks itself: imports only go down, kernels have no clock and no float, functions fit on a screen."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each part may import of ours. Gateway and settlement do not know each other: they speak through the log.
FLOORS = {
    "engine": {"engine"},
    "gateway": {"gateway", "engine"},
    "settlement": {"settlement", "engine"},
    "wellhead": {"wellhead", "gateway", "settlement", "engine"},
    "examples": {"examples", "wellhead"},
}
PARTS = {*FLOORS, "tests", "benchmarks"}
KERNELS = [
    "book",
    "matching",
    "clearing",
    "accounts",
    "cash",
    "shares",
    "lifecycle",
    "invariants",
    "state",
    "engine",
    "special",
    "orders",
    "resting",
    "taking",
    "stops",
    "sweeps",
    "protection",
    "quotes",
    "auction",
    "timers",
    "client_ids",
    "controls",
    "room",
]
NOT_IN_KERNELS = {
    "time",
    "datetime",
    "random",
    "secrets",
    "uuid",
    "socket",
    "asyncio",
    "threading",
    "decimal",
    "fractions",
}
FLOATS = {"float", "float16", "float32", "float64", "double", "longdouble"}
LONGEST_FUNCTION = 60
# Places that exist only on the machine where a line was written. Spelt in two so that this file does not name them.
MACHINE_PATHS = re.compile("|".join(("/" + "work/", "/" + "root/", "/" + "home/[a-z]", "/" + "Users/[A-Za-z]")))
TEXT = {
    ".py",
    ".md",
    ".toml",
    ".json",
    ".html",
    ".js",
    ".css",
    ".sql",
    ".sol",
    ".yml",
    ".yaml",
    ".cfg",
    ".txt",
    ".sh",
    "",
}


def committed() -> list[Path]:
    """Every file of the project: those git has, or, where there is no git, all."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        names = [ROOT / name for name in done.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = [path for part in PARTS for path in (ROOT / part).rglob("*") if "__pycache__" not in path.parts]
    return sorted(path for path in names if path.is_file())


FILES = committed()
SOURCES = [path for path in FILES if path.suffix == ".py"]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), name_of(path))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Each module that is imported anywhere in a file, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides its floor"
            yield node.lineno, node.module or ""


def floor_breaches(part: str, tree: ast.AST) -> list[str]:
    ours = [(line, name.partition(".")[0]) for line, name in imports(tree)]
    return [f"line {line} imports {name}" for line, name in ours if name in PARTS - FLOORS[part]]


def kernel_breaches(tree: ast.AST) -> list[str]:
    """Clocks, sockets, threads, chance and floats in a file that must know none."""
    found = [f"line {line} imports {name}" for line, name in imports(tree) if name.partition(".")[0] in NOT_IN_KERNELS]
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            found.append(f"line {line}: the float {node.value}")
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            found.append(f"line {line}: a division that makes a float")
        elif isinstance(node, ast.Name) and node.id in FLOATS:
            found.append(f"line {line}: {node.id}")
        elif isinstance(node, ast.Attribute) and node.attr in FLOATS:
            found.append(f"line {line}: {node.attr}")
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch("[<>=]?f[248]", node.value)
        ):
            found.append(f"line {line}: the type {node.value}")
    return found


def long_functions(tree: ast.AST) -> list[str]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in functions]
    return [f"{name} has {length} lines" for name, length in lengths if length > LONGEST_FUNCTION]


@pytest.mark.parametrize("path", [path for path in SOURCES if path.relative_to(ROOT).parts[0] in FLOORS], ids=name_of)
def test_imports_only_go_down(path: Path) -> None:
    assert floor_breaches(path.relative_to(ROOT).parts[0], parse(path)) == []


@pytest.mark.parametrize("module", KERNELS)
def test_kernels_have_no_clock_no_chance_and_no_float(module: str) -> None:
    assert kernel_breaches(parse(ROOT / "engine" / f"{module}.py")) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_fit_on_a_screen(path: Path) -> None:
    assert long_functions(parse(path)) == []


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix in TEXT], ids=name_of)
def test_no_file_names_a_path_of_one_machine(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [number for number, line in enumerate(lines, 1) if MACHINE_PATHS.search(line)] == []


@pytest.mark.parametrize(
    ("source", "breach"),
    [
        ("import time", "imports time"),
        ("def f():\n    from datetime import datetime", "imports datetime"),
        ("a = 1.5", "the float 1.5"),
        ("a = b / c", "a division"),
        ("a /= c", "a division"),
        ("a = float(b)", "float"),
        ("a = np.float64(b)", "float64"),
        ("a = [('price', '<f8')]", "the type <f8"),
    ],
)
def test_a_breach_in_a_kernel_is_seen(source: str, breach: str) -> None:
    assert [found for found in kernel_breaches(ast.parse(source)) if breach in found]


def test_a_breach_of_a_floor_is_seen() -> None:
    up = ast.parse("def f():\n    import settlement.ledger")
    assert floor_breaches("gateway", up) == ["line 2 imports settlement"]
    assert floor_breaches("engine", up) == ["line 2 imports settlement"]
    assert floor_breaches("wellhead", up) == []
    assert floor_breaches("engine", ast.parse("from tests.oracle import Exchange")) == ["line 1 imports tests"]
    assert floor_breaches("gateway", ast.parse("import settlements, numpy, engine.types")) == []


def test_a_long_function_and_a_path_are_seen() -> None:
    body = "\n".join(["    pass"] * LONGEST_FUNCTION)
    assert long_functions(ast.parse(f"def f():\n{body}")) == ["f has 61 lines"]
    assert long_functions(ast.parse(f"async def f():\n{body}")) == ["f has 61 lines"]
    assert MACHINE_PATHS.search("see /" + "work/main")
    assert not MACHINE_PATHS.search("https://example.org/homepage")
