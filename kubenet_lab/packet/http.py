"""HTTP/1.1 messages as bytes: what a health check or `curl` sends, and what a small server answers (RFC 9112)."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

PHRASES = {
    200: "OK",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}
"""Reason phrases of the statuses that are used here (RFC 9110, 15)."""

METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH")


class Request(Struct, frozen=True):
    """A request's line and header fields; names of fields are in lower case."""

    method: str = "GET"
    path: str = "/"
    fields: Mapping[str, str] = {}

    @classmethod
    def from_bytes(cls, data: bytes) -> Request | None:
        """Read a request; None for bytes that are none."""
        head = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        words = head[0].split(" ")
        if len(words) != 3 or words[0].encode() not in METHODS or not words[2].startswith("HTTP/1."):
            return None
        pairs = (line.partition(":") for line in head[1:])
        return cls(words[0], words[1], {name.lower(): value.strip() for name, _, value in pairs})

    def to_bytes(self) -> bytes:
        """The request without a body, as it goes over the wire."""
        fields = "".join(f"{name.title()}: {value}\r\n" for name, value in self.fields.items())
        return f"{self.method} {self.path} HTTP/1.1\r\n{fields}\r\n".encode()


class Response(Struct, frozen=True):
    """A response: status, header fields in order, body."""

    status: int = 200
    fields: tuple[tuple[str, str], ...] = ()
    body: str = ""

    @property
    def line(self) -> str:
        """ "HTTP/1.1 200 OK"."""
        return f"HTTP/1.1 {self.status} {PHRASES.get(self.status, '')}".rstrip()

    def __str__(self) -> str:
        return self.line

    def field(self, name: str) -> str:
        """Return a header field's value whatever the case of its name, "" when there is none."""
        return next((value for known, value in self.fields if known.lower() == name.lower()), "")

    @classmethod
    def from_bytes(cls, data: bytes) -> Response | None:
        """Read a response; None for bytes that are none."""
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ", 2)
        if not words[0].startswith("HTTP/1.") or len(words) < 2 or not words[1].isdecimal():
            return None
        pairs = (line.partition(":") for line in lines[1:])
        fields = tuple((name, value.strip()) for name, _, value in pairs)
        return cls(int(words[1]), fields, body.decode(errors="replace"))

    def to_bytes(self) -> bytes:
        """The response as it goes over the wire."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.fields)
        return f"{self.line}\r\n{fields}\r\n{self.body}".encode()
