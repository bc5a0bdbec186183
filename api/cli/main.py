"""The root command. Commands load when they are called, so ``rahba --help`` stays light."""

from __future__ import annotations

import importlib
from typing import Final

import click
from typing_extensions import override

# name -> (module, attribute, one line of help); the order is the order of `rahba --help`
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "up": ("api.cli.process", "up", "Run the whole market on this machine."),
    "demo": ("api.cli.demo", "demo", "Run the market on real documents and show the deals."),
    "templates": ("api.cli.market", "templates", "List the agent templates."),
    "deploy": ("api.cli.market", "deploy", "Deploy an agent from a template."),
    "adopt": ("api.cli.listings", "adopt", "List an A2A agent of the web by its URL."),
    "stop": ("api.cli.market", "stop", "Stop a deployment."),
    "ls": ("api.cli.market", "ls", "List agents, deployments, listings, negotiations or deals."),
    "publish": ("api.cli.cards", "publish", "List agents by their signed cards."),
    "call": ("api.cli.market", "call", "Buy a skill on the market."),
    "prices": ("api.cli.prices", "prices", "What a skill cost, and what it is expected to."),
    "transcript": ("api.cli.transcript", "transcript", "What was said in a negotiation, to check."),
    "watch": ("api.cli.market", "watch", "Follow the market's feed."),
    "mail": ("api.cli.mail", "mail", "Dead letters of an agent, and another try at them."),
    "logs": ("api.cli.process", "logs", "Show the log of a process."),
    "wallet": ("api.cli.wallet", "wallet", "Wallets, balances, payments and their proofs."),
    "keys": ("api.cli.keys", "keys", "Issue, list and revoke API keys."),
    "ledger": ("api.cli.ledger", "ledger", "Run the ledger, or verify one."),
    "reputation": (
        "api.cli.reputation",
        "reputation",
        "What settled deals say of agents, computed from the log.",
    ),
    "witness": ("api.cli.witness", "witness", "Cosign a ledger's checkpoints, or audit them."),
    "gateway": ("api.cli.process", "gateway", "Run the HTTP gateway."),
    "host": ("api.cli.process", "host", "Run agents: deployed ones, or those of a Python file."),
    "worker": ("api.cli.process", "worker", "Run a worker for heavy jobs."),
    "bench": ("api.cli.bench", "bench", "Measure speed against limits of the same run."),
    "doctor": ("api.cli.doctor", "doctor", "Check this machine and a running market."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when one of them is called."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rahba")
def main() -> None:
    """Rahba: an open market where autonomous agents bargain, work and get paid.

    `rahba up` starts a market here; `rahba demo` shows one at work.
    """
