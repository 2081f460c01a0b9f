"""The page for browsers: what goes on, for people who have no dashboard at hand.

`site` has the files and the paths, `viewers` who may look, `board` the table of all sessions,
`about` one session. The browser does the drawing (`assets`): it asks once a second for what it
shows, fifty sessions at the most, so ten thousand cost it no more than fifty. Nothing is computed
unless somebody looks, but for the history of ten minutes (`sessions.history`).
"""

from rtpfanout.page.site import create_site

__all__ = ["create_site"]
