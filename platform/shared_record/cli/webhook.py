"""``shared-record webhook``: where a tenant's events are sent, and what became of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from shared_record.access import audit
from shared_record.cli.context import Installation, emit, json_option, note, open_installation
from shared_record.cli.context import tenant_option as of_tenant
from shared_record.cli.link import ACTOR
from shared_record.clock import rfc3339
from shared_record.db.scope import Scope
from shared_record.delivery import log, webhooks
from shared_record.delivery.egress import Egress
from shared_record.delivery.events import DELTA_VERIFIED, EVENTS
from shared_record.delivery.log import Delivery
from shared_record.delivery.webhooks import Endpoint
from shared_record.errors import UnavailableError
from shared_record.tenancy.tenants import TEST_SUFFIX

TEST_WAIT = 15.0
POLL_SECONDS = 0.25


class Moment(click.ParamType[datetime]):
    """A moment such as ``2026-11-01`` (midnight UTC) or ``2026-11-01T09:30:00Z``."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read one moment; one without a zone is UTC."""
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a moment. Write for example 2026-11-01 or 2026-11-01T09:30:00Z.", param, ctx)
        return found if found.tzinfo else found.replace(tzinfo=UTC)


test_option = click.option("--test", "test_plane", is_flag=True, help="The test plane, whose data is apart.")
event_option = click.option(
    "--event",
    "names",
    multiple=True,
    metavar="EVENT",
    type=click.Choice(list(EVENTS)),
    help="Only this event, e.g. delta.verified; give it again for more.",
)
to_option = click.option("--webhook", "endpoint_id", metavar="ID", help="Only this endpoint.")


@click.group()
def webhook() -> None:
    """Webhooks: endpoints that are told of a tenant's events, and the log of deliveries."""


@webhook.command(
    epilog="""\b
Examples:
  shared-record webhook create https://billing.acme.example/hooks --tenant acme
  shared-record webhook create https://hooks.acme.example/ --tenant acme --event delta.verified"""
)
@click.argument("url")
@of_tenant
@test_option
@event_option
@click.option("--description", default="", help="What the endpoint is for.")
@json_option
def create(url: str, tenant: str, test_plane: bool, names: tuple[str, ...], description: str, as_json: bool) -> None:
    """Make an endpoint and print its secret, which cannot be shown again. Without --event it gets every event."""
    installation, scope = _plane(tenant, test_plane)
    with installation.db.write(scope) as connection:
        made, secret = webhooks.create_endpoint(
            connection,
            installation.keys,
            installation.clock,
            scope,
            _egress(installation),
            url=url,
            description=description,
            wanted=names or None,
        )
        _audit(connection, installation, scope, "webhook.created", made.endpoint_id)
    if not as_json:
        note("Keep this secret now: it is stored sealed and cannot be shown again.")
    emit(made.document | {"secret": secret}, as_json=as_json, text=f"{made.endpoint_id}\n{secret}")


@webhook.command("list", epilog="Example:  shared-record webhook list --tenant acme")
@of_tenant
@test_option
@json_option
def list_(tenant: str, test_plane: bool, as_json: bool) -> None:
    """List the endpoints of a tenant."""
    installation, scope = _plane(tenant, test_plane)
    with installation.db.read(scope) as connection:
        found = webhooks.list_endpoints(connection, scope)
    text = "\n".join(_as_text(one) for one in found) or f"{tenant} has no webhook endpoints."
    emit({"tenant": tenant, "webhooks": [one.document for one in found]}, as_json=as_json, text=text)


