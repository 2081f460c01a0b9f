"""`rtpfanout version`."""

from rtpfanout import __version__
from rtpfanout.cli.output import Output, OutputFormat, write, write_json


def version(output: Output = OutputFormat.TABLE) -> None:
    """Print the version."""
    if output is OutputFormat.JSON:
        write_json({"version": __version__})
    else:
        write(f"rtpfanout {__version__}")
