"""Figures for /metrics: requests by route, calls by outcome, open streams. One registry an app.

Routes are counted by their template (``/v1/calls/{call}``), never by the address asked for: what
clients type cannot grow the table.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The gateway's own figures."""

    def __init__(self) -> None:
        """Start from zero."""
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "rahba_http_requests",
            "Requests served",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "rahba_http_request_seconds",
            "Time from request to end of response",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.calls = Counter(
            "rahba_calls", "Calls ended, by outcome", ("outcome",), registry=self.registry
        )
        self.running = Gauge("rahba_calls_running", "Calls running now", registry=self.registry)
        self.streams = Gauge("rahba_streams_open", "Event streams open", registry=self.registry)
        self.events = Counter(
            "rahba_feed_events", "Events of the feed passed on", registry=self.registry
        )

    def served(self, scope: Scope, status: int, seconds: float) -> None:
        """Count one request."""
        route = scope.get("rahba.route") or getattr(scope.get("route"), "path", None) or "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return the figures in the text format of Prometheus."""
        return generate_latest(self.registry)
