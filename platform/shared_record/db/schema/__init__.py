"""The whole schema, one module per domain, on one ``metadata``.

Scopes. Each table says in ``info["scope"]`` whose rows it holds: ``plane`` (one data plane of a tenant: live or
test), ``config`` (settings of a tenant, shared by its planes), ``either`` of these, or ``global`` (rows of the
installation). Tables of a tenant have ``tenant_id`` first in every key, so PostgreSQL can be sharded by tenant. The few
unique keys that must hold across tenants (a host, a slug) are marked ``info={"across_tenants": True}``.
"""

from shared_record.db.schema.access import api_key, audit_event, link, session
from shared_record.db.schema.base import metadata
from shared_record.db.schema.hosts import host
from shared_record.db.schema.jobs import job
from shared_record.db.schema.ledger import (
    checkpoint,
    day_counter,
    delta_detail,
    epoch,
    epoch_member,
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
    "api_key",
    "audit_event",
    "checkpoint",
    "customer",
    "day_counter",
    "delta_detail",
    "epoch",
    "epoch_member",
    "host",
    "installation",
    "job",
    "leaf",
    "link",
    "log",
    "log_node",
    "metadata",
    "node",
    "period_tree",
    "receipt",
    "session",
    "signing_key",
    "slot_tile",
    "statement",
    "tenant",
    "tenant_manifest",
    "tenant_method",
]
