"""`rtpfanout serve`: run the server in the foreground."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rtpfanout.errors import StartError


def serve(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file; without it RTP_FANOUT_CONFIG, config/server.toml or /etc/rtp-fanout.",
        ),
    ] = None,
    bind_address: Annotated[
        str | None,
        typer.Option(metavar="IP:PORT", help="Where RTP comes in, and copies leave from."),
    ] = None,
    max_sessions: Annotated[
        int | None, typer.Option(help="Sessions that can exist at a time.")
    ] = None,
    max_fanout_per_session: Annotated[
        int | None, typer.Option(help="Subscribers that one session can have.")
    ] = None,
    buffer_size: Annotated[
        int | None, typer.Option(help="Packets the receive queue can hold.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads for packets; 0: one for each CPU.")
    ] = None,
    worker_cpus: Annotated[
        str | None, typer.Option(metavar="LIST", help="CPUs to pin the workers to, such as 2,3.")
    ] = None,
    ingest_groups: Annotated[
        str | None,
        typer.Option(metavar="LIST", help='Multicast to join: "239.1.2.3,ff15::7%eth0".'),
    ] = None,
    split_threshold: Annotated[
        int | None, typer.Option(help="Sends at a time from which idle workers take a part.")
    ] = None,
    busy_poll_us: Annotated[
        int | None, typer.Option(help="Look for packets this long before sleeping.")
    ] = None,
    session_timeout_secs: Annotated[
        float | None, typer.Option(help="Sessions without packets for this long expire; 0: never.")
    ] = None,
    check_padding: Annotated[
        bool | None,
        typer.Option(
            "--check-padding/--no-check-padding",
            help="Drop packets with an impossible padding count; not for SRTP.",
        ),
    ] = None,
    segmentation: Annotated[
        bool | None,
        typer.Option(
            "--segmentation/--no-segmentation",
            help="Let the kernel or the interface cut a frame into packets.",
        ),
    ] = None,
    path_mtu_discovery: Annotated[
        bool | None,
        typer.Option(
            "--path-mtu-discovery/--no-path-mtu-discovery",
            help="Believe what ICMP says of a path's MTU.",
        ),
    ] = None,
    egress_address: Annotated[
        str | None,
        typer.Option(metavar="IP", help="Address of this host that copies leave from."),
    ] = None,
    enable_metrics: Annotated[
        bool | None,
        typer.Option(
            "--enable-metrics/--no-enable-metrics", help="Serve metrics and health over HTTP."
        ),
    ] = None,
    metrics_bind_address: Annotated[
        str | None, typer.Option(metavar="IP:PORT", help="Where metrics and health are served.")
    ] = None,
    grpc_bind_address: Annotated[
        str | None, typer.Option(metavar="IP:PORT", help="Where the control API is served.")
    ] = None,
    grpc_unix_socket: Annotated[
        str | None, typer.Option(metavar="PATH", help="Serve the control API there as well.")
    ] = None,
    tls_certificate: Annotated[
        str | None, typer.Option(metavar="FILE", help="Certificate chain of the control API, PEM.")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Key of that certificate, PEM.")
    ] = None,
    tls_client_ca: Annotated[
        str | None, typer.Option(metavar="FILE", help="Callers need a certificate of it, PEM.")
    ] = None,
    auth_jwt_keys: Annotated[
        str | None, typer.Option(metavar="FILE", help="Keys of bearer tokens: JWKS or PEM.")
    ] = None,
    auth_issuer: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What iss of a token must be.")
    ] = None,
    auth_audience: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What aud of a token must hold.")
    ] = None,
    auth_certificate_roles: Annotated[
        str | None,
        typer.Option(metavar="LIST", help='Such as "wall-2 viewer site=north,* operator".'),
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure/--no-insecure", help="Let the control API listen beyond loopback."
        ),
    ] = None,
    address_policy_allow: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="Networks subscribers may be in; repeat for more."),
    ] = None,
    address_policy_deny: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="Networks subscribers may not be in; repeat for more."),
    ] = None,
    consent_timeout_secs: Annotated[
        float | None,
        typer.Option(help="Send nothing to who must consent and hasn't for this long; 5 to 30."),
    ] = None,
    limits_max_subscribers: Annotated[
        int | None, typer.Option(help="Subscribers of all sessions together.")
    ] = None,
    limits_max_subscribers_per_ip: Annotated[
        int | None, typer.Option(help="Subscriptions of one IP address; 0: any number.")
    ] = None,
    enable_supervisor: Annotated[
        bool | None,
        typer.Option(
            "--enable-supervisor/--no-enable-supervisor",
            help="Run the server under a supervisor, for restarts and upgrades without loss.",
        ),
    ] = None,
    drain_secs: Annotated[
        float | None,
        typer.Option(help="Go on with packets this long after SIGTERM, not ready."),
    ] = None,
    store_path: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="File of the sessions; auto, :memory:."),
    ] = None,
    overload_busy: Annotated[
        float | None, typer.Option(help="Busy share of a worker from which nobody new is taken.")
    ] = None,
    overload_kernel_drops: Annotated[
        float | None, typer.Option(help="Lost datagrams a second from which nobody new is taken.")
    ] = None,
    overload_memory_mib: Annotated[
        int | None, typer.Option(help="Resident MiB from which nobody new is taken; 0: any.")
    ] = None,
    overload_shed: Annotated[
        bool | None,
        typer.Option(
            "--overload-shed/--no-overload-shed",
            help="Shed monitors, then recorders, of sessions that had to drop packets.",
        ),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="auto, console or json.")
    ] = None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C.

    Flags win over environment (RTP_FANOUT__MAX_SESSIONS and so on), environment
    over file, file over defaults. `rtpfanout config example` explains each.
    """
    overrides = {
        "bind_address": bind_address,
        "max_sessions": max_sessions,
        "max_fanout_per_session": max_fanout_per_session,
        "buffer_size": buffer_size,
        "workers": workers,
        "worker_cpus": worker_cpus,
        "ingest_groups": ingest_groups,
        "split_threshold": split_threshold,
        "busy_poll_us": busy_poll_us,
        "session_timeout_secs": session_timeout_secs,
        "check_padding": check_padding,
        "segmentation": segmentation,
        "path_mtu_discovery": path_mtu_discovery,
        "egress_address": egress_address,
        "enable_metrics": enable_metrics,
        "metrics_bind_address": metrics_bind_address,
        "grpc_bind_address": grpc_bind_address,
        "grpc_unix_socket": grpc_unix_socket,
        "tls.certificate": tls_certificate,
        "tls.key": tls_key,
        "tls.client_ca": tls_client_ca,
        "auth.jwt_keys": auth_jwt_keys,
        "auth.issuer": auth_issuer,
        "auth.audience": auth_audience,
        "auth.certificate_roles": auth_certificate_roles,
        "insecure": insecure,
        "address_policy.allow": address_policy_allow or None,
        "address_policy.deny": address_policy_deny or None,
        "consent.timeout_secs": consent_timeout_secs,
        "limits.max_subscribers": limits_max_subscribers,
        "limits.max_subscribers_per_ip": limits_max_subscribers_per_ip,
        "enable_supervisor": enable_supervisor,
        "drain_secs": drain_secs,
        "store.path": store_path,
        "overload.busy": overload_busy,
        "overload.kernel_drops": overload_kernel_drops,
        "overload.memory_mib": overload_memory_mib,
        "overload.shed": overload_shed,
        "log.level": log_level,
        "log.format": log_format,
    }
    raise typer.Exit(_run(config, overrides))


def _run(config: Path | None, overrides: dict[str, Any]) -> int:
    if sys.platform != "linux":
        raise StartError(f"the server runs on Linux only, and this is {sys.platform}")
    from rtpfanout import stderr

    stderr.open_missing()
    from rtpfanout.config import load_settings

    loaded = load_settings(config, overrides)
    for warning in loaded.warnings:
        stderr.write(f"warning: {warning}\n".encode())
    try:
        from rtpfanout import supervisor
    except ImportError as error:  # the extension is not compiled; it says what to do
        raise StartError(str(error)) from None
    return supervisor.run(loaded.settings, lambda: load_settings(config, overrides).settings)
