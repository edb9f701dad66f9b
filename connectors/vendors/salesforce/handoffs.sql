-- What sales noted on a deal for those who take over, as it was whenever we looked. An org begins
-- to keep handoffs at some time: no deal from before the first one with any of these facts is told,
-- because what nobody could fill is not empty.
WITH deals AS (
    SELECT
        account, id, is_deleted, known_at,
        utc_text(created_at) AS created,
        text_or_null(promised_outcome) AS promised_outcome,
        text_or_null(success_criteria) AS success_criteria,
        champion, decision_maker, sentiment, kickoff_on,
        TRY_CAST(TRY_CAST(stakeholders_met AS DOUBLE) AS BIGINT) AS stakeholders_met,
        coalesce(
            text_or_null(promised_outcome), text_or_null(success_criteria), champion,
            decision_maker, stakeholders_met, sentiment, kickoff_on
        ) IS NOT NULL AS is_noted,
        CASE WHEN is_closed = 'true' AND is_won = 'true'
            THEN coalesce(utc_text(stage_changed_at), local_day_end(TRY_CAST(closes_on AS DATE)))
        END AS won_at,
        CASE
            WHEN list_contains(from_json(${new_types}, '["VARCHAR"]'), type) THEN 'new'
            WHEN list_contains(from_json(${expansion_types}, '["VARCHAR"]'), type) THEN 'expansion'
            WHEN list_contains(from_json(${renewal_types}, '["VARCHAR"]'), type) THEN 'renewal'
        END AS kind
    FROM raw_salesforce.opportunities
)
SELECT
    account                                 AS account_key,
    id                                      AS opportunity_id,
    kind,
    promised_outcome,
    success_criteria,
    champion,
    decision_maker,
    stakeholders_met,
    -- What is none of the five says nothing, and takes nothing along.
    CASE WHEN TRY_CAST(sentiment AS DOUBLE) BETWEEN 1 AND 5 THEN TRY_CAST(sentiment AS DOUBLE) END
                                        AS sentiment,
    TRY_CAST(kickoff_on AS DATE)            AS kickoff_on,
    created                                 AS created_at,
    won_at,
    is_deleted = 'true'                     AS deleted,
    utc_text(known_at)                      AS known_at
FROM deals
WHERE created >= (SELECT min(created) FROM deals WHERE is_noted)
