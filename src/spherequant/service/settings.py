"""What an operator may set, and every bound that keeps one request from harming the others."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from spherequant.errors import ConfigError
from spherequant.system import usable_processors

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
MEGABYTE = 1 << 20
MOST_BATCH = 1_024  # what `max_batch` may be
LEAST_BYTES_PER_SECOND = 4_096  # slower, after the time to stall, is no honest client
_SHORTEST_KEY = 16


@dataclass(frozen=True)
class Settings:
    """Settings of a service.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 lets the system choose.
        read_keys: API keys that may search and read.
        write_keys: API keys that may also change items. No key is needed where there are none of
            either; with these alone, reading needs one of them.
        allowed_hosts: further names under which the service may be asked.
        max_image_bytes: bytes of one uploaded image.
        max_body_bytes: bytes of a whole request.
        max_pixels: width times height of an uploaded image.
        max_k: results in one answer.
        max_offset: results that may be passed over.
        max_batch: items in one request.
        max_rerank: codes that one search may re-rank.
        max_where: characters of a filter.
        max_uploads: images that wait or are worked on at once.
        max_upload_bytes: bytes of all request bodies in memory.
        max_decoded_bytes: bytes of all decoded images in memory.
        max_asks: searches and look-ups that wait at once.
        max_writes: writes that wait at once.
        max_connections: open connections.
        decoders: threads that decode images.
        writers: threads that wait for commits.
        gather_seconds: how long the first image of a batch waits for company.
        answer_seconds: within which a request is answered, once it has been read.
        stall_seconds: within which a client must send or take the next bytes; those buy time,
            no more than this, by ``LEAST_BYTES_PER_SECOND``.
        keep_originals: keep the file of each image that is put.
        refresh_seconds: how often commits of other processes are looked for.
        drain_seconds: how long a shutdown waits for requests under way.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    read_keys: tuple[str, ...] = field(default=(), repr=False)
    write_keys: tuple[str, ...] = field(default=(), repr=False)
    allowed_hosts: tuple[str, ...] = ()
    max_image_bytes: int = 32 * MEGABYTE
    max_body_bytes: int = 64 * MEGABYTE
    max_pixels: int = 64_000_000
    max_k: int = 1_000
    max_offset: int = 10_000
    max_batch: int = 256
    max_rerank: int = 10_000
    max_where: int = 2_000
    max_uploads: int = 256
    max_upload_bytes: int = 512 * MEGABYTE
    max_decoded_bytes: int = 1_024 * MEGABYTE
    max_asks: int = 1_024
    max_writes: int = 512
    max_connections: int = 1_024
    decoders: int = field(default_factory=lambda: min(8, usable_processors()))
    writers: int = 32
    gather_seconds: float = 0.003
    answer_seconds: float = 30.0
    stall_seconds: float = 10.0
    keep_originals: bool = True
    refresh_seconds: float = 2.0
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        self._check_access()
        self._check_bounds()

    def _check_access(self) -> None:
        for key in (*self.read_keys, *self.write_keys):
            if len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable():
                raise ConfigError(
                    f"an API key has at least {_SHORTEST_KEY} printable ASCII characters; make one "
                    'with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
                )
        if self.exposed and not self.read_keys:
            raise ConfigError(
                f"{self.host} can be reached from other machines: set a key for reading first, in "
                "SPHEREQUANT_READ_KEY or by --read-keys FILE, and one for writing where items are "
                "to be changed, in SPHEREQUANT_WRITE_KEY or by --write-keys FILE; or listen on "
                "127.0.0.1."
            )
        for name in self.allowed_hosts:
            if not name or ":" in name.rpartition("]")[2] or "/" in name:
                raise ConfigError(f"--allowed-host takes a name without port or path, not {name!r}")

    def _check_bounds(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"a port lies between 0 and 65535, not {self.port}")
        for name in ("max_image_bytes", "max_pixels", "max_uploads", "refresh_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}")
        if not self.max_image_bytes <= self.max_body_bytes <= self.max_upload_bytes:
            raise ConfigError(
                "an image must fit a body, and a body what is held of all: max_image_bytes "
                f"{self.max_image_bytes:,} <= max_body_bytes {self.max_body_bytes:,} <= "
                f"max_upload_bytes {self.max_upload_bytes:,}"
            )
        if not 0 < self.max_batch <= MOST_BATCH:
            raise ConfigError(f"max_batch lies between 1 and {MOST_BATCH}, not {self.max_batch}")

    @property
    def exposed(self) -> bool:
        """Whether others than this machine's users can ask."""
        return not is_loopback(self.host) or any(
            name not in LOOPBACK_NAMES for name in self.allowed_hosts
        )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
