"""What a session's source is told by RTCP, on the command line."""

from typing import Annotated, Any

import typer

from rtpfanout.model import SubscriberClass

RTCP_TERMS = {
    "keyframe_request": Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="How its source is asked for keyframes, by RTCP: pli (the default), fir or both.",
            autocompletion=lambda: ["pli", "fir", "both"],
        ),
    ],
    "repair_source": Annotated[
        bool | None,
        typer.Option(help="Ask its source by RTCP to send again what is missing."),
    ],
    "report_class": Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="Tell its source by RTCP what subscribers of this class report of loss and "
            'bitrate: pilot, recorder or monitor; "": nobody\'s.',
            autocompletion=lambda: [each.value for each in SubscriberClass],
        ),
    ],
}
"""Options of `create` and `update`, by what SessionClient calls them."""


def shown_rtcp(session: Any) -> dict[str, object]:
    """Where it says more than the message itself."""
    return {
        "keyframe_request": session.keyframe_request or "pli",
        "report_class": session.report_class or "-",
    }
