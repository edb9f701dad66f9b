-- From one row an account to one row an account and metric, each with its state.
INSERT INTO measured
WITH clocks(source, lag_days, held_days, history_days, suspect) AS (
{% if clocks %}
    VALUES {{ clocks | join(", ") }}
{% else %}
    SELECT NULL::VARCHAR, NULL::INTEGER, NULL::INTEGER, NULL::INTEGER, false WHERE false
{% endif %}
),
-- An account is as far behind as its slowest source, and its history as short as the shortest.
links AS (
    SELECT
        l.account_id,
        max(c.lag_days) AS lag_days,
        max(c.held_days) AS held_days,
        min(c.history_days) AS history_days,
        bool_or(c.suspect) AS suspect
    FROM linked_sources AS l JOIN clocks AS c USING (source)
    GROUP BY l.account_id
),
rules(
    position, metric, zero_when_empty, stale_after, window_days, low, high
) AS (
    VALUES
{% for m in metrics %}
        ({{ loop.index }}, {{ m.name }}, {{ m.zero_when_empty }}, {{ m.stale_after }}, {{ m.window_days }}, {{ m.low }}, {{ m.high }}){{ "," if not loop.last }}
{% endfor %}
),
-- One row an account and metric. Lists are unnested side by side.
spread AS (
    SELECT
        p.account_id, p.started_on,
        l.account_id IS NOT NULL AS linked, l.lag_days, l.held_days, l.history_days, l.suspect,
        unnest([{% for m in metrics %}{{ loop.index }}{{ ", " if not loop.last }}{% endfor %}]) AS position,
        unnest([{% for m in metrics %}a.{{ m.value }}::DOUBLE{{ ", " if not loop.last }}{% endfor %}]) AS value,
        unnest([{% for m in metrics %}{{ "a." ~ m.previous ~ "::DOUBLE" if m.previous else "NULL::DOUBLE" }}{{ ", " if not loop.last }}{% endfor %}]) AS previous,
        unnest([{% for m in metrics %}{{ "a." ~ m.no_rate if m.no_rate else "false" }}{{ ", " if not loop.last }}{% endfor %}]) AS no_rate,
        unnest([{% for m in metrics %}{{ "a." ~ m.previous_no_rate if m.previous_no_rate else "false" }}{{ ", " if not loop.last }}{% endfor %}]) AS previous_no_rate
    FROM population AS p
    LEFT JOIN links AS l USING (account_id)
    LEFT JOIN aggregated AS a USING (account_id)
),
tidied AS (
    SELECT
        s.* REPLACE (
            tidy(s.value) AS value, tidy(s.previous) AS previous,
            coalesce(s.no_rate, false) AS no_rate,
            coalesce(s.previous_no_rate, false) AS previous_no_rate
        ),
        r.* EXCLUDE (position)
    FROM spread AS s JOIN rules AS r USING (position)
),
judged AS (
    SELECT
        *,
        coalesce(value, CASE WHEN zero_when_empty THEN 0.0 END) AS found,
        CASE
            WHEN NOT linked THEN {{ "'no link to a source'" if clocks else "'no source'" }}
            WHEN suspect THEN 'the source is suspect and has no good data yet'
            WHEN stale_after IS NOT NULL AND lag_days IS NULL
                THEN 'no data from the source yet'
            WHEN no_rate THEN 'no exchange rate'
            WHEN value IS NULL AND NOT zero_when_empty THEN 'no rows'
            WHEN NOT isfinite(value) OR value < low OR value > high
                THEN 'outside ' || low || ' to ' || high
        END AS no_value,
        CASE
            WHEN lag_days > stale_after THEN 'no new data for ' || lag_days || ' days'
            WHEN held_days > coalesce(stale_after, {{ hold_days }})
                THEN 'the source has been failing for ' || held_days || ' days'
        END AS too_old
    FROM tidied
)
SELECT
    account_id,
    metric,
    CASE WHEN coalesce(no_value, too_old) IS NULL THEN found END AS value,
    -- A window that began before the account or the source's rows did says nothing about a change.
    CASE
        WHEN coalesce(no_value, too_old) IS NULL AND NOT previous_no_rate
            AND started_on <= {{ day }} - 2 * window_days
            AND coalesce(history_days >= 2 * window_days - stale_after, true)
            AND isfinite(coalesce(previous, 0))
            THEN coalesce(previous, CASE WHEN zero_when_empty THEN 0.0 END)
    END AS previous,
    CASE WHEN no_value IS NULL AND too_old IS NOT NULL THEN found END AS held,
    CASE
        WHEN NOT linked THEN 'absent'
        WHEN suspect THEN 'suspect'
        WHEN too_old IS NOT NULL THEN 'stale'
        WHEN starts_with(no_value, 'outside') THEN 'corrupt'
        WHEN no_value IS NOT NULL THEN 'absent'
        WHEN value IS NULL THEN 'zero-filled'
        ELSE 'present'
    END AS state,
    CASE
        WHEN NOT linked OR suspect THEN no_value
        ELSE coalesce(too_old, no_value)
    END AS reason
FROM judged;
