"""A client of the first API version: it knows the field numbers of DESIGN section 5, no more.

Run as a program it writes down what a server answers it, for tests/system/test_v1_answers.py:

    python tests/first_version.py HOST:PORT

with a server of the version before the one to be compared, and LIMITS.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_status import rpc_status

_SESSION_ID = [("session_id", 1, "string")]
_SUBSCRIBER = [*_SESSION_ID, ("subscriber_address", 2, "string")]
MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "CreateSessionRequest": [
        ("source_address", 1, "string"),
        ("ssrc", 2, "uint32"),
        ("media_type", 3, "string"),
    ],
    "GetSessionRequest": _SESSION_ID,
    "DeleteSessionRequest": _SESSION_ID,
    "GetSessionStatsRequest": _SESSION_ID,
    "ListSessionsRequest": [("limit", 1, "int32"), ("cursor", 2, "string")],
    "ListSessionsResponse": [("sessions", 1, "*SessionResponse"), ("next_cursor", 2, "string")],
    "AddSubscriberRequest": _SUBSCRIBER,
    "RemoveSubscriberRequest": _SUBSCRIBER,
    "SessionResponse": [
        ("session_id", 1, "string"),
        ("source_address", 2, "string"),
        ("ssrc", 3, "uint32"),
        ("subscriber_count", 4, "int64"),
        ("created_at", 5, "string"),
        ("status", 6, "string"),
    ],
    "SessionStatsResponse": [
        ("session_id", 1, "string"),
        ("packets_received", 2, "uint64"),
        ("packets_sent", 3, "uint64"),
        ("bytes_received", 4, "uint64"),
        ("bytes_sent", 5, "uint64"),
        ("subscriber_count", 6, "int32"),
        ("uptime_seconds", 7, "double"),
        ("packets_per_second", 8, "double"),
    ],
    "Empty": [],
}
CALLS = {
    "CreateSession": "SessionResponse",
    "GetSession": "SessionResponse",
    "DeleteSession": "Empty",
    "ListSessions": "ListSessionsResponse",
    "AddSubscriber": "Empty",
    "RemoveSubscriber": "Empty",
    "GetSessionStats": "SessionStatsResponse",
}


def _message_classes() -> dict[str, type]:
    """Built from MESSAGES in a pool of their own, so that nothing of ours is in them."""
    file = descriptor_pb2.FileDescriptorProto(
        name="first_version.proto", package="rtpfanout", syntax="proto3"
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            repeated = kind.startswith("*")
            descriptor = message.field.add(
                name=field,
                number=number,
                label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
            )
            if repeated:
                descriptor.type = kinds.TYPE_MESSAGE
                descriptor.type_name = f".rtpfanout.{kind[1:]}"
            else:
                descriptor.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"rtpfanout.{name}"))
        for name in MESSAGES
    }


class FirstVersionClient:
    """``client("GetSession", session_id=...)``."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._messages = _message_classes()
        self._channel = channel

    def __call__(self, call: str, **fields: object) -> Any:
        method = self._channel.unary_unary(
            f"/rtpfanout.SessionService/{call}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._messages[CALLS[call]].FromString,
        )
        return method(self._messages[f"{call}Request"](**fields), timeout=10)

    def message(self, kind: str, **fields: object) -> Any:
        """One of the messages."""
        return self._messages[kind](**fields)


