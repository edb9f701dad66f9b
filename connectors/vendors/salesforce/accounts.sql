-- Every version of an account: what the records said whenever we looked, and before that what the
-- history tells. The state at a moment is the first record seen after it, with the changes in
-- between undone: of each field, the first change after the moment holds the value of then.
WITH records AS (
    SELECT
        id, utc_text(known_at) AS seen_at, utc_text(created_at) AS created, modified_at,
        is_deleted, master_record,
        to_json({
            'account_id': account_id, 'name': name, 'website': website, 'parent': parent,
            'owner': owner, 'sales_owner': sales_owner, 'arr': arr, 'currency': currency,
            'employees': employees, 'industry': industry, 'region': region, 'plan': plan,
            'started_on': started_on, 'renews_on': renews_on,
            'desired_outcome': desired_outcome, 'status': status
        }) AS state
    FROM raw_salesforce.accounts
), seen AS ( -- a scan for silent changes finds most records as they were
    SELECT * FROM records
    QUALIFY row(state, modified_at) IS DISTINCT FROM
        lag(row(state, modified_at)) OVER (PARTITION BY id ORDER BY seen_at)
), changes AS ( -- a lookup's change comes twice, as ids and as names
    SELECT record, field, old_value, utc_text(created_at) AS changed_at
    FROM raw_salesforce.account_history
    QUALIFY row_number() OVER (
        PARTITION BY record, field, created_at ORDER BY data_type = 'EntityId' DESC, id
    ) = 1
), moments AS (
    SELECT id, seen_at AS moment FROM seen
    UNION
    SELECT id, created FROM seen
    UNION
    SELECT record, changed_at FROM changes
), next_seen AS (
    SELECT moments.id, moment, seen_at, state, created, is_deleted, master_record
    FROM moments
    ASOF JOIN seen ON moments.id = seen.id AND moments.moment <= seen.seen_at
), undone AS (
    SELECT next_seen.id, moment, field, old_value
    FROM next_seen
    JOIN changes ON record = id AND changed_at > moment AND changed_at <= seen_at
    QUALIFY row_number() OVER (PARTITION BY id, moment, field ORDER BY changed_at) = 1
), former AS (
    SELECT id, moment, json_group_object(field, old_value) AS fields FROM undone GROUP BY ALL
), versions AS (
    SELECT
        next_seen.* EXCLUDE (state),
        json_merge_patch(state, coalesce(fields, '{}')) AS state,
        moment = seen_at AND is_deleted = 'true' AS gone
    FROM next_seen
    LEFT JOIN former USING (id, moment)
), numbers AS (
    SELECT id, coalesce(text_or_null((state ->> 'account_id')), id) AS number
    FROM seen
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY seen_at DESC) = 1
)
SELECT
    coalesce(text_or_null((state ->> 'account_id')), v.id)         AS account_id,
    'salesforce'                                                 AS crm,
    v.id                                                         AS crm_id,
    (state ->> 'name')                                             AS name,
    text_or_null(regexp_replace(
        lower((state ->> 'website')), '^(https?://)?(www\.)?([^/?#:]*).*$', '\3'
    ))                                                           AS domain,
    head.number                                                  AS parent_id,
    coalesce(manager.name, (state ->> 'owner'))                    AS owner,
    coalesce(rep.name, (state ->> 'sales_owner'))                  AS sales_owner,
    TRY_CAST((state ->> 'arr') AS DECIMAL(18, 2))                  AS arr,
    coalesce((state ->> 'currency'), nullif(${currency}, ''))      AS currency,
    TRY_CAST(TRY_CAST((state ->> 'employees') AS DOUBLE) AS BIGINT) AS employees,
    (state ->> 'industry')                                         AS industry,
    (state ->> 'region')                                           AS region,
    (state ->> 'plan')                                             AS plan,
    coalesce(TRY_CAST((state ->> 'started_on') AS DATE), local_day(created)) AS started_on,
    TRY_CAST((state ->> 'renews_on') AS DATE)                      AS renews_on,
    (state ->> 'desired_outcome')                                  AS desired_outcome,
    list_contains(from_json(${customer_types}, '["VARCHAR"]'), (state ->> 'status')) AS is_customer,
    CASE WHEN gone THEN heir.number END                          AS merged_into,
    gone AND heir.number IS NULL                                 AS deleted,
    moment                                                       AS known_at
FROM versions AS v
LEFT JOIN raw_salesforce.users AS manager ON manager.id = (state ->> 'owner')
LEFT JOIN raw_salesforce.users AS rep ON rep.id = (state ->> 'sales_owner')
LEFT JOIN numbers AS head ON head.id = (state ->> 'parent')
LEFT JOIN numbers AS heir ON heir.id = master_record