@webhook.command(
    epilog="""\b
Examples:
  shared-record webhook update wh_… --tenant acme --url https://hooks.acme.example/v2
  shared-record webhook update wh_… --tenant acme --all-events
  shared-record webhook update wh_… --tenant acme --disable"""
)
@click.argument("endpoint_id", metavar="ID")
@of_tenant
@test_option
@click.option("--url", help="Where to send from now on.")
@click.option("--description", help="What the endpoint is for.")
@event_option
@click.option("--all-events", is_flag=True, help="Send every event again.")
@click.option("--enable/--disable", "enabled", default=None, help="Begin or stop sending.")
@json_option
def update(
    endpoint_id: str,
    tenant: str,
    test_plane: bool,
    url: str | None,
    description: str | None,
    names: tuple[str, ...],
    all_events: bool,
    enabled: bool | None,
    as_json: bool,
) -> None:
    """Change the endpoint ID. What is not named stays."""
    if names and all_events:
        raise click.UsageError("Give --event or --all-events.")
    changes: dict[str, Any] = {"url": url, "description": description, "enabled": enabled}
    changes = {name: value for name, value in changes.items() if value is not None}
    if names or all_events:
        changes["events"] = list(names) if names else None
    if not changes:
        raise click.UsageError("Name what to change: --url, --description, --event, --all-events, --enable, --disable.")
    installation, scope = _plane(tenant, test_plane)
    with installation.db.write(scope) as connection:
        changed = webhooks.update_endpoint(connection, scope, _egress(installation), endpoint_id, changes)
        _audit(connection, installation, scope, "webhook.updated", endpoint_id, changed=sorted(changes))
    emit(changed.document, as_json=as_json, text=_as_text(changed))


@webhook.command(epilog="Example:  shared-record webhook delete wh_… --tenant acme")
@click.argument("endpoint_id", metavar="ID")
@of_tenant
@test_option
@json_option
def delete(endpoint_id: str, tenant: str, test_plane: bool, as_json: bool) -> None:
    """Remove the endpoint ID and what was to be sent to it. The log of its deliveries stays."""
    installation, scope = _plane(tenant, test_plane)
    with installation.db.write(scope) as connection:
        webhooks.delete_endpoint(connection, scope, endpoint_id)
        _audit(connection, installation, scope, "webhook.deleted", endpoint_id)
    emit({"id": endpoint_id, "deleted": True}, as_json=as_json, text=f"{endpoint_id} is removed.")


@webhook.command(
    epilog="""\b
Examples:
  shared-record webhook rotate wh_… --tenant acme
  shared-record webhook rotate wh_… --tenant acme --no-overlap"""
)
@click.argument("endpoint_id", metavar="ID")
@of_tenant
@test_option
@click.option(
    "--overlap/--no-overlap", default=True, help="Let the former secret sign too for 24 hours.  [default: overlap]"
)
@json_option
def rotate(endpoint_id: str, tenant: str, test_plane: bool, overlap: bool, as_json: bool) -> None:
    """Give the endpoint ID a new secret and print it. It cannot be shown again."""
    installation, scope = _plane(tenant, test_plane)
    with installation.db.write(scope) as connection:
        secret = webhooks.rotate_secret(
            connection, installation.keys, installation.clock, scope, endpoint_id, overlap=overlap
        )
        _audit(connection, installation, scope, "webhook.rotated", endpoint_id, overlap=overlap)
    emit({"id": endpoint_id, "secret": secret}, as_json=as_json, text=secret)


@webhook.command(
    epilog="""\b
Examples:
  shared-record webhook test wh_… --tenant acme
  shared-record webhook test wh_… --tenant acme --event customer.created --no-wait"""
)
@click.argument("endpoint_id", metavar="ID")
@of_tenant
@test_option
@click.option(
    "--event",
    metavar="EVENT",
    type=click.Choice(list(EVENTS)),
    default=DELTA_VERIFIED,
    show_default=True,
    help="Which event.",
)
@click.option("--wait/--no-wait", default=True, help="Wait up to 15 seconds for the answer.  [default: wait]")
@json_option
def test(endpoint_id: str, tenant: str, test_plane: bool, event: str, wait: bool, as_json: bool) -> None:
    """Have the worker send a sample event to the endpoint ID, and say what it answered."""
    installation, scope = _plane(tenant, test_plane)
    with installation.db.write(scope) as connection:
        event_id = webhooks.send_test(connection, installation.clock, scope, endpoint_id, event)
    found = _await_answer(installation, scope, event_id) if wait else None
    if wait and found is None:
        raise UnavailableError(f"{event_id} was not sent within {TEST_WAIT:g} seconds. Is a worker running?")
    text = f"{event_id} is queued." if found is None else _delivery_text(found)
    emit({"eventId": event_id, "delivery": found and found.document}, as_json=as_json, text=text)


