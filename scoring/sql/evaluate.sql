-- Scores and contributions from inputs, for the scorecards in the tables `components`,
-- `breakpoints`, `cards` and `card_caps`. Everything about the arithmetic of a score is here.

-- 1. Every component of an account's scorecard with its metric's value and its points. What is large
--    names its account and score by the number of their case, and its metric by the component's.
CREATE OR REPLACE TEMP TABLE cases AS
SELECT row_number() OVER ()::INTEGER AS case_id, account_id, score, scorecard FROM {{ assignments }};

CREATE OR REPLACE TEMP TABLE placed AS
SELECT
    a.case_id, c.component, i.value,
    coalesce(i.state, 'absent') AS state,
    CASE WHEN i.state IS NULL THEN 'not computed' ELSE i.reason END AS reason,
    coalesce(i.state IN ('present', 'zero-filled'), false) AS present,
    coalesce(i.state IN ('stale', 'suspect', 'corrupt'), false) AS plumbing,
    -- A missing policy stands in for what a customer does not have, never for a broken pipe.
    CASE
        WHEN coalesce(i.state IN ('stale', 'suspect', 'corrupt'), false) THEN NULL
        WHEN i.state IN ('present', 'zero-filled') OR c.policy = 'impute'
            -- Below the first breakpoint x_from is infinite, and the slope zero.
            THEN b.y_from + CASE
                WHEN b.slope = 0 THEN 0
                ELSE b.slope * (coalesce(i.value, c.imputed) - b.x_from)
            END
        WHEN c.policy = 'neutral' THEN 50.0
        WHEN c.policy = 'worst' THEN c.worst_points
    END AS points
FROM cases AS a
JOIN components AS c ON c.scorecard = a.scorecard
LEFT JOIN (
    SELECT * FROM {{ inputs }} WHERE metric IN (SELECT metric FROM components)
) AS i ON i.account_id = a.account_id AND i.metric = c.metric
LEFT JOIN breakpoints AS b
    ON b.component = c.component
    AND coalesce(i.value, c.imputed) >= b.x_from AND coalesce(i.value, c.imputed) < b.x_to;

-- 2. Pillars: the weighted mean (or the worst) of what counts; low and high with everything
--    missing at 0 and at 100.
CREATE OR REPLACE TEMP TABLE pillars AS
SELECT
    case_id, pillar, any_value(pillar_weight) AS pillar_weight,
    any_value(combine) AS combine,
    sum(weight) FILTER (WHERE points IS NOT NULL) AS counted_weight,
    sum(weight) FILTER (WHERE present) AS present_weight,
    sum(weight) AS nominal_weight,
    arg_max(position, (CASE WHEN high_is_bad THEN points ELSE -points END, -position))
        FILTER (WHERE points IS NOT NULL) AS worst_position,
    CASE
        WHEN any_value(combine) = 'mean'
            THEN sum(weight * CASE WHEN present THEN points ELSE 0 END) / sum(weight)
        WHEN any_value(high_is_bad) THEN max(CASE WHEN present THEN points ELSE 0 END)
        ELSE min(CASE WHEN present THEN points ELSE 0 END)
    END AS low,
    CASE
        WHEN any_value(combine) = 'mean'
            THEN sum(weight * CASE WHEN present THEN points ELSE 100 END) / sum(weight)
        WHEN any_value(high_is_bad) THEN max(CASE WHEN present THEN points ELSE 100 END)
        ELSE min(CASE WHEN present THEN points ELSE 100 END)
    END AS high,
    bool_or(policy = 'required' AND NOT present) AS required_missing,
    bool_or(plumbing) AS plumbing
FROM placed JOIN components USING (component)
GROUP BY case_id, pillar;

CREATE OR REPLACE TEMP TABLE totals AS
SELECT
    case_id,
    sum(pillar_weight) FILTER (WHERE counted_weight IS NOT NULL) AS counted_pillar_weight,
    coalesce(sum(present_weight), 0) / sum(nominal_weight) AS coverage,
    sum(pillar_weight * low) / sum(pillar_weight) AS low,
    sum(pillar_weight * high) / sum(pillar_weight) AS high,
    bool_or(required_missing) AS required_missing,
    bool_or(plumbing) AS plumbing
FROM pillars
GROUP BY case_id;

