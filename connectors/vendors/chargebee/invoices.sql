-- A first reading tells the present state of an invoice and when it came to be so. What was true before
-- is a version of its own: issued, open and without attempts that nobody could know of then.
WITH known AS (
    SELECT
        *,
        unnest(CASE WHEN is_first = 'true' THEN [FALSE, TRUE] ELSE [TRUE] END) AS is_present
    FROM raw_chargebee.invoices
    WHERE status <> 'pending'
)
SELECT
    customer_id                                      AS account_key,
    id                                               AS invoice_id,
    from_epoch(CAST(date AS BIGINT))                 AS issued_at,
    from_epoch(CAST(due_date AS BIGINT))             AS due_at,
    from_epoch(CAST(paid_at AS BIGINT))              AS paid_at,
    -- Chargebee's own `amount_due` is what is left to pay.
    money(CAST(total AS BIGINT), currency_code)       AS amount_due,
    money(CAST(amount_paid AS BIGINT), currency_code) AS amount_paid,
    currency_code                                    AS currency,
    CASE WHEN is_present THEN status
         WHEN CAST(due_date AS BIGINT) > CAST(date AS BIGINT) THEN 'posted'
         ELSE 'payment_due' END                      AS status,
    CASE WHEN is_present THEN json_array_length(linked_payments) END AS attempts,
    -- Nobody owes a voided invoice.
    is_present AND (deleted = 'true' OR status = 'voided') AS deleted,
    from_epoch(CAST(CASE
        WHEN NOT is_present THEN date
        WHEN is_first = 'true' THEN coalesce(paid_at, voided_at, changed_at)
        ELSE changed_at
    END AS BIGINT))                                  AS known_at
FROM known
