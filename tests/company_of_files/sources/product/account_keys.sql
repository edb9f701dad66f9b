-- Sales typed the CRM's number into most workspaces; for the others the sign-up domain has to do.
SELECT
    workspace_id   AS account_key,
    crm_account_no AS account_id,
    signup_domain  AS domain
FROM raw_product.workspaces
