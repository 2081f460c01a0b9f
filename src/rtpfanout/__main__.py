"""``python -m rtpfanout`` is the `rtpfanout` command."""

from rtpfanout.cli.app import main

if __name__ == "__main__":
    main()
