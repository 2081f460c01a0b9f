"""The HTTP side: metrics for Prometheus, health for whoever keeps the process alive.

Whoever reaches its port may connect and ask without showing anything, so nothing here lets one of
them take what the others or the control calls need: connections have limits and time-outs
(`server`), a page is made once for all who want it (`pages`), and askers are
answered and sent to in turns (`turnstile`).
"""

from rtpfanout.http.app import INDEX, Site, create_app
from rtpfanout.http.pages import Kitchen, Piece
from rtpfanout.http.server import HttpServer

__all__ = ["INDEX", "HttpServer", "Kitchen", "Piece", "Site", "create_app"]
