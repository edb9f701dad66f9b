-- Stage, amount and expected close of each moment are in the opportunity's own history, which
-- Salesforce always keeps. Without a row there, the stage of a deal that is closed by now is not
-- known for the time before.
WITH deals AS (
    SELECT
        account, id, amount, closes_on, currency, stage, is_deleted, known_at,
        utc_text(created_at) AS created,
        is_closed = 'true' AS closed,
        is_won = 'true' AS was_won,
        coalesce(utc_text(stage_changed_at), local_day_end(TRY_CAST(closes_on AS DATE))) AS ended,
        CASE
            WHEN list_contains(from_json(${new_types}, '["VARCHAR"]'), type) THEN 'new'
            WHEN list_contains(from_json(${expansion_types}, '["VARCHAR"]'), type) THEN 'expansion'
            WHEN list_contains(from_json(${renewal_types}, '["VARCHAR"]'), type) THEN 'renewal'
        END AS kind
    FROM raw_salesforce.opportunities
), versions AS (
    SELECT
        deals.* REPLACE (
            CASE WHEN past.id IS NOT NULL THEN past.stage WHEN NOT closed THEN deals.stage END AS stage,
            coalesce(past.amount, deals.amount) AS amount,
            coalesce(past.closes_on, deals.closes_on) AS closes_on,
            'false' AS is_deleted
        ),
        coalesce(utc_text(past.created_at), created) AS moment
    FROM deals
    LEFT JOIN raw_salesforce.opportunity_history AS past ON past.record = deals.id
    UNION ALL
    SELECT *, utc_text(known_at) FROM deals
)
SELECT
    account                                                 AS account_key,
    id                                                      AS opportunity_id,
    kind,
    stage,
    TRY_CAST(amount AS DECIMAL(18, 2))                      AS amount,
    coalesce(currency, nullif(${currency}, ''))             AS currency,
    created                                                 AS created_at,
    TRY_CAST(closes_on AS DATE)                             AS closes_on,
    CASE WHEN closed THEN ended END                         AS closed_at,
    CASE WHEN closed THEN was_won END                       AS won,
    is_deleted = 'true'                                     AS deleted,
    moment                                                  AS known_at
FROM versions
