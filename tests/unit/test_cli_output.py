"""What commands print: machine-clean JSON, plain tables off a terminal."""

import json

from rtpfanout.api import session_pb2
from rtpfanout.cli import output


def test_a_plain_table_aligns_and_cuts_nothing_off(capsys):
    long = "x" * 300
    output.write_table(("ID", "N"), [("a", 1), (long, 22)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["ID" + " " * 300 + "N", "a" + " " * 301 + "1", long + "  22"]


def test_a_table_without_rows_has_its_header(capsys):
    output.write_table(("ID", "N"), [])
    assert capsys.readouterr().out == "ID  N\n"


def test_message_dict_keeps_64_bit_numbers_and_tells_absent_fields():
    stats = session_pb2.SessionStatsResponse(session_id="a", packets_received=2**63)
    fields = json.loads(json.dumps(output.message_dict(stats)))
    assert fields["packets_received"] == 2**63
    assert fields["packets_sent"] == 0
    assert fields["seconds_since_last_packet"] is None
    stats.seconds_since_last_packet = 0.0
    assert output.message_dict(stats)["seconds_since_last_packet"] == 0.0
    assert fields["first_copy_latency"] is None
    stats.first_copy_latency.count = 3
    nested = output.message_dict(stats)["first_copy_latency"]
    assert (nested["count"], nested["p50_seconds"]) == (3, 0.0)


def test_talk_goes_to_stderr(capsys):
    output.say("listening")
    assert capsys.readouterr() == ("", "listening\n")
