"""Sources, receivers and measurements for the commands that make traffic and look at it.

`source`, `capture` and `sending` make packets and send them in time, `udp`, `reception` and
`counting` tell what came; `moving` and `joining` are sockets that keep a session's source, or a
subscriber, at its server. `scene` and `demo_server` are the demo's, `measuring` is the bench's.
Nothing of the server imports this; nothing here reads options or prints.
"""
