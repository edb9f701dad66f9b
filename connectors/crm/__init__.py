"""Writing into a CRM: what is planned, whether it may be written, and that it is written once.

`settings` reads `crm.yaml`, `changes` compares what the scores want with what the CRM acknowledged,
`planning` makes a plan of field changes and tasks, `gate` judges it, `applying` carries it out
through a `writing.CrmWriter`, and `ledger` keeps every step. The writers of Salesforce and HubSpot
stand beside their readers in `connectors.vendors`.
"""
