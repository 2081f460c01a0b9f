"""The `rtpfanout` command (layer 6): app.py registers, one file per command group."""
