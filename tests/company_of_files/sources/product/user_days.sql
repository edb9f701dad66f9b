-- Users are numbered within their workspace, so the workspace belongs to the key.
SELECT
    workspace_id                     AS account_key,
    workspace_id || '-u' || user_no  AS user_key,
    date                             AS day
FROM raw_product.active_users
