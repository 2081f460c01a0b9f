"""What can be configured: each key's name, default, bounds and meaning, stated once.

Messages, `config example` and config/server.toml are made from these fields.
"""

import ipaddress
from typing import Self, get_args

from annotated_types import Ge, Le
from pydantic import BaseModel, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from rtpfanout.config.sections import (
    AddressPolicySettings,
    AuthSettings,
    ConsentSettings,
    EventSettings,
    LimitsSettings,
    LogSettings,
    OverloadSettings,
    StoreSettings,
    TlsSettings,
)
from rtpfanout.config.types import (
    Cpus,
    Endpoint,
    Expected,
    Groups,
    IpText,
    LabelKeys,
    Number,
    OptionalEndpoint,
    Ports,
    Seconds,
    Switch,
    Text,
    number,
    setting,
)
from rtpfanout.model import MOST_WORKERS, Address
from rtpfanout.portrange import PortRange

ENV_PREFIX = "RTP_FANOUT__"


class ConflictError(ValueError):
    """Values that are fine alone but not together: (key, sentence about it) for each."""

    def __init__(self, conflicts: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(sentence for _key, sentence in conflicts))
        self.conflicts = conflicts


class Settings(BaseSettings):
    """A checked configuration.

    Built from its arguments and the defaults alone; `load_settings` adds the file, the
    environment and the flags, and knows which value came from where.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    bind_address: Endpoint = setting(
        Address.parse("0.0.0.0:5004"),
        "Where RTP is received, and the address that copies are sent from (UDP). [::]:5004 takes "
        "and sends both IPv4 and IPv6. Port 0 takes any free port.",
    )
    max_sessions: Number = number(10_000, (1, 1_000_000), "Sessions that can exist at a time.")
    max_fanout_per_session: Number = number(
        1_000, (1, 100_000), "Subscribers that one session can have."
    )
    buffer_size: Number = number(
        65_536,
        (64, 16_777_216),
        "Packets the receive queue can hold. The kernel's socket buffer is sized from it, as far "
        "as net.core.rmem_max allows.",
    )
    workers: Number = number(
        0,
        (0, MOST_WORKERS),
        "Threads that receive and send packets. 0: one for each CPU this process may use.",
    )
    worker_cpus: Cpus = setting(
        (),
        "CPUs that the workers are pinned to, in turn: [2, 3] puts four workers on 2, 3, 2, 3. "
        "Empty: where workers is 0 each has its own unless other programs use it too; else the "
        "kernel places them.",
    )
    split_threshold: Number = number(
        256,
        (2, 1_000_000),
        "When the packets received at a time make at least this many sends, idle workers take a "
        "part of them.",
    )
    busy_poll_us: Number = number(
        0,
        (0, 1_000_000),
        "Microseconds a worker goes on looking for packets before it sleeps: lower latency for CPU "
        "time. 0: it sleeps at once.",
    )
    session_timeout_secs: Seconds = number(
        300,
        (0, 30 * 86_400),
        "A session without a name is deleted when no packet came for this many seconds. "
        "0: never. A session's own idle_timeout_secs goes before.",
    )
    check_padding: Switch = setting(
        True,
        "Drop packets with an impossible padding count (RFC 3550 A.1). Set false where sources "
        "send SRTP, whose padding count is encrypted.",
    )
    segmentation: Switch = setting(
        True,
        "Let the kernel or the network interface cut a frame into packets (UDP_SEGMENT). false, "
        "for an interface that does it wrong: each copy is sent by itself, for several times the "
        "CPU time.",
    )
    ingest_groups: Groups = setting(
        (),
        "Multicast groups to join and receive, each GROUP, GROUP%INTERFACE or "
        "SOURCE@GROUP%INTERFACE; without an interface, where the routing table says. No other "
        "multicast is received then. Empty: join none, and receive what others on this host have "
        "joined.",
    )
    enable_rtcp_port: Switch = setting(
        True,
        "Take RTCP on the port behind that of bind_address, too (RFC 3550 section 11). On "
        "bind_address it is taken in any case (RFC 5761). false: leave that port to others.",
    )
    ingest_ports: Ports = setting(
        PortRange(),
        "UDP ports that sessions may have as their own, a range such as 6000-7999: two for each, "
        "RTP and behind it RTCP. Whoever a session's source may be feeds it there, whatever his "
        "SSRC. Empty: none.",
    )
    path_mtu_discovery: Switch = setting(
        False,
        "Believe what ICMP says of a path's MTU. false: packets leave as long as the interface "
        'takes, without "don\'t fragment", and no ICMP message, which may be forged or be lost, '
        "has a say. true where IPv6 subscribers are behind links of a smaller MTU.",
    )
    egress_address: IpText = setting(
        "",
        "Address of this host that copies leave from, where bind_address is all of them, to "
        "subscribers of its family that have not joined or consented by themselves; those are "
        "served from the address that they spoke to. Empty: the one that the session's source "
        "speaks to, if it is of the interface the subscriber is reached by; else the kernel "
        "chooses.",
    )
    enable_metrics: Switch = setting(True, "Serve /metrics, /healthz and /readyz over HTTP.")
    metrics_bind_address: Endpoint = setting(
        Address.parse("0.0.0.0:9090"), "Where metrics and health are served (TCP)."
    )
    enable_page: Switch = setting(
        True,
        "Serve a page about the sessions to browsers, at / of metrics_bind_address. Where that is "
        "no loopback address it is for browsers on this host, and for tokens of auth.jwt_keys.",
    )
    metrics_session_labels: LabelKeys = setting(
        (),
        "Labels of sessions that the series of /metrics/sessions have as well, by their keys, 8 at "
        'the most: ["vehicle"] makes label_vehicle="rover-7".',
    )
    grpc_bind_address: Endpoint = setting(
        Address.parse("127.0.0.1:50051"),
        "Where the gRPC control API is served (TCP). Beyond loopback it needs TLS with "
        "tls.client_ca or auth.jwt_keys, or insecure = true.",
    )
    grpc_unix_socket: Text = setting(
        "",
        "Serve the control API on this Unix socket as well; whoever can open it (owner and group) "
        "may do everything. Empty: don't.",
    )
    insecure: Switch = setting(
        False,
        "Let the control API listen beyond loopback without TLS and credentials: whoever reaches "
        "it can aim traffic at any address the policy allows. The same of rtsp_bind_address, which "
        "then takes clients without TLS, too.",
    )
    rtsp_bind_address: OptionalEndpoint = setting(
        None,
        "Where players find sessions by rtsp://HOST:PORT/NAME (TCP), such as 0.0.0.0:8554; with "
        "tls.certificate by rtsps://. Beyond loopback it needs auth.jwt_keys or tls.client_ca, or "
        "insecure = true. Empty: nowhere.",
    )
    enable_supervisor: Switch = setting(
        True,
        "Run the server as the child of a small supervisor, which holds the ingress sockets: a "
        "crash or an upgrade of the server then loses no packet.",
    )
    drain_secs: Seconds = number(
        0,
        (0, 3600),
        "Seconds after SIGTERM in which packets still flow while health says that the server is "
        "about to go.",
    )
    tls: TlsSettings = TlsSettings()
    auth: AuthSettings = AuthSettings()
    address_policy: AddressPolicySettings = AddressPolicySettings()
    consent: ConsentSettings = ConsentSettings()
    limits: LimitsSettings = LimitsSettings()
    store: StoreSettings = StoreSettings()
    overload: OverloadSettings = OverloadSettings()
    events: EventSettings = EventSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The constructor reads nothing from around it."""
        return (init_settings,)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        conflicts = []
        if not (self.grpc_bind_address.ip.is_loopback or self.insecure or self._is_closed):
            reason = (
                "is beyond loopback: expected a loopback address, or tls.certificate together with "
                "tls.client_ca or auth.jwt_keys, or insecure = true"
            )
            conflicts.append(self._conflict("grpc_bind_address", reason))
        if reason := self._rtsp_fault():
            conflicts.append(self._conflict("rtsp_bind_address", reason))
        if bool(self.tls.certificate) != bool(self.tls.key):
            given, missing = (
                ("certificate", "key") if self.tls.certificate else ("key", "certificate")
            )
            conflicts.append((f"tls.{missing}", f"tls.{missing} is missing beside tls.{given}"))
        if self.tls.client_ca and not self.tls.certificate:
            conflicts.append(("tls.certificate", "tls.certificate is missing beside tls.client_ca"))
        if self.events.webhook_secret and not self.events.webhook:
            missing = "events.webhook is missing beside events.webhook_secret"
            conflicts.append(("events.webhook", missing))
        if self.enable_metrics and _overlap(self.grpc_bind_address, self.metrics_bind_address):
            # Blame the one that was set, if only one was.
            keys = ("grpc_bind_address", "metrics_bind_address")
            other, key = sorted(keys, key=lambda key: key in self.model_fields_set)
            reason = f"is in use for {other} = {getattr(self, other)}: expected another port"
            conflicts.append(self._conflict(key, reason))
        deaf = [str(g) for g in self.ingest_groups if not g.comes_to(self.bind_address.ip)]
        if deaf:
            sentence = (
                f"ingest_groups: {', '.join(deaf)} can't come to bind_address = "
                f'"{self.bind_address}": expected 0.0.0.0 there, or [::], which IPv6 needs'
            )
            conflicts.append(("ingest_groups", sentence))
        if inside := [port for port in self._main_ports if self.ingest_ports.holds(port)]:
            reason = f"has {inside[0]}, which is for bind_address: expected others"
            conflicts.append(self._conflict("ingest_ports", reason))
        if self.enable_rtcp_port and self.bind_address.port == 65535:
            reason = "has no port behind it for RTCP: expected another, or enable_rtcp_port = false"
            conflicts.append(self._conflict("bind_address", reason))
        if reason := self._egress_fault():
            conflicts.append(self._conflict("egress_address", reason))
        if conflicts:
            raise ConflictError(conflicts)
        return self

    def _rtsp_fault(self) -> str:
        """Why there can be no RTSP door at rtsp_bind_address, or nothing."""
        door = self.rtsp_bind_address
        if door is None:
            return ""
        if not (door.ip.is_loopback or self.insecure or self.auth.jwt_keys or self.tls.client_ca):
            return (
                "is beyond loopback: expected a loopback address, or auth.jwt_keys or"
                " tls.client_ca, or insecure = true"
            )
        others = {"grpc_bind_address": self.grpc_bind_address}
        if self.enable_metrics:
            others["metrics_bind_address"] = self.metrics_bind_address
        for key, address in others.items():
            if _overlap(door, address):
                return f"is in use for {key} = {address}: expected another port"
        return ""

    def _egress_fault(self) -> str:
        """Why no copy can leave from egress_address, or nothing."""
        if not self.egress_address:
            return ""
        ip, bound = ipaddress.ip_address(self.egress_address), self.bind_address.ip
        if ip.version > bound.version:
            return f"is IPv6, which bind_address = {self.bind_address} can't send"
        if not bound.is_unspecified and ip != bound:
            return f"is not what bind_address = {self.bind_address} sends from: leave it empty"
        return ""

    @property
    def _main_ports(self) -> list[int]:
        """That are known before they are bound."""
        port = self.bind_address.port
        return [port, port + 1][: 1 + self.enable_rtcp_port] if port else []

    @property
    def _is_closed(self) -> bool:
        """Callers have to show who they are, and nobody on the way can read or change it."""
        return bool(self.tls.certificate and (self.tls.client_ca or self.auth.jwt_keys))

    def _conflict(self, key: str, reason: str) -> tuple[str, str]:
        return key, f'{key} = "{getattr(self, key)}" {reason}'


def _overlap(one: Address, other: Address) -> bool:
    """True if two TCP listeners cannot have both addresses."""
    if one.port != other.port or one.port == 0:
        return False
    return one.ip == other.ip or _covers(one, other) or _covers(other, one)


def _covers(wildcard: Address, other: Address) -> bool:
    # [::] is dual stack: it takes the port for IPv4 as well.
    return wildcard.ip.is_unspecified and wildcard.ip.version >= other.ip.version


def leaf_fields() -> dict[str, FieldInfo]:
    """Every key in dotted form, such as ``log.level``, in the order of the example."""
    leaves = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for inner, inner_field in field.annotation.model_fields.items():
                leaves[f"{name}.{inner}"] = inner_field
        else:
            leaves[name] = field
    return leaves


def expected(field: FieldInfo) -> str:
    """What a value of `field` must be, in words."""
    bounds = {type(item): item for item in field.metadata}
    if Expected in bounds:
        return str(bounds[Expected].text)
    if Ge in bounds:
        what = "a whole number" if field.annotation is int else "a number"
        return f"{what} from {bounds[Ge].ge} to {bounds[Le].le}"
    words = get_args(field.annotation)
    return f"{', '.join(words[:-1])} or {words[-1]}"
