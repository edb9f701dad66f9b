-- The reasons of every score of a day as sentences, strongest first. A cap that moved the score comes
-- first; then the components that weigh most. In a risk or an upsell score those are the ones that
-- raise it; in a health or handoff score, where 100 is good, those that keep it from 100. Below half
-- a point they say nothing.
CREATE OR REPLACE TEMP TABLE reasons AS
WITH said AS (
    SELECT
        c.account_id, c.score, c.kind, c.metric, c.contribution, c.position,
        CASE
            WHEN c.kind = 'cap' THEN abs(c.contribution)
            WHEN split_part(c.score, ':', 1) IN ('health', 'handoff')
                THEN c.effective_weight * (100 - c.points)
            ELSE c.contribution
        END AS strength,
        CASE
            WHEN c.kind = 'cap' THEN c.reason
            ELSE trim(replace(replace(
                t.because, '{value}',
                CASE
                    WHEN abs(c.value - round(c.value)) < 0.05 THEN format('{:,.0f}', round(c.value) + 0.0)
                    ELSE format('{:,.1f}', c.value)
                END
            ), '{unit}', t.unit))
        END AS sentence
    FROM scores.contributions AS c
    JOIN scores.scores AS s USING (as_of, account_id, score)
    LEFT JOIN reason_texts AS t
        ON c.kind = 'component' AND t.scorecard = s.scorecard AND t.position = c.position
    WHERE c.as_of = {{ day }}
        AND (c.kind = 'cap' OR c.state IN ('present', 'zero-filled'))
)
SELECT
    account_id, score, kind, metric, contribution, sentence,
    row_number() OVER (
        PARTITION BY account_id, score
        ORDER BY kind = 'cap' AND contribution <> 0 DESC, strength DESC, position
    ) AS rank
FROM said
WHERE sentence IS NOT NULL AND (kind = 'cap' OR strength >= 0.5);
