-- What the CRM should show for every account: one row an account and field, values as text.
CREATE SCHEMA IF NOT EXISTS plan;
CREATE TABLE IF NOT EXISTS plan.desired (
    as_of DATE NOT NULL, account_id VARCHAR NOT NULL, field VARCHAR NOT NULL, value VARCHAR,
    why VARCHAR, held BOOLEAN NOT NULL
);
DELETE FROM plan.desired WHERE as_of = {{ day }};
INSERT INTO plan.desired BY NAME
WITH texts AS (
    SELECT account_id, score, string_agg(sentence, '; ' ORDER BY rank) AS reasons
    FROM reasons WHERE rank <= {{ most_reasons }} GROUP BY account_id, score
),
red AS (
    SELECT account_id FROM scores.scores
    WHERE as_of = {{ day }} AND score = 'risk' AND band = 'red'
),
shown AS (
    SELECT
        s.account_id, replace(s.score, ':', '_') AS score,
        unnest([
            {
                'part': 'score',
                'value': CASE WHEN s.band <> 'unknown' THEN round(s.value)::INTEGER::VARCHAR END
            },
            {'part': 'band', 'value': s.band},
            {
                'part': 'reasons',
                'value': coalesce(
                    CASE WHEN s.band = 'unknown' THEN 'Unknown: ' || s.band_reason END,
                    CASE WHEN s.score = 'upsell' AND r.account_id IS NOT NULL THEN 'Not while the risk is red' END,
                    t.reasons, ''
                )
            },
            {'part': 'coverage', 'value': round(100 * s.coverage)::INTEGER::VARCHAR},
            {'part': 'as_of', 'value': s.as_of::VARCHAR},
            {'part': 'scorecard', 'value': s.scorecard || ' v' || s.version}
        ]) AS f,
        coalesce(s.band_reason, t.reasons) AS why,
        -- An unknown that a broken pipe made holds what the CRM shows; it is no news of the customer.
        s.band = 'unknown' AND s.plumbing AS held
    FROM scores.scores AS s
    LEFT JOIN texts AS t USING (account_id, score)
    LEFT JOIN red AS r USING (account_id)
    WHERE s.as_of = {{ day }}
)
SELECT {{ day }} AS as_of, account_id, score || '_' || f.part AS field, f.value, why, held
FROM shown;
