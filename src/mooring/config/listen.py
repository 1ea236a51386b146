"""The section `listen` of the settings: where clients connect, and what is in front."""

from dataclasses import dataclass

from mooring.errors import ConfigError

from .option import HOUR, Section, check_host, check_inherited, check_mode, check_networks, check_path, option


@dataclass(frozen=True)
class Listen(Section):
    """Where clients connect."""

    host: str = option("127.0.0.1", "Address or name to listen on; `0.0.0.0` for every interface.", check=check_host)
    port: int = option(9501, "TCP port; 0 lets the kernel choose one.", bounds=(0, 65535))
    backlog: int = option(
        2048, "Connections the kernel keeps until they are accepted.", "connections", bounds=(1, 65535)
    )
    ipv6_only: bool = option(
        False, "With the host `::`: IPv6 clients only. Otherwise `::` is every address, IPv4 included."
    )
    reuse_port: bool = option(
        False,
        "Share the port with other servers of this user that ask for it too (SO_REUSEPORT), so that a new one can "
        "start before an old one stops. Clients that the kernel has given to a server that stops may be lost.",
    )
    unix_socket: str = option(
        "",
        "Path of a Unix socket to listen on instead of a port. One that a dead server has left is replaced; anything "
        "else there is left alone, and the start fails.",
        check=check_path,
    )
    unix_socket_mode: int = option(
        0o600, "Its permissions; who may write may connect.", shown="0o600", check=check_mode
    )
    unix_socket_owner: str = option(
        "", 'Its owner: `"user:group"`, `"user"` or `":group"`, names or numbers; empty: the user of the server.'
    )
    inherited: str = option(
        "",
        "A socket that somebody else has bound and this process inherits: `fd://3`, or from systemd's socket "
        "activation `systemd` (the only one) or `systemd:NAME` (FileDescriptorName= of its unit).",
        check=check_inherited,
    )

    proxy_protocol: str = option(
        "off",
        "Every connection begins with a header of the PROXY protocol in that version, in which a proxy says who the "
        "client is. Without one, or with a malformed one, it is closed.",
        choices=("off", "v1", "v2", "any"),
    )
    proxy_protocol_from: tuple[str, ...] = option(
        (),
        "Who may connect then, such as `10.0.0.0/8`, or `unix`: whoever can open the Unix socket. Others are closed.",
        "networks",
        check=check_networks,
    )
    proxy_protocol_timeout: float = option(
        5.0, "How long that header may take to arrive; then the connection is closed.", "s", bounds=(0.1, HOUR)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.proxy_protocol != "off" and not self.proxy_protocol_from:
            raise ConfigError(
                f"proxy_protocol={self.proxy_protocol!r} needs proxy_protocol_from, the networks of the proxies: "
                "anybody else could claim any address"
            )
        if self.unix_socket and self.inherited:
            raise ConfigError(
                f"unix_socket={self.unix_socket!r} and inherited={self.inherited!r}: a listener is one of them; "
                "remove one, or give it to listen()"
            )
