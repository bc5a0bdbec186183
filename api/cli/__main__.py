"""``python -m api.cli``: the same as ``rahba``."""

from api.cli.main import main

main(prog_name="rahba")
