"""`nait ui`: Dagster's web server, guarded against other pages of the browser, and its daemon, on the home."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from nait_assets.cli.home import opened
from nait_assets.cli.messages import say
from nait_assets.cli.options import home_option, recipe_option
from nait_assets.cli.web_guard import LOOPBACK, WebGuard
from nait_assets.errors import SetupError

DEFINITIONS = "nait_assets.definitions"
PATIENCE_SECONDS = 20
"""How long the daemon may take to end, and open pages to let go of the server."""


@click.command("ui")
@recipe_option
@home_option
@click.option("--port", default=3000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--allow-host",
    "allowed",
    multiple=True,
    metavar="NAME[:PORT]",
    help="Another name that the browser may reach the server by: a proxy's, or a tunnel's. May be repeated.",
)
@click.option("--read-only", is_flag=True, help="Show everything and start nothing: no runs, no daemon.")
def command(
    recipe_path: Path | None, home: Path | None, port: int, host: str, allowed: tuple[str, ...], read_only: bool
) -> None:
    """Start Dagster's web server and daemon on the home's own instance.

    Only the server's own page may speak to it, not another page in the same browser. It has no login.
    """
    require_free(host, port)
    with opened(recipe_path, home, writes=not read_only) as workplace:
        os.environ.update(NAIT_RECIPE=str(workplace.recipe.path), NAIT_HOME=str(workplace.home))
        if host not in LOOPBACK:
            say(f"{host} can be reached from other machines, and the page has no login.", err=True)
        with contextlib.suppress(KeyboardInterrupt), _ended_like_an_interrupt(), _web_app(read_only) as app:
            server = _server(WebGuard(app, host, port, allowed), host, port)
            with contextlib.nullcontext() if read_only else _daemon(server):
                say(f"{workplace.home}: http://{host}:{port}{' (read-only)' if read_only else ''}; Ctrl-C ends it.")
                server.run()


@contextlib.contextmanager
def _ended_like_an_interrupt() -> Iterator[None]:
    """SIGTERM and a closed terminal end the block as Ctrl-C does, so that no daemon is left behind."""
    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(one, signal.default_int_handler) for one in signals]
    try:
        yield
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)


@contextlib.contextmanager
def _web_app(read_only: bool) -> Iterator[Any]:
    """Dagster's web server, an ASGI application, with a code server of its own."""
    import dagster as dg
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import ModuleTarget
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    target = ModuleTarget(DEFINITIONS, attribute=None, working_directory=None, location_name=None)
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(
            instance, workspace_load_target=target, version=__version__, read_only=read_only
        ) as context,
    ):
        yield create_app_from_workspace_process_context(context, live_data_poll_rate=2000)


def _server(app: Any, host: str, port: int) -> Any:
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=PATIENCE_SECONDS)
    )


@contextlib.contextmanager
def _daemon(server: Any) -> Iterator[None]:
    """Dagster's daemon for the length of a block. If it ends by itself, so does the server: runs would wait for ever.

    Raises:
        SetupError: It ended by itself.
    """
    program = Path(sys.executable).with_name("dagster-daemon")
    daemon = subprocess.Popen([str(program), "run", "-m", DEFINITIONS])

    def watch() -> None:
        daemon.wait()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
        if daemon.poll() is not None:
            raise SetupError(f"Dagster's daemon ended with {daemon.returncode}, and the web server with it; see above.")
    finally:
        daemon.terminate()
        try:
            daemon.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()


def require_free(host: str, port: int) -> None:
    """Find out whether the web server will get its port, before anything starts: Dagster would go on without it.

    Raises:
        SetupError: Another program listens there, or the host is none of this machine's.
    """
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = places[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port just left is free
            probe.bind(address)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise SetupError(
                f"port {port} of {host} is taken by another program; name a free one by --port, such as "
                f"`nait ui --port {port + 1}`."
            ) from None
        raise SetupError(f"nothing can listen on port {port} of {host} ({error}); see --host and --port.") from None
