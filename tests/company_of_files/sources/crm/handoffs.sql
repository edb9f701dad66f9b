-- The handoff form of a deal, empty at first and then as it was each time that somebody filled a part
-- of it; from the first deal on that has one.
WITH deals AS (
    SELECT *, utc(created_at, 'Europe/Berlin') AS created
    FROM raw_crm.opportunities
    WHERE created_at >= (
        SELECT min(created_at) FROM raw_crm.opportunities
        WHERE opportunity_no IN (SELECT opportunity_no FROM raw_crm.handoffs)
    )
), versions AS (
    SELECT
        opportunity_no, promised_outcome, success_criteria, champion_contact,
        decision_maker_contact, stakeholders_met, sentiment, kickoff_on,
        utc(noted_at, 'Europe/Berlin') AS known_at
    FROM raw_crm.handoffs
    UNION ALL BY NAME
    SELECT opportunity_no, created AS known_at FROM deals
)
SELECT
    deals.account_no     AS account_key,
    opportunity_no       AS opportunity_id,
    CASE type WHEN 'New business' THEN 'new' WHEN 'Expansion' THEN 'expansion' ELSE 'renewal' END AS kind,
    promised_outcome,
    success_criteria,
    champion_contact       AS champion,
    decision_maker_contact AS decision_maker,
    stakeholders_met,
    sentiment,
    kickoff_on,
    deals.created        AS created_at,
    CASE stage WHEN 'Closed won' THEN utc(closed_at, 'Europe/Berlin') END AS won_at,
    known_at
FROM deals
JOIN versions USING (opportunity_no)
