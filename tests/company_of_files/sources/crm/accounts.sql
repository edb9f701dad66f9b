-- Lasting facts from one export, and what changed when from the other: a row for every version.
SELECT
    change.account_no                            AS account_id,
    'salesforce'                                 AS crm,
    account.record_id                            AS crm_id,
    account.account_name                         AS name,
    replace(account.website, 'https://www.', '') AS domain,
    account.parent_account                       AS parent_id,
    change.success_manager                       AS owner,
    change.sales_rep                             AS sales_owner,
    change.annual_value                          AS arr,
    change.currency,
    account.headcount                            AS employees,
    account.industry,
    account.region,
    change.edition                               AS plan,
    coalesce(account.customer_since, account.created) AS started_on,
    change.next_renewal                          AS renews_on,
    change.objective                             AS desired_outcome,
    change.status = 'Customer'                   AS is_customer,
    change.merged_into,
    change.deleted = 'yes'                       AS deleted,
    utc(change.changed_at, 'Europe/Berlin')      AS known_at
FROM raw_crm.account_changes AS change
JOIN raw_crm.accounts AS account USING (account_no)
