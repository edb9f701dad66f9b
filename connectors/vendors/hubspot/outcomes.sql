-- What really happened, on the day it took effect. A renewal without such a day took effect when
-- the deal was closed; without the amount before, a won one counts as renewed.
SELECT
    account_key,
    CASE
        WHEN NOT won THEN 'churned'
        WHEN kind = 'expansion' OR amount > previous THEN 'expanded'
        WHEN amount < previous THEN 'contracted'
        ELSE 'renewed'
    END AS kind,
    coalesce(local_day_end(effective_on - 1), closes) AS at,
    round(CASE
        WHEN NOT won THEN -coalesce(previous, amount)
        WHEN kind = 'expansion' THEN amount
        ELSE amount - previous
    END / 12, 2) AS mrr_delta,
    currency,
    coalesce(archived = 'true', false) AS deleted
FROM (
    SELECT
        companies ->> '$[0]'                                                 AS account_key,
        ${deal_kinds} ->> (properties ->> ${deal_type})                      AS kind,
        (properties ->> 'hs_is_closed_won') = 'true'                           AS won,
        TRY_CAST(properties ->> ${deal_amount} AS DOUBLE)                    AS amount,
        TRY_CAST(text_or_null(properties ->> ${deal_previous_amount}) AS DOUBLE) AS previous,
        upper(coalesce(text_or_null(properties ->> ${deal_currency}), text_or_null(${portal_currency}))) AS currency,
        coalesce(
            CAST(from_epoch_ms(TRY_CAST(properties ->> ${deal_effective_on} AS BIGINT)) AS DATE),
            TRY_CAST(left(properties ->> ${deal_effective_on}, 10) AS DATE)
        )                                                                    AS effective_on,
        coalesce(
            from_epoch_ms(TRY_CAST(properties ->> ${deal_closes} AS BIGINT)),
            utc_text(properties ->> ${deal_closes})
        )                                                                    AS closes,
        archived
    FROM raw_hubspot.deals
    WHERE (properties ->> 'hs_is_closed') = 'true' AND (companies ->> '$[0]') IS NOT NULL
)
WHERE kind = 'renewal' OR (kind = 'expansion' AND effective_on IS NOT NULL)
