"""The section [overload]: when to refuse newcomers, and whether to shed subscribers."""

from pydantic import BaseModel, ConfigDict, Field

from rtpfanout.config.types import Number, Seconds, Switch


class OverloadSettings(BaseModel):
    """High-water marks; below four fifths of a mark for two seconds it is open again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    busy: Seconds = Field(
        default=0.95,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of its time that the busiest worker may be sending before new sessions "
        "and subscribers are refused. 0: not watched.",
    )
    kernel_drops: Seconds = Field(
        default=1,
        ge=0,
        le=1e9,
        allow_inf_nan=False,
        description="Datagrams a second lost in a full receive queue, three seconds in a row and "
        "a thousandth of what comes, before new sessions and subscribers are refused. 0: not "
        "watched.",
    )
    memory_mib: Number = Field(
        default=0,
        ge=0,
        le=1_048_576,
        description="Resident memory in MiB before new sessions and subscribers are refused. 0: "
        "not watched.",
    )
    shed: Switch = Field(
        default=True,
        description="Where packets of a session go on being dropped for overload, stop sending to "
        "some of its subscribers instead: monitors first, then recorders, pilots never.",
    )
