"""Measure each part of the FastAPI peer alone, to locate its time and to check that no part is slow by mistake.

Prints operations per second of one kind: ``validate`` (parse a body into a model), ``find`` (open a session, read a row by
its key, build the response model), ``insert`` (open a session, add a row, commit with one sync of the disk, refresh).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
JOHN = {
    "first_name": "John",
    "last_name": "Doe",
    "address": "1st Street",
    "country": "US",
    "city": "Denver",
    "zip": "92006",
    "state": "CO",
    "phone": "+1-555-555-5555",
    "email": "customer@example.com",
    "ip": "127.0.0.1",
}


def main(kind: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEER_DATABASE"] = f"{folder}/peer.db"
        sys.path.insert(0, str(Path(__file__).parent))
        import fastapi_sqlalchemy as peer

        def validate() -> None:
            peer.CustomerIn.model_validate(JOHN)

        def find() -> None:
            with peer.new_session() as db:
                peer.CustomerOut.model_validate(db.get(peer.CustomerRow, "cst_0"))

        def insert(id: str | None = None) -> None:
            with peer.new_session() as db:
                row = peer.CustomerRow(id=id or f"cst_{peer.secrets.token_hex(8)}", **JOHN)
                db.add(row)
                db.commit()
                db.refresh(row)

        insert("cst_0")
        part = {"validate": validate, "find": find, "insert": insert}[kind]
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            part()
            done += 1
        return done / (time.perf_counter() - started)


if __name__ == "__main__":
    print(main(sys.argv[1]))
