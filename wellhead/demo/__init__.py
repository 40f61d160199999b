"""The demo: a whole market on one machine, with real prices, real websockets and a proof at the end."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from wellhead.demo.report import Summary
    from wellhead.demo.stage import Options, Show

INTERRUPTED = 130
REFUSED = 2


def run(  # noqa: PLR0913, PLR0917 - the options of the command
    data_dir: Path,
    seconds: int = 30,
    seed: int = 1,
    port: int = 0,
    plain: bool = False,
    market_count: int = 12,
    chain: bool = True,
    node_url: str | None = None,
) -> int:
    """Run a demo and print what happens; the exit code: 0, 1 when something does not agree or failed, 2 when it cannot
    run in the directory, 130 after Ctrl-C.

    A directory that holds an exchange already is left alone: the demo takes a new one beside it.
    """
    # Here, because the bots' process imports this package too and has no use for the engine.
    from rich.console import Console  # noqa: PLC0415

    from engine.log import LogError  # noqa: PLC0415
    from wellhead.demo.crew import CrewError  # noqa: PLC0415
    from wellhead.demo.stage import DemoError, Options, free_directory  # noqa: PLC0415
    from wellhead.exchange import RecoveryError  # noqa: PLC0415

    console = Console()
    try:
        directory = free_directory(data_dir)
    except (DemoError, LogError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return REFUSED
    if directory != data_dir:
        console.print(f"{data_dir} holds an exchange already; this one goes to {directory}", highlight=False)
    options = Options(directory, seconds, seed, port, market_count, chain=chain, node_url=node_url)
    try:
        return _tell(_run(options, console, plain), console)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (CrewError, DemoError, LogError, RecoveryError, OSError) as error:
        console.print(f"the demo failed: {error}", style="red", markup=False, soft_wrap=True)
        return 1


def _tell(summary: "Summary", console: "Console") -> int:
    from wellhead.demo.report import tell, tell_interrupted  # noqa: PLC0415

    if not summary.settled:
        tell_interrupted(summary, console)
        return INTERRUPTED
    tell(summary, console)
    return 0 if summary.ok else 1


def _run(options: "Options", console: "Console", plain: bool) -> "Summary":
    from wellhead.demo.stage import run_demo  # noqa: PLC0415

    async def main() -> "Summary":
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            stop.set()
            # Whoever insists gets Python's own answer.
            loop.remove_signal_handler(signal.SIGINT)

        loop.add_signal_handler(signal.SIGINT, interrupt)
        loop.add_signal_handler(signal.SIGTERM, interrupt)
        with _shown(console, plain or not console.is_terminal) as show:
            return await run_demo(options, show, stop)

    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.run(main())
    return uvloop.run(main())


@contextlib.contextmanager
def _shown(console: "Console", plain: bool) -> Iterator["Show"]:
    """What to call with each view: it draws a screen, or prints a line a second and what happened since the last one."""
    from rich.live import Live  # noqa: PLC0415

    from wellhead.demo.display import Lines, screen  # noqa: PLC0415

    if plain:
        yield Lines(lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True)).show
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield lambda view: live.update(screen(view), refresh=True)
