"""``python -m ladder RUN.json ...`` and ``python -m ladder compare BASE NEW``."""

import os
import sys

try:
    from ladder.command import main

    status = main(sys.argv[1:])
except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    status = 0
except (OSError, ValueError) as error:
    print(f"python -m ladder: {error}", file=sys.stderr)
    status = 2
except Exception:  # Python's own status for it is 1, which says that something is slower
    import traceback

    traceback.print_exc()
    status = 2
sys.exit(status)
