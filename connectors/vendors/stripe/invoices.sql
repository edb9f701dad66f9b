-- A list tells only the present state of an invoice and when it came to be so. What was true before
-- is a version of its own: issued, open and without attempts that nobody could know of then.
WITH known AS (
    SELECT
        *,
        coalesce(status_transitions ->> '$.finalized_at', created)      AS issued,
        coalesce(
            status_transitions ->> '$.paid_at',
            status_transitions ->> '$.voided_at',
            status_transitions ->> '$.marked_uncollectible_at'
        )                                                               AS settled,
        unnest(CASE WHEN is_first = 'true' THEN [FALSE, TRUE] ELSE [TRUE] END) AS is_present
    FROM raw_stripe.invoices
    WHERE status <> 'draft'
)
SELECT
    customer                                                          AS account_key,
    id                                                                AS invoice_id,
    from_epoch(CAST(issued AS BIGINT))                                AS issued_at,
    from_epoch(CAST(due_date AS BIGINT))                              AS due_at,
    from_epoch(CAST(status_transitions ->> '$.paid_at' AS BIGINT))    AS paid_at,
    money(CAST(amount_due AS BIGINT), upper(currency))                AS amount_due,
    money(CAST(amount_paid AS BIGINT), upper(currency))               AS amount_paid,
    upper(currency)                                                   AS currency,
    CASE WHEN is_present THEN status ELSE 'open' END                  AS status,
    CASE WHEN is_present THEN CAST(attempt_count AS BIGINT) END       AS attempts,
    -- Nobody owes a void invoice.
    is_present AND status = 'void'                                    AS deleted,
    from_epoch(CAST(CASE
        WHEN NOT is_present THEN issued
        WHEN is_first = 'true' THEN coalesce(settled, as_of)
        ELSE as_of
    END AS BIGINT))                                                   AS known_at
FROM known
