"""The harness: what a rung is, how it is proved, timed, shown, and compared across commits."""
