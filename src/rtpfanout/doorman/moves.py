"""Which session a signed move names: by its SSRC and its key, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rtpfanout.signed import move_key_id

if TYPE_CHECKING:
    from rtpfanout.sessions import MoveTarget
    from rtpfanout.signed import Move

_MOST_KEYS = 4  # of one SSRC and one key id: more than one is chance


def named_by(move: Move, targets: Sequence[MoveTarget]) -> Sequence[MoveTarget]:
    """Those of `targets` whose key has signed it. It moves one; more than one are none."""
    keyed = [target for target in targets if move_key_id(target.move_key) == move.key_id]
    keys = list(dict.fromkeys(target.move_key for target in keyed))
    key = next((key for key in keys[:_MOST_KEYS] if move.is_signed_with(key)), None)
    return [target for target in keyed if target.move_key == key]
