"""Links and codes printed elsewhere, and secrets of methods: taken over, sealed, and bounded in what they cost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from shared_record_access_code import AccessCode
from shared_record_example_totp import TotpDevice, code_at, seed_of
from sqlalchemy import select

from client import Visitor, serve
from shared_record.access import links, method_secrets, printed, sessions
from shared_record.access.printed import HashGuard, PrintedCodes
from shared_record.access.sessions import Here, Visit
from shared_record.access.stepup import Browser, NotOpened, Opened, StepUp
from shared_record.db.schema import customer, imported_code, link
from shared_record.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from shared_record.tenancy.methods import put_methods
from stepup_methods import Unlimited, engine
from world import Shop

OLD_HANDLE = "old-portal-4f9c2b7a1e6d8035"
OLD_CODE = "PX47-9QRT"
SEED = b"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "1")
    shop.record("cust_b", "1")
    return shop


def seen(shop: Shop, name: str = "cust_a") -> Visit:
    handle = shop.link(name).handle
    assert handle is not None
    found = sessions.visit(shop.db, shop.clock, Here(shop.hosts[0], shop.scope.config, None), handle, {}, secure=False)
    assert isinstance(found, Visit)
    return found


def import_code(shop: Shop, code: str = OLD_CODE, name: str = "cust_a") -> None:
    with shop.db.write(shop.scope) as connection:
        printed.import_code(connection, shop.keys, shop.clock, shop.scope, name, code, "me")


def import_link(shop: Shop, handle: str = OLD_HANDLE, name: str = "cust_a") -> None:
    with shop.db.write(shop.scope) as connection:
        printed.import_link(shop.db, connection, shop.keys, shop.clock, shop.scope, name, handle, "me")


def opens(shop: Shop, step_up: StepUp, code: str, name: str = "cust_a") -> bool:
    visit = seen(shop, name)
    offer = step_up.offers(visit)[0][0]
    result = step_up.verify(visit, offer, {"code": code}, Browser("192.0.2.1"))
    assert isinstance(result, NotOpened) or result.sid
    return isinstance(result, Opened)


# --- Codes -----------------------------------------------------------------------------------------------------------


def test_an_imported_code_opens_beside_the_derived_one_until_the_next_rotation(shop: Shop) -> None:
    step_up = engine(shop, AccessCode, limits=Unlimited())
    import_code(shop)
    assert opens(shop, step_up, "px47 9qrt")
    assert opens(shop, step_up, shop.code("cust_a"))
    assert not opens(shop, step_up, "px47 9qru")
    assert not opens(shop, step_up, OLD_CODE, "cust_b")
    with shop.db.write(shop.scope) as connection:
        links.rotate_code(connection, shop.keys, shop.clock, shop.scope, "cust_a", "me", overlap=timedelta(days=1))
    assert opens(shop, step_up, OLD_CODE)
    shop.clock.advance(days=1)
    assert not opens(shop, step_up, OLD_CODE)
    assert opens(shop, step_up, shop.code("cust_a"))


def test_importing_a_code_ends_the_sessions_of_its_customer(shop: Shop) -> None:
    before = seen(shop).row.code_epoch, seen(shop, "cust_b").row.code_epoch
    import_code(shop)
    assert (seen(shop).row.code_epoch, seen(shop, "cust_b").row.code_epoch) == (before[0] + 1, before[1])


def test_a10_the_database_holds_a_slow_hash_under_a_sealed_pepper(shop: Shop) -> None:
    import_code(shop)
    with shop.db.read(shop.scope) as connection:
        row = connection.execute(imported_code.select().where(imported_code.c.tenant_id == shop.scope.plane)).one()
    assert row.hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert b"PX479QRT" not in row.sealed_pepper
    assert row.sealed_pepper.startswith(b"k1\0")


@pytest.mark.parametrize(
    "code",
    [
        "",
        "SHORT77",
        "AAAAAAAA",
        "ABABABAB",
        "12345678",
        "87654321",
        "BCDEFGHIJ",
        "QWERTYUIOP",
        "CUSTA",
        "CUST_A",
        "X" * 13,
    ],
)
@sqlite_only
def test_a11_codes_that_are_easily_guessed_are_refused(shop: Shop, code: str) -> None:
    with pytest.raises(InvalidInputError):
        import_code(shop, code)


def test_a11_the_customers_number_is_no_code() -> None:
    assert printed.weakness("KUND48151623", "kund-48151623")
    assert printed.weakness("48151623", "kund-48151623")
    assert printed.weakness("PX479QRT", "kund-48151623") == ""


def test_a08_hashes_are_bounded_in_number_and_refused_beyond() -> None:
    guard, entered, release = HashGuard(running=2, waiting=3), threading.Semaphore(0), threading.Event()

    def hold() -> str:
        try:
            with guard.place():
                entered.release()
                release.wait(20)
                return "ran"
        except UnavailableError:
            entered.release()
            return "refused"

    with ThreadPoolExecutor(20) as pool:
        first = [pool.submit(hold) for _ in range(2)]
        for _ in first:
            assert entered.acquire(timeout=10)
        rest = [pool.submit(hold) for _ in range(12)]
        for _ in range(9):  # three wait, nine are told at once
            assert entered.acquire(timeout=10)
        release.set()
        results = [one.result(20) for one in (*first, *rest)]
    assert (results.count("ran"), results.count("refused")) == (5, 9)


@sqlite_only
def test_a08_an_answer_that_could_not_be_hashed_is_not_counted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    import_code(shop)
    step_up = engine(shop, AccessCode)

    def busy(*_: object) -> bool:
        raise UnavailableError("too many")

    with monkeypatch.context() as patched:
        patched.setattr(PrintedCodes, "matches", busy)
        for _ in range(3):
            visit = seen(shop)
            result = step_up.verify(visit, step_up.offers(visit)[0][0], {"code": "WRONG2"}, Browser("192.0.2.1"))
            assert isinstance(result, NotOpened)
            assert result.code == "STEP_UP_UNAVAILABLE"
    with shop.db.read(shop.scope) as connection:
        tries = connection.execute(select(link.c.tries).where(link.c.tenant_id == shop.scope.plane)).scalars().all()
    assert set(tries) == {0}
    assert opens(shop, step_up, OLD_CODE)


@sqlite_only
def test_a07_once_a_tenant_imports_codes_each_of_its_customers_costs_a_hash(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    real = PrintedCodes._is_hash_of
    monkeypatch.setattr(PrintedCodes, "_is_hash_of", lambda self, *a: (checked.append("hash"), real(self, *a))[1])
    step_up = engine(shop, AccessCode, limits=Unlimited())
    opens(shop, step_up, "WRONG2")
    assert checked == []
    import_code(shop)
    for name in ("cust_a", "cust_b"):
        opens(shop, step_up, "WRONG2", name)
        opens(shop, step_up, "", name)
        opens(shop, step_up, shop.code(name), name)
    assert len(checked) == 6


# --- Links -----------------------------------------------------------------------------------------------------------


def test_an_imported_link_is_the_customers_link(shop: Shop) -> None:
    before = shop.link("cust_a").handle
    import_link(shop, OLD_HANDLE.upper())
    assert shop.link("cust_a").handle == OLD_HANDLE
    visitor = Visitor(serve(shop))
    assert visitor.get(f"{shop.hosts[0]}/c/{OLD_HANDLE}").status_code == 200
    assert visitor.get(f"{shop.hosts[0]}/c/{before}").status_code == 404
    epoch = seen(shop).row.link_epoch
    import_link(shop)  # reading a file again changes nothing
    assert seen(shop).row.link_epoch == epoch
    with shop.db.write(shop.scope) as connection:
        links.reissue_link(connection, shop.keys, shop.clock, shop.scope, "cust_a", "me")
    assert shop.link("cust_a").handle not in (OLD_HANDLE, before)
    assert visitor.get(f"{shop.hosts[0]}/c/{OLD_HANDLE}").status_code == 404


@sqlite_only
def test_handles_in_use_weak_ones_and_unknown_customers_are_refused(shop: Shop) -> None:
    taken = shop.link("cust_b").handle
    assert taken is not None
    with pytest.raises(ConflictError):
        import_link(shop, taken)
    for handle in ("short", "a" * 30, "abababababababababababab", "with space in it 123456", "ä" * 20):
        with pytest.raises(InvalidInputError):
            import_link(shop, handle)
    with pytest.raises(NotFoundError):
        import_link(shop, name="nobody")


@sqlite_only
def test_the_handle_is_kept_sealed(shop: Shop) -> None:
    import_link(shop)
    with shop.db.read(shop.scope) as connection:
        rows = connection.execute(link.select().where(link.c.tenant_id == shop.scope.plane)).all()
    assert sum(row.sealed_handle is not None for row in rows) == 1
    assert all(OLD_HANDLE.encode() not in (row.sealed_handle or b"") for row in rows)


# --- Secrets of methods, with the example plugin ---------------------------------------------------------------------


def set_secret(shop: Shop, value: bytes | None, name: str = "cust_a") -> None:
    with shop.db.write(shop.scope) as connection:
        method_secrets.set_customer_secret(
            connection, shop.keys, shop.clock, shop.scope, name, "totp_device", value, "me"
        )


@pytest.fixture
def totp(shop: Shop) -> StepUp:
    with shop.db.write(shop.scope) as connection:
        put_methods(connection, shop.scope, [("totp_device", {})])
    set_secret(shop, SEED)
    return engine(shop, TotpDevice, limits=Unlimited())


def now_shown(shop: Shop) -> str:
    seed = seed_of(SEED)
    assert seed is not None
    return code_at(seed, int(shop.clock.now().timestamp()) // 30)


def test_m02_a_code_of_the_device_counts_once(shop: Shop, totp: StepUp) -> None:
    code = now_shown(shop)
    assert opens(shop, totp, code)
    assert not opens(shop, totp, code)
    shop.clock.advance(seconds=30)
    assert not opens(shop, totp, code)
    assert opens(shop, totp, now_shown(shop))


def test_m02_of_many_who_send_one_code_one_passes(shop: Shop, totp: StepUp, soak: bool) -> None:
    visit = seen(shop)
    offer = totp.offers(visit)[0][0]
    with ThreadPoolExecutor(16) as pool:
        for _ in range(20 if soak else 3):
            shop.clock.advance(minutes=5)
            code, barrier = now_shown(shop), threading.Barrier(16)
            offer = totp.offers(visit)[0][0]

            def send(number: int, code: str = code, barrier: threading.Barrier = barrier, offer=offer) -> bool:
                barrier.wait(30)
                return isinstance(totp.verify(visit, offer, {"code": code}, Browser(f"192.0.2.{number}")), Opened)

            assert sum(pool.map(send, range(16))) == 1


def test_only_who_has_a_seed_is_offered_the_device_and_a_new_seed_ends_sessions(shop: Shop, totp: StepUp) -> None:
    assert [one.slug for one in totp.offers(seen(shop))[0]] == ["totp_device"]
    assert totp.offers(seen(shop, "cust_b")) == ([], frozenset())
    epoch = seen(shop).row.customer_epoch
    set_secret(shop, b"A" * 40)
    assert seen(shop).row.customer_epoch == epoch + 1
    assert not opens(shop, totp, now_shown(shop))
    set_secret(shop, None)
    assert totp.offers(seen(shop)) == ([], frozenset())


def test_a_secret_is_sealed_for_its_row_and_given_to_no_other_method(shop: Shop, totp: StepUp) -> None:
    with shop.db.read(shop.scope) as connection:
        found = method_secrets.of_customer(connection, shop.keys, shop.scope, seen(shop).customer_id)
        other = method_secrets.of_customer(connection, shop.keys, shop.scope, seen(shop, "cust_b").customer_id)
    assert (found, other) == ({"totp_device": SEED}, {})
    offer = totp.offers(seen(shop))[0][0]
    assert offer.context.customer_secret == SEED
    assert SEED.decode() not in repr(offer)


def test_secrets_of_the_tenant_serve_both_planes_and_end_the_methods_sessions(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        put_methods(connection, shop.scope, [("oidc", {})])
        method_secrets.set_tenant_secret(connection, shop.keys, shop.clock, shop.scope, "oidc", "okta", b"s3cret", "me")
    for scope in (shop.scope, shop.test_scope):
        with shop.db.read(scope) as connection:
            assert method_secrets.of_tenant(connection, shop.keys, scope, "oidc", "okta") == b"s3cret"
            assert method_secrets.of_tenant(connection, shop.keys, scope, "oidc", "other") is None
    for bad in (b"", b"x" * 5000):
        with pytest.raises(InvalidInputError), shop.db.write(shop.scope) as connection:
            method_secrets.set_tenant_secret(connection, shop.keys, shop.clock, shop.scope, "oidc", "okta", bad, "me")


def test_customers_are_untouched_by_what_is_refused(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        import_code(shop, "AAAAAAAA")
    with shop.db.read(shop.scope) as connection:
        epochs = connection.execute(select(customer.c.code_epoch).where(customer.c.tenant_id == shop.scope.plane))
        assert set(epochs.scalars()) == {0}