-- 3. Contributions, in hundredths of a point that add up exactly: each is the step that the running
--    sum makes after rounding. Whole numbers (1e-8 points) keep the sums independent of their order.
CREATE OR REPLACE TEMP TABLE evaluated_components AS
WITH weighed AS (
    SELECT
        p.*, c.position,
        CASE
            WHEN points IS NULL THEN 0.0
            WHEN c.combine = 'worst'
                THEN CASE
                    WHEN position = worst_position THEN c.pillar_weight / counted_pillar_weight
                    ELSE 0.0
                END
            ELSE c.pillar_weight / counted_pillar_weight * weight / counted_weight
        END AS effective_weight,
        round(coalesce(effective_weight * points, 0) * 1e8)::BIGINT AS units
    FROM placed AS p
    JOIN components AS c USING (component)
    JOIN pillars USING (case_id, pillar)
    JOIN totals USING (case_id)
),
summed AS (
    SELECT
        *, sum(units) OVER (
            PARTITION BY case_id ORDER BY position ROWS UNBOUNDED PRECEDING
        )::BIGINT AS upto
    FROM weighed
)
SELECT
    case_id, component, value, state, reason, points, effective_weight,
    (upto + 500000) // 1000000 - (upto - units + 500000) // 1000000 AS hundredths
FROM summed;

-- 4. Caps and floors: those that hold, and those that a broken pipe may be hiding.
CREATE OR REPLACE TEMP TABLE fired (
    account_id VARCHAR, score VARCHAR, position INTEGER, at_least DOUBLE, at_most DOUBLE,
    because VARCHAR, holds BOOLEAN
);
{% for card in capped %}
INSERT INTO fired
SELECT account_id, score, cap.position, cap.at_least, cap.at_most, cap.because, cap.holds
FROM (
    SELECT a.account_id, a.score, unnest([
{% for cap in card.caps %}
        {'position': {{ cap.position }}, 'at_least': {{ cap.at_least }}, 'at_most': {{ cap.at_most }},
         'because': {{ cap.because }}, 'hidden': {{ cap.hidden }},
         'holds': CASE WHEN NOT ({{ cap.null_hidden }}) THEN {{ cap.condition }} END}{{ "," if not loop.last }}
{% endfor %}
    ]) AS cap
    FROM {{ assignments }} AS a JOIN cap_facts AS f USING (account_id)
    WHERE a.scorecard = {{ card.scorecard }}
)
WHERE cap.holds OR (cap.holds IS NULL AND cap.hidden);
{% endfor %}

