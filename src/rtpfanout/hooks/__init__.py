"""Hooks: events are posted to a URL of the configuration, in order, as long as it takes."""

from rtpfanout.hooks.hook import Hook
from rtpfanout.hooks.signing import Secrets, signature

__all__ = ["Hook", "Secrets", "signature"]
