"""The RTSP door (RFC 2326, PLAY only): `rtsp://HOST/NAME` plays the session of that name.

Clients that have ports become subscribers of them, and their packets leave as everybody's do; for
those who want them on their connection a socket of ours is the subscriber. Nobody but the peer of
a connection is ever a subscriber by it. Each file is one step of the way in: `arrivals`,
`connection`, `wire`, `conversation`; and `stage` is what all have in common.

No library of the kind is kept that serves: aiortsp plays, and is LGPL.
"""

from rtpfanout.rtsp.arrivals import Certificates
from rtpfanout.rtsp.door import Door
from rtpfanout.rtsp.figures import DoorCollector
from rtpfanout.rtsp.stage import Stage

__all__ = ["Certificates", "Door", "DoorCollector", "Stage"]
