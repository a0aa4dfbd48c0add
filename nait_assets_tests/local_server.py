"""An HTTP server on this machine for tests of clients."""

import sys
from http.server import ThreadingHTTPServer
from typing import Any


class LocalServer(ThreadingHTTPServer):
    """A server that does not mind a client that goes away.

    Its threads may end after their test. The standard library's would print a traceback into whatever test has its
    standard error captured by then.
    """

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what is not the connection's end."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
