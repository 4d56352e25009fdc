"""What a state server's URL names: one server, the primary that sentinels watch, or a cluster. Used by `connection` and
`link`."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from chatflow_runtime.errors import StateError
from chatflow_runtime.state.endpoint import Endpoint
from chatflow_runtime.state.sentinel import Sentinels
from chatflow_runtime.state.topology import Seeds

T = TypeVar("T")

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_SENTINEL_OPTIONS = {"sentinel_password", "sentinel_tls"}


class StateUrlInvalid(StateError):
    """The state server's URL cannot be used."""

    code = "state_url_invalid"


@dataclass(frozen=True, slots=True)
class _Parts:
    """A URL taken apart. `rediss` in front is TLS; `?ssl_ca_certs=FILE` names an authority of one's own."""

    kind: str
    is_tls: bool
    username: str | None
    password: str | None
    hosts: str
    path: str
    options: dict[str, str]

    @property
    def tls(self) -> ssl.SSLContext | None:
        """For the servers."""
        return _tls(self.options.get("ssl_ca_certs")) if self.is_tls else None


def site_of(url: str) -> Endpoint | Sentinels | Seeds:
    """What a URL names. StateUrlInvalid names what is wrong. User and password are percent-encoded, and optional:

    - redis://user:password@host:port/database, rediss:// with TLS, unix://user:password@/path?db=0
    - redis+sentinel://user:password@host:26379,host:26379/name/database: the hosts are the sentinels, `name` is that
      of the primary; user and password are the servers', never the sentinels'. Sentinels with a password of their own,
      or with the same one as the servers, want `?sentinel_password=`. rediss+sentinel:// is TLS to the servers; TLS to
      the sentinels as well is `&sentinel_tls=yes`.
    - redis+cluster://user:password@host:6379,host:6379, rediss+cluster:// with TLS: any nodes of it.
    """
    parts = _split(url)
    match parts.kind:
        case "sentinel":
            return _sentinels(parts)
        case "cluster":
            return _seeds(parts)
        case _:
            return _endpoint(parts)


def _split(url: str) -> _Parts:
    # Neither the error of urlsplit nor its cause is shown: both may hold a part of the password.
    parts = _or_invalid(lambda: urlsplit(url), "it cannot be read; write the password percent-encoded")
    if parts.scheme not in SCHEMES:
        *others, last = (f"{scheme}://" for scheme in SCHEMES)
        raise StateUrlInvalid(f"state server URL: the scheme is {parts.scheme!r}; write {', '.join(others)} or {last}")
    login, _, hosts = parts.netloc.rpartition("@")
    if parts.scheme != "unix" and _is_password_raw(parts):
        raise StateUrlInvalid(
            "state server URL: there is an @ behind the hosts; write / ? # and @ in the password as %2F %3F %23 and %40"
        )
    username, _, password = login.partition(":")
    transport, _, kind = parts.scheme.partition("+")
    # A + is a +: passwords are not written as forms are.
    pairs = (pair.partition("=") for pair in parts.query.split("&") if pair)
    options = {unquote(name): unquote(value) for name, _, value in pairs}
    _check_options(options, {"db", "ssl_ca_certs"} | (_SENTINEL_OPTIONS if kind == "sentinel" else set()))
    return _Parts(
        kind=kind or ("unix" if transport == "unix" else "server"),
        is_tls=transport == "rediss",
        username=unquote(username) or None,
        password=unquote(password) or None,
        hosts=hosts,
        path=unquote(parts.path),
        options=options,
    )


def _is_password_raw(parts: SplitResult) -> bool:
    """Whether a password ended the host part before its time. Options may hold an @ where the host part has its own."""
    return "@" in parts.path + parts.fragment or ("@" in parts.query and "@" not in parts.netloc)


def _check_options(options: dict[str, str], known: set[str]) -> None:
    unknown = sorted(set(options) - known)
    if unknown:
        *others, last = sorted(known)
        # It may be the rest of a password.
        which = "an option" if "sentinel_password" in options else f"option {unknown[0]!r}"
        hint = f"there are {', '.join(others)} and {last}, and & in a password is written %26"
        raise StateUrlInvalid(f"state server URL: {which} is not known; {hint}")


def _endpoint(parts: _Parts) -> Endpoint:
    if parts.kind == "unix":
        database = _database(parts.options.get("db", "0"))
        return Endpoint(path=parts.path, username=parts.username, password=parts.password, database=database)
    return _server(parts, parts.hosts, parts.path.strip("/"), 6379)


def _sentinels(parts: _Parts) -> Sentinels:
    name, _, database = parts.path.strip("/").partition("/")
    if not name:
        raise StateUrlInvalid(
            "state server URL: the primary's name is missing; write it behind the sentinels, "
            f"{'rediss' if parts.is_tls else 'redis'}+sentinel://host:26379/NAME"
        )
    secured = parts.options.get("sentinel_tls", "no")
    if secured not in ("yes", "no"):
        raise StateUrlInvalid(f"state server URL: sentinel_tls is {secured!r}; write yes or no")
    server = _server(parts, "", database, 6379)
    asked = Endpoint(
        password=parts.options.get("sentinel_password"),
        tls=(server.tls or _tls(parts.options.get("ssl_ca_certs"))) if secured == "yes" else None,
    )
    return Sentinels(server, _hosts(parts.hosts, asked, 26379), name)


def _seeds(parts: _Parts) -> Seeds:
    server = _server(parts, "", parts.path.strip("/"), 6379)
    if server.database:
        raise StateUrlInvalid(
            f"state server URL: database {server.database} in a cluster, which has 0 alone; leave it out"
        )
    return Seeds(_hosts(parts.hosts, server, 6379))


def _server(parts: _Parts, host: str, database: str, port: int) -> Endpoint:
    """A server with the URL's credentials."""
    endpoint = Endpoint(
        username=parts.username,
        password=parts.password,
        database=_database(database or parts.options.get("db", "0")),
        tls=parts.tls,
    )
    return _at(host, endpoint, port)


def _hosts(hosts: str, endpoint: Endpoint, port: int) -> tuple[Endpoint, ...]:
    """The endpoint at each of the hosts, which are separated by commas."""
    if not all(host.split(":")[0] for host in hosts.split(",")):
        raise StateUrlInvalid("state server URL: a host is missing; write host:port,host:port")
    return tuple(_at(host, endpoint, port) for host in hosts.split(","))


def _at(where: str, endpoint: Endpoint, port: int) -> Endpoint:
    parts = _or_invalid(lambda: urlsplit(f"//{where}"), f"{where!r} is no host")
    number = _or_invalid(lambda: parts.port, f"{where!r} has no usable port; write a number up to 65535")
    return replace(endpoint, host=parts.hostname or endpoint.host, port=number or port)


def _or_invalid(read: Callable[[], T], complaint: str) -> T:
    try:
        return read()
    except ValueError:
        raise StateUrlInvalid(f"state server URL: {complaint}") from None


def _database(text: str) -> int:
    if not text.isdecimal():
        raise StateUrlInvalid(f"state server URL: database {text!r} is no number")
    return int(text)


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise StateUrlInvalid(f"state server URL: cannot read ssl_ca_certs={ca_file} ({error.strerror})") from error
