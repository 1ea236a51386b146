"""What a gateway does differently from listener to listener."""

import contextlib
import os
from pathlib import Path
from typing import Any

from mooring.config import Settings
from mooring.gateway.extensions import Compression
from mooring.gateway.forwarded import TrustedProxies
from mooring.gateway.handshake import Policy
from mooring.gateway.preface import ProxyPreface
from mooring.net.refusals import RefusalLog
from mooring.net.tls import new_context
from mooring.roles import gateways

FRAGMENTS, FRAGMENT = 1024, 64  # so many, or one for so many bytes of a message; a fragment costs no memory of its own


def profile(settings: Settings, refusals: RefusalLog) -> dict[str, Any]:
    """What these settings mean for the connections of a listener."""
    http, flow, websocket = settings.http, settings.flow, settings.websocket
    return {
        "max_message": websocket.max_message_size,
        "max_fragments": websocket.max_fragments or max(FRAGMENTS, websocket.max_message_size // FRAGMENT),
        "write_limit": flow.write_limit,
        "high_water": flow.write_high_water,
        "request_timeout": http.header_timeout,
        "body_rate": http.body_min_rate,
        "body_grace": http.body_grace,
        "idle_timeout": http.keepalive_timeout,
        "write_timeout": flow.write_timeout,
        "write_rate": flow.write_min_rate,
        "close_timeout": websocket.close_timeout,
        "ping_interval": websocket.ping_interval,
        "pong_timeout": websocket.pong_timeout,
        "heartbeat_idle_time": websocket.heartbeat_idle_time,
        "message_rate": flow.message_rate,
        "message_burst": flow.message_burst,
        "control_limit": websocket.control_frame_limit,
        "unmasked": websocket.unmasked_control_frames,
        "open_ping": websocket.open_websocket_ping_frame,
        "open_pong": websocket.open_websocket_pong_frame,
        "open_close": websocket.open_websocket_close_frame,
        "records": flow.close_records != "off",
        "preface": ProxyPreface(settings.listen, refusals) if settings.listen.proxy_protocol != "off" else None,
        "preface_timeout": settings.listen.proxy_protocol_timeout,
        "tls": new_context(settings.tls),
        "tls_timeout": settings.tls.ssl_handshake_timeout,
        "http": {
            "line_limit": http.request_line_limit,
            "field_limit": http.header_field_limit,
            "head_limit": http.header_limit,
            "field_count_limit": http.header_count_limit,
            "body_limit": http.body_limit,
            "stream_above": http.stream_body_above if http.stream_request_body else -1,
        },
    }


def buffer_limit(settings: Settings) -> int:
    """Bytes that may be kept for the clients of one gateway, all together: what is set, or its share of a quarter of
    the memory that this machine, or its control group, has."""
    if settings.flow.buffer_limit:
        return settings.flow.buffer_limit
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, ValueError):  # "max", or no control groups here
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(sizes) // 4 // gateways(settings)


class Rules:
    """How requests and handshakes of the connections of one listener are judged."""

    def __init__(self, settings: Settings) -> None:
        websocket = settings.websocket
        self.policy = Policy(
            subprotocols=websocket.subprotocols,
            check_origin=websocket.check_origin,
            allowed_origins=websocket.allowed_origins,
            scheme="https" if settings.tls.ssl_cert_file else "http",
            compression=Compression(
                websocket.compression_window_bits,
                websocket.compression_window_bits,
                websocket.server_context_takeover,
                websocket.client_context_takeover,
            )
            if websocket.websocket_compression
            else None,
        )
        self.deflate = {
            "limit": websocket.max_message_size,
            "ratio": websocket.inflate_ratio,
            "threshold": websocket.compression_threshold,
            "level": websocket.compression_level,
            "memory": websocket.compression_memory,
        }
        self.proxies = TrustedProxies(settings.http.trusted_proxies)
        self.server_header = settings.http.server_header
        self.connection_rate = settings.flow.max_connection_rate
        self.asks_certificates = settings.tls.ssl_verify_client != "off"
        # the dot that makes a name absolute changes nothing about whose it is (RFC 3986 section 3.2.2)
        self._hosts = frozenset([host.removesuffix(".") for host in settings.http.allowed_hosts])

    def allows_host(self, headers: list[tuple[str, str]]) -> bool:
        """Whether a request may be for the host that it names."""
        if not self._hosts:
            return True
        host = next((value for name, value in headers if name == "host"), "").lower()
        if not host.endswith("]"):  # else an IPv6 address without a port
            host = (host.rpartition(":")[0] or host).removesuffix(".")
        if host in self._hosts:
            return True
        labels = host.split(".")
        return any("*." + ".".join(labels[at:]) in self._hosts for at in range(1, len(labels)))
