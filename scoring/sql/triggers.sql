-- Whether the trigger of each playbook holds at each account, as three-valued truth: null where a
-- broken pipe leaves it open. The result is the temporary table `trigger_states`.
CREATE OR REPLACE TEMP MACRO shown(x) AS CASE
    WHEN abs(x - round(x)) < 0.05 THEN format('{:,.0f}', round(x) + 0.0) ELSE format('{:,.1f}', x + 0.0)
END;

-- 1. What conditions read, one row an account; `<metric>?` says that the metric's pipe broke.
CREATE OR REPLACE TEMP TABLE trigger_facts AS
SELECT
    a.account_id, any_value(a.segment) AS segment, any_value(a.stage) AS stage,
    any_value(a.desired_outcome) AS desired_outcome, any_value(a.arr) AS arr,
{% for fact in facts %}
    any_value(a.{{ fact }}) AS {{ fact }},
{% endfor %}
{% for m in metrics %}
    max(v.value) FILTER (WHERE v.number = {{ loop.index }}) AS {{ m.column }},
    coalesce(bool_or(v.broken) FILTER (WHERE v.number = {{ loop.index }}), false) AS {{ m.broken }},
{% endfor %}
FROM {{ accounts }} AS a
LEFT JOIN (
    SELECT account_id, number, value, state IN ('stale', 'suspect', 'corrupt') AS broken
    FROM {{ values }} JOIN (VALUES
{% for m in metrics %}
        ({{ loop.index }}, {{ m.name }}),
{% endfor %}
        (0, NULL)
    ) AS wanted(number, metric) USING (metric)
    WHERE as_of = {{ day }}
) AS v USING (account_id)
WHERE a.as_of = {{ day }}{% if only %} AND account_id IN (FROM {{ only }}){% endif %}

GROUP BY a.account_id;

-- 2. Scores, and the bands that are at most `margin` points away. `open`: a broken pipe hides the band.
CREATE OR REPLACE TEMP TABLE trigger_scores AS
SELECT
    s.account_id, s.score, s.scorecard, s.version, s.value, s.band, s.plumbing, s.low, s.high,
    s.band <> 'unknown' AS known, s.band = 'unknown' AND s.plumbing AS open,
{% for near, sign in [("band_above", "+"), ("band_below", "-")] %}
    CASE
        WHEN s.band = 'unknown' THEN s.band
        WHEN s.value {{ sign }} {{ margin }} >= e.upper_edge THEN e.upper_band
        WHEN s.value {{ sign }} {{ margin }} >= e.middle_edge THEN e.middle_band
        ELSE e.lower_band
    END AS {{ near }},
{% endfor %}
FROM {{ scores }} AS s LEFT JOIN trigger_edges AS e USING (scorecard)
WHERE s.as_of = {{ day }} AND s.account_id IN (SELECT account_id FROM trigger_facts);

-- 3. What makes a score so bad (an upsell score: so good): a component by the points that it moves at
--    its nominal weight, which no outage of another component changes, or a cap that reads the metric.
CREATE OR REPLACE TEMP TABLE trigger_drivers AS
SELECT account_id, playbook, max(strength) AS strength
FROM (
    SELECT
        c.account_id, d.playbook,
        c.weight * CASE WHEN d.low_is_bad THEN 100 - c.points ELSE c.points END / 100 AS strength
    FROM {{ contributions }} AS c JOIN trigger_driver_names AS d USING (score, metric)
    WHERE c.as_of = {{ day }} AND c.kind = 'component' AND c.effective_weight > 0
        AND c.state IN ('present', 'zero-filled')
    UNION ALL
    SELECT c.account_id, d.playbook, 100.0
    FROM {{ contributions }} AS c
    JOIN trigger_scores AS s USING (account_id, score)
    JOIN trigger_driver_caps AS d
        ON d.score = c.score AND d.scorecard = s.scorecard AND d.reason = c.reason
    WHERE c.as_of = {{ day }} AND c.kind = 'cap'
)
GROUP BY account_id, playbook;

-- 4. The lowest and highest score of the days before, under the same scorecard and without a gap.
CREATE OR REPLACE TEMP TABLE trigger_changes AS
SELECT
    s.account_id, c.playbook,
    min(p.value) FILTER (WHERE NOT p.plumbing AND p.band <> 'unknown') AS lowest,
    max(p.value) FILTER (WHERE NOT p.plumbing AND p.band <> 'unknown') AS highest,
    bool_or(p.plumbing) AS broken
FROM trigger_change_days AS c
JOIN trigger_scores AS s USING (score)
JOIN scores.scores AS p USING (account_id, score, scorecard, version)
WHERE p.as_of < {{ day }} AND p.as_of >= {{ day }} - c.within_days
GROUP BY s.account_id, c.playbook;

-- 5. One playbook after the other.
CREATE OR REPLACE TEMP TABLE trigger_states (
    account_id VARCHAR, playbook VARCHAR, holds BOOLEAN, clears BOOLEAN, why VARCHAR, value DOUBLE
);
{% for p in playbooks %}
INSERT INTO trigger_states
WITH judged AS (
    SELECT
        f.account_id, {{ p.holds }} AS holds, {{ p.clears }} AS clears,
        {{ p.why }} AS why, {{ p.value }} AS value
    FROM trigger_facts AS f
    LEFT JOIN trigger_scores AS s ON s.account_id = f.account_id AND s.score = {{ p.score }}
    LEFT JOIN trigger_scores AS r ON r.account_id = f.account_id AND r.score = 'risk'
    LEFT JOIN trigger_drivers AS d ON d.account_id = f.account_id AND d.playbook = {{ p.name }}
    LEFT JOIN trigger_changes AS c ON c.account_id = f.account_id AND c.playbook = {{ p.name }}
)
SELECT account_id, {{ p.name }}, holds, clears, why, value FROM judged
{% if not everything %}
WHERE holds IS NOT false
{% endif %}
;
{% endfor %}
