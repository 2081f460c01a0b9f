"""rtpfanout: one RTP stream in, exact copies out to many places."""

__version__ = "0.1.0"
