-- Roll-ups, ratios and changes: what is computed from metrics, not from rows.
{% for rollup in rollups %}
-- {{ rollup.name }} of a parent: itself and everything below it. A broken pipe at one of them breaks
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
        f.ancestor_id AS account_id,
        tidy({{ rollup.of.format("value") }}) AS value,
        tidy({{ rollup.of.format("previous") }}) AS previous,
        tidy({{ rollup.of.format("usable") }}) AS held,
        max(c.state) FILTER (WHERE c.broken) AS broken,
        max(c.reason) FILTER (WHERE c.broken) AS broken_because,
        bool_or(c.reason IS NOT DISTINCT FROM 'no exchange rate') AS no_rate,
        bool_and(c.state = 'zero-filled') FILTER (WHERE c.value IS NOT NULL) AS zero
    FROM families AS f
    JOIN (
        SELECT
            *, coalesce(value, held) AS usable, state IN ('stale', 'suspect', 'corrupt') AS broken
        FROM measured WHERE metric = {{ rollup.name }}
    ) AS c ON c.account_id = f.account_id
    JOIN population AS p ON p.account_id = f.account_id
    GROUP BY f.ancestor_id
) AS r
WHERE m.account_id = r.account_id AND m.metric = {{ rollup.name }}
    AND (r.value IS NOT NULL OR r.broken IS NOT NULL);
{% endfor %}

{% for ratio in ratios %}
INSERT INTO measured
WITH divided AS (
    SELECT
        o.account_id,
        tidy({{ ratio.scale }} * o.value / nullif(t.value, 0)) AS quotient,
        tidy({{ ratio.scale }} * o.previous / nullif(t.previous, 0)) AS before,
        tidy({{ ratio.scale }} * coalesce(o.value, o.held) / nullif(coalesce(t.value, t.held), 0)) AS last_good,
        CASE
            WHEN o.state IN ('stale', 'suspect', 'corrupt') THEN o.state
            WHEN t.state IN ('stale', 'suspect', 'corrupt') THEN t.state
            WHEN o.value IS NULL THEN o.state
            WHEN t.value IS NULL THEN t.state
            WHEN t.value = 0 THEN 'absent'
            WHEN isfinite(quotient) AND quotient BETWEEN {{ ratio.low }} AND {{ ratio.high }} THEN 'present'
            ELSE 'corrupt'
        END AS ratio_state,
        CASE
            WHEN o.state IN ('stale', 'suspect', 'corrupt') THEN o.reason
            WHEN t.state IN ('stale', 'suspect', 'corrupt') THEN t.reason
            WHEN o.value IS NULL THEN o.reason
            WHEN t.value IS NULL THEN t.reason
            WHEN t.value = 0 THEN 'the divisor is zero'
            WHEN ratio_state = 'corrupt' THEN 'outside ' || {{ ratio.low }} || ' to ' || {{ ratio.high }}
        END AS ratio_reason
    FROM measured AS o
    JOIN measured AS t ON t.account_id = o.account_id AND t.metric = {{ ratio.to }}
    WHERE o.metric = {{ ratio.of }}
)
SELECT
    account_id, {{ ratio.name }} AS metric,
    CASE WHEN ratio_state = 'present' THEN quotient END AS value,
    CASE WHEN ratio_state = 'present' AND isfinite(before) THEN before END AS previous,
    CASE WHEN ratio_state = 'stale' AND isfinite(last_good) THEN last_good END AS held,
    ratio_state AS state, ratio_reason AS reason
FROM divided;
{% endfor %}

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
