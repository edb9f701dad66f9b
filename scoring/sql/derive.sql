-- Roll-ups, ratios and changes: what is computed from metrics, not from rows.
{% for rollup in rollups %}
UPDATE measured AS m
SET value = r.value, previous = r.previous, state = 'present', reason = NULL
FROM (
    SELECT f.ancestor_id AS account_id, {{ rollup.value }} AS value,
        {{ rollup.previous }} AS previous
    FROM families AS f
    JOIN measured AS c ON c.account_id = f.account_id AND c.metric = {{ rollup.name }}
    JOIN population AS p ON p.account_id = f.account_id
    WHERE c.state IN ('present', 'zero-filled')
    GROUP BY f.ancestor_id
) AS r
WHERE m.account_id = r.account_id AND m.metric = {{ rollup.name }} AND r.value IS NOT NULL;
{% endfor %}

{% for ratio in ratios %}
INSERT INTO measured
SELECT
    o.account_id,
    {{ ratio.name }},
    CASE WHEN t.value <> 0 THEN {{ ratio.scale }} * o.value / t.value END,
    CASE WHEN t.previous <> 0 THEN {{ ratio.scale }} * o.previous / t.previous END,
    CASE
        WHEN o.value IS NULL THEN o.state
        WHEN t.value IS NULL THEN t.state
        WHEN t.value = 0 THEN 'absent'
        WHEN {{ ratio.scale }} * o.value / t.value NOT BETWEEN {{ ratio.low }} AND {{ ratio.high }}
            THEN 'corrupt'
        ELSE 'present'
    END,
    coalesce(o.reason, t.reason, CASE WHEN t.value = 0 THEN 'the divisor is zero' END)
FROM measured AS o
JOIN measured AS t ON t.account_id = o.account_id AND t.metric = {{ ratio.to }}
WHERE o.metric = {{ ratio.of }};
{% endfor %}

{% if changes %}
-- In percent of the window before; from nothing to something is +100.
INSERT INTO measured
SELECT
    account_id,
    metric || '.change',
    CASE
        WHEN previous IS NULL THEN NULL
        WHEN previous <> 0 THEN 100 * (value - previous) / abs(previous)
        WHEN value > 0 THEN 100
        WHEN value = 0 THEN 0
    END AS change,
    NULL,
    CASE WHEN value IS NULL THEN state WHEN previous IS NULL THEN 'absent' ELSE 'present' END,
    coalesce(reason, CASE WHEN previous IS NULL THEN 'younger than two windows' END)
FROM measured
WHERE metric IN ({{ changes | join(", ") }});
{% endif %}
