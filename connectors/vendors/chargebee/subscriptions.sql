-- Chargebee tells the present state and when it last changed (`changed_at`). In a first reading that is
-- too late a date for what was known long before: there the dates inside the subscription make versions of
-- it. What was changed before the first reading (price, quantity) is not in any of them.
--
-- MRR is Chargebee's own; where the site does not compute it, the amounts of plan and addons a month.
-- An item without an amount (tiers that need the usage) makes it null: it is never guessed.
WITH typed AS (
    SELECT
        *,
        from_json(subscription_items, '[{
            "item_price_id": "VARCHAR", "item_type": "VARCHAR", "quantity": "BIGINT",
            "amount": "DOUBLE", "billing_period": "DOUBLE", "billing_period_unit": "VARCHAR"
        }]')                                           AS items,
        CAST(coalesce(created_at, started_at) AS BIGINT) AS began,
        CAST(trial_end AS BIGINT)                      AS trial_until,
        CAST(current_term_start AS BIGINT)             AS term_from,
        CAST(current_term_end AS BIGINT)               AS term_to,
        CAST(cancelled_at AS BIGINT)                   AS ends,
        CAST(coalesce(cancel_schedule_created_at, cancelled_at) AS BIGINT) AS noticed,
        CAST(billing_period AS DOUBLE) * CASE billing_period_unit
            WHEN 'year' THEN 12 WHEN 'month' THEN 1
            WHEN 'week' THEN 12 / 52.0 WHEN 'day' THEN 12 / 365.0 END AS months
    FROM raw_chargebee.subscriptions
),

-- One-time charges are no recurring revenue.
recurring AS (
    SELECT
        *,
        list_filter(items, lambda item: item.item_type <> 'charge') AS parts,
        list_filter(items, lambda item: item.item_type = 'plan')[1] AS plan_item,
        unnest(CASE
            WHEN is_first = 'false' THEN [CAST(changed_at AS BIGINT)]
            ELSE list_filter(
                [began, CASE WHEN status <> 'in_trial' THEN trial_until END, term_from, noticed,
                 CASE WHEN status = 'cancelled' THEN ends END,
                 CASE WHEN deleted = 'true' THEN CAST(changed_at AS BIGINT) END],
                lambda moment: moment >= began)
        END) AS moment
    FROM typed
),

monthly AS (
    SELECT
        *,
        list_transform(parts, lambda part: part.amount / coalesce(
            part.billing_period * CASE part.billing_period_unit
                WHEN 'year' THEN 12 WHEN 'month' THEN 1
                WHEN 'week' THEN 12 / 52.0 WHEN 'day' THEN 12 / 365.0 END,
            months)) AS amounts
    FROM recurring
)

SELECT
    customer_id                               AS account_key,
    id                                        AS subscription_id,
    coalesce(plan_item.item_price_id, plan_id) AS plan,
    money(
        coalesce(
            CAST(mrr AS DOUBLE),
            CASE WHEN list_count(amounts) = len(parts) THEN list_sum(amounts) END
        ),
        currency_code
    )                                         AS mrr,
    currency_code                             AS currency,
    coalesce(plan_item.quantity, CAST(plan_quantity AS BIGINT)) AS seats,
    from_epoch(CAST(coalesce(started_at, start_date, created_at) AS BIGINT)) AS started_at,
    CASE WHEN noticed <= moment THEN from_epoch(noticed) END AS cancelled_at,
    CASE WHEN noticed <= moment THEN from_epoch(ends) END    AS ends_at,
    -- A contract that runs month by month has no renewal to prepare for.
    CASE WHEN months >= 12 AND term_from <= moment THEN local_day(from_epoch(coalesce(
        CAST(contract_term ->> '$.contract_end' AS BIGINT), term_to
    ))) END                                   AS renews_on,
    CASE WHEN is_first = 'false' THEN status
         WHEN moment < trial_until THEN 'in_trial'
         WHEN moment < noticed THEN 'active'
         WHEN moment < ends THEN 'non_renewing'
         ELSE status END                      AS status,
    deleted = 'true' AND moment >= CAST(changed_at AS BIGINT) AS deleted,
    from_epoch(moment)                        AS known_at
FROM monthly
