-- The reasons of every score of a day as sentences, strongest first. A cap that moved the score
-- comes first; then the components that weigh on it most. Reasons below half a point say nothing.
CREATE OR REPLACE TEMP TABLE reasons AS
WITH said AS (
    SELECT
        c.account_id, c.score, c.kind, c.metric, c.contribution, c.value,
        CASE
            WHEN c.kind = 'cap' THEN c.reason
            ELSE replace(replace(
                t.because, '{value}',
                CASE
                    WHEN c.value IS NULL THEN 'unknown'
                    WHEN abs(c.value - round(c.value)) < 0.05 THEN format('{:,}', round(c.value)::BIGINT)
                    ELSE format('{:,.1f}', c.value)
                END
            ), '{unit}', t.unit)
        END AS sentence
    FROM scores.contributions AS c
    JOIN scores.scores AS s USING (as_of, account_id, score)
    LEFT JOIN reason_texts AS t
        ON c.kind = 'component' AND t.scorecard = s.scorecard AND t.metric = c.metric
    WHERE c.as_of = {{ day }}
        AND (
            (c.kind = 'cap')
            OR (c.contribution >= 0.5 AND c.state IN ('present', 'zero-filled'))
        )
)
SELECT
    account_id, score, kind, metric, contribution, sentence,
    row_number() OVER (
        PARTITION BY account_id, score
        ORDER BY kind = 'cap' AND contribution <> 0 DESC, contribution DESC, kind, metric, sentence
    ) AS rank
FROM said
WHERE sentence IS NOT NULL;
