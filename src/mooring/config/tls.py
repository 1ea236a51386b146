"""The section `tls` of the settings: certificates, and what is asked of clients."""

from dataclasses import dataclass

from mooring.errors import ConfigError

from .option import HOUR, Section, check_path, check_sni, option


@dataclass(frozen=True)
class Tls(Section):
    """TLS on a listener: versions 1.2 and 1.3, HTTP/1.1 by ALPN."""

    ssl_cert_file: str = option(
        "",
        "Certificate chain in PEM; with it clients speak TLS (https and wss), without it they do not. Read again at a "
        "reload, and within seconds when it changes: connections stay, new ones get the new certificate.",
        check=check_path,
    )
    ssl_key_file: str = option(
        "", "Its private key in PEM, without a password; empty: it is in `ssl_cert_file`.", check=check_path
    )
    ssl_sni: tuple[str, ...] = option(
        (),
        "Certificates for other names that a client asks for, each `NAME=CERT` or `NAME=CERT:KEY`, such as "
        '`"example.org=/etc/ssl/org.pem:/etc/ssl/org.key"`; a name can be `*.example.org`.',
        check=check_sni,
    )
    ssl_verify_client: str = option(
        "off",
        "Ask clients for a certificate: `optional` checks those that have one, `required` refuses who has none.",
        choices=("off", "optional", "required"),
    )
    ssl_client_ca_file: str = option(
        "", "Certificates in PEM that may have signed those of clients; for `ssl_verify_client`.", check=check_path
    )
    ssl_minimum_version: str = option("1.2", "The oldest version of TLS that is spoken.", choices=("1.2", "1.3"))
    ssl_ciphers: str = option(
        "", "Cipher suites of TLS 1.2, in OpenSSL's notation; empty: those with forward secrecy and authentication."
    )
    ssl_handshake_timeout: float = option(
        5.0, "How long a handshake may take; then the connection is closed.", "s", bounds=(0.1, HOUR)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ssl_cert_file:
            for name in ("ssl_key_file", "ssl_sni", "ssl_client_ca_file"):
                if getattr(self, name):
                    raise ConfigError(f"{name} needs ssl_cert_file, the certificate of clients that name no other")
            if self.ssl_verify_client != "off":
                raise ConfigError("ssl_verify_client needs ssl_cert_file")
        elif (self.ssl_verify_client != "off") != bool(self.ssl_client_ca_file):
            raise ConfigError("ssl_verify_client and ssl_client_ca_file go together")
