"""Health and readiness."""

from __future__ import annotations

from ecomcharge.shops.keys import MasterKey
from support.operations import get
from support.postgres import PostgresServer
from support.shops import Start, add_shop
from support.waiting import eventually


def test_readiness_depends_on_the_database_and_health_does_not(start: Start, master_key: MasterKey) -> None:
    postgres = PostgresServer()
    try:
        postgres.start()
        process = start(database=postgres.create_database("ready"))
        shop = add_shop(process.database, master_key)
        assert (get(process, "/readyz").status_code, get(process, "/readyz").json()) == (200, {"status": "ready"})

        postgres.stop()

        assert eventually(lambda: get(process, "/readyz").status_code == 503, 5)
        for path, login in (("/readyz", None), ("/customers", shop)):
            unready = get(process, path, login)
            assert unready.status_code == 503
            assert unready.json() == {"message": "Service is temporarily unavailable"}
            assert int(unready.headers["retry-after"]) >= 1
        assert (get(process, "/healthz").status_code, get(process, "/healthz").json()) == (200, {"status": "ok"})

        postgres.start()

        assert eventually(lambda: get(process, "/readyz").status_code == 200, 10)
        assert eventually(lambda: get(process, "/customers", shop).status_code == 200, 10)
    finally:
        postgres.remove()
