"""The section [store]: where sessions and subscribers are kept over a restart."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rtpfanout.config.types import Expected


def _parse_path(value: object) -> object:
    if isinstance(value, str) and (not value.strip() or "\0" in value):
        raise ValueError(f"{value!r} is not a path")
    return value


StorePath = Annotated[str, BeforeValidator(_parse_path), Expected('a path, "auto" or ":memory:"')]


class StoreSettings(BaseModel):
    """A SQLite file that one server has to itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: StorePath = Field(
        default="auto",
        description="The file that sessions and subscribers are kept in over a restart. auto is "
        "sessions-PORT.db in $STATE_DIRECTORY, for root in /var/lib/rtpfanout, else in "
        "~/.local/state/rtpfanout. :memory: keeps nothing, and neither does auto at port 0.",
    )
