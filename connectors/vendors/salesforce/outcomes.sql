-- What really happened, on the day it took effect: lost renewals, and won deals by their amount.
-- A lost attempt to sell more is no outcome.
WITH closed AS (
    SELECT
        account,
        currency,
        is_deleted = 'true' AS is_gone,
        is_won = 'true' AS was_won,
        list_contains(from_json(${expansion_types}, '["VARCHAR"]'), type) AS is_expansion,
        TRY_CAST(amount AS DOUBLE) AS after,
        TRY_CAST(previous_amount AS DOUBLE) AS before,
        coalesce(TRY_CAST(effective_on AS DATE), TRY_CAST(closes_on AS DATE)) AS effective
    FROM raw_salesforce.opportunities
    WHERE
        is_closed = 'true'
        AND NOT list_contains(from_json(${new_types}, '["VARCHAR"]'), type)
)
SELECT
    account                                 AS account_key,
    CASE
        WHEN NOT was_won THEN 'churned'
        WHEN is_expansion OR after > before THEN 'expanded'
        WHEN after < before THEN 'contracted'
        ELSE 'renewed'
    END                                     AS kind,
    local_day_end(effective - 1)            AS at,
    round(CASE
        WHEN NOT was_won THEN -coalesce(before, after)
        WHEN is_expansion THEN after
        ELSE after - before
    END / 12, 2)                            AS mrr_delta,
    coalesce(currency, nullif(${currency}, '')) AS currency,
    is_gone                                 AS deleted
FROM closed
WHERE was_won OR NOT is_expansion
