"""Control datagrams: a source that moved, receivers that consent, join and leave."""

from rtpfanout.doorman.desk import Doorman
from rtpfanout.doorman.needs import Mailbox, MoveTarget, Rules

__all__ = ["Doorman", "Mailbox", "MoveTarget", "Rules"]
