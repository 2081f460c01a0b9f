"""SDP as programs print it and cameras ship it."""

from __future__ import annotations

import base64

SPS = bytes.fromhex("674d401e96605018")
PPS = bytes.fromhex("68ee3c80")
SETS = f"{base64.b64encode(SPS).decode()},{base64.b64encode(PPS).decode()}"
VPS5, SPS5, PPS5 = bytes.fromhex("40010c01"), bytes.fromhex("42010101"), bytes.fromhex("4401c172")

FFMPEG = """SDP:
v=0
o=- 0 0 IN IP4 127.0.0.1
s=No Name
c=IN IP4 127.0.0.1
t=0 0
a=tool:libavformat LIBAVFORMAT_VERSION
m=video 39999 RTP/AVP 96
b=AS:200
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1
"""
CAMERA = "\r\n".join(
    (
        "v=0",
        "o=- 1781430052 1 IN IP4 192.0.2.64",
        "s=Media Presentation",
        "e=NONE",
        "b=AS:5100",
        "t=0 0",
        "a=control:rtsp://192.0.2.64/main/",
        "m=video 0 RTP/AVP 96",
        "c=IN IP4 0.0.0.0",
        "b=AS:5000",
        "a=recvonly",
        "a=x-dimensions:1920,1080",
        "a=control:rtsp://192.0.2.64/main/trackID=1",
        "a=rtpmap:96 H264/90000",
        f"a=fmtp:96 profile-level-id=4D401E; packetization-mode=1; sprop-parameter-sets={SETS}",
        "m=audio 0 RTP/AVP 8",
        "a=recvonly",
        "a=rtpmap:8 PCMA/8000",
        "m=application 0 RTP/AVP 107",
        "a=rtpmap:107 vnd.onvif.metadata/90000",
        "a=appversion:1.0",
        "",
    )
)
H265_CAMERA = f"""v=0
m=video 0 RTP/AVP 98
a=rtpmap:98 H265/90000
a=fmtp:98 profile-id=1;sprop-sps={base64.b64encode(SPS5).decode()};\
sprop-pps={base64.b64encode(PPS5).decode()};sprop-vps={base64.b64encode(VPS5).decode()}
a=ssrc:305419896 cname:camera
"""
