"""``python -m api.cli``: the same as ``rahba``."""

from api.cli.main import main

if __name__ == "__main__":
    main(prog_name="rahba")