-- 5. Scores.
CREATE OR REPLACE TEMP TABLE evaluated_scores AS
WITH raw AS (
    SELECT case_id, sum(hundredths) / 100.0 AS raw FROM evaluated_components GROUP BY case_id
),
limits AS (
    SELECT
        account_id, score,
        max(at_least) FILTER (WHERE holds) AS floor,
        min(at_most) FILTER (WHERE holds) AS ceiling,
        max(at_least) FILTER (WHERE holds IS NULL) AS hidden_floor,
        min(at_most) FILTER (WHERE holds IS NULL) AS hidden_ceiling
    FROM fired GROUP BY account_id, score
),
limited AS (
    SELECT
        a.account_id, a.score, a.scorecard, t.coverage,
        t.plumbing OR l.hidden_floor IS NOT NULL OR l.hidden_ceiling IS NOT NULL AS plumbing,
        t.required_missing,
        CASE
            WHEN NOT t.required_missing AND t.counted_pillar_weight IS NOT NULL
                THEN least(greatest(r.raw, l.floor), l.ceiling)
        END::DECIMAL(6, 2) AS value,
        r.raw::DECIMAL(6, 2) AS raw,
        l.floor, l.ceiling,
        -- Rounded outwards, but not by the last digits of a fraction: 40 is not 39.99.
        (floor(round(100 * least(greatest(t.low, l.floor), l.ceiling, l.hidden_ceiling), 4)) / 100)
            ::DECIMAL(6, 2) AS low,
        (ceil(round(100 * least(greatest(t.high, l.floor, l.hidden_floor), l.ceiling), 4)) / 100)
            ::DECIMAL(6, 2) AS high
    FROM cases AS a
    JOIN totals AS t USING (case_id)
    JOIN raw AS r USING (case_id)
    LEFT JOIN limits AS l USING (account_id, score)
),
-- A score that a person set is what it is: no cap, no gap and no broken pipe moves it.
settled AS (
{% if overrides %}
    SELECT
        l.* REPLACE (
            coalesce(o.value, l.value) AS value, coalesce(o.value, l.low) AS low,
            coalesce(o.value, l.high) AS high
        ),
        o.value IS NOT NULL AS by_hand
    FROM limited AS l LEFT JOIN {{ overrides }} AS o USING (account_id, score)
{% else %}
    SELECT *, false AS by_hand FROM limited
{% endif %}
),
banded AS (
    SELECT
        l.*, c.* EXCLUDE (scorecard), u.state AS use_state, u.reason AS use_reason,
{% for band, number in [("plain_band", "l.value"), ("low_band", "l.low"), ("high_band", "l.high")] %}
        CASE
            WHEN {{ number }} >= c.upper_edge THEN c.upper_band
            WHEN {{ number }} >= c.middle_edge THEN c.middle_band
            WHEN {{ number }} IS NOT NULL THEN c.lower_band
        END AS {{ band }}{{ "," if not loop.last }}
{% endfor %}
    FROM settled AS l
    JOIN cards AS c USING (scorecard)
    LEFT JOIN {{ inputs }} AS u ON u.account_id = l.account_id AND u.metric = {{ use_metric }}
),
judged AS (
    SELECT
        *,
        CASE
            WHEN by_hand THEN NULL
            WHEN required_missing THEN 'a required metric is missing'
            WHEN value IS NULL THEN 'nothing is known'
            WHEN coverage < minimum_coverage - 1e-9
                THEN 'only ' || round(100 * coverage)::INTEGER || ' % of the weight is known, '
                    || round(100 * minimum_coverage)::INTEGER || ' % is needed'
            WHEN plumbing AND low_band <> high_band
                THEN 'a source is not delivering; it could be anything from '
                    || round(low)::INTEGER || ' to ' || round(high)::INTEGER
            WHEN plain_band = claim_band AND (low_band = opposite_band OR high_band = opposite_band)
                THEN 'too little is known for ' || claim_band || '; it could be ' || opposite_band
            WHEN family IN ('risk', 'health') AND plain_band = claim_band AND use_state = 'absent'
                AND use_reason <> 'no source'
                THEN 'its use is not measured'
        END AS unknown_because
    FROM banded
)
SELECT
    account_id, score, scorecard, value, raw, floor, ceiling, low, high,
    round(coverage, 9) AS coverage, plumbing,
    CASE WHEN unknown_because IS NULL THEN plain_band ELSE 'unknown' END AS band,
    unknown_because AS band_reason
FROM judged;

-- 6. One list of contributions: components, then the caps that hold. Of several caps the strictest
--    one moves the score, and a ceiling has the last word; but for a person who set the score, whose
--    contribution is what is left.
CREATE OR REPLACE TEMP TABLE evaluated_contributions AS
SELECT
    a.account_id, a.score, c.position, 'component' AS kind, c.metric, c.pillar, e.value, e.state,
    e.reason, c.weight, round(e.effective_weight, 9) AS effective_weight,
    round(e.points, 9) AS points, (e.hundredths / 100.0)::DECIMAL(6, 2) AS contribution
FROM evaluated_components AS e
JOIN cases AS a USING (case_id)
JOIN components AS c USING (component)
UNION ALL
SELECT
    f.account_id, f.score, f.position, 'cap', NULL, NULL, coalesce(f.at_least, f.at_most), NULL,
    f.because, NULL, NULL, NULL,
    CASE
        WHEN row_number() OVER (
            PARTITION BY f.account_id, f.score, f.at_least IS NULL
            ORDER BY f.at_least DESC, f.at_most, f.position
        ) > 1 THEN 0
        WHEN f.at_least IS NOT NULL THEN greatest(s.raw, s.floor) - s.raw
        ELSE least(greatest(s.raw, s.floor), s.ceiling) - coalesce(greatest(s.raw, s.floor), s.raw)
    END::DECIMAL(6, 2)
FROM fired AS f JOIN evaluated_scores AS s USING (account_id, score)
WHERE f.holds
{% if overrides %}
UNION ALL
SELECT
    o.account_id, o.score, {{ override_position }}, 'override', NULL, NULL, o.value, NULL,
    o.because, NULL, NULL, NULL,
    (o.value - least(greatest(s.raw, s.floor), s.ceiling)::DECIMAL(6, 2))::DECIMAL(6, 2)
FROM {{ overrides }} AS o JOIN evaluated_scores AS s USING (account_id, score)
{% endif %};
