-- How much of the customer's compliance gap is closed. The score has no date, so it counts as
-- measured just before we read the file: it speaks from then on and never about earlier days.
-- Every later export adds a measurement.
SELECT
    customer_id                                        AS account_key,
    'gap-' || customer_id                              AS goal_id,
    'Close the compliance gap'                         AS name,
    100                                                AS target,
    round(100 * (1 - CAST(compliance_gap_score AS DOUBLE)), 1) AS progress,
    _loaded_at                                         AS measured_at,
    _loaded_at                                         AS known_at
FROM raw_risk.risk_signals
