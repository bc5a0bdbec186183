"""A priced agent: `rahba host examples/translator.py` puts it on the market."""

from agents import Agent

agent = Agent("translator")
FRENCH = {"good": "bon", "morning": "matin", "market": "marché", "open": "ouvert"}


@agent.offer("text.translate", price="0.002", floor="0.0012")
async def translate(text: str) -> str:
    """Translate word by word into French."""
    return " ".join(FRENCH.get(word, word) for word in text.split())