LIMITS = {"max_sessions": 3, "max_fanout_per_session": 2}
UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
NOBODY = "00000000-0000-4000-8000-000000000000"
_VIDEO = {"media_type": "video"}
_ONE = {"session_id": "$1"}
Call = tuple[str, dict[str, object]]
DIALOGUE: list[Call] = [
    ("ListSessions", {}),
    ("CreateSession", {"source_address": "192.0.2.1:5000", "ssrc": 1, **_VIDEO}),
    ("CreateSession", {"source_address": "192.0.2.1:5000", "ssrc": 1, **_VIDEO}),
    ("CreateSession", {"source_address": "[::ffff:192.0.2.1]:5001", "media_type": "audio"}),
    *(
        ("CreateSession", {"source_address": source, "ssrc": 2, **_VIDEO})
        for source in ("", "192.0.2.1", "192.0.2.1:0", "here:1", "224.0.0.1:5000", "0.0.0.0:1")
    ),
    *(
        ("CreateSession", {"source_address": "192.0.2.1:5000", "ssrc": 2, "media_type": kind})
        for kind in ("", "Video", "text")
    ),
    ("CreateSession", {"source_address": "192.0.2.3:1", "ssrc": 2**32 - 1, "media_type": "data"}),
    ("CreateSession", {"source_address": "192.0.2.4:1", "ssrc": 4, **_VIDEO}),
    *(("GetSession", {"session_id": which}) for which in ("$1", "$2", "$3", NOBODY)),
    *(("GetSession", {"session_id": text}) for text in ("", "1", "a b", f"{{{NOBODY}}}", "é")),
    ("GetSession", {"session_id": NOBODY.replace("-", "")}),
    ("ListSessions", {}),
    ("ListSessions", {"limit": 2}),
    ("ListSessions", {"limit": 2, "cursor": "$cursor"}),
    ("ListSessions", {"limit": 5000}),
    ("ListSessions", {"limit": -1}),
    ("ListSessions", {"cursor": "1"}),
    *(
        ("AddSubscriber", {**_ONE, "subscriber_address": address})
        for address in (
            *("127.0.0.1:6000", "127.0.0.1:6000", "127.0.0.1:6001", "127.0.0.1:6002"),
            *("127.0.0.1:0", "nowhere", "224.0.0.1:6000", "192.0.2.1:5000", ""),
        )
    ),
    ("AddSubscriber", {"session_id": NOBODY, "subscriber_address": "127.0.0.1:6000"}),
    ("AddSubscriber", {"session_id": "a b", "subscriber_address": "127.0.0.1:6000"}),
    ("GetSession", _ONE),
    ("GetSessionStats", _ONE),
    ("GetSessionStats", {"session_id": NOBODY}),
    ("RemoveSubscriber", {**_ONE, "subscriber_address": "127.0.0.1:6000"}),
    ("RemoveSubscriber", {**_ONE, "subscriber_address": "127.0.0.1:6000"}),
    ("RemoveSubscriber", {**_ONE, "subscriber_address": "nowhere"}),
    ("RemoveSubscriber", {"session_id": NOBODY, "subscriber_address": "127.0.0.1:6001"}),
    ("GetSessionStats", _ONE),
    ("DeleteSession", _ONE),
    ("DeleteSession", _ONE),
    ("DeleteSession", {"session_id": "a b"}),
    ("GetSession", _ONE),
    ("ListSessions", {}),
]


def answers(client: FirstVersionClient) -> list[Any]:
    """To each of DIALOGUE: the bytes that this version knows of, in hex, or the error.

    Times and ids, of which none comes twice, are others each time: they are replaced.
    """
    ids: list[str] = []
    cursor = ""
    found = []
    for call, said in DIALOGUE:
        fields = {name: _meant(value, ids, cursor) for name, value in said.items()}
        try:
            message = client(call, **fields)
        except grpc.RpcError as error:
            found.append(_error(error, ids))
            continue
        if call == "CreateSession":
            ids.append(message.session_id)
        cursor = getattr(message, "next_cursor", "") or cursor
        found.append(known_bytes(message, ids).hex())
    return found


def known_bytes(message: Any, ids: list[str]) -> bytes:
    """Of what the version knows; of times and ids the form."""
    message.DiscardUnknownFields()
    for each in getattr(message, "sessions", [message]):
        if getattr(each, "session_id", ""):
            each.session_id = _numbered(each.session_id, ids)
        if getattr(each, "created_at", ""):
            each.created_at = re.sub(TIME, "TIME", each.created_at)
        if getattr(each, "uptime_seconds", 0.0):
            each.uptime_seconds = 1.0
    return bytes(message.SerializeToString(deterministic=True))


def _meant(value: object, ids: list[str], cursor: str) -> object:
    if isinstance(value, str) and re.fullmatch(r"\$\d", value):
        return ids[int(value[1]) - 1]
    return cursor if value == "$cursor" else value


def _numbered(text: str, ids: list[str]) -> str:
    return re.sub(UUID, lambda m: f"${ids.index(m[0]) + 1}" if m[0] in ids else m[0], text)


def _error(error: Any, ids: list[str]) -> dict[str, Any]:
    details = []
    for detail in rpc_status.from_call(error).details:
        bad, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
        quota = error_details_pb2.QuotaFailure()
        if detail.Unpack(bad):
            details.append({"bad_request": [each.field for each in bad.field_violations]})
        elif detail.Unpack(quota):
            details.append({"quota": [each.subject for each in quota.violations]})
        else:
            assert detail.Unpack(info)
            details.append({"info": [info.domain, info.reason, dict(info.metadata)]})
    text = _numbered(error.details() or "", ids)
    return {"code": error.code().name, "text": text, "details": details}


if __name__ == "__main__":
    with grpc.insecure_channel(sys.argv[1]) as to:
        print(json.dumps(answers(FirstVersionClient(to)), indent=1))
