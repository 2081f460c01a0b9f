"""Control datagrams: a source that moved, receivers that consent, join and leave."""

from rtpfanout.doorman.desk import Doorman

__all__ = ["Doorman"]
