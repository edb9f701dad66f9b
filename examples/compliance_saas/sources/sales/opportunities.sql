-- stage is that of the day of the export. Won and lost are final, and close_date is their day: such
-- an opportunity existed on it at the latest, so it is taken as created then. An open one has
-- neither a date of creation nor a history of stages, and its close_date is a hope: created_at
-- stays empty, and the contract refuses the row.
-- Not mapped: sales_owner, because an account has several and the list does not say who has it now.
SELECT
    customer_id AS account_key,
    opp_id      AS opportunity_id,
    CASE opportunity_type WHEN 'new_business' THEN 'new' WHEN 'expansion' THEN 'expansion' END
                AS kind,
    stage,
    amount,
    'USD'       AS currency,
    CASE WHEN stage IN ('closed_won', 'closed_lost') THEN close_date END AS created_at,
    close_date  AS closes_on,
    CASE WHEN stage IN ('closed_won', 'closed_lost') THEN close_date END AS closed_at,
    CASE stage WHEN 'closed_won' THEN true WHEN 'closed_lost' THEN false END AS won
FROM raw_sales.gtm_opportunities
