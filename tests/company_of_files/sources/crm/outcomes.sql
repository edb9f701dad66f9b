-- What really happened, on the day it took effect: lost renewals, and won ones by their amount.
SELECT
    account_no AS account_key,
    CASE
        WHEN stage = 'Closed lost' THEN 'churned'
        WHEN type = 'Expansion' OR CAST(amount AS DOUBLE) > CAST(previous_amount AS DOUBLE) THEN 'expanded'
        WHEN CAST(amount AS DOUBLE) < CAST(previous_amount AS DOUBLE) THEN 'contracted'
        ELSE 'renewed'
    END AS kind,
    utc(effective_on, 'Europe/Berlin') AS at,
    round(CASE
        WHEN stage = 'Closed lost' THEN -CAST(previous_amount AS DOUBLE)
        WHEN type = 'Expansion' THEN CAST(amount AS DOUBLE)
        ELSE CAST(amount AS DOUBLE) - CAST(previous_amount AS DOUBLE)
    END / 12, 2) AS mrr_delta,
    currency
FROM raw_crm.opportunities
WHERE effective_on IS NOT NULL AND type <> 'New business'
