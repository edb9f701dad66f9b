-- Roll-ups, ratios and changes: what is computed from metrics, not from rows.
{% if rollups %}
-- A parent's value is made of itself and everything below it. A broken pipe at one of them breaks
-- the whole; one that is not measured at all is left out.
UPDATE measured AS m
SET
    value = CASE WHEN r.broken IS NULL AND NOT r.no_rate AND isfinite(r.value) THEN r.value END,
    previous = CASE WHEN r.broken IS NULL AND NOT r.no_rate AND isfinite(r.previous) THEN r.previous END,
    held = CASE WHEN r.broken = 'stale' AND NOT r.no_rate AND isfinite(r.held) THEN r.held END,
    state = CASE
        WHEN r.broken IS NOT NULL THEN r.broken
        WHEN r.no_rate THEN 'absent'
        WHEN NOT isfinite(r.value) THEN 'corrupt'
        WHEN r.zero THEN 'zero-filled'
        ELSE 'present'
    END,
    reason = CASE
        WHEN r.broken IS NOT NULL THEN r.broken_because
        WHEN r.no_rate THEN 'no exchange rate'
        WHEN NOT isfinite(r.value) THEN 'no finite number'
    END
FROM (
    SELECT
        f.ancestor_id AS account_id, c.metric,
{% for name, column in [("value", "c.value"), ("previous", "c.previous"), ("held", "c.usable")] %}
        tidy(CASE any_value(c.method)
            WHEN 'sum' THEN sum({{ column }})
            WHEN 'mean' THEN avg({{ column }})
            WHEN 'min' THEN min({{ column }})
            WHEN 'max' THEN max({{ column }})
            WHEN 'revenue' THEN sum({{ column }} * p.arr)
                / nullif(sum(p.arr) FILTER (WHERE {{ column }} IS NOT NULL), 0)
        END) AS {{ name }},
{% endfor %}
        max(c.state) FILTER (WHERE c.broken) AS broken,
        max(c.reason) FILTER (WHERE c.broken) AS broken_because,
        bool_or(c.reason IS NOT DISTINCT FROM 'no exchange rate') AS no_rate,
        bool_and(c.state = 'zero-filled') FILTER (WHERE c.value IS NOT NULL) AS zero
    FROM families AS f
    JOIN (
        SELECT
            *, coalesce(value, held) AS usable, state IN ('stale', 'suspect', 'corrupt') AS broken
        FROM measured
        JOIN (VALUES {{ rollups | join(", ") }}) AS rollups(metric, method) USING (metric)
        WHERE account_id IN (SELECT account_id FROM families)
    ) AS c ON c.account_id = f.account_id
    JOIN population AS p ON p.account_id = f.account_id
    GROUP BY f.ancestor_id, c.metric
) AS r
WHERE m.account_id = r.account_id AND m.metric = r.metric
    AND (r.value IS NOT NULL OR r.broken IS NOT NULL);
{% endif %}

{% if ratios %}
INSERT INTO measured
WITH ratios(ratio, numerator, divisor, scale, low, high) AS (VALUES {{ ratios | join(", ") }}),
-- Materialized, or DuckDB joins every metric of an account with every other one first.
numerators AS MATERIALIZED (SELECT * FROM ratios JOIN measured ON metric = numerator),
divisors AS MATERIALIZED (SELECT * FROM ratios JOIN measured ON metric = divisor),
divided AS (
    SELECT
        o.account_id, o.ratio, o.low, o.high,
        tidy(o.scale * o.value / nullif(t.value, 0)) AS quotient,
        tidy(o.scale * o.previous / nullif(t.previous, 0)) AS before,
        tidy(o.scale * coalesce(o.value, o.held) / nullif(coalesce(t.value, t.held), 0)) AS last_good,
        o.value AS numerator, o.state AS numerator_state, o.reason AS numerator_reason,
        t.value AS divisor, t.state AS divisor_state, t.reason AS divisor_reason
    FROM numerators AS o JOIN divisors AS t USING (account_id, ratio)
),
judged AS (
    SELECT
        *,
        CASE
            WHEN numerator_state IN ('stale', 'suspect', 'corrupt') THEN numerator_state
            WHEN divisor_state IN ('stale', 'suspect', 'corrupt') THEN divisor_state
            WHEN numerator IS NULL THEN numerator_state
            WHEN divisor IS NULL THEN divisor_state
            WHEN divisor = 0 THEN 'absent'
            WHEN isfinite(quotient) AND quotient BETWEEN low AND high THEN 'present'
            ELSE 'corrupt'
        END AS ratio_state,
        CASE
            WHEN numerator_state IN ('stale', 'suspect', 'corrupt') THEN numerator_reason
            WHEN divisor_state IN ('stale', 'suspect', 'corrupt') THEN divisor_reason
            WHEN numerator IS NULL THEN numerator_reason
            WHEN divisor IS NULL THEN divisor_reason
            WHEN divisor = 0 THEN 'the divisor is zero'
            WHEN ratio_state = 'corrupt' THEN 'outside ' || low || ' to ' || high
        END AS ratio_reason
    FROM divided
)
SELECT
    account_id, ratio AS metric,
    CASE WHEN ratio_state = 'present' THEN quotient END AS value,
    CASE WHEN ratio_state = 'present' AND isfinite(before) THEN before END AS previous,
    CASE WHEN ratio_state = 'stale' AND isfinite(last_good) THEN last_good END AS held,
    ratio_state AS state, ratio_reason AS reason
FROM judged;
{% endif %}

{% if changes %}
-- In percent of the window before; from nothing to something is 100 %.
INSERT INTO measured
WITH changed AS (
    SELECT
        *,
        tidy(CASE
            WHEN previous = 0 THEN 100.0 * sign(value)
            ELSE 100 * (value - previous) / abs(previous)
        END) AS change
    FROM measured
    WHERE metric IN ({{ changes | join(", ") }})
)
SELECT
    account_id, metric || '.change' AS metric, CASE WHEN isfinite(change) THEN change END AS value,
    NULL AS previous, NULL AS held,
    CASE
        WHEN value IS NULL THEN state
        WHEN previous IS NULL THEN 'absent'
        WHEN isfinite(change) THEN 'present'
        ELSE 'corrupt'
    END AS state,
    CASE
        WHEN value IS NULL THEN reason
        WHEN previous IS NULL THEN 'nothing to compare with in the window before'
        WHEN NOT isfinite(change) THEN 'no finite number'
    END AS reason
FROM changed;
{% endif %}
