"""The program opens the database of the previous release and keeps its subscriptions and dates."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx

from support.process import ServerProcess
from support.released_databases import DUMPS, restore

MASTER_KEY = base64.b64encode(bytes(range(32))).decode()
SHOP = ("361", "previous-release-test-key-0123456789")
NEXT_DATES = {
    "month end": "2027-03-31T09:00:00.000Z",
    "trial of a month": "2027-03-28T09:00:00.000Z",
    "monthly": "2027-03-28T21:30:00.000Z",  # a month after 1 March 00:30 in Minsk, counted in UTC
    "yearly": "2028-02-28T21:30:00.000Z",
    "daily": "2027-03-01T21:30:00.000Z",
    "trial of a day": "2027-03-01T21:30:00.000Z",
    "waits": None,
}


def test_subscriptions_keep_their_next_date_and_continue_from_it(database_url: str, tmp_path: Path) -> None:
    restore(DUMPS["0003"], database_url)
    options = ("--sandbox", "--time-zone", "Europe/Minsk")
    with (
        ServerProcess(database_url, tmp_path, *options, environment={"ECOMCHARGE_MASTER_KEY": MASTER_KEY}) as process,
        httpx.Client(base_url=process.url, auth=SHOP, timeout=60) as http,
    ):

        def renewals() -> dict[str, str | None]:
            return {each["tracking_id"]: each["renew_at"] for each in http.get("/subscriptions").json()}

        def set_clock(moment: str) -> dict[str, str | None]:
            answer = http.post("/sandbox/clock/set", json={"to": moment})
            assert answer.status_code == 200, answer.text
            return renewals()

        assert renewals() == NEXT_DATES
        assert set_clock("2027-03-01T21:29:59Z") == NEXT_DATES
        found = set_clock("2027-03-01T21:30:00Z")
        changed = {"daily": "2027-03-02T21:30:00.000Z", "trial of a day": "2027-04-01T21:30:00.000Z"}  # 2 April in Minsk
        assert found == {**NEXT_DATES, **changed}
        assert set_clock("2027-03-28T21:29:59Z")["monthly"] == NEXT_DATES["monthly"]
        assert set_clock("2027-03-28T21:30:00Z")["monthly"] == "2027-04-28T21:30:00.000Z"
        found = set_clock("2027-06-01T12:00:00Z")
        assert found["month end"] == "2027-06-30T09:00:00.000Z"
        assert found["trial of a month"] == "2027-06-28T09:00:00.000Z"
        assert found["monthly"] == "2027-06-28T21:30:00.000Z"
        assert found["daily"] == "2027-06-01T21:30:00.000Z"
        assert found["trial of a day"] == "2027-06-01T21:30:00.000Z"
        assert found["yearly"] == NEXT_DATES["yearly"]
        assert set_clock("2028-02-28T21:30:00Z")["yearly"] == "2029-02-27T21:30:00.000Z"  # 28 February in Minsk
