"""`python -m spinlock` and the console script: the command line with errors in one line."""

import sys

from yaml import YAMLError

from spinlock.cli import main as run
from spinlock.errors import SpinlockError


def main() -> None:
    """Run the command line; what the user can mend is reported without a traceback."""
    try:
        run()
    except (SpinlockError, OSError, YAMLError) as error:
        sys.exit(f"spinlock: error: {error}")
    except KeyboardInterrupt:
        # 128 + SIGINT, as shells report it.
        print("spinlock: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
