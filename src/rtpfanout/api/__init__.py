"""Generated from proto/rtpfanout/api by scripts/generate_api.py; do not edit."""
