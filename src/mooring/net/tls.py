"""TLS contexts from settings: what is spoken, with which certificate, and when it is read again.

Certificates expire while servers run. `Certificates` looks at the files (their time, size and inode) and makes new
contexts when one has changed; connections keep the one they began with. A file that is broken leaves the old context in
service, with one line in the log.
"""

import os
import ssl
from collections.abc import Callable
from typing import Any

from mooring.config.tls import Tls
from mooring.errors import ConfigError
from mooring.journal import own_logger
from mooring.types import ClientCertificate

log = own_logger("mooring.gateway")

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
VERIFY = {"off": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # RFC 9325 section 4.2; those of TLS 1.3 are not named here

Stamp = tuple[tuple[int, int, int], ...]


def new_context(settings: Tls) -> ssl.SSLContext | None:
    """The context of a listener; None when it has no certificate. Raises ConfigError for files that do not serve."""
    if not settings.ssl_cert_file:
        return None
    context = _one(settings, "ssl_cert_file", settings.ssl_cert_file, settings.ssl_key_file)
    others: dict[str, ssl.SSLContext] = {}
    for entry in settings.ssl_sni:
        name, _, files = entry.partition("=")
        cert, _, key = files.partition(":")
        others[name.lower()] = _one(settings, "ssl_sni", cert, key)

    def choose(session: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        # RFC 6066 section 3: an unknown name is no error here; the client decides whether it likes the certificate
        asked = (name or "").lower().rstrip(".")
        found = others.get(asked) or others.get("*." + asked.partition(".")[2])
        if found is not None:
            session.context = found

    if others:
        context.sni_callback = choose
    return context


def _one(settings: Tls, option: str, cert: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[settings.ssl_minimum_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.set_ciphers(settings.ssl_ciphers or CIPHERS)
    except ssl.SSLError:
        raise ConfigError(f"ssl_ciphers={settings.ssl_ciphers!r}: OpenSSL knows no such suites") from None
    try:
        context.load_cert_chain(cert, key or None, password=_no_password)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{option}: {cert}{' with ' + key if key else ''} cannot be used: {why(error)}") from None
    if settings.ssl_verify_client != "off":
        try:
            context.load_verify_locations(settings.ssl_client_ca_file)
        except OSError as error:
            raise ConfigError(
                f"ssl_client_ca_file: {settings.ssl_client_ca_file} cannot be used: {why(error)}"
            ) from None
        context.verify_mode = VERIFY[settings.ssl_verify_client]
    return context


def shown_certificate(session: ssl.SSLObject) -> ClientCertificate | None:
    """The certificate that a client has shown and that was found good."""
    facts: dict[str, Any] = session.getpeercert() or {}
    der = session.getpeercert(binary_form=True)
    if not facts or der is None:
        return None

    def pairs(name: str) -> tuple[tuple[str, str], ...]:
        return tuple((key, value) for part in facts.get(name, ()) for key, value in part)

    return ClientCertificate(
        subject=pairs("subject"),
        issuer=pairs("issuer"),
        serial_number=facts["serialNumber"],
        not_before=float(ssl.cert_time_to_seconds(facts["notBefore"])),
        not_after=float(ssl.cert_time_to_seconds(facts["notAfter"])),
        # a directoryName is a structure of its own
        alternative_names=tuple(
            (kind, name) for kind, name in facts.get("subjectAltName", ()) if isinstance(name, str)
        ),
        der=der,
    )


def _no_password() -> str:
    raise ValueError("the key has a password, which nobody could type when it is read again; store it without")


def why(error: Exception) -> str:
    """What is wrong with a file."""
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "").replace("_", " ").lower()
        if "key values mismatch" in reason:
            return "the key is not that of the certificate"
        return f"it is not valid PEM, or not complete ({reason or error})"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


class Certificates:
    """The files of all listeners, and the contexts made of them.

    `use(listener, context)` is called for each new context, not for the first ones.
    """

    def __init__(self, settings: list[Tls], use: Callable[[int, ssl.SSLContext], None]) -> None:
        self._settings = settings
        self._use = use
        self._stamps = [_stamp(one) for one in settings]

    def __bool__(self) -> bool:
        return any(one.ssl_cert_file for one in self._settings)

    def look(self) -> None:
        """Reads again what has changed."""
        for index, settings in enumerate(self._settings):
            if not settings.ssl_cert_file:
                continue
            stamp = _stamp(settings)
            if stamp == self._stamps[index]:
                continue
            self._stamps[index] = stamp
            try:
                context = new_context(settings)
            except ConfigError as error:
                log.error("the old certificate stays in use: %s", error)
                continue
            assert context is not None
            self._use(index, context)
            log.info("new connections get the certificate of %s as it is now", settings.ssl_cert_file)


def _stamp(settings: Tls) -> Stamp:
    files = [settings.ssl_cert_file, settings.ssl_key_file, settings.ssl_client_ca_file]
    files += [name for entry in settings.ssl_sni for name in entry.partition("=")[2].split(":")]
    found = []
    for name in filter(None, files):
        try:
            status = os.stat(name)
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)
