"""The section [limits]: how many subscribers there may be beside max_fanout_per_session."""

from pydantic import BaseModel, ConfigDict, Field

from rtpfanout.config.types import Number


class LimitsSettings(BaseModel):
    """Caps over all sessions. What is beyond is refused with RESOURCE_EXHAUSTED."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_subscribers: Number = Field(
        default=10_000_000,
        ge=1,
        le=100_000_000,
        description="Subscribers of all sessions together.",
    )
    max_subscribers_per_ip: Number = Field(
        default=0,
        ge=0,
        le=100_000_000,
        description="Subscriptions of one IP address, over all sessions and ports. 0: any number.",
    )
