"""The gRPC SessionService: its calls (`calls`) and the server around them (`server`)."""

from rtpfanout.service.calls import SERVICE, SessionServicer
from rtpfanout.service.server import ControlServer
from rtpfanout.service.tls import server_credentials

__all__ = ["SERVICE", "ControlServer", "SessionServicer", "server_credentials"]
