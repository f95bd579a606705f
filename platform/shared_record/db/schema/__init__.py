"""The whole schema, one module per domain, on one ``metadata``.

Scopes. Each table says in ``info["scope"]`` whose rows it holds: ``plane`` (one data plane of a tenant: live or
test), ``config`` (settings of a tenant, shared by its planes), ``either`` of these, or ``global`` (rows of the
installation). Tables of a tenant have ``tenant_id`` first in every key, so PostgreSQL can be sharded by tenant. The few
unique keys that must hold across tenants (a host, a slug) are marked ``info={"across_tenants": True}``.
"""

from shared_record.db.schema.access import (
    api_key,
    audit_event,
    challenge,
    customer_secret,
    imported_code,
    kept_answer,
    link,
    method_secret,
    session,
    spent_answer,
    trusted_device,
    view_count,
)
from shared_record.db.schema.base import metadata
from shared_record.db.schema.delivery import webhook_delivery, webhook_endpoint, webhook_event, webhook_task
from shared_record.db.schema.entitlements import entitlement, mail, mail_quota, pinned_address
from shared_record.db.schema.exports import export_job
from shared_record.db.schema.hosts import host
from shared_record.db.schema.jobs import job
from shared_record.db.schema.ledger import (
    anchor,
    awaits_epoch,
    breakdown,
    checkpoint,
    day_counter,
    delta_detail,
    epoch,
    epoch_member,
    former_log,
    leaf,
    log,
    log_node,
    node,
    period_tree,
    receipt,
    signing_key,
    slot_tile,
    statement,
)
from shared_record.db.schema.tenancy import customer, installation, tenant, tenant_manifest, tenant_method

__all__ = [
    "anchor",
    "api_key",
    "audit_event",
    "awaits_epoch",
    "breakdown",
    "challenge",
    "checkpoint",
    "customer",
    "customer_secret",
    "day_counter",
    "delta_detail",
    "entitlement",
    "epoch",
    "epoch_member",
    "export_job",
    "former_log",
    "host",
    "imported_code",
    "installation",
    "job",
    "kept_answer",
    "leaf",
    "link",
    "log",
    "log_node",
    "mail",
    "mail_quota",
    "metadata",
    "method_secret",
    "node",
    "period_tree",
    "pinned_address",
    "receipt",
    "session",
    "signing_key",
    "slot_tile",
    "spent_answer",
    "statement",
    "tenant",
    "tenant_manifest",
    "tenant_method",
    "trusted_device",
    "view_count",
    "webhook_delivery",
    "webhook_endpoint",
    "webhook_event",
    "webhook_task",
]