@webhook.command(
    epilog="""\b
Examples:
  shared-record webhook deliveries --tenant acme --status failed
  shared-record webhook deliveries --tenant acme --event-id evt_…"""
)
@of_tenant
@test_option
@click.option("--status", type=click.Choice(log.STATES, case_sensitive=False), help="Only these.")
@to_option
@click.option("--event-id", metavar="ID", help="What became of one event; any id of a range.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Leave out so many of the newest.")
@json_option
def deliveries(
    tenant: str,
    test_plane: bool,
    status: str | None,
    endpoint_id: str | None,
    event_id: str | None,
    limit: int,
    offset: int,
    as_json: bool,
) -> None:
    """List deliveries, newest event first. An event is in the log from its first attempt on."""
    installation, scope = _plane(tenant, test_plane)
    with installation.db.read(scope) as connection:
        if event_id is not None:
            found = log.find_event(connection, scope, event_id)
            total = len(found)
        else:
            found, total = log.list_deliveries(
                connection, scope, state=status, endpoint_id=endpoint_id, limit=limit, offset=offset
            )
    text = "\n".join(_delivery_text(one) for one in found) or "No deliveries."
    emit({"deliveries": [one.document for one in found], "total": total}, as_json=as_json, text=text)


@webhook.command(
    epilog="""\b
Examples:
  shared-record webhook retry --tenant acme --event-id evt_…
  shared-record webhook retry --tenant acme --from 2026-11-01 --to 2026-11-02 --failed"""
)
@of_tenant
@test_option
@click.option("--event-id", metavar="ID", help="One event; any id of a range.")
@click.option("--from", "since", type=Moment(), help="Every event that happened from this moment on …")
@click.option("--to", "until", type=Moment(), help="… and before this one.  [default: now]")
@click.option("--failed", "failed_only", is_flag=True, help="Of these only what was not accepted.")
@to_option
@json_option
def retry(
    tenant: str,
    test_plane: bool,
    event_id: str | None,
    since: datetime | None,
    until: datetime | None,
    failed_only: bool,
    endpoint_id: str | None,
    as_json: bool,
) -> None:
    """Have events sent again, whether or not they were accepted before. Their ids stay the same."""
    if (event_id is None) == (since is None):
        raise click.UsageError("Give --event-id, or --from and if need be --to.")
    installation, scope = _plane(tenant, test_plane)
    now = installation.clock.now()
    with installation.db.write(scope) as connection:
        if event_id is not None:
            count = log.retry_event(connection, installation.clock, scope, event_id, endpoint_id)
        elif since is not None:
            end = until or now + timedelta(milliseconds=1)
            count = log.retry_range(
                connection, installation.clock, scope, since, end, endpoint_id, failed_only=failed_only
            )
        _audit(connection, installation, scope, "webhook.retried", endpoint_id, count=count)
    emit({"queued": count}, as_json=as_json, text=f"Queued: {count:,}.")


def _as_text(one: Endpoint) -> str:
    state = "enabled" if one.enabled else f"disabled ({one.disabled_reason})"
    wanted = "all events" if one.events is None else ", ".join(one.events)
    counts = f"{one.successes:,} accepted, {one.failures:,} failed"
    return f"{one.endpoint_id}  {one.url}  {state}  {wanted}  {counts}"


def _delivery_text(one: Delivery) -> str:
    answer = one.last_error or one.last_code or "not sent yet"
    following = f"  next {rfc3339(one.next_attempt_at)}" if one.next_attempt_at else ""
    tries = f"{one.attempts} attempt{'' if one.attempts == 1 else 's'}"
    return f"{one.event_id}  {one.event}  {one.endpoint_id}  {one.state}  {tries}  {answer}{following}"


def _await_answer(installation: Installation, scope: Scope, event_id: str) -> Delivery | None:
    limit = time.monotonic() + TEST_WAIT
    while time.monotonic() < limit:
        with installation.db.read(scope) as connection:
            found = [one for one in log.find_event(connection, scope, event_id) if one.attempts]
        if found:
            return found[0]
        time.sleep(POLL_SECONDS)
    return None


def _plane(tenant: str, test_plane: bool) -> tuple[Installation, Scope]:
    installation = open_installation()
    return installation, installation.tenant(tenant + TEST_SUFFIX if test_plane else tenant).scope


def _egress(installation: Installation) -> Egress:
    return Egress(installation.settings.egress_allow)


def _audit(
    connection: Any, installation: Installation, scope: Scope, event: str, endpoint_id: str | None, **detail: Any
) -> None:
    audit.record(connection, scope, installation.clock, event, actor=ACTOR, detail={"webhook": endpoint_id} | detail)
