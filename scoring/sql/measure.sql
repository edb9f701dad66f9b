-- From one row an account to one row an account and metric, each with its state.
INSERT INTO measured
WITH links AS (
    SELECT
        l.account_id,
        max(c.lag_days) AS lag_days,
        max(c.held_days) AS held_days,
        bool_or(c.suspect) AS suspect
    FROM linked_sources AS l JOIN clocks AS c USING (source)
    WHERE c.table_name = {{ table_name }}
    GROUP BY l.account_id
),
spread AS (
    SELECT
        p.account_id, p.started_on,
        l.account_id IS NOT NULL AS linked, l.lag_days, l.held_days, l.suspect,
        unnest([
{% for m in metrics %}
            {
                'metric': {{ m.name }}, 'value': a.{{ m.column }}::DOUBLE,
                'previous': {{ "a." ~ m.previous ~ "::DOUBLE" if m.previous else "NULL::DOUBLE" }},
                'no_rate': {{ "a." ~ m.no_rate if m.no_rate else "false" }},
                'zero_when_empty': {{ m.zero_when_empty }}, 'stale_after': {{ m.stale_after }},
                'window_days': {{ m.window_days }}, 'low': {{ m.low }}, 'high': {{ m.high }}
            }{{ "," if not loop.last }}
{% endfor %}
        ]) AS m
    FROM population AS p
    LEFT JOIN links AS l USING (account_id)
    LEFT JOIN aggregated AS a USING (account_id)
),
judged AS (
    SELECT
        *,
        coalesce(m.value, CASE WHEN m.zero_when_empty THEN 0.0 END) AS found,
        CASE
            WHEN NOT linked THEN {{ "'no link to a source'" if fed else "'no source'" }}
            WHEN suspect THEN 'the source is suspect and has no good data yet'
            WHEN coalesce(lag_days > m.stale_after, false)
                THEN 'no new data for ' || lag_days || ' days'
            WHEN coalesce(held_days > coalesce(m.stale_after, {{ hold_days }}), false)
                THEN 'the source has been failing for ' || held_days || ' days'
            WHEN coalesce(m.no_rate, false) THEN 'no exchange rate'
            WHEN m.value IS NULL AND NOT m.zero_when_empty THEN 'no rows'
            WHEN isnan(m.value) OR isinf(m.value) OR m.value < m.low OR m.value > m.high
                THEN 'outside ' || m.low || ' to ' || m.high
        END AS reason
    FROM spread
)
SELECT
    account_id,
    m.metric,
    CASE WHEN reason IS NULL THEN found END,
    -- A window that began before the account did says nothing about a change.
    CASE
        WHEN reason IS NULL AND started_on <= {{ day }} - 2 * m.window_days
            THEN coalesce(m.previous, CASE WHEN m.zero_when_empty THEN 0.0 END)
    END,
    CASE
        WHEN reason IS NULL AND m.value IS NULL THEN 'zero-filled'
        WHEN reason IS NULL THEN 'present'
        WHEN NOT linked OR reason IN ('no exchange rate', 'no rows') THEN 'absent'
        WHEN suspect THEN 'suspect'
        WHEN starts_with(reason, 'outside') THEN 'corrupt'
        ELSE 'stale'
    END,
    reason
FROM judged;
