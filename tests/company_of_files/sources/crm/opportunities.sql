-- Downgrades are renewals with a smaller amount.
SELECT
    account_no     AS account_key,
    opportunity_no AS opportunity_id,
    CASE type WHEN 'New business' THEN 'new' WHEN 'Expansion' THEN 'expansion' ELSE 'renewal' END AS kind,
    stage,
    amount,
    currency,
    utc(created_at, 'Europe/Berlin') AS created_at,
    expected_close                   AS closes_on,
    utc(closed_at, 'Europe/Berlin')  AS closed_at,
    CASE stage WHEN 'Closed won' THEN true WHEN 'Closed lost' THEN false END AS won
FROM raw_crm.opportunities
