"""A priced agent: `rahba host examples/translator.py` puts it on the market."""

from agents import Agent

WORDS = {
    "fr": {"hello": "bonjour", "market": "marché"},
    "es": {"hello": "hola", "market": "mercado"},
}
agent = Agent("translator")


@agent.offer("text.translate", price="0.002", floor="0.0012")
async def translate(text: str, to: str = "fr") -> str:
    return " ".join(WORDS[to].get(word, word) for word in text.split())
