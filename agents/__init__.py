"""Who bargains and works: agents, their negotiations, templates and the host that runs them."""

from agents.agent import Agent, Tier
from agents.job import Job

__all__ = ["Agent", "Job", "Tier"]
