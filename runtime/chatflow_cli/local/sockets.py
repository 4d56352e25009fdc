"""Ports on this machine: free ones, and one that is held for several gateways. Called by `stack`."""

from __future__ import annotations

import errno
import socket

from chatflow_cli.errors import PortTaken


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def reachable(host: str) -> str:
    """An address at which this machine reaches what listens on `host`."""
    # Compared, not bound.
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


class HeldPort:
    """A port that only this supervisor's gateways can listen on.

    The socket is bound with SO_REUSEPORT and never listens, so the kernel gives all connections to the gateways, which
    bind with SO_REUSEPORT too; a program that does not is refused.
    """

    def __init__(self, host: str, port: int, option: str = "--port") -> None:
        """Take it; 0 takes any free one. PortTaken when somebody else listens there names the `option` to change."""
        port = port or free_port(host)
        try:
            with socket.socket(_family(host)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                probe.listen(1)
            self._socket = socket.socket(_family(host))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.bind((host, port))
        except OSError as error:
            raise PortTaken(_reason(host, port, option, error)) from error
        self.number = port

    def release(self) -> None:
        """Let others have it."""
        self._socket.close()


def _reason(host: str, port: int, option: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken; end the program that listens there, or give another with {option}"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} may not be used; give one above 1023 with {option}"
    return f"cannot listen on {host}:{port} ({error.strerror}); give another --host or {option}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
