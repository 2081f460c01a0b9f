"""Settings from a file and an environment, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtpfanout.config import LoadedSettings, load_settings
from rtpfanout.errors import ConfigError

# The contract: names and defaults. A change here breaks somebody's deployment.
DEFAULTS = {
    "bind_address": "0.0.0.0:5004",
    "max_sessions": 10000,
    "max_fanout_per_session": 1000,
    "buffer_size": 65536,
    "workers": 0,
    "worker_cpus": [],
    "split_threshold": 256,
    "busy_poll_us": 0,
    "session_timeout_secs": 300,
    "check_padding": True,
    "segmentation": True,
    "ingest_groups": [],
    "enable_rtcp_port": True,
    "ingest_ports": "",
    "path_mtu_discovery": False,
    "egress_address": "",
    "enable_metrics": True,
    "enable_page": True,
    "metrics_bind_address": "0.0.0.0:9090",
    "metrics_session_labels": [],
    "grpc_bind_address": "127.0.0.1:50051",
    "grpc_unix_socket": "",
    "insecure": False,
    "rtsp_bind_address": "",
    "enable_supervisor": True,
    "drain_secs": 0,
    "tls.certificate": "",
    "tls.key": "",
    "tls.client_ca": "",
    "auth.jwt_keys": "",
    "auth.issuer": "",
    "auth.audience": "",
    "auth.certificate_roles": [],
    "address_policy.allow": [],
    "address_policy.deny": [],
    "consent.timeout_secs": 30,
    "limits.max_subscribers": 10_000_000,
    "limits.max_subscribers_per_ip": 0,
    "store.path": "auto",
    "overload.busy": 0.95,
    "overload.kernel_drops": 1,
    "overload.memory_mib": 0,
    "overload.shed": True,
    "events.webhook": "",
    "events.webhook_secret": "",
    "events.webhook_kinds": [],
    "log.level": "info",
    "log.format": "auto",
}


def variable(key: str) -> str:
    return "RTP_FANOUT__" + key.upper().replace(".", "__")


def written(text: str, name: str = "server.toml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def loaded(
    text: str = "", environ: dict[str, str] | None = None, **overrides: Any
) -> LoadedSettings:
    return load_settings(written(text) if text else None, overrides, environ or {})


def problems(text: str = "", environ: dict[str, str] | None = None, **overrides: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, environ, **overrides)
    return caught.value.message.splitlines()
