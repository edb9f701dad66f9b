"""Pictures for the Dagster UI: Altair charts as PNG inside markdown; they need no server."""

import base64
from collections.abc import Sequence

import altair as alt
import vl_convert

from scoring.reports import BAND_ORDER, BandCount

COLOURS = {
    "red": "#c62f3b",
    "yellow": "#e3a51a",
    "green": "#2f8f5b",
    "ready": "#2f6fb0",
    "possible": "#8fb8de",
    "none": "#c9ced6",
    "unknown": "#7b8494",
}


def score_histogram(title: str, bins: Sequence[tuple[int, str, int]]) -> str:
    """A histogram as markdown; `bins` are (lowest score of a bin of 5, band, accounts)."""
    rows = [{"from": low, "to": low + 5, "band": band, "accounts": n} for low, band, n in bins]
    bands = [band for band in BAND_ORDER if any(row["band"] == band for row in rows)]
    chart = (
        alt.Chart(alt.Data(values=rows), title=title, width=520, height=220)
        .mark_bar(binSpacing=1)
        .encode(
            x=alt.X("from:Q", bin="binned", title="Score", scale=alt.Scale(domain=[0, 100])),
            x2="to:Q",
            y=alt.Y("accounts:Q", title="Accounts", stack="zero"),
            color=_band_colour(bands),
        )
    )
    return _markdown(chart, title)


def band_bars(title: str, counts: Sequence[BandCount]) -> str:
    """Accounts of each segment by band, as markdown."""
    rows = [
        {
            "segment": c.segment,
            "band": c.band,
            "accounts": c.accounts,
            "rank": BAND_ORDER.index(c.band),
        }
        for c in counts
        if c.segment != "all"
    ]
    bands = [band for band in BAND_ORDER if any(row["band"] == band for row in rows)]
    chart = (
        alt.Chart(alt.Data(values=rows), title=title, width=520, height=alt.Step(34))
        .mark_bar()
        .encode(
            x=alt.X(
                "accounts:Q",
                stack="normalize",
                title="Share of accounts",
                axis=alt.Axis(format="%"),
            ),
            y=alt.Y("segment:N", title=None),
            color=_band_colour(bands),
            order=alt.Order("rank:Q"),
        )
    )
    return _markdown(chart, title)


def _band_colour(bands: Sequence[str]) -> alt.Color:
    scale = alt.Scale(domain=list(bands), range=[COLOURS[band] for band in bands])
    return alt.Color("band:N", title="Band", scale=scale, sort=list(bands))


def _markdown(chart: alt.Chart, title: str) -> str:
    png = vl_convert.vegalite_to_png(chart.to_json(), scale=1.5)
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"
