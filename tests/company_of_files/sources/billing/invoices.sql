-- Only final states are exported; `paid_at` tells the contract when each became known.
SELECT
    customer                                AS account_key,
    id                                      AS invoice_id,
    from_epoch(CAST(created AS BIGINT))     AS issued_at,
    from_epoch(CAST(due_date AS BIGINT))    AS due_at,
    from_epoch(CAST(status_transitions ->> '$.paid_at' AS BIGINT)) AS paid_at,
    money(amount_due, upper(currency))      AS amount_due,
    money(amount_paid, upper(currency))     AS amount_paid,
    upper(currency)                         AS currency,
    status,
    attempt_count                           AS attempts
FROM raw_billing.invoices
