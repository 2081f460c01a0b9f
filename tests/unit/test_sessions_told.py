"""What errors and the log say of sessions: by the words of who asks, and with what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from managers import SOURCE, SUBSCRIBER

from rtpfanout.errors import LimitError, NotFoundError, PreconditionError

if TYPE_CHECKING:
    from rtpfanout.sessions import SessionManager


def test_a_session_with_a_name_is_told_by_that(manager: SessionManager) -> None:
    manager.create("192.0.2.0/24", 1, "video", name="a/b", max_subscribers=1, source_policy="cidr")
    with pytest.raises(NotFoundError, match=r"^session a/b has no subscriber"):
        manager.remove_subscriber("a/b", SUBSCRIBER)
    with pytest.raises(LimitError, match=r"^session a/b has 0 subscribers"):
        manager.add_subscribers("a/b", [SUBSCRIBER, "127.0.0.1:6001"])
    with pytest.raises(PreconditionError, match=r"^session a/b takes packets of more than"):
        manager.request_keyframe("a/b")


def test_the_log_has_the_ssrc_that_comes(manager: SessionManager) -> None:
    assert manager.create(SOURCE, 0, "video").ssrc_text == "0x00000000"
    assert manager.create(SOURCE, 0, "video", ssrc_policy="any").ssrc_text == "-"
    assert manager.create("192.0.2.9:1", 7, "video", ssrc_policy="follow").ssrc_text == "0x00000007"
