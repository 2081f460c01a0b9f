"""The section of the configuration about consent (RFC 7675)."""

from pydantic import BaseModel, ConfigDict, Field

from rtpfanout.config.types import Seconds


class ConsentSettings(BaseModel):
    """For sessions with consent = "echo"."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout_secs: Seconds = Field(
        default=30,
        ge=5,
        le=30,
        allow_inf_nan=False,
        description="A subscriber that must consent gets no more packets when its last echo is "
        "this many seconds ago (RFC 7675 asks for 30 at the most).",
    )
