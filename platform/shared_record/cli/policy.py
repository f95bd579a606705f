"""``shared-record policy``: who sees what behind a link."""

from __future__ import annotations

import click

from shared_record.access import links
from shared_record.access.links import INHERIT
from shared_record.cli.context import emit, json_option, open_installation, tenant_option
from shared_record.cli.link import ACTOR
from shared_record.errors import InvalidInputError
from shared_record.tenancy.policies import Policy


@click.group()
def policy() -> None:
    """Access policies.

    TWO_TIER: the link alone shows the summary, the rest needs step-up. GATED: everything needs step-up. OPEN: the link
    alone shows everything.
    """


@policy.command(
    "set",
    epilog="""\b
Examples:
  shared-record policy set GATED --tenant acme
  shared-record policy set OPEN --tenant acme --customer cust_northwind
  shared-record policy set INHERIT --tenant acme --customer cust_northwind""",
)
@click.argument("policy", type=click.Choice([*Policy, INHERIT], case_sensitive=False), metavar="POLICY")
@tenant_option
@click.option("--customer", help="Only this customer's link; INHERIT returns it to the tenant's policy.")
@json_option
def set_(policy: str, tenant: str, customer: str | None, as_json: bool) -> None:
    """Set the policy of a tenant or of one customer: TWO_TIER, GATED, OPEN, or for one customer INHERIT.

    A change ends the sessions it concerns at once.
    """
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    if customer is None and policy == INHERIT:
        raise InvalidInputError("INHERIT is for one customer: add --customer ID.")
    with installation.db.write(scope) as connection:
        if customer is None:
            changed = links.set_tenant_policy(connection, installation.clock, scope, Policy(policy), ACTOR)
        else:
            changed = links.set_customer_policy(connection, installation.clock, scope, customer, policy, ACTOR)
    whose = f"{tenant}/{customer}" if customer else tenant
    emit(
        {"tenant": tenant, "customer_id": customer, "policy": policy, "changed": changed},
        as_json=as_json,
        text=f"{whose}: {policy}" + ("; sessions have ended." if changed else " already; nothing changed."),
    )
