-- Stripe tells the present state. An event dates it (`as_of`); a first list does not: there the
-- dates inside the subscription make versions of it: what was not yet so is left out of them. What
-- was changed before the first reading (price, quantity) is not in any of them.
--
-- MRR is the price of all items a month, before discounts and tax. Where one item has no price of
-- its own (tiers, metered usage), it is unknown, and so is the sum.
WITH typed AS (
    SELECT
        *,
        from_json(items, '{
            "has_more": "BOOLEAN",
            "data": [{
                "quantity": "DOUBLE",
                "price": {
                    "nickname": "VARCHAR", "lookup_key": "VARCHAR", "product": "VARCHAR",
                    "unit_amount": "DOUBLE", "unit_amount_decimal": "DOUBLE",
                    "recurring": {
                        "interval": "VARCHAR", "interval_count": "DOUBLE", "usage_type": "VARCHAR"
                    },
                    "transform_quantity": {"divide_by": "DOUBLE", "round": "VARCHAR"}
                },
                "plan": {
                    "nickname": "VARCHAR", "product": "VARCHAR",
                    "amount": "DOUBLE", "amount_decimal": "DOUBLE", "interval": "VARCHAR",
                    "interval_count": "DOUBLE", "usage_type": "VARCHAR",
                    "transform_usage": {"divide_by": "DOUBLE", "round": "VARCHAR"}
                }
            }]
        }')                                   AS listed,
        CAST(created AS BIGINT)               AS began,
        CAST(trial_end AS BIGINT)             AS trial_until,
        CAST(current_period_start AS BIGINT)  AS period_from,
        CAST(current_period_end AS BIGINT)    AS period_to,
        CAST(canceled_at AS BIGINT)           AS cancelled,
        CAST(cancel_at AS BIGINT)             AS to_end,
        CAST(ended_at AS BIGINT)              AS ended
    FROM raw_stripe.subscriptions
),

-- Years ago Stripe had plans instead of prices; some servers still have only those.
priced AS (
    SELECT
        *,
        list_transform(listed.data, lambda item: {
            'plan': coalesce(item.price.nickname, item.plan.nickname, item.price.lookup_key,
                             item.price.product, item.plan.product),
            'cents': coalesce(item.price.unit_amount_decimal, item.price.unit_amount,
                              item.plan.amount_decimal, item.plan.amount),
            'seats': CASE coalesce(item.price.recurring.usage_type, item.plan.usage_type, '')
                     WHEN 'metered' THEN NULL ELSE item.quantity END,
            'package': coalesce(item.price.transform_quantity, item.plan.transform_usage),
            'months': coalesce(item.price.recurring.interval_count, item.plan.interval_count)
                * CASE coalesce(item.price.recurring.interval, item.plan.interval)
                  WHEN 'year' THEN 12 WHEN 'month' THEN 1
                  WHEN 'week' THEN 12 / 52.0 WHEN 'day' THEN 12 / 365.0 END
        }) AS parts
    FROM typed
),

monthly AS (
    SELECT
        *,
        list_transform(parts, lambda part: part.cents / part.months * CASE
            WHEN part.package.divide_by IS NULL THEN part.seats
            WHEN part.package.round = 'down' THEN floor(part.seats / part.package.divide_by)
            ELSE ceil(part.seats / part.package.divide_by) END) AS cents_a_month,
        list_max(list_transform(parts, lambda part: part.months)) >= 12 AS renews,
        unnest(CASE
            WHEN is_first = 'false' THEN [CAST(as_of AS BIGINT)]
            ELSE list_filter(
                [began, CASE WHEN status <> 'trialing' THEN trial_until END, period_from,
                 cancelled, ended],
                lambda moment: moment >= began AND moment <= coalesce(ended, moment))
        END) AS moment
    FROM priced
)

SELECT
    customer                         AS account_key,
    id                               AS subscription_id,
    parts[1].plan                    AS plan,
    CASE WHEN NOT listed.has_more AND list_count(cents_a_month) = len(parts)
         THEN money(list_sum(cents_a_month), upper(currency)) END AS mrr,
    upper(currency)                  AS currency,
    -- With a base fee beside the seats, the seats are the larger number.
    CAST(list_max(list_transform(parts, lambda part: part.seats)) AS BIGINT) AS seats,
    from_epoch(CAST(start_date AS BIGINT)) AS started_at,
    CASE WHEN cancelled <= moment THEN from_epoch(cancelled) END AS cancelled_at,
    CASE WHEN cancelled <= moment THEN from_epoch(coalesce(
        to_end, CASE WHEN cancel_at_period_end = 'true' THEN period_to END, ended
    )) END                           AS ends_at,
    -- A contract that runs month by month has no renewal to prepare for.
    CASE WHEN renews AND period_from <= moment THEN local_day(from_epoch(period_to)) END
                                     AS renews_on,
    CASE WHEN is_first = 'false' THEN status
         WHEN moment < trial_until THEN 'trialing'
         WHEN status = 'canceled' AND moment < ended THEN 'active'
         ELSE status END             AS status,
    from_epoch(moment)               AS known_at
FROM monthly
