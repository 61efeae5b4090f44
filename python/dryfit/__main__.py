"""The `dryfit` program: the command line itself, inside this process."""
import signal
import sys

from dryfit import _engine


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as it ends the native program; Python would wait for the call to return
    sys.stdout.flush()
    return _engine.run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
