"""A compact library, for the comparison with pandas: what both engines compute completely.

Fourteen shipped metrics of usage, tickets and invoices, their comparisons with the window before
and with peers, and two scorecards with two pillars each. One segment, one stage, no caps and no
roll-ups, so that pandas has nothing to do that a notebook would not do.
"""

from dataclasses import replace

from scoring.config.profiles import Profiles
from scoring.config.scorecards import Scorecard
from scoring.library import Library, NamedScorecard

METRICS = (
    "active_days_28d", "active_days_7d", "days_since_last_use", "usage_events_28d", "logins_28d",
    "features_used_28d", "tickets_90d", "urgent_tickets_90d", "open_tickets_14d",
    "escalations_90d", "csat_90d", "overdue_invoices", "invoices_overdue_30d", "amount_overdue",
)  # fmt: skip

CHANGES = ("active_days_28d", "usage_events_28d", "features_used_28d", "tickets_90d")
PEERS = (*CHANGES, "csat_90d")

RISK = {
    "score": "risk",
    "version": 1,
    "believes": "A benchmark believes nothing.\nIt only has to be computed.",
    "pillars": {"proactive": {"weight": 55}, "reactive": {"weight": 45}},
    "components": [
        {"metric": "active_days_28d", "pillar": "proactive", "weight": 20,
         "points": {1: 100, 4: 80, 8: 50, 13: 20, 20: 0}},
        {"metric": "usage_events_28d.change", "pillar": "proactive", "weight": 20,
         "points": {-60: 100, -40: 75, -20: 30, 10: 0}},
        {"metric": "features_used_28d.peer_percentile", "pillar": "proactive", "weight": 15,
         "points": {0: 95, 30: 40, 85: 0}},
        {"metric": "open_tickets_14d", "pillar": "reactive", "weight": 20,
         "points": {0: 0, 1: 35, 3: 100}},
        {"metric": "csat_90d", "pillar": "reactive", "weight": 10,
         "points": {40: 100, 60: 70, 95: 0}},
        {"metric": "invoices_overdue_30d", "pillar": "reactive", "weight": 15,
         "points": {0: 0, 1: 60, 2: 100}, "missing": "neutral"},
    ],
    "bands": {"red": 70, "yellow": 40},
}  # fmt: skip

UPSELL = {
    "score": "upsell",
    "version": 1,
    "believes": RISK["believes"],
    "pillars": {"proactive": {"weight": 70}, "reactive": {"weight": 30}},
    "components": [
        {"metric": "usage_events_28d.peer_percentile", "pillar": "proactive", "weight": 40,
         "points": {40: 0, 95: 100}},
        {"metric": "active_days_28d.change", "pillar": "proactive", "weight": 30,
         "points": {0: 0, 50: 100}},
        {"metric": "overdue_invoices", "pillar": "reactive", "weight": 15,
         "points": {0: 100, 2: 0}},
        {"metric": "urgent_tickets_90d", "pillar": "reactive", "weight": 15,
         "points": {0: 100, 4: 0}},
    ],
    "bands": {"ready": 70, "possible": 40},
}  # fmt: skip


def compact_library(shipped: Library) -> Library:
    """The shipped library, cut down."""
    metrics = {}
    for name in METRICS:
        comparisons = [
            comparison
            for comparison, names in (("previous_window", CHANGES), ("peers", PEERS))
            if name in names
        ]
        metrics[name] = shipped.metrics[name].model_copy(
            update={"compare": comparisons, "rollup": None, "benchmark": None}
        )
    return replace(
        shipped,
        metrics=metrics,
        scorecards=(
            NamedScorecard("risk", Scorecard.model_validate(RISK)),
            NamedScorecard("upsell", Scorecard.model_validate(UPSELL)),
        ),
        profiles=Profiles.model_validate(
            {"segments": [{"name": "customer"}], "stages": [{"name": "mature"}]}
        ),
        hard_signals=(),
        use_metric=None,
    )
