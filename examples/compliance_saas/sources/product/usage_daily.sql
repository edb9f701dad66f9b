-- Events counted by customer, day and kind. feature_adoption_score comes with the events, so it has
-- a date; but it is the output of somebody's model. It is kept as the value, for a metric of its
-- own that no scorecard reads.
SELECT
    customer_id                 AS account_key,
    local_day(ts)               AS day,
    event_type                  AS event,
    count(*)                    AS count,
    avg(feature_adoption_score) AS value
FROM raw_product.usage_events
GROUP BY customer_id, local_day(ts), event_type
