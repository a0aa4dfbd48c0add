"""`nait ui`: Dagster's web server and daemon on the home."""

import errno
import os
import socket
import sys
from pathlib import Path

import click

from nait_assets.cli.home import opened
from nait_assets.cli.options import home_option, recipe_option
from nait_assets.errors import SetupError


@click.command("ui")
@recipe_option
@home_option
@click.option("--port", default=3000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
def command(recipe_path: Path | None, home: Path | None, port: int, host: str) -> None:
    """Start Dagster's web server and daemon on the home's own instance."""
    require_free(host, port)
    with opened(recipe_path, home, writes=True) as workplace:
        environment = {**os.environ, "NAIT_RECIPE": str(workplace.recipe.path), "NAIT_HOME": str(workplace.home)}
    program = Path(sys.executable).with_name("dagster")
    arguments = ["dev", "-m", "nait_assets.definitions", "--host", host, "--port", str(port)]
    os.execve(program, [str(program), *arguments], environment)  # so that Ctrl-C reaches Dagster and nobody else


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
