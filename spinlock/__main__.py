"""`python -m spinlock` and the console script: the command line with errors in one line."""

import sys

from spinlock.cli import main as run
from spinlock.errors import SpinlockError


def main() -> None:
    """Run the command line; what the user can mend is reported without a traceback."""
    try:
        run()
    except (SpinlockError, PermissionError) as error:
        sys.exit(f"spinlock: error: {error}")


if __name__ == "__main__":
    main()
