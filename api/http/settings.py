"""The limits of one gateway, all with defaults that suit one machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_DASHBOARD = Path(__file__).resolve().parent.parent / "dashboard"


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Every limit has a unit in its name; sizes in bytes, times in milliseconds."""

    network: str = "dev"
    dashboard_dir: Path = _DASHBOARD
    max_body_bytes: int = 1024 * 1024
    max_header_bytes: int = 32 * 1024
    max_address_bytes: int = 4 * 1024
    max_json_depth: int = 32
    max_batch: int = 1_000
    max_streams: int = 200
    max_calls_per_key: int = 256
    rate_per_s: int = 1_000
    rate_burst: int = 2_000
    max_wait_ms: int = 30_000
    max_deadline_ms: int = 10 * 60_000
    default_deadline_ms: int = 30_000
    heartbeat_ms: int = 10_000
    batch_every_ms: int = 200
    feed_kept: int = 4_096
    key_cache_ms: int = 2_000
    call_kept_s: int = 7 * 24 * 3600
    answer_kept_s: int = 24 * 3600
    reservation_ms: int = 15_000
    ready_within_ms: int = 2_000
    metrics_open: bool = True
    max_visits: int = 8
    allow_private: bool = False
