"""The sections of the configuration: keys that stand together, below a name of their own."""

from pydantic import BaseModel, ConfigDict, Field

from rtpfanout.config.types import LogFormat, LogLevel, Networks
from rtpfanout.networks import NetworkSet


class AddressPolicySettings(BaseModel):
    """Where subscribers may be. See `policy` for the rules that always hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow: Networks = Field(
        default=NetworkSet(),
        description="Networks that subscribers may be in; empty: any. Multicast, link-local and "
        "loopback addresses also need an entry inside those ranges here, for instance "
        '["239.0.0.0/8", "0.0.0.0/0", "::/0"] for one multicast range beside all else.',
    )
    deny: Networks = Field(
        default=NetworkSet(),
        description="Networks that subscribers may not be in. Wins over allow.",
    )


class LogSettings(BaseModel):
    """The server's own log, on stderr."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: LogLevel = Field(default="info", description="The least severe level that is logged.")
    format: LogFormat = Field(
        default="auto", description="auto is console on a terminal and json everywhere else."
    )
