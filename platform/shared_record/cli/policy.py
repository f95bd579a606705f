"""``shared-record policy``: who sees what behind a link."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from shared_record.access import links
from shared_record.access.links import INHERIT
from shared_record.cli.context import emit, json_option, open_installation, tenant_option
from shared_record.cli.link import ACTOR
from shared_record.errors import InvalidInputError
from shared_record.tenancy.methods import list_methods
from shared_record.tenancy.policies import Policy
from shared_record.tenancy.tenants import read_tenant

if TYPE_CHECKING:
    from shared_record.web.explain import Shown

TIERS = {"outer": False, "inner": True}
"""Name -> whether it needs a session."""


@click.group()
def policy() -> None:
    """Access policies.

    TWO_TIER: the link alone shows the summary, the rest needs step-up. GATED: everything needs step-up. OPEN: the link
    alone shows everything.
    """


@policy.command(
    epilog="""\b
Examples:
  shared-record policy explain cust_northwind --tenant acme
  shared-record policy explain cust_northwind --tenant acme --json""",
)
@click.argument("customer")
@tenant_option
@json_option
def explain(customer: str, tenant: str, as_json: bool) -> None:
    """Print what the link of CUSTOMER shows alone, and what it shows after a step-up.

    The list is made from the routes that the server has, and decided as the server decides it.
    """
    from shared_record.app import SERVING
    from shared_record.web.explain import explain as explain_routes

    installation = open_installation()
    scope = installation.tenant(tenant).scope
    with installation.db.read(scope) as connection:
        own = links.show_link(connection, installation.keys, scope, customer).policy
        of_tenant = read_tenant(connection, scope).policy
        methods = [row.slug for row in list_methods(connection, scope)]
    chosen = Policy.stored(of_tenant if own == INHERIT else own)
    shown = explain_routes(chosen, SERVING)
    emit(
        {
            "tenant": tenant,
            "customer_id": customer,
            "policy": chosen.value,
            "own_policy": own,
            "methods": methods,
            "tiers": {
                name: [
                    {"method": one.method, "path": one.path, "shows": one.what}
                    for one in shown
                    if one.needs_session == inner
                ]
                for name, inner in TIERS.items()
            },
        },
        as_json=as_json,
        text=_as_text(customer, chosen, own, methods, shown),
    )


def _as_text(customer: str, chosen: Policy, own: str, methods: list[str], shown: list[Shown]) -> str:
    whose = "as its tenant" if own == INHERIT else "its own"
    lines = [f"{customer}: {chosen.value} ({whose})."]
    titles = {
        False: "Outer tier: whoever has the link, or the id of a receipt, sees",
        True: f"Inner tier: after a step-up ({', '.join(methods) or 'no method is enabled'}) also",
    }
    width = max(len(one.path) for one in shown)
    for inner, title in titles.items():
        lines += ["", title]
        rows = [one for one in shown if one.needs_session == inner]
        lines += [f"  {one.method:<5} {one.path:<{width}}  {one.what}" for one in rows] or ["  nothing"]
    return "\n".join(lines)


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
