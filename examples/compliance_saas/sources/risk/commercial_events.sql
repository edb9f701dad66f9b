-- Open flags against the customer's vendors. When they were raised is not said, so the event is
-- that we saw them, and it is known from then on.
SELECT
    customer_id                    AS account_key,
    'vendor-flags-' || customer_id AS event_id,
    'vendor_flags_seen'            AS kind,
    least(CAST(vendor_risk_flags AS BIGINT), 5) AS severity,
    _loaded_at                     AS occurred_at,
    _loaded_at                     AS known_at
FROM raw_risk.risk_signals
WHERE CAST(vendor_risk_flags AS BIGINT) > 0
