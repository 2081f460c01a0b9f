"""Configuration: what can be set (`settings`), where values come from (`load`), TOML (`text`).

Flags win over environment, environment over file, file over defaults.
"""

from rtpfanout.config.live import LIVE_KEYS, changed_keys, live_settings
from rtpfanout.config.load import LoadedSettings, load_settings
from rtpfanout.config.sections import AddressPolicySettings, LogSettings
from rtpfanout.config.settings import ENV_PREFIX, Settings, leaf_fields
from rtpfanout.config.text import (
    annotated_toml,
    assignments,
    example_toml,
    plain_values,
    settings_to_toml,
)

__all__ = [
    "ENV_PREFIX",
    "LIVE_KEYS",
    "AddressPolicySettings",
    "LoadedSettings",
    "LogSettings",
    "Settings",
    "annotated_toml",
    "assignments",
    "changed_keys",
    "example_toml",
    "leaf_fields",
    "live_settings",
    "load_settings",
    "plain_values",
    "settings_to_toml",
]
