"""One skill on several terms: buyers bargain over speed and care as well as over the price.

rahba host examples/tiers.py
rahba call text.proofread --arg text="teh market" --mode bargain
"""

from agents import Agent, Job, Tier

agent = Agent("proofreader")
COMMON = {"teh": "the", "recieve": "receive", "adress": "address"}
RARE = {"occured": "occurred", "seperate": "separate", "definately": "definitely"}


@agent.offer(
    "text.proofread",
    price="0.002",
    floor="0.0012",
    quality=500,
    latency_ms=2_000,
    tiers=[
        Tier(price="0.0035", floor="0.0018", quality=900),
        Tier(price="0.0025", floor="0.0015", latency_ms=200),
    ],
)
async def proofread(text: str, job: Job) -> str:
    """Mend misspelt words; the better tier knows more of them."""
    terms = job.terms.issues
    known = COMMON | RARE if terms is not None and terms.quality >= 900 else COMMON
    return " ".join(known.get(word, word) for word in text.split())
