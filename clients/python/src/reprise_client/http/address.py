"""Where the service is, and what every request to it carries."""

from __future__ import annotations

import ssl
from urllib.parse import unquote, urlsplit

from .._version import __version__
from ..errors import ConnectFailed


class Address:
    """A service's address: `http://host:port`, `https://host:port` or `unix:/path/to.sock`; the
    first two perhaps with a path before `/v1`, as behind a proxy, and with a token in the place of
    a password."""

    def __init__(
        self, url: str, *, token: str | None = None, ssl_context: ssl.SSLContext | None = None,
        ca_file: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        #: The path of a Unix domain socket, or None.
        self.socket_path: str | None = None
        if parts.scheme == "unix" and parts.path and not parts.netloc:
            self.socket_path = unquote(parts.path)
            parts = urlsplit("http://localhost")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"{_without_secret(url)!r} is no address of the service: it must look like "
                "http://127.0.0.1:8080, https://reprise.example.com or unix:/run/reprise.sock"
            )
        if parts.query or parts.fragment:
            raise ValueError(f"the address {_without_secret(url)!r} has a query or a fragment")
        self.is_tls = parts.scheme == "https"
        self.host = parts.hostname
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise ValueError(f"the port of {_without_secret(url)!r} is not a number "
                             "from 1 to 65535")
        self.port = port or (443 if self.is_tls else 80)
        try:
            #: The host's name as the certificate and the `Host` field have it.
            self.ascii_host = self.host.encode("idna").decode("ascii")
        except UnicodeError:
            self.ascii_host = ""
        if not all("!" <= character <= "~" for character in self.ascii_host or " "):
            raise ValueError(f"the host of {_without_secret(url)!r} is not a name or an address")
        self.prefix = parts.path.rstrip("/")
        if not all("!" <= character <= "~" for character in self.prefix):
            raise ValueError(
                f"the path of {_without_secret(url)!r} has a character that must be "
                "percent-encoded; see urllib.parse.quote")
        token = token or (unquote(parts.password) if parts.password else None)
        if token is not None and (not token.isascii() or not token.isprintable() or " " in token):
            raise ValueError("the token has characters that no token has; is it complete?")
        self._token = token
        self._ssl_context = ssl_context
        self._ca_file = ca_file
        self.common = self._common_fields()

    @property
    def url(self) -> str:
        """The address without a token."""
        if self.socket_path is not None:
            return f"unix:{self.socket_path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme, usual = ("https", 443) if self.is_tls else ("http", 80)
        port = "" if self.port == usual else f":{self.port}"
        return f"{scheme}://{host}{port}{self.prefix}"

    def tls(self) -> ssl.SSLContext | None:
        """The context for TLS, made when it is first needed; None for plain HTTP."""
        if not self.is_tls:
            return None
        if self._ssl_context is None:
            try:
                self._ssl_context = ssl.create_default_context(cafile=self._ca_file)
            except OSError as error:
                raise ConnectFailed(
                    f"the certificates of ca_file={self._ca_file!r} cannot be read: "
                    f"{error.strerror or error}"
                ) from None
        return self._ssl_context

    def _common_fields(self) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.ascii_host
        usual = 443 if self.is_tls else 80
        lines = [f"Host: {host}" if self.port == usual else f"Host: {host}:{self.port}",
                 f"User-Agent: reprise-client/{__version__}"]
        if self._token:
            lines.append(f"Authorization: Bearer {self._token}")
        return ("\r\n".join(lines) + "\r\n").encode("ascii")

    def __repr__(self) -> str:
        return f"Address({self.url!r})"


def _without_secret(url: str) -> str:
    before, at, after = url.rpartition("@")
    if not at:
        return url
    scheme, slashes, _ = before.partition("//")
    return f"{scheme}//…@{after}" if slashes else f"…@{after}"


__all__ = ["Address"]
