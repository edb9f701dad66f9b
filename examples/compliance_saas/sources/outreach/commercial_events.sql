-- That somebody was asked, on the day it happened. A contact about an expansion before the customer
-- signed cannot be right: its day stays empty, and the contract refuses the row.
-- Not mapped: outcome, which came later on a day that nobody wrote down; propensity_at_outreach,
-- the output of another model that was built to predict what upsell scores; outreach_channel, for
-- which there is no column.
SELECT
    log.customer_id      AS account_key,
    log.outreach_id      AS event_id,
    'expansion_outreach' AS kind,
    CASE WHEN CAST(log.contacted_date AS DATE) >= CAST(customer.signup_date AS DATE)
         THEN log.contacted_date END AS occurred_at
FROM raw_outreach.expansion_outreach_log AS log
JOIN raw_customers.customers AS customer USING (customer_id)
